"""Periodic work on a clock that the test turns."""

import pytest

from overfit.runtime import throttle
from overfit.runtime.throttle import Throttle


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(throttle.time, "monotonic", lambda: now[0])
    return now


def test_work_is_due_after_the_interval(clock):
    periodic = Throttle()
    clock[0] += 9
    assert not periodic.is_due(10)
    clock[0] += 2
    assert periodic.is_due(10)


def test_slow_work_is_due_less_often(clock):
    periodic = Throttle()
    with periodic.measure():
        clock[0] += 3
    clock[0] += 3 / throttle.SHARE - 1
    assert not periodic.is_due(10)
    clock[0] += 2
    assert periodic.is_due(10)
