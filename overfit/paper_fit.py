"""The published way of fitting, for comparisons: one network, in float32, until its loss has stopped falling.

Erkoç et al., HyperDiffusion (ICCV 2023), section 3.1 and its supplement. Numbers that the paper leaves out are those of
the configuration that its authors used for planes.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float

from overfit.field import Field

# The learning rate is multiplied by this after `PATIENCE` epochs without a lower loss.
LR_FACTOR = 0.8
# Epochs without a lower loss before the learning rate falls.
PATIENCE = 10
# The learning rate falls no further than this.
MIN_LR = 1e-5
# The fit ends after this many epochs without a lower loss.
STOPPING_PATIENCE = 50

# The loss of logits (m,) at the points with these indices (m,).
PointLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def fit_until_plateau(
    field: Field,
    start: Float[torch.Tensor, " P"],
    *,
    points: Float[torch.Tensor, "n d"],
    loss: PointLoss,
    batch_size: int,
    max_steps: int,
    lr: float,
    seed: int,
    on_progress: Callable[[int], object] = lambda steps: None,
) -> Float[torch.Tensor, " P"]:
    """Return the weights of one network, fitted by Adam with a learning rate that falls on plateaus.

    Args:
        field: The network.
        start: The weights to start from.
        points: Points in the field's cube; an epoch is n / batch_size steps.
        loss: Its value at the points of a step.
        batch_size: Points in a step.
        max_steps: The fit ends after this many steps, if it has not ended before.
        lr: The first learning rate.
        seed: Seed of the order in which points are drawn.
        on_progress: Called after each epoch with its number of steps.
    """
    order = torch.Generator().manual_seed(seed)
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=lr)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=LR_FACTOR, patience=PATIENCE, threshold=0, min_lr=MIN_LR
    )
    epoch_steps = max(1, len(points) // batch_size)
    best = float("inf")
    epochs_since_best = 0
    for first in range(0, max_steps, epoch_steps):
        errors = []
        for _ in range(first, min(first + epoch_steps, max_steps)):
            chosen = torch.randint(len(points), (batch_size,), generator=order).to(points.device)
            error = loss(field(weights, points[chosen]), chosen)
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            errors.append(error.detach())
        on_progress(len(errors))
        mean = torch.stack(errors).mean().item()
        schedule.step(mean)
        best, epochs_since_best = (mean, 0) if mean < best else (best, epochs_since_best + 1)
        if epochs_since_best == STOPPING_PATIENCE:
            break
    return weights.detach()
