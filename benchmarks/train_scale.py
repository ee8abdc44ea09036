"""Training from a store that is larger than the memory allowed.

    python benchmarks/train_scale.py WORK --heads 100000 --gib 4

Fills a store below WORK with noise instead of fits, 0.15 MB per head, and trains a few steps on it in a process whose
own memory (RLIMIT_DATA: everything but mapped files) is limited. Needs Linux.
"""

import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from columns import TRAIN_SCALE
from results_io import BenchmarkOptions, publish, run_benchmark
from tqdm import tqdm

from overfit import Cube, Field, FitRecord, HeadSpace, Store

# Heads that are added to the store at once.
HEADS_AT_ONCE = 1024
# Optimizer steps of the training.
STEPS = 50
# Heads from which principal components are computed.
MAX_LATENT_HEADS = 512
# Rank of what the heads have in common, and the scale of their weights.
SHARED_RANK = 32
WEIGHT_SCALE = 0.01


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """How large the store and the memory are."""

    work: tyro.conf.Positional[Path]
    """Folder for the store and the model; a store that is there is used again."""

    heads: int = 100_000
    """Heads in the store."""

    gib: float = 4.0
    """Memory limit of the training in GiB."""

    coordinates: Literal["pca", "scaled", "raw"] = "pca"
    """Coordinates in which the model is trained."""

    steps: int = STEPS
    """Optimizer steps."""


def main(config: BenchmarkConfig) -> None:
    """Fill the store and train."""
    store = _filled_store(config.work / "store", config.heads)
    model = config.work / f"{config.coordinates}.safetensors"
    model.unlink(missing_ok=True)
    limit = int(config.gib * 2**30)
    options = [
        *("--coordinates", config.coordinates, "--steps", str(config.steps)),
        *("--max-latent-heads", str(MAX_LATENT_HEADS), "--sample-every", "1000"),
        *("--device", config.machine.device, "--threads", str(config.machine.threads)),
    ]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "hyperdiffusion", "train", store.folder, model, *options],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
    seconds = time.perf_counter() - start
    size = sum(os.path.getsize(path) for path in store.folder.rglob("*.safetensors"))
    row = {
        "heads": len(store.rows()),
        "store_gib": size / 2**30,
        "memory_gib": config.gib,
        "steps": config.steps,
        "seconds": seconds,
        "succeeded": "no" if done.returncode else "yes",
    }
    publish("train_scale", TRAIN_SCALE, [row], config)


def _filled_store(folder: Path, heads: int) -> Store:
    """Return a store of random heads; one that is there is taken."""
    if (folder / "store.json").exists():
        return Store(folder)
    field = Field()
    store = Store.create(folder, space=HeadSpace(field, Cube((0.0, 0.0, 0.0), 150.0)), settings={})
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(SHARED_RANK, field.size, generator=generator)
    for start in tqdm(range(0, heads, HEADS_AT_ONCE), desc="filling the store", unit="part"):
        count = min(HEADS_AT_ONCE, heads - start)
        own = torch.randn(count, field.size, generator=generator)
        weights = torch.randn(count, SHARED_RANK, generator=generator) @ shared + own
        names = [f"{index:07d}" for index in range(start, start + count)]
        store.add(
            start // HEADS_AT_ONCE, WEIGHT_SCALE * weights, [FitRecord(name, name, 1.0, 0.1, 0.1, 1) for name in names]
        )
        store.merge()
    return store


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
