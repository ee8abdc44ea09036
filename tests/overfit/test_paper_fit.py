"""The published way of fitting: plain Adam on one network at a time, until the loss stays."""

import dataclasses

import numpy as np
import torch
from support import SMALL, ellipsoid

from overfit import PRESETS, Cube, DecodeConfig, Field, NeuralHead, decode, surface_error
from overfit.fit import fit, soft_occupancy
from overfit.labels import LabelBatch, label_mesh
from overfit.paper_fit import STOPPING_PATIENCE, fit_until_plateau

PAPER = PRESETS["paper"]
CUBE = Cube((0.0, 0.0, 0.0), 150.0)
FIELD = Field(hidden=(32, 32, 32), box=0.5, frequency=1.0)


def test_a_fit_ends_when_its_loss_has_stopped_falling():
    epochs: list[int] = []
    field = Field(hidden=(4,))
    fit_until_plateau(
        field,
        torch.zeros(field.size),
        points=torch.zeros(100, 3),
        loss=lambda logits, chosen: logits.sum() * 0 + 1,
        batch_size=10,
        max_steps=10**6,
        lr=1e-2,
        seed=0,
        on_progress=epochs.append,
    )
    # The first epoch is the best one.
    assert epochs == [10] * (STOPPING_PATIENCE + 1)


def test_the_first_steps_are_those_of_plain_adam():
    random = torch.Generator().manual_seed(1)
    points, start = torch.rand(200, 3, generator=random), FIELD.initial(random)
    distance = points.norm(dim=1) * 100 - 80
    config = dataclasses.replace(PAPER.fit, points_per_step=50, steps=3)
    ours = fit(FIELD, start, LabelBatch(points[None], distance[None]), config=config)[0]
    theirs, order = torch.nn.Parameter(start.clone()), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam([theirs], 1e-2)
    for _ in range(3):
        chosen = torch.randint(200, (50,), generator=order)
        loss = torch.nn.BCEWithLogitsLoss()(FIELD(theirs, points[chosen]), soft_occupancy(distance[chosen], 0))
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(ours, theirs.detach())


def test_a_sphere_is_fitted_the_published_way():
    mesh = ellipsoid((100,) * 3)
    labels = label_mesh(mesh, CUBE, config=SMALL.labels, rng=np.random.default_rng(0))
    start = FIELD.initial(torch.Generator().manual_seed(0))
    config = dataclasses.replace(PAPER.fit, steps=300)
    weights = fit(FIELD, start, LabelBatch.stack([labels], torch.device("cpu")), config=config)
    fitted = decode(NeuralHead(FIELD, CUBE, weights[0]), DecodeConfig(64))
    assert surface_error(fitted, mesh, rng=np.random.default_rng(0)).mean_mm < 3
