"""Fitting: spheres come out as spheres, and what shares a batch does not matter."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import SMALL, ellipsoid

from overfit import BadInput, Cube, Field, Fitting, decode
from overfit.accuracy import iou, surface_error
from overfit.fit import fit, losses, soft_occupancy
from overfit.occupancy import label

CUBE = Cube((0.0, 0.0, 0.0), 150.0)
FITTING = Fitting(points=1024)


def labels(radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    occupancy = label(ellipsoid((radius,) * 3), CUBE, SMALL.sampling, np.random.default_rng(0))
    return torch.from_numpy(occupancy.points), torch.from_numpy(occupancy.distance)


def initial() -> torch.Tensor:
    return Field().initial(torch.Generator().manual_seed(0))


def test_a_sphere_is_fitted_to_a_millimetre():
    points, distance = labels(100)
    weights = fit(Field(), initial(), points[None], distance[None], FITTING, 300, 1e-2)
    error = surface_error(decode(Field(), weights[0], CUBE, 64), ellipsoid((100,) * 3), np.random.default_rng(0))
    assert error.mean_mm < 1 and error.normals > 0.98
    assert iou(Field(), weights[0], points, distance) > 0.9


def test_a_fit_is_the_same_alone_and_in_a_batch():
    (points, distance), (others, other_distance) = labels(100), labels(80)
    alone = fit(Field(), initial(), points[None], distance[None], FITTING, 10, 1e-3)
    batch = fit(Field(), initial(), torch.stack([others, points]), torch.stack([other_distance, distance]), FITTING,
                10, 1e-3)
    torch.testing.assert_close(batch[1], alone[0], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(batch[0], alone[0], atol=1e-3)


@pytest.mark.parametrize("steps", [3, 4, 20, 21, 40])
def test_any_number_of_steps_from_three_on_will_do(steps):
    points, distance = labels(100)
    told = []
    weights = fit(Field(), initial(), points[None], distance[None], FITTING, steps, 1e-3, told.append)
    assert torch.isfinite(weights).all() and sum(told) == steps
    with pytest.raises(BadInput, match="--first-steps 2"):
        Fitting(first_steps=2)


def test_soft_targets_are_the_sigmoid_of_the_distance_and_hard_ones_its_sign():
    distance = torch.tensor([-1.4, 0.7, 100.0])
    torch.testing.assert_close(soft_occupancy(distance, 1.4),
                               torch.tensor([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(0.5)), 0.0]))
    assert soft_occupancy(distance, 0).tolist() == [1, 0, 0]


def test_the_true_distance_is_where_the_loss_is_least():
    distance = torch.linspace(-15, 15, 101)[None]
    true = -distance / FITTING.softness_mm
    least = losses(true, distance, FITTING)
    for wrong in (true + 0.1, true * 1.1, torch.zeros_like(true)):
        assert losses(wrong, distance, FITTING) > least


def test_without_the_distance_term_the_loss_is_the_published_cross_entropy():
    logits, distance = torch.tensor([[2.0, -1.0]]), torch.tensor([[-3.0, 4.0]])
    published = dataclasses.replace(FITTING, softness_mm=0.0, distance=0.0)
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert losses(logits, distance, published).item() == pytest.approx(expected)
