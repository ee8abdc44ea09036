"""Overfitting: labelled points of several scans in, one row of weights a scan out, all in one batched computation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from .errors import BadInput
from .field import Field
from .published import fit_published

# A schedule that rises and falls takes three steps.
FEWEST = 3
# Share of the steps after which a fit is reviewed: the surface is where it will be, and there is time to heal it.
REVIEWED = 3 / 4


@dataclass(frozen=True)
class Fitting:
    """How one network is fitted to one scan."""

    # cosine: all scans of a batch at once, for a number of steps that is known. plateau: the published way, one scan
    # after another, each for as long as its loss falls, and for so many steps at most.
    schedule: Literal["cosine", "plateau"] = "cosine"
    # Steps of a fit that starts from the first one's weights.
    steps: int = 2000
    # Steps of the first fit, which starts from noise and to which all others are neighbours.
    first_steps: int = 12_000
    # Points of each scan in a step. Many short steps beat few long ones at the same cost: BENCHMARKS.md.
    points: int = 1024
    # Adam's peak learning rate; it rises over the first twentieth of the steps and falls to zero as a cosine.
    rate: float = 5e-3
    # Targets are sigmoid(-signed distance / softness); 0 gives the published hard ones.
    softness_mm: float = 1.4
    # Weight of the distance term at the surface: it draws the logits towards -signed distance / softness, also where
    # the sigmoid is flat and occupancy alone says nothing. Midpoints of two fits come a quarter closer to true ones.
    distance: float = 1.0
    # Millimetres over which that weight falls, and to what share of it: an absolute error pulls as hard far from the
    # surface as on it, and what makes an eye is within a millimetre.
    fade_mm: float = 3.0
    far: float = 0.1
    # Half the width of the band in which there is a distance term, in millimetres.
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
    """Weights (scans, P) fitted from `start`, (P,) or a row a scan, to points (scans, n, 3) and their signed distances
    (scans, n) in millimetres.

    `review` is shown the weights when most of the steps are done, and returns points and distances to go on with.
    """
    start = start.to(points.device).expand(len(points), -1)
    if fitting.schedule == "plateau":
        return _one_by_one(field, start, points, distance, fitting, steps, rate, progress)
    weights = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=rate, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps, pct_start=max(0.05, 2 / steps), cycle_momentum=False, final_div_factor=1e4)
    order = torch.Generator().manual_seed(fitting.seed)
    for step in range(steps):
        if review is not None and step == round(REVIEWED * steps):
            points, distance = review(weights.detach())
        batch = torch.randint(points.shape[1], (fitting.points,), generator=order)
        # A GPU gets its next step while it is still at this one.
        batch = batch.to(points.device, non_blocking=True)
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


def _one_by_one(field: Field, start: torch.Tensor, points: torch.Tensor, distance: torch.Tensor, fitting: Fitting,
                steps: int, rate: float, progress: Callable[[int], None]) -> torch.Tensor:
    rows = []
    for one, at, far in zip(start, points, distance):

        def loss(logits: torch.Tensor, chosen: torch.Tensor, far: torch.Tensor = far) -> torch.Tensor:
            return losses(logits[None], far[None, chosen], fitting)[0]

        rows.append(fit_published(field, one, at, loss, fitting.points, steps, rate, fitting.seed, progress))
    return torch.stack(rows)


def losses(logits: torch.Tensor, distance: torch.Tensor, fitting: Fitting) -> torch.Tensor:
    """Loss (scans,) of logits (scans, n) where the signed distances are (scans, n) in millimetres."""
    targets = soft_occupancy(distance, fitting.softness_mm)
    loss = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if fitting.distance:
        off, away = (logits + distance / fitting.softness_mm).abs(), distance.abs()
        weight = fitting.distance * (fitting.far + torch.exp(-away / fitting.fade_mm))
        loss = loss + weight * off * (away < fitting.band_mm)
    return loss.mean(1)


def soft_occupancy(distance: torch.Tensor, softness_mm: float) -> torch.Tensor:
    """Occupancy targets: a sigmoid of the signed distance (mm, negative inside), or a step where softness is 0."""
    if softness_mm == 0:
        return (distance < 0).float()
    return torch.sigmoid(-distance / softness_mm)


def autocast(device: torch.device) -> torch.autocast:
    """bf16 where the hardware multiplies in it, float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device))


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bf16. Emulated, it is tens of times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
