"""The learning rate is that of torch's OneCycleLR, bit for bit."""

import pytest
import torch

from overfit.fit import FitConfig, lr_of_step
from overfit.lr_schedule import learning_rate, lr_factor


def one_cycle(steps: int, lr: float, pct_start: float) -> list[float]:
    """The learning rate of each step by torch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=pct_start, cycle_momentum=False, final_div_factor=1e4
    )
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("steps", [3, 4, 5, 7, 20, 39, 40, 41, 150, 2000])
@pytest.mark.parametrize("lr", [5e-3, 5e-4, 1e-2])
def test_a_fit_has_the_rates_of_torch(steps, lr):
    config = FitConfig(steps=steps, lr=lr)
    assert [lr_of_step(step, config) for step in range(steps)] == one_cycle(steps, lr, max(0.05, 2 / steps))


@pytest.mark.parametrize("warmup_share", [0.1, 0.25, 0.5])
def test_any_warmup_has_the_rates_of_torch(warmup_share):
    steps = 100
    rates = [learning_rate(step, steps, peak=3e-4, warmup_steps=warmup_share * steps) for step in range(steps)]
    assert rates == one_cycle(steps, 3e-4, warmup_share)


def test_the_factor_rises_to_one_and_falls_to_almost_nothing():
    factors = [lr_factor(step, 100, warmup_steps=11) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 25) and factors[10] == 1
    assert factors[:11] == sorted(factors[:11]) and factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] == pytest.approx(1 / 25 / 1e4)


@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_without_warmup_the_first_step_has_the_peak(warmup_steps):
    assert lr_factor(0, 10, warmup_steps=warmup_steps) == 1
    assert lr_factor(0, 1, warmup_steps=warmup_steps) == 1


def test_a_warmup_longer_than_the_training_only_rises():
    assert [lr_factor(step, 3, warmup_steps=6) for step in range(3)] == pytest.approx(
        [lr_factor(step, 6, warmup_steps=6) for step in range(3)]
    )
