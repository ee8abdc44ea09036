"""The learning rate of each step: a step and the number of steps in, the rate or its share of the peak out.

The rate rises from 1/25 of its peak along half a cosine and falls along another one to almost zero. The formula is that
of `torch.optim.lr_scheduler.OneCycleLR` with cosine annealing (Smith and Topin, Super-Convergence, 2018).
"""

import math

# The peak over the first step's rate.
WARMUP_FACTOR = 25.0
# The first step's rate over the last step's.
FINAL_FACTOR = 1e4


def lr_factor(step: int, total_steps: int, *, warmup_steps: float) -> float:
    """Return the learning rate of a step as a share of the peak.

    Args:
        step: Number of the step, from 0.
        total_steps: Number of steps in all.
        warmup_steps: Steps until the peak, the first one included; up to 1, the first step has the peak.
    """
    return learning_rate(step, total_steps, peak=1.0, warmup_steps=warmup_steps)


def learning_rate(step: int, total_steps: int, *, peak: float, warmup_steps: float) -> float:
    """Return the learning rate of a step, bit for bit that of OneCycleLR. Arguments as of `lr_factor`."""
    first = peak / WARMUP_FACTOR
    last = first / FINAL_FACTOR
    at_peak = max(warmup_steps - 1, 0.0)
    if step <= at_peak and at_peak > 0:
        return _cosine(first, peak, step / at_peak)
    remaining = total_steps - 1 - at_peak
    return _cosine(peak, last, (step - at_peak) / remaining) if remaining > 0 else peak


def _cosine(start: float, end: float, progress: float) -> float:
    """Go from `start` to `end` along half a cosine, as `progress` goes from 0 to 1."""
    return end + (start - end) / 2.0 * (math.cos(math.pi * progress) + 1)
