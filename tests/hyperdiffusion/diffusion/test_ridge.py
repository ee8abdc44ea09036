"""Ridge regression: its residuals are those of left-out heads, and it ignores what is chance."""

import torch

from hyperdiffusion.diffusion.ridge import ridge


def draw(count: int, *, noise: float):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, 4, generator=generator)
    truth = torch.tensor([[1.0, 0.0, -2.0, 0.5], [0.0, 0.0, 0.0, 0.0]]).T
    return features, truth, features @ truth + noise * torch.randn(count, 2, generator=generator)


def test_coefficients_are_found():
    features, truth, targets = draw(400, noise=0.1)
    torch.testing.assert_close(ridge(features, targets).coefficients, truth, atol=0.02, rtol=0)


def test_a_target_of_chance_gets_hardly_any_coefficients():
    features, _, targets = draw(30, noise=1.0)
    plain = torch.linalg.lstsq(features, targets).solution
    assert ridge(features, targets).coefficients[:, 1].norm() < 0.5 * plain[:, 1].norm()


def test_residuals_are_those_of_left_out_heads():
    features, _, targets = draw(30, noise=0.01)
    # With so little noise the smallest penalty wins, and the regression is the plain one.
    kept = torch.arange(30) != 7
    left_out = torch.linalg.lstsq(features[kept], targets[kept, :1]).solution
    expected = targets[7, :1] - features[7] @ left_out
    torch.testing.assert_close(ridge(features, targets[:, :1]).residuals[7], expected, atol=1e-3, rtol=0)


def test_levels_that_add_up_to_zero_are_no_problem():
    features = torch.nn.functional.one_hot(torch.arange(60) % 3).float() - 1 / 3
    targets = features @ torch.tensor([[1.0], [0.0], [-1.0]])
    torch.testing.assert_close(features @ ridge(features, targets).coefficients, targets, atol=1e-3, rtol=0)
