"""Overfitting: labelled points of several scans in, one row of weights per scan out, all in one batched computation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch.nn.functional import binary_cross_entropy_with_logits

from overfit.field import Field
from overfit.labels import LabelBatch
from overfit.lr_schedule import learning_rate
from overfit.paper_fit import fit_until_plateau
from overfit.runtime.errors import BadInput, require_at_least
from overfit.soap import Soap

# A learning rate that rises and falls takes this many steps.
MIN_STEPS = 3
# Share of the steps in which the learning rate rises.
WARMUP_SHARE = 0.05
# It rises over at least this many steps.
MIN_WARMUP_STEPS = 2
# Of this many points of a step, one is looked at by the mixture term, which costs a third of a step then.
MIXTURE_EVERY = 4
# Share of the steps after which labels are revised: the surface is in its place, and time is left to repair it.
REVISION_SHARE = 2 / 3

# Called with a number of steps; what it returns is ignored.
OnProgress = Callable[[int], object]
# Labels for the rest of the steps, by the unfinished weights (scans, P).
ReviseLabels = Callable[[torch.Tensor], LabelBatch]


@dataclass(frozen=True)
class FitConfig:
    """How one network is fitted to one scan."""

    lr_schedule: Literal["cosine", "plateau"] = "cosine"
    """How the learning rate changes. cosine: all scans of a batch at once, for a known number of steps. plateau: the
    published way, one scan after another, each until its loss stops falling or the steps are used up."""
    steps: int = 0
    """Steps of a fit that starts from the first fit's weights; 0 chooses: 1,000 for heads that are aligned by a warp,
    and 2,000 for others, which have a larger error nevertheless."""
    first_steps: int = 12_000
    """Steps of the first fit, which starts from random weights and from which all others start."""
    points_per_step: int = 1024
    """Labelled points of each scan in a step."""
    lr: float = 1e-2
    """Peak learning rate."""
    softness_mm: float = 1.4
    """Softness in millimetres of the targets sigmoid(-signed distance / softness); 0 gives the published hard ones."""
    distance_weight: float = 1.0
    """Weight of the distance term at the surface, which draws logits towards -signed distance / softness, also where
    the sigmoid is flat."""
    distance_falloff_mm: float = 3.0
    """Distance from the surface in millimetres over which the weight of the distance term falls by 1/e."""
    distance_floor: float = 0.1
    """Weight of the distance term far from the surface, as a share of the weight at the surface."""
    distance_band_mm: float = 20.0
    """Distance from the surface in millimetres; larger ones count as this one. Logits far away that are left open
    differ from fit to fit, and islands appear where fits are mixed."""
    mixture_weight: float = 0.5
    """Weight of the mixture term, which draws the network half-way between two heads of a batch towards the mean of
    their logits, so that what is mixed or generated from fits is a head too. 0 fits each head without the others."""
    seed: int = 0
    """Seed of the initial weights and of the minibatches; the latter are the same for every scan, which keeps the
    weights of all fits in one basin."""

    def __post_init__(self) -> None:
        require_at_least(
            MIN_STEPS, steps=self.steps or MIN_STEPS, first_steps=self.first_steps, points_per_step=self.points_per_step
        )
        require_at_least(
            0,
            lr=self.lr,
            softness_mm=self.softness_mm,
            distance_weight=self.distance_weight,
            distance_floor=self.distance_floor,
            distance_band_mm=self.distance_band_mm,
            mixture_weight=self.mixture_weight,
            seed=self.seed,
        )
        if not self.distance_falloff_mm > 0:
            raise BadInput(f"`distance_falloff_mm={self.distance_falloff_mm}`: give a number above 0")
        if self.distance_weight and not self.softness_mm:
            raise BadInput("`softness_mm=0`: has no distance term; give `distance_weight=0` too")


def fit(
    field: Field,
    start: torch.Tensor,
    labels: LabelBatch,
    *,
    config: FitConfig,
    on_progress: OnProgress = lambda steps: None,
    revise_labels: ReviseLabels | None = None,
) -> Float[torch.Tensor, "scans P"]:
    """Return weights fitted to the labels of several scans in `config.steps` steps.

    Args:
        field: The network.
        start: The weights to start from: (P,), or (scans, P) with a row per scan.
        labels: Labelled points of the scans.
        config: How the fit is done.
        on_progress: Called with the number of steps done since the last call, summed over the scans.
        revise_labels: Called with the weights when most of the steps are done; its labels replace the old ones. The
            plateau schedule does not call it.

    Raises:
        ValueError: If the config leaves the number of steps open.
    """
    if not config.steps:
        raise ValueError("the number of steps is open; give `steps`")
    start = start.to(labels.points.device).expand(len(labels.points), -1)
    if config.lr_schedule == "plateau":
        return _fit_one_by_one(field, start, labels, config, on_progress)
    weights = start.clone().requires_grad_()
    optimizer = Soap(field, weights)
    order = torch.Generator().manual_seed(config.seed)
    for step in range(config.steps):
        if revise_labels is not None and step == round(REVISION_SHARE * config.steps):
            labels = revise_labels(weights.detach())
        batch = _spread_batch(labels.points.shape[1], config.points_per_step, order)
        # A GPU gets its next step while it still computes this one.
        batch = batch.to(labels.points.device, non_blocking=True)
        chosen = labels[batch]
        with autocast(labels.points.device):
            logits = field(weights, chosen.points).float()
        # Summed over the scans: but for the mixture term, each scan's gradient is its own.
        loss = losses(logits, chosen.distance, config).sum()
        if config.mixture_weight and len(weights) > 1:
            mixture = _mixture_losses(field, weights, labels=chosen, logits=logits, step=step, config=config)
            loss = loss + config.mixture_weight * mixture.sum()
        loss.backward()
        optimizer.step(lr_of_step(step, config))
        on_progress(len(weights))
    return weights.detach()


def _mixture_losses(
    field: Field, weights: torch.Tensor, *, labels: LabelBatch, logits: torch.Tensor, step: int, config: FitConfig
) -> torch.Tensor:
    """How far the network half-way between a head and its mate in the batch is from the mean of their logits (scans,).

    A step looks at some of its points; when all were looked at, each head gets another mate.
    """
    some = slice(step % MIXTURE_EVERY, None, MIXTURE_EVERY)
    seen = labels[some]
    mates = weights.roll(1 + step // MIXTURE_EVERY % (len(weights) - 1), dims=0)
    with autocast(labels.points.device):
        with torch.no_grad():
            theirs = field(mates, seen.points).float()
        mixed = field((weights + mates) / 2, seen.points).float()
    error = (mixed - (logits[:, some] + theirs) / 2).abs()
    return (_surface_weight(seen.distance, config) * error).mean(1)


def _spread_batch(count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Return indices (size,) of points, one of each run of neighbours, which labels keep together.

    So a batch covers the surface evenly, and its gradient varies less.
    """
    places = torch.arange(size) + torch.rand(size, generator=generator)
    return (places * (count / size)).long().clamp(max=count - 1)


