"""Sampling: a checkpoint and a seed in, weights of new heads out, and their meshes on disk."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import trimesh
from tqdm import tqdm

from overfit import workers
from overfit.cube import Cube
from overfit.decode import decode, largest_body
from overfit.errors import BadInput
from overfit.field import Field
from overfit.files import replacing

from .checkpoint import Checkpoint
from .diffusion import Denoise, Schedule
from .healed import healed
from .samplers import Noise, Variance, ddim, ddpm, dpm, ode

Format = Literal["ply", "obj", "stl", "glb"]
# Heads that are denoised at once.
BATCH = 64
# Heads that a worker must have to decode for its start to pay.
FEW = 3


@dataclass(frozen=True)
class Sampling:
    """How noise becomes heads."""

    # ddpm takes all steps of the training's schedule, with new noise at each; the others as many as `steps` says. dpm
    # (DPM-Solver++) needs the fewest; ode is the probability flow by Heun's rule, two evaluations a step.
    sampler: Literal["ddpm", "ddim", "dpm", "ode"] = "ddpm"
    # Steps of ddim, dpm and ode.
    steps: int = 50
    # New noise in ddim's steps: 0 is none, 1 as much as ddpm has.
    eta: float = 0.0
    # Variance of ddpm's steps: the posterior's own, or the large one of the published method.
    variance: Variance = "small"
    # Factor on all noise: below 1, heads are more usual and less diverse. Of several groups it favours the narrow ones.
    temperature: float = 1.0
    # Factor on how far heads lie from the middle of their group. At 1 surfaces vary less than those of the heads
    # learned from and lie nearer to them, though coordinates vary as much.
    spread: float = 1.15
    # Share of the way from the mean head to the sample that is kept.
    truncation: float = 1.0

    def check(self, timesteps: int) -> None:
        """Raises BadInput for settings that make no sense with so many steps of training."""
        # The solvers jump from the least noisy step to none at all.
        most = timesteps if self.sampler == "ddim" else timesteps - 1
        if self.sampler != "ddpm" and not 1 <= self.steps <= most:
            raise BadInput(f"--steps {self.steps}: give 1 to {most}, the steps of the training")
        for name in ("eta", "temperature", "spread", "truncation"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"--{name} {getattr(self, name)}: give 0 or more")
        if self.eta > 1:
            raise BadInput(f"--eta {self.eta}: give 0 to 1")

    def __call__(self, denoise: Denoise, noise: Noise, schedule: Schedule) -> torch.Tensor:
        """Clean coordinates (B, D) from the noise of B heads."""
        if self.sampler == "ddpm":
            clean = ddpm(denoise, noise, schedule, self.variance)
        elif self.sampler == "ddim":
            clean = ddim(denoise, noise, schedule, self.steps, self.eta)
        else:
            clean = (dpm if self.sampler == "dpm" else ode)(denoise, noise, schedule, self.steps)
        # Coordinates are zero at the mean head.
        return self.truncation * clean


def sample(checkpoint: Checkpoint, count: int, seed: int = 0, sampling: Sampling = Sampling(),
           batch: int = BATCH) -> torch.Tensor:
    """Weights (count, P) of new heads. Head k of a seed is the same head whatever the count and the batch.

    Raises BadInput for a count or settings that make no sense.
    """
    if count < 1:
        raise BadInput(f"--count {count}: give the number of heads, at least 1")
    sampling.check(checkpoint.schedule.timesteps)
    denoise = checkpoint.denoiser.spread(sampling.spread)
    made = []
    for start in range(0, count, batch):
        seeds = [(seed, index) for index in range(start, min(start + batch, count))]
        noise = Noise(seeds, checkpoint.tokens.size, checkpoint.tokens.mean.device, sampling.temperature)
        made.append(checkpoint.tokens.decode(sampling(denoise, noise, checkpoint.schedule)))
    return torch.cat(made)


def write_meshes(named: Iterable[tuple[str, torch.Tensor]], field: Field, cube: Cube, out: Path, resolution: int,
                 suffix: Format = "ply", keep_islands: bool = False, cores: int = 1, heal: bool = False,
                 ) -> tuple[list[trimesh.Trimesh | None], dict[str, str]]:
    """Decode named weights (P,) each to a file of its name below `out`; the meshes, and why others are None, by name.

    With `heal`, those of several bodies are brought to one first, instead of leaving all but the largest out.
    Every one of `cores` decodes heads of its own, with a GPU too: the least of decoding is work of the network.
    """
    named = list(named)
    tasks = [(weights.cpu(), field, cube, out / f"{name}.{suffix}", resolution, suffix, keep_islands, heal)
             for name, weights in named]
    # Starting workers takes as long as decoding a few heads.
    pool = min(cores, len(tasks) // FEW)
    made: dict[int, trimesh.Trimesh | str] = {}
    with tqdm(total=len(tasks), desc="decoding", unit="head") as bar:
        for index, mesh in workers.run(_decode_to, tasks, workers=pool):
            made[index] = mesh
            bar.update()
    failures = {name: made[index] for index, (name, _) in enumerate(named) if isinstance(made[index], str)}
    return [None if isinstance(made[index], str) else made[index] for index in range(len(tasks))], failures


def _decode_to(weights: torch.Tensor, field: Field, cube: Cube, path: Path, resolution: int, suffix: Format,
               keep_islands: bool, heal: bool, progress: Callable[[int], None]) -> trimesh.Trimesh | str:
    """The mesh, or why there is none."""
    try:
        mesh = decode(field, weights, cube, resolution, keep_islands=True)
    except BadInput as error:
        return str(error)
    if heal:
        mesh = healed(field, weights, mesh, cube, resolution)
    if not keep_islands:
        mesh = largest_body(mesh)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        mesh.export(unfinished, file_type=suffix)
    return mesh
