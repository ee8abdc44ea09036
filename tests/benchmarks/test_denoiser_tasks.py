"""Codes whose optimal denoiser is known: what they are, and what the transformer learns of them."""

import dataclasses

import denoiser
import pytest
import synthetic_codes
import torch
from synthetic_codes import TASKS, Task

from hyperdiffusion import TrainingConfig, TransformerConfig

TRAINING = TrainingConfig(
    transformer=TransformerConfig(width=64, depth=2, attention_heads=4, dropout=0.0),
    steps=400,
    batch_size=128,
    lr=3e-3,
    max_mixture_components=1,
    independent_components=False,
)


@pytest.fixture(autouse=True)
def few_coordinates(monkeypatch):
    monkeypatch.setattr(synthetic_codes, "SIZE", 16)


@pytest.mark.parametrize("task", TASKS)
def test_codes_are_white_and_lie_around_the_centres(task):
    codes = synthetic_codes.synthetic_codes(task)
    drawn = codes.draw(20_000, seed=0)
    torch.testing.assert_close(torch.cov(drawn.T), torch.eye(16), atol=0.05, rtol=0)
    # Nearly free of noise, the optimal denoiser returns what it is given.
    alpha_bar = torch.full((100, 1), 1 - 1e-6)
    torch.testing.assert_close(codes.mixture(drawn[:100], alpha_bar), drawn[:100], atol=0.01, rtol=0)


def measure(task: Task, training: TrainingConfig = TRAINING) -> dict:
    return denoiser.measure(task, denoiser.BenchmarkConfig(heads=600, test_heads=512, training=training))


def test_the_transformer_learns_a_ring():
    row = measure("ring")
    assert row["mixture"] == pytest.approx(1, abs=1e-3) and row["optimum"] < 0.94
    assert row["optimum"] < row["transformer"] < 0.965


def test_of_gaussian_codes_the_transformer_learns_nothing():
    row = measure("gaussian", dataclasses.replace(TRAINING, steps=100))
    assert row["optimum"] == pytest.approx(1, abs=1e-3) and row["transformer"] < 1.002