def lr_of_step(step: int, config: FitConfig) -> float:
    """Return the learning rate of a step with the cosine schedule."""
    warmup_steps = max(WARMUP_SHARE, MIN_WARMUP_STEPS / config.steps) * config.steps
    return learning_rate(step, config.steps, peak=config.lr, warmup_steps=warmup_steps)


def _fit_one_by_one(
    field: Field, start: torch.Tensor, labels: LabelBatch, config: FitConfig, on_progress: OnProgress
) -> torch.Tensor:
    rows = []
    for one_start, points, distance in zip(start, labels.points, labels.distance):

        def loss(logits: torch.Tensor, chosen: torch.Tensor, distance: torch.Tensor = distance) -> torch.Tensor:
            return losses(logits[None], distance[None, chosen], config)[0]

        rows.append(
            fit_until_plateau(
                field,
                one_start,
                points=points,
                loss=loss,
                batch_size=config.points_per_step,
                max_steps=config.steps,
                lr=config.lr,
                seed=config.seed,
                on_progress=on_progress,
            )
        )
    return torch.stack(rows)


def losses(
    logits: Float[torch.Tensor, "scans n"], distance: Float[torch.Tensor, "scans n"], config: FitConfig
) -> Float[torch.Tensor, " scans"]:
    """Return each scan's loss, by logits and signed distances in millimetres at its points.

    Binary cross-entropy with soft targets, and the absolute difference of the logits from -distance / softness, clamped
    far from the surface, with a weight that falls with the distance.
    """
    targets = soft_occupancy(distance, config.softness_mm)
    loss = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if config.distance_weight:
        known = distance.clamp(-config.distance_band_mm, config.distance_band_mm)
        error = (logits + known / config.softness_mm).abs()
        loss = loss + config.distance_weight * _surface_weight(distance, config) * error
    return loss.mean(1)


def _surface_weight(distance: Float[torch.Tensor, "*any"], config: FitConfig) -> Float[torch.Tensor, "*any"]:
    """The weights of errors of logits, by signed distances in millimetres: they fall with the distance."""
    return config.distance_floor + torch.exp(-distance.abs() / config.distance_falloff_mm)


def soft_occupancy(distance: Float[torch.Tensor, "*any"], softness_mm: float) -> Float[torch.Tensor, "*any"]:
    """Return occupancy targets: a sigmoid of the signed distance (mm, negative inside), or a step for softness 0."""
    if softness_mm == 0:
        return (distance < 0).float()
    return torch.sigmoid(-distance / softness_mm)


def autocast(device: torch.device) -> torch.autocast:
    """Return a context that computes in bf16 if the hardware multiplies in it, else in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device))


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bf16. Emulated, it is tens of times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
