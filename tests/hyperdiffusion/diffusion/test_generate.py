"""Sampling from a checkpoint: heads that depend on their seed and number alone."""

import pytest
import torch

from hyperdiffusion import SamplingConfig, sample
from hyperdiffusion.diffusion.generate import MAX_COUNT
from overfit import BadInput

QUICK = SamplingConfig("dpm", steps=10)


def test_head_k_of_a_seed_is_the_same_whatever_the_count_and_the_batch(model):
    many = sample(model, 5, seed=1, config=QUICK)
    assert many.shape == (5, model.space.size)
    torch.testing.assert_close(sample(model, 5, seed=1, config=QUICK, batch_size=2), many, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sample(model, 2, seed=1, config=QUICK), many[:2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sample(model, 2, seed=1, first=3, config=QUICK), many[3:], atol=1e-4, rtol=1e-4)
    assert (sample(model, 2, seed=2, config=QUICK) - many[:2]).abs().max() > 1e-3


def test_truncation_moves_samples_to_the_mean_head(model):
    whole, half, none = (sample(model, 4, config=SamplingConfig("dpm", 10, truncation=t)) for t in (1.0, 0.5, 0.0))
    mean = model.coordinates.mean
    torch.testing.assert_close(half - mean, 0.5 * (whole - mean), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(none, mean.expand_as(none))


@pytest.mark.parametrize("sampler", ["ddim", "dpm", "ode"])
def test_few_steps_come_close_to_many(model, sampler):
    few, many = (sample(model, 4, seed=2, config=SamplingConfig(sampler, steps)) for steps in (12, 49))
    assert torch.dist(few, many) < 0.2 * torch.dist(many, model.coordinates.mean.expand_as(many))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(count=0), "`count=0`: give 1 or more"),
        (dict(count=MAX_COUNT + 1), "`count=100001`: give 100000 or fewer .*memory"),
        (dict(seed=-1), "`seed=-1`: give 0 or more"),
        (dict(first=-1), "`first=-1`: give 0 or more"),
        (dict(batch_size=0), "`batch_size=0`: give 1 or more"),
        (dict(config=SamplingConfig("ddim", steps=51)), "`steps=51`: give 1 to 50"),
        (dict(config=SamplingConfig("dpm", steps=50)), "`steps=50`: give 1 to 49"),
    ],
)
def test_impossible_arguments_are_refused(model, arguments, words):
    with pytest.raises(BadInput, match=words):
        sample(model, **arguments)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(steps=0), "`steps=0`"),
        (dict(temperature=-1.0), "`temperature=-1.0`"),
        (dict(spread=-1.0), "`spread=-1.0`"),
        (dict(truncation=float("nan")), "`truncation=nan`"),
        (dict(eta=1.5), "`eta=1.5`: give 0 to 1"),
    ],
)
def test_impossible_settings_are_refused(arguments, words):
    with pytest.raises(BadInput, match=words):
        SamplingConfig(**arguments)
