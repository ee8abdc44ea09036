"""Fitting: a sphere is fitted as a sphere, whatever else is in the batch."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from support import SMALL, ellipsoid

from overfit import BadInput, Cube, DecodeConfig, Field, FitConfig, NeuralHead, decode, surface_error
from overfit.fit import fit, losses, soft_occupancy
from overfit.fit_metrics import iou
from overfit.labels import LabelBatch, Labels, label_mesh

CUBE = Cube((0.0, 0.0, 0.0), 150.0)
FIELD = Field(hidden=(32, 32, 32))
CONFIG = FitConfig(points_per_step=1024)


def labels(radius: float) -> Labels:
    return label_mesh(ellipsoid((radius,) * 3), CUBE, config=SMALL.labels, rng=np.random.default_rng(0))


def stacked(*radii: float) -> LabelBatch:
    return LabelBatch.stack([labels(radius) for radius in radii], torch.device("cpu"))


def initial() -> torch.Tensor:
    return FIELD.initial(torch.Generator().manual_seed(0))


def test_a_sphere_is_fitted_to_a_millimetre():
    batch = stacked(100)
    weights = fit(FIELD, initial(), batch, config=dataclasses.replace(CONFIG, steps=300, lr=1e-2))
    head = NeuralHead(FIELD, CUBE, weights[0])
    error = surface_error(decode(head, DecodeConfig(64)), ellipsoid((100,) * 3), rng=np.random.default_rng(0))
    assert error.mean_mm < 1 and error.normals > 0.98
    assert iou(head, batch.points[0], batch.distance[0]) > 0.9


def test_without_mixtures_a_fit_is_the_same_alone_and_in_a_batch():
    config = dataclasses.replace(CONFIG, steps=10, lr=1e-3, mixture_weight=0.0)
    (alone,) = fit(FIELD, initial(), stacked(100), config=config)
    other, same = fit(FIELD, initial(), stacked(80, 100), config=config)
    points = stacked(100).points[0]

    def apart(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (FIELD(first, points) - FIELD(second, points)).abs().mean()

    # Products of batches of two sizes are rounded differently, and where gradients vanish, rounding decides their sign.
    moved = apart(alone, initial())
    assert apart(same, alone) < 0.05 * moved and apart(other, alone) > 0.3 * moved


def test_each_scan_may_start_from_weights_of_its_own():
    config = dataclasses.replace(CONFIG, steps=3, mixture_weight=0.0)
    starts = torch.stack([initial(), 2 * initial()])
    batch = fit(FIELD, starts, stacked(100, 100), config=config)
    torch.testing.assert_close(batch[:1], fit(FIELD, starts[:1], stacked(100), config=config), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(batch[0], batch[1], atol=1e-3)


def mixture_error_mm(mixture_weight: float) -> float:
    """How far the network half-way between two fits is from the mean of their distances, near their surfaces."""
    config = dataclasses.replace(CONFIG, steps=100, mixture_weight=mixture_weight)
    (first,) = fit(FIELD, initial(), stacked(100), config=config)
    batch = stacked(97, 103)
    weights = fit(FIELD, first, batch, config=config)
    points = batch.points.reshape(1, -1, 3)
    mixed = FIELD(weights.mean(0, keepdim=True), points)[0]
    return config.softness_mm * float((mixed - FIELD(weights, points.expand(2, -1, -1)).mean(0)).abs().mean())


def test_mixtures_of_fits_have_the_mean_of_their_distances():
    assert mixture_error_mm(0.5) < mixture_error_mm(0.0) / 2


def test_a_scan_alone_is_fitted_without_mixtures():
    config = dataclasses.replace(CONFIG, steps=3)
    plain = dataclasses.replace(config, mixture_weight=0.0)
    alone, same = (fit(FIELD, initial(), stacked(100), config=one) for one in (config, plain))
    assert torch.equal(alone, same)


@pytest.mark.parametrize("steps", [3, 4, 20, 21, 40])
def test_any_number_of_steps_from_three_on_is_done_and_reported(steps):
    reported: list[int] = []
    config = dataclasses.replace(CONFIG, steps=steps, lr=1e-3)
    weights = fit(FIELD, initial(), stacked(100, 80), config=config, on_progress=reported.append)
    assert torch.isfinite(weights).all() and sum(reported) == 2 * steps


def test_revised_labels_replace_the_old_ones():
    seen = []

    def revise(weights: torch.Tensor) -> LabelBatch:
        seen.append(weights.clone())
        return stacked(60)

    config = dataclasses.replace(CONFIG, steps=200, lr=1e-2)
    weights = fit(FIELD, initial(), stacked(100), config=config, revise_labels=revise)
    small = stacked(60)
    before, after = (losses(FIELD(rows, small.points), small.distance, CONFIG).item() for rows in (*seen, weights))
    assert len(seen) == 1 and after < before / 2


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("steps", 2, "`steps=2`: give 3 or more"),
        ("first_steps", 2, "`first_steps=2`: give 3 or more"),
        ("lr", -1.0, "`lr=-1.0`: give 0 or more"),
        ("mixture_weight", -1.0, "`mixture_weight=-1.0`: give 0 or more"),
        ("seed", -1, "`seed=-1`: give 0 or more"),
        ("softness_mm", 0.0, "`softness_mm=0`"),
        ("distance_falloff_mm", 0.0, "`distance_falloff_mm=0.0`"),
    ],
)
def test_refuses_settings_that_cannot_be_fitted_with(argument, value, message):
    with pytest.raises(BadInput, match=message):
        FitConfig(**{argument: value})


def test_a_number_of_steps_that_is_open_is_an_error():
    """It depends on the alignment, of which a fit knows nothing."""
    with pytest.raises(ValueError, match="the number of steps is open"):
        fit(FIELD, initial(), stacked(100), config=FitConfig())


def test_soft_targets_are_the_sigmoid_of_the_distance_and_hard_ones_its_sign():
    distance = torch.tensor([-1.4, 0.7, 100.0])
    torch.testing.assert_close(
        soft_occupancy(distance, 1.4), torch.tensor([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(0.5)), 0.0])
    )
    assert soft_occupancy(distance, 0).tolist() == [1, 0, 0]


def test_the_loss_is_least_at_the_true_distance():
    distance = torch.linspace(-15, 15, 101)[None]
    true = -distance / CONFIG.softness_mm
    least = losses(true, distance, CONFIG)
    for wrong in (true + 0.1, true * 1.1, torch.zeros_like(true)):
        assert losses(wrong, distance, CONFIG) > least


def test_far_from_the_surface_the_loss_is_least_at_the_band_s_distance():
    distance = torch.tensor([[-150.0, -50.0, 50.0, 150.0]])
    band = distance.sign() * CONFIG.distance_band_mm
    true = -band / CONFIG.softness_mm
    assert CONFIG.distance_band_mm < 50
    for wrong in (true + 1, true * 1.2, true * 0.8, -distance / CONFIG.softness_mm):
        assert losses(wrong, distance, CONFIG) > losses(true, distance, CONFIG)


def test_without_the_distance_term_the_loss_is_the_published_cross_entropy():
    logits, distance = torch.tensor([[2.0, -1.0]]), torch.tensor([[-3.0, 4.0]])
    published = dataclasses.replace(CONFIG, softness_mm=0.0, distance_weight=0.0)
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert losses(logits, distance, published).item() == pytest.approx(expected)
