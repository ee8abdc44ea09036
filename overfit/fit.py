"""Overfitting: labelled points of several scans in, one row of weights a scan out, all in one batched computation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from .errors import BadInput
from .field import Field

# A schedule that rises and falls takes three steps.
FEWEST = 3


@dataclass(frozen=True)
class Fitting:
    """How one network is fitted to one scan."""

    # Steps of a fit that starts from the first one's weights.
    steps: int = 2400
    # Steps of the first fit, which starts from noise and to which all others are neighbours.
    first_steps: int = 10_000
    # Points of each scan in a step. Many short steps beat few long ones at the same cost: BENCHMARKS.md.
    points: int = 1024
    # Adam's peak learning rate; it rises over the first twentieth of the steps and falls to zero as a cosine.
    rate: float = 5e-3
    # Targets are sigmoid(-signed distance / softness); 0 gives the published hard ones.
    softness_mm: float = 1.4
    # Weight of the distance term: it draws the logits towards -signed distance / softness over a wide band, where the
    # sigmoid is flat and occupancy alone says nothing. Midpoints of two fits come a quarter closer to the true ones.
    distance: float = 1.0
    # Half the width of that band, in millimetres.
    band_mm: float = 20.0
    # Order of the minibatches, the same for every scan: part of what keeps the weights in one basin.
    seed: int = 0

    def __post_init__(self):
        for name in ("steps", "first_steps", "points"):
            if getattr(self, name) < FEWEST:
                raise BadInput(f"--{name.replace('_', '-')} {getattr(self, name)}: give at least {FEWEST}")


def fit(field: Field, start: torch.Tensor, points: torch.Tensor, distance: torch.Tensor, fitting: Fitting,
        steps: int, rate: float, progress: Callable[[int], None] = lambda scans: None,
        review: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None) -> torch.Tensor:
    """Weights (scans, P) fitted from `start` (P,) to points (scans, n, 3) with signed distances (scans, n) in mm.

    `review` is shown the weights when two thirds of the steps are done, and returns points and distances to go on with.
    """
    weights = start.to(points.device).expand(len(points), -1).clone().requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=rate, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps, pct_start=max(0.05, 2 / steps), cycle_momentum=False, final_div_factor=1e4)
    order = torch.Generator().manual_seed(fitting.seed)
    for step in range(steps):
        if review is not None and step == 2 * steps // 3:
            points, distance = review(weights.detach())
        batch = torch.randint(points.shape[1], (fitting.points,), generator=order).to(points.device)
        with autocast(points.device):
            logits = field(weights, points[:, batch])
        # Summed over the scans: each scan's gradient is its own, whatever shares the batch with it.
        loss = losses(logits.float(), distance[:, batch], fitting).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress(len(points))
    return weights.detach()


def losses(logits: torch.Tensor, distance: torch.Tensor, fitting: Fitting) -> torch.Tensor:
    """Loss (scans,) of logits (scans, n) where the signed distances are (scans, n) in millimetres."""
    targets = soft_occupancy(distance, fitting.softness_mm)
    loss = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if fitting.distance:
        off = (logits + distance / fitting.softness_mm).abs()
        loss = loss + fitting.distance * off * (distance.abs() < fitting.band_mm)
    return loss.mean(1)


def soft_occupancy(distance: torch.Tensor, softness_mm: float) -> torch.Tensor:
    """Occupancy targets: a sigmoid of the signed distance (mm, negative inside), or a step where softness is 0."""
    if softness_mm == 0:
        return (distance < 0).float()
    return torch.sigmoid(-distance / softness_mm)


def autocast(device: torch.device) -> torch.autocast:
    """bf16 where the hardware multiplies in it, float32 elsewhere."""
    if device.type == "cuda":
        real = torch.cuda.get_device_capability(device)[0] >= 8
    else:
        real = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=real)
