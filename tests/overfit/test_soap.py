"""Optimisation of problems whose solutions and curvatures are known."""

import pytest
import torch

from overfit import Field
from overfit.soap import Soap

FIELD = Field(octaves=0, hidden=(12,))


def ill_conditioned(heads: int, seed: int = 0):
    """A quadratic whose curvature is a Kronecker product in each matrix, but in other directions than the entries."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(heads, FIELD.size, generator=generator)
    factors = []
    for shape in FIELD.shapes:
        matrices = []
        for size in shape:
            rotation = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
            matrices.append(rotation @ torch.diag(torch.logspace(0, -1.5, size)) @ rotation.T)
        factors.append(matrices)

    def loss(weights: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(heads)
        for difference, shape, sides in zip(FIELD.tensors(weights - target), FIELD.shapes, factors):
            if len(shape) == 2:
                difference = sides[0] @ difference @ sides[1]
            total = total + difference.square().flatten(1).sum(1)
        return total

    return target, loss


def minimised(loss, heads: int, optimizer_of, steps: int = 300, lr: float = 0.05) -> torch.Tensor:
    weights = torch.zeros(heads, FIELD.size, requires_grad=True)
    step = optimizer_of(weights)
    for index in range(steps):
        loss(weights).sum().backward()
        step(lr * (1 - index / steps))
    return weights.detach()


def soap(weights: torch.Tensor):
    return Soap(FIELD, weights).step


def adam(weights: torch.Tensor):
    optimizer = torch.optim.Adam([weights], betas=(0.9, 0.99))

    def step(lr: float) -> None:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        optimizer.zero_grad()

    return step


def test_it_finds_the_minimum_and_is_closer_to_it_than_adam():
    target, loss = ill_conditioned(heads=2)
    ours, theirs = (loss(minimised(loss, 2, optimizer)) for optimizer in (soap, adam))
    assert (ours < 1e-3 * loss(torch.zeros(2, FIELD.size))).all()
    assert (ours < 0.5 * theirs).all()


def test_each_network_moves_by_its_own_gradients():
    target, loss = ill_conditioned(heads=3)
    together = minimised(loss, 3, soap, steps=30)

    def loss_of_last(weights: torch.Tensor) -> torch.Tensor:
        return loss(torch.cat([target[:2], weights]))[2:]

    torch.testing.assert_close(minimised(loss_of_last, 1, soap, steps=30), together[2:], atol=1e-4, rtol=1e-3)


def test_it_is_adam_where_there_is_nothing_to_rotate():
    """Biases alone have gradients: theirs are not rotated."""
    target, _ = ill_conditioned(heads=2)

    def loss(weights: torch.Tensor) -> torch.Tensor:
        biases = zip(FIELD.tensors(weights)[1::2], FIELD.tensors(target)[1::2])
        return torch.stack([(bias - wanted).square().sum(1) for bias, wanted in biases]).sum(0)

    ours, theirs = (minimised(loss, 2, optimizer, steps=30) for optimizer in (soap, adam))
    torch.testing.assert_close(ours, theirs)


def test_steps_without_a_gradient_are_refused():
    with pytest.raises(ValueError, match="call `backward` first"):
        Soap(FIELD, torch.zeros(1, FIELD.size, requires_grad=True)).step(0.1)
