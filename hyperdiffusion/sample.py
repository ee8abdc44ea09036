"""Sampling: a checkpoint and a seed in, weights of new heads out, and their meshes on disk."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
import trimesh
from tqdm import tqdm

from overfit.cube import Cube
from overfit.decode import decode
from overfit.errors import BadInput
from overfit.field import Field
from overfit.files import replacing

from .checkpoint import Checkpoint
from .samplers import Noise, ddim, ddpm

Sampler = Literal["ddpm", "ddim"]
Format = Literal["ply", "obj", "stl", "glb"]
# Heads that are denoised at once.
BATCH = 64


def sample(checkpoint: Checkpoint, count: int, seed: int = 0, sampler: Sampler = "ddpm", steps: int = 100,
           batch: int = BATCH) -> torch.Tensor:
    """Weights (count, P) of new heads. Head k of a seed is the same head whatever the count and the batch.

    `ddpm` takes all steps of the training's schedule, `ddim` only `steps` of them. Raises BadInput for a count or
    steps that make no sense.
    """
    if count < 1:
        raise BadInput(f"--count {count}: give the number of heads, at least 1")
    if sampler == "ddim" and not 1 <= steps <= checkpoint.schedule.timesteps:
        raise BadInput(f"--steps {steps}: give 1 to {checkpoint.schedule.timesteps}, the steps of the training")
    device = checkpoint.tokens.mean.device
    made = []
    for start in range(0, count, batch):
        seeds = [head_seed(seed, index) for index in range(start, min(start + batch, count))]
        noise = Noise(seeds, len(checkpoint.tokens.deviation), device)
        if sampler == "ddpm":
            clean = ddpm(checkpoint.denoiser, noise, checkpoint.schedule)
        else:
            clean = ddim(checkpoint.denoiser, noise, checkpoint.schedule, steps)
        made.append(checkpoint.tokens.decode(clean))
    return torch.cat(made)


def head_seed(seed: int, index: int) -> int:
    """Seed of head `index` of a run's seed; no two runs share heads."""
    return (seed << 32) + index


def write_meshes(named: Iterable[tuple[str, torch.Tensor]], field: Field, cube: Cube, out: Path, resolution: int,
                 suffix: Format = "ply", keep_islands: bool = False) -> tuple[list[trimesh.Trimesh], dict[str, str]]:
    """Decode named weights (P,) each to a file of its name below `out`; the meshes, and the failures by name."""
    named = list(named)
    meshes, failures = [], {}
    for name, weights in tqdm(named, desc="decoding", unit="head"):
        try:
            mesh = decode(field, weights, cube, resolution, keep_islands)
        except BadInput as error:
            failures[name] = str(error)
            continue
        path = out / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            mesh.export(unfinished, file_type=suffix)
        meshes.append(mesh)
    return meshes, failures
