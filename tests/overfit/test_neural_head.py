"""One head as a value."""

import pickle

import torch

from overfit.field import Field
from overfit.geometry.bounding_cube import Cube
from overfit.neural_head import NeuralHead

FIELD = Field(octaves=1, hidden=(4,))


def test_a_copy_for_workers_leaves_the_other_heads_behind():
    weights = torch.rand(1000, FIELD.size)
    copy = NeuralHead(FIELD, Cube((0.0, 0.0, 0.0), 100.0), weights[3]).cpu()
    assert torch.equal(copy.weights, weights[3])
    assert len(pickle.dumps(copy)) < 10_000
