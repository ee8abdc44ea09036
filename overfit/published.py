"""The published way of fitting, for comparisons: one network after another, in float32, until the loss stays.

Erkoç et al., HyperDiffusion (ICCV 2023), section 3.1 and its supplement; numbers that the paper leaves out are those of
the configuration that its authors fitted the planes with.
"""

from collections.abc import Callable

import torch

from .field import Field

# The rate is multiplied by `FACTOR` after so many epochs without a lower loss, down to `LEAST_RATE`.
FACTOR, PATIENCE, LEAST_RATE = 0.8, 10, 1e-5
# The fit stops after so many.
STOP = 50


def fit_published(field: Field, start: torch.Tensor, points: torch.Tensor, loss: Callable, size: int, steps: int,
                  rate: float, seed: int, progress: Callable[[int], None]) -> torch.Tensor:
    """Weights (P,) fitted from `start` (P,) to points (n, 3), in at most `steps` steps of `size` points.

    `loss(logits, chosen)` is that of logits (size,) at the points chosen (size,). An epoch is n / size steps.
    """
    order = torch.Generator().manual_seed(seed)
    weights = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=FACTOR, patience=PATIENCE, threshold=0, min_lr=LEAST_RATE)
    epoch, best, since = max(1, len(points) // size), float("inf"), 0
    for first in range(0, steps, epoch):
        told = []
        for _ in range(first, min(first + epoch, steps)):
            chosen = torch.randint(len(points), (size,), generator=order).to(points.device)
            error = loss(field(weights, points[chosen]), chosen)
            optimiser.zero_grad()
            error.backward()
            optimiser.step()
            told.append(error.detach())
        progress(len(told))
        mean = torch.stack(told).mean().item()
        schedule.step(mean)
        best, since = (mean, 0) if mean < best else (best, since + 1)
        if since == STOP:
            break
    return weights.detach()
