"""Heads between heads: ends that are the given ones, paths whose shape is known."""

import pytest
import torch
from conftest import ONE_THREAD

from hyperdiffusion import Checkpoint, Sampling, Shape, Training, sample, train
from hyperdiffusion.samplers import inverted, ode
from hyperdiffusion.steer import STEPS, between, between_in_noise, great_circle, mixed
from overfit import Store


@pytest.fixture(scope="module")
def model(store, tmp_path_factory) -> Checkpoint:
    tiny = Training("weights", shape=Shape(width=32, depth=1, heads=2, dropout=0.0), steps=30, batch=8)
    return train(store, tmp_path_factory.mktemp("model") / "model.safetensors", tiny, ONE_THREAD)


def test_the_straight_way_has_the_midpoint_in_its_middle():
    first, second = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    path = between(first, second, 5)
    torch.testing.assert_close(path[[0, 2, 4]], torch.stack([first, (first + second) / 2, second]))


def test_a_great_circle_goes_in_even_angles_and_keeps_the_length():
    first, second = torch.eye(3)[:2]
    path = great_circle(first, second, 4)
    torch.testing.assert_close(path.norm(dim=1), torch.ones(4))
    angles = torch.arccos((path[:-1] * path[1:]).sum(1))
    torch.testing.assert_close(angles, torch.full((3,), torch.pi / 6))
    torch.testing.assert_close(great_circle(first, first, 3), first.expand(3, 3))


def test_a_head_comes_back_from_its_noise(model, store):
    clean = model.tokens.encode(Store(store).read().weights)
    noises = inverted(model.denoiser, clean, model.schedule, STEPS)
    back = ode(model.denoiser, lambda: noises, model.schedule, STEPS)
    assert (back - clean).norm() < 0.05 * clean.norm()


def test_the_way_through_the_noise_ends_near_both_heads(model, store):
    weights = Store(store).read().weights
    path = between_in_noise(model, weights[0], weights[1], 3)
    for end, head in ((path[0], weights[0]), (path[2], weights[1])):
        assert torch.dist(end, head) < 0.1 * torch.dist(weights[0], weights[1])


def test_mixed_heads_take_whole_layers(model):
    sizes = model.tokens.sizes
    first, second = torch.zeros(sum(sizes)), torch.ones(sum(sizes))
    rows = mixed(first, second, sizes)
    assert len(rows) == len(sizes) // 2 + 1 and not rows[0].any() and rows[-1].all()
    assert [int(row.sum()) for row in rows] == [sum(sizes[:end]) for end in range(0, len(sizes) + 1, 2)]


def test_truncation_draws_samples_to_the_mean_head(model):
    whole, half, none = (sample(model, 4, seed=1, sampling=Sampling(truncation=share)) for share in (1.0, 0.5, 0.0))
    mean = model.tokens.mean
    torch.testing.assert_close(half - mean, 0.5 * (whole - mean), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(none, mean.expand_as(none))


@pytest.mark.parametrize("sampler", ["ddim", "dpm", "ode"])
def test_few_steps_come_near_to_all(model, sampler):
    few, many = (sample(model, 4, seed=2, sampling=Sampling(sampler, steps)) for steps in (20, 400))
    assert torch.dist(few, many) < 0.2 * torch.dist(many, model.tokens.mean.expand_as(many))
