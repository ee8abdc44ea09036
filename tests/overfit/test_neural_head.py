"""One head as a value, and a row of parameters as a head."""

import pickle

import numpy as np
import pytest
import torch

from overfit.canonical.align import CORNERS
from overfit.canonical.warp import WarpSpace
from overfit.field import Field
from overfit.geometry.bounding_cube import Cube
from overfit.neural_head import HeadSpace, NeuralHead

FIELD, CUBE = Field(octaves=1, hidden=(4,)), Cube((0.0, 0.0, 0.0), 100.0)
SPACE = HeadSpace(FIELD, CUBE, WarpSpace(CORNERS, cuts_neck=True))


def parameters(displacements: np.ndarray, neck_height: float) -> torch.Tensor:
    weights = torch.rand(FIELD.size, generator=torch.Generator().manual_seed(0))
    return torch.cat([SPACE.warps.parameters(displacements, neck_height), weights])


def test_a_copy_for_workers_leaves_the_other_heads_behind():
    rows = torch.rand(1000, SPACE.size)
    copy = SPACE.head(rows[3]).cpu()
    assert torch.equal(copy.weights, SPACE.weights(rows[3]))
    assert copy.warp is not None and np.array_equal(copy.warp.displacements, SPACE.head(rows[3]).warp.displacements)
    assert len(pickle.dumps(copy)) < 10_000


def test_a_row_is_a_warp_and_then_a_network():
    assert SPACE.size == 3 * 8 + 1 + FIELD.size
    row = parameters(np.tile([10.0, 20.0, 30.0], (8, 1)), -120.0)
    head = SPACE.head(row)
    assert (head.field, head.cube) == (FIELD, CUBE) and torch.equal(head.weights, row[25:])
    assert head.warp is not None and head.warp.neck_height == pytest.approx(-120)
    np.testing.assert_allclose(head.warp(np.zeros((1, 3))), [[10, 20, 30]], atol=1e-5)
    rows = row.expand(2, 5, -1)
    assert SPACE.warp_parameters(rows).shape == (2, 5, 25) and torch.equal(SPACE.weights(rows)[1, 4], row[25:])


def test_without_warps_a_row_is_a_network():
    plain = HeadSpace(FIELD, CUBE)
    row = torch.rand(FIELD.size)
    head = plain.head(row)
    assert plain.size == FIELD.size and head.warp is None and torch.equal(head.weights, row)
    assert plain.warp_parameters(row).shape == (0,) and plain.token_sizes == FIELD.sizes


def test_the_warp_is_in_the_token_of_the_first_weight():
    first, *others = FIELD.sizes
    assert SPACE.token_sizes == (25 + first, *others) and sum(SPACE.token_sizes) == SPACE.size


def test_a_head_whose_warp_folds_is_smoothed():
    """One corner is pushed through its neighbours."""
    displacements = np.zeros((8, 3))
    displacements[0] = 240.0
    folding = SPACE.warps.warp(SPACE.warps.parameters(displacements, -120.0))
    nodes = np.random.default_rng(0).uniform(-100, 100, (2000, 3))
    assert folding is not None and folding.determinants(nodes).min() < 0
    warp = SPACE.head(parameters(displacements, -120.0)).warp
    assert warp is not None and warp.determinants(nodes).min() > 0 and warp.neck_height == pytest.approx(-120)
    np.testing.assert_allclose(warp.displacements.mean(0), 30, atol=1e-3)


def test_a_head_without_a_warp_is_its_own_copy():
    head = NeuralHead(FIELD, CUBE, torch.rand(FIELD.size))
    copy = head.cpu()
    assert torch.equal(copy.weights, head.weights) and copy.warp is None
