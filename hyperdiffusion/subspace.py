"""The subspace of heads: fitted networks in, the few directions in weight space that tell heads apart out.

Two fits of one head differ in most of their weights, and no one sees it: only 17 % of what sets a new fit apart lies in
the span of 112 others. So directions are learned by what they do to the surface, not by how far weights lie apart. All
heads share a mean and `axes` directions, each head has a place z, and all are trained until the network mean + z A says
about head i's surface what its fit says: a linear hypernetwork (Ha et al. 2017) with the codes of an auto-decoder (Park
et al., DeepSDF, 2019), that learns from stage 1's networks alone. New fits are placed in it with the directions held.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from overfit import workers
from overfit.cube import Cube
from overfit.decode import decode
from overfit.errors import BadInput
from overfit.field import Field
from overfit.fit import Fitting, autocast, losses
from overfit.occupancy import surface_points, surface_samples

from .tokens import Tokens

# What stage 1 minimises, on the fits' own logits: any store's, whatever its softness.
LOSS = Fitting()
# Grid on which a fit's surface is found; its points are moved off it by more than the grid errs.
GRID = 64
# Points a head: about its surface, in a wider band, and anywhere in the cube, with their deviations in millimetres.
NEAR, WIDE, ANYWHERE, NEAR_MM, WIDE_MM = 5120, 2048, 1024, 2.0, 10.0
# Shares of the close points where the face's front bends, and where anything does: as in stage 1, but for the mean.
FACE, DETAIL = 0.5, 0.2
# Heads of which points are at hand at once when many are placed.
CHUNK = 256


@dataclass(frozen=True)
class Subspace:
    """How the subspace is learned."""

    # Directions at most; also at most half as many as heads, lest each head get one of its own.
    axes: int = 128
    # Steps that learn it, of so many heads with so many points each; of twice the points nothing more was learned
    # (BENCHMARKS.md).
    axes_steps: int = 12_000
    axes_heads: int = 16
    axes_points: int = 512
    # Peak rates of Adam for the directions, the mean and the places; they fall to zero as cosines.
    axes_rate: float = 3e-4
    mean_rate: float = 1e-3
    place_rate: float = 2e-2
    # Pull of the places towards the mean head, in units of the loss: what no head needs shrinks away.
    pull: float = 3e-3
    # Steps that place a head with the directions held, their peak rate and their pull. Coordinates are white there: by
    # the rate and the pull above, heads that were left out lie 1.4 mm from their fits and have a third of the variance
    # of those learned from; by these, 0.8 mm, and as much.
    place_steps: int = 300
    held_rate: float = 0.1
    held_pull: float = 1e-4
    # Heads that the directions are learned from, at most; any others are placed.
    axes_from: int = 2048

    def __post_init__(self):
        for name in ("axes", "axes_steps", "axes_heads", "axes_points", "place_steps", "axes_from"):
            if getattr(self, name) < 1:
                raise BadInput(f"--{name.replace('_', '-')} {getattr(self, name)}: give 1 or more")


@dataclass(frozen=True)
class Pool:
    """Points about the surfaces of fits, and what the fits say there."""

    # (heads, n, 3) in the field's cube.
    points: torch.Tensor
    # (heads, n) the logits as distances in millimetres, negative inside.
    distance: torch.Tensor

    @classmethod
    def of(cls, field: Field, cube: Cube, weights: torch.Tensor, cores: int = 1) -> "Pool":
        """Points of the networks (heads, P)."""
        tasks = [(field, cube, row.cpu().clone(), index) for index, row in enumerate(weights)]
        found = workers.gathered(_points, tasks, workers=min(cores, len(tasks) // 16))
        points = torch.from_numpy(np.stack(found)).to(weights.device)
        with torch.no_grad():
            logits = torch.stack([field(row, here).float() for row, here in zip(weights, points)])
        return cls(points, -LOSS.softness_mm * logits)


def learn(field: Field, cube: Cube, weights: torch.Tensor, settings: Subspace, seed: int = 0, cores: int = 1,
          progress: Callable[[torch.Tensor], None] = lambda loss: None) -> tuple[Tokens, torch.Tensor]:
    """The subspace of networks (heads, P), and their coordinates (heads, D) in it. `progress` is told every loss."""
    # Where it starts: the principal axes of the weights themselves.
    start = Tokens.of(weights.cpu(), field.sizes)
    rank = max(1, min(settings.axes, len(start.deviation), len(weights) // 2))
    axes = (start.deviation[:, None] * start.axes)[:rank].to(weights.device)
    places = start.encode(weights.cpu())[:, :rank].to(weights.device)
    pool = Pool.of(field, cube, weights, cores)
    mean, axes, places = _train(field, start.mean.to(weights.device), axes, places, pool, settings, settings.axes_steps,
                                seed, progress)
    tokens = Tokens.spanned(mean.cpu(), axes.cpu(), places.cpu(), field.sizes)
    return tokens, tokens.encode(torch.addmm(mean, places, axes).cpu())


def place(field: Field, cube: Cube, weights: torch.Tensor, tokens: Tokens, settings: Subspace, cores: int = 1,
          ) -> torch.Tensor:
    """Coordinates (heads, D) of networks (heads, P) in a subspace: where it comes closest to what they say."""
    axes = tokens.deviation[:, None] * tokens.axes
    places = torch.zeros(len(weights), len(axes), device=weights.device)
    settings = replace(settings, place_rate=settings.held_rate, pull=settings.held_pull)
    return _train(field, tokens.mean, axes, places, Pool.of(field, cube, weights, cores), settings,
                  settings.place_steps * -(-len(weights) // settings.axes_heads), 0, held=True)[2]


def _train(field: Field, mean: torch.Tensor, axes: torch.Tensor, places: torch.Tensor, pool: Pool, settings: Subspace,
           steps: int, seed: int, progress: Callable[[torch.Tensor], None] = lambda loss: None, held: bool = False,
           ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean (P,), axes (D, P) and places (heads, D), trained; the places alone where the rest is held."""
    mean, axes = (tensor.clone().requires_grad_(not held) for tensor in (mean, axes))
    # Few heads take part in a step: the others' moments must not fade meanwhile.
    table = torch.nn.Embedding.from_pretrained(places.clone(), freeze=False, sparse=True)
    optimisers = [torch.optim.SparseAdam(table.parameters(), settings.place_rate, betas=(0.9, 0.99))]
    if not held:
        shared = [{"params": [axes], "lr": settings.axes_rate}, {"params": [mean], "lr": settings.mean_rate}]
        optimisers.append(torch.optim.Adam(shared, betas=(0.9, 0.99), fused=True))
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share(step, steps))
                 for optimiser in optimisers]
    random = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if not len(order):
            order = torch.randperm(len(places), generator=random)
        chosen, order = order[:settings.axes_heads], order[settings.axes_heads:]
        batch = torch.randint(pool.points.shape[1], (settings.axes_points,), generator=random)
        # A GPU gets its next step while it is still at this one.
        chosen, batch = (index.to(places.device, non_blocking=True) for index in (chosen, batch))
        here = table(chosen)
        with autocast(places.device):
            logits = field(torch.addmm(mean, here, axes), pool.points[chosen][:, batch])
        loss = losses(logits.float(), pool.distance[chosen][:, batch], LOSS)
        for optimiser in optimisers:
            optimiser.zero_grad()
        (loss.sum() + settings.pull * here.square().sum()).backward()
        for optimiser, schedule in zip(optimisers, schedules):
            optimiser.step()
            schedule.step()
        progress(loss.detach().mean())
    return mean.detach(), axes.detach(), table.weight.detach()


def _share(step: int, steps: int) -> float:
    """Of the peak rate: it rises over a twentieth of the steps and falls as a cosine."""
    return min(1.0, (step + 1) / (0.05 * steps)) * (0.5 + 0.5 * float(np.cos(np.pi * step / steps))) + 1e-6


def _points(field: Field, cube: Cube, weights: torch.Tensor, seed: int, progress: Callable) -> np.ndarray:
    """Points (n, 3) in the cube about the surface of a network (P,); one that holds none has them anywhere."""
    rng = np.random.default_rng(seed)
    anywhere = rng.uniform(-1, 1, (NEAR + WIDE + ANYWHERE, 3))
    try:
        mesh = decode(field, weights, cube, GRID, keep_islands=True)
    except BadInput:
        return anywhere.astype(np.float32)
    close = surface_samples(mesh, NEAR, rng, FACE, DETAIL)[0] + NEAR_MM * rng.standard_normal((NEAR, 3))
    band = surface_points(mesh, WIDE, rng) + WIDE_MM * rng.standard_normal((WIDE, 3))
    near = cube.to_field(np.concatenate([close, band]))
    return np.concatenate([near, anywhere[:ANYWHERE]]).astype(np.float32)
