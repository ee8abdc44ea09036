"""The denoiser: shapes, where it starts, and what has a say in what."""

import pytest
import torch
from torch.nn.init import normal_

from hyperdiffusion import Denoiser, Schedule, Shape
from hyperdiffusion.tokens import Tokens
from hyperdiffusion.transformer import sinusoids
from overfit import Field

SCHEDULE = Schedule()
SMALL = Shape(width=32, depth=2, heads=4)


def tokens(heads: int = 12) -> Tokens:
    return Tokens.of(torch.randn(heads, 20, generator=torch.Generator().manual_seed(0)), (10, 3, 7))


def denoiser() -> Denoiser:
    torch.manual_seed(0)
    made = Denoiser(SMALL, SCHEDULE, tokens())
    for head in made.transformer.project:
        normal_(head.weight)
    return made.eval()


def test_it_starts_as_the_best_denoiser_of_a_gaussian():
    """Of clean coordinates drawn by the thousand, no line through the noised ones comes closer."""
    fresh = Denoiser(SMALL, SCHEDULE, tokens())
    random = torch.Generator().manual_seed(0)
    clean = torch.randn(20_000, 11, generator=random) * fresh.mixture.within.sqrt()
    for t in (0, 100, 300, 499):
        step = torch.full((len(clean),), t)
        noised = SCHEDULE.noised(clean, torch.randn(clean.shape, generator=random), step)
        guess = fresh(noised, step)
        slope = (noised * clean).sum(0) / noised.square().sum(0)
        torch.testing.assert_close(guess, slope * noised, atol=0.05, rtol=0.05)


def test_a_transformer_is_asked_only_where_it_has_a_say():
    made, noised, step = Denoiser(SMALL, SCHEDULE, tokens()), torch.randn(5, 11), torch.arange(5) * 90
    asked = []
    made.transformer.register_forward_hook(lambda *call: asked.append(made.training))
    in_training = made(noised, step)
    assert asked == [True]
    assert torch.equal(made.eval()(noised, step), in_training) and asked == [True]
    made.transformer.project[1].bias.data[0] = 1e-3
    assert not torch.equal(made(noised, step), in_training) and asked == [True, False]


def test_nine_tokens_for_the_default_field():
    store = torch.randn(5, Field().size)
    made = Denoiser(SMALL, SCHEDULE, Tokens.of(store, Field().sizes))
    seen = []
    made.transformer.transformer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    made(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    assert seen == [(2, 9, 32)]


def test_every_coordinate_and_the_time_step_have_a_say_in_the_correction():
    made, x = denoiser(), torch.randn(1, 11)
    plain = made.correction(x, torch.tensor([10]))
    assert (made.correction(x, torch.tensor([11])) != plain).all()
    for place in range(11):
        moved = x.clone()
        moved[0, place] += 1
        assert (made.correction(moved, torch.tensor([10])) != plain).all()


def test_rows_of_a_batch_do_not_mix():
    made, x = denoiser(), torch.randn(3, 11)
    steps = torch.tensor([1, 200, 499])
    torch.testing.assert_close(made(x, steps)[1:2], made(x[1:2], steps[1:2]), atol=1e-4, rtol=1e-4)


def test_time_steps_are_told_apart():
    waves = sinusoids(torch.arange(500), 64)
    assert waves.shape == (500, 64)
    assert torch.pdist(waves).min() > 0.1


def test_the_published_size_has_its_parameters():
    whole = tokens()
    with torch.device("meta"):
        made = Denoiser(Shape(width=2880, depth=12, heads=16), SCHEDULE, Tokens(
            whole.sizes, whole.mean, whole.axes, whole.deviation, whole.share))
    layers = sum(parameter.numel() for name, parameter in made.named_parameters() if "attn_layers" in name)
    # Each layer: four width x width matrices of attention and two width x 4 width of feed-forward.
    assert layers == pytest.approx(12 * 12 * 2880**2, rel=0.01)


def test_wider_groups_widen_the_guess_and_what_is_added_to_it_alike():
    made = denoiser()
    noised, step = torch.randn(5, 11, generator=torch.Generator().manual_seed(1)), torch.full((5,), 499)
    torch.testing.assert_close(made.spread(1.0)(noised, step), made(noised, step))
    # At the noisiest step little is known: heads lie as far from the mean as the groups are wide.
    near, far = (made.spread(factor)(noised, step).norm() for factor in (0.01, 0.02))
    torch.testing.assert_close(far / near, torch.tensor(2.0), atol=0.05, rtol=0)
