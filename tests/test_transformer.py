"""The denoiser: shapes, what it can tell apart, and where it starts."""

import torch

from hyperdiffusion import Denoiser, Shape
from hyperdiffusion.transformer import sinusoids

RANKS = (5, 1, 7)


def denoiser(width: int = 32) -> Denoiser:
    torch.manual_seed(0)
    made = Denoiser(Shape(width=width, depth=2, heads=4), RANKS)
    for head in made.project:
        torch.nn.init.normal_(head.weight)
    return made.eval()


def test_coordinates_in_coordinates_out_starting_at_the_mean():
    fresh = Denoiser(Shape(width=32, depth=1, heads=2), RANKS)
    assert torch.equal(fresh(torch.randn(4, 13), torch.arange(4)), torch.zeros(4, 13))


def test_nine_tokens_for_the_default_field():
    made = Denoiser(Shape(width=32, depth=1, heads=2), (3, 3, 3, 3, 3, 3, 3, 1))
    seen = []
    made.transformer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    made(torch.zeros(2, 22), torch.zeros(2))
    assert seen == [(2, 9, 32)]


def test_every_token_and_the_time_step_have_a_say_in_every_output():
    made, x = denoiser(), torch.randn(1, 13)
    plain = made(x, torch.tensor([10]))
    assert (made(x, torch.tensor([11])) != plain).all()
    for place in (0, 5, 12):
        moved = x.clone()
        moved[0, place] += 1
        assert (made(moved, torch.tensor([10])) != plain).all()


def test_rows_of_a_batch_do_not_mix():
    made, x = denoiser(), torch.randn(3, 13)
    steps = torch.tensor([1, 200, 499])
    torch.testing.assert_close(made(x, steps)[1:2], made(x[1:2], steps[1:2]))


def test_time_steps_are_told_apart():
    waves = sinusoids(torch.arange(500), 64)
    assert waves.shape == (500, 64)
    assert torch.pdist(waves).min() > 0.1


def test_the_published_size_has_its_parameters():
    with torch.device("meta"):
        made = Denoiser(Shape(width=2880, depth=12, heads=16), (3456, 128, 16384, 128, 16384, 128, 128, 1))
    layers = sum(parameter.numel() for name, parameter in made.named_parameters() if "attn_layers" in name)
    # Each layer: four width x width matrices of attention and two width x 4 width of feed-forward.
    assert abs(layers / (12 * 12 * 2880**2) - 1) < 0.01
