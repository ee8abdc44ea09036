"""The paper preset does what the paper does; its fit is Adam on one network at a time, until the loss stays."""

import dataclasses

import numpy as np
import torch
from conftest import SMALL, ellipsoid

from overfit import PRESETS, Cube, Field, decode
from overfit.accuracy import surface_error
from overfit.fit import fit, soft_occupancy
from overfit.occupancy import Sampling, label
from overfit.published import FACTOR, LEAST_RATE, PATIENCE, STOP, fit_published

PAPER = PRESETS["paper"]
CUBE = Cube((0.0, 0.0, 0.0), 150.0)


def test_the_paper_preset_is_the_published_one():
    """Erkoç et al. 2023, section 3.1 and supplement; the plateau's numbers are those of the authors' configuration."""
    field, sampling, fitting = PAPER.field, PAPER.sampling, PAPER.fitting
    assert (field.size, field.octaves, field.hidden) == (36737, 4, (128, 128, 128))
    assert (field.box, field.frequency) == (0.5, 1.0)
    assert (sampling.uniform, sampling.near, sampling.wide) == (100_000, 100_000, 0)
    assert (sampling.near_share, sampling.labels, sampling.detail) == (0.01, "winding", 0.0)
    assert (fitting.rate, fitting.points, fitting.schedule) == (1e-2, 2048, "plateau")
    assert (fitting.softness_mm, fitting.distance, PAPER.healing) == (0.0, 0.0, False)
    assert (FACTOR, PATIENCE, LEAST_RATE, STOP) == (0.8, 10, 1e-5, 50)


def test_points_about_the_surface_spread_as_a_share_of_the_box():
    sampling = Sampling(near=5000, near_share=0.01, wide=0, uniform=0, detail=0.0)
    occupancy = label(ellipsoid((100,) * 3, 5), CUBE, sampling, np.random.default_rng(0))
    # Of a shift in three dimensions, one is across the surface.
    assert abs(occupancy.distance.std() - 3.0) < 0.15


def test_the_field_encodes_points_of_its_box():
    points = torch.rand(5, 3) * 2 - 1
    half = Field(box=0.5, frequency=1.0).encode(points)
    torch.testing.assert_close(half[:, :3], points / 2)
    torch.testing.assert_close(half[:, 3:6], (points / 2).sin())


def test_a_fit_stops_when_its_loss_stays():
    told = []
    points = torch.zeros(100, 3)
    fit_published(Field(), torch.zeros(Field().size), points, lambda logits, chosen: logits.sum() * 0 + 1, 10, 10**6,
                  1e-2, 0, told.append)
    # The first epoch is the best one.
    assert told == [10] * (STOP + 1)


def test_the_first_steps_are_those_of_plain_adam():
    random = torch.Generator().manual_seed(1)
    points, start = torch.rand(200, 3, generator=random), Field().initial(random)
    distance = points.norm(dim=1) * 100 - 80
    fitting = dataclasses.replace(PAPER.fitting, points=50)
    ours = fit(Field(), start, points[None], distance[None], fitting, 3, 1e-2)[0]
    theirs, order = torch.nn.Parameter(start.clone()), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam([theirs], 1e-2)
    for _ in range(3):
        chosen = torch.randint(200, (50,), generator=order)
        loss = torch.nn.BCEWithLogitsLoss()(Field()(theirs, points[chosen]), soft_occupancy(distance[chosen], 0))
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(ours, theirs.detach())


def test_a_sphere_is_fitted_the_published_way():
    mesh = ellipsoid((100,) * 3)
    occupancy = label(mesh, CUBE, SMALL.sampling, np.random.default_rng(0))
    weights = fit(PAPER.field, PAPER.field.initial(torch.Generator().manual_seed(0)),
                  torch.from_numpy(occupancy.points)[None], torch.from_numpy(occupancy.distance)[None], PAPER.fitting,
                  300, 1e-2)
    assert surface_error(decode(PAPER.field, weights[0], CUBE, 64), mesh, np.random.default_rng(0)).mean_mm < 3
