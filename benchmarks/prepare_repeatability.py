"""Repeatability of preparation: a head model in, how far apart two corruptions of each of its heads are prepared out.

    python benchmarks/prepare_repeatability.py ../shared/data/ict_heads/make_heads.py OUT

The face of the head without corruption is aligned with both prepared heads by rigid ICP. The rotation is the one
between the two, the distance that between the same points of the face. Scans and prepared heads are kept in OUT, and
the same command resumes.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import trimesh
import tyro
from columns import PREPARE_QUALITY
from prepare_quality import aligned_face, error_row
from results_io import BenchmarkOptions, publish, run_benchmark
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from overfit import BadInput, prepare

# How the heads of the model become random ones, as its script draws them: standard deviation of the identity's weights.
IDENTITY_SCALE = 0.9
MM_PER_UNIT = 10.0
CORRUPTIONS = ("first", "second")
# What is asked of nineteen heads in twenty.
ROTATION_BOUND_DEG = 3.0
DISTANCE_BOUND_MM = 2.0


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """Which heads are corrupted."""

    model: tyro.conf.Positional[Path]
    """The head model's script: it has a class HeadModel and a function scanlike, which corrupts a head."""

    out: tyro.conf.Positional[Path]
    """Folder for scans and prepared heads."""

    count: int = 64
    """Heads."""

    first: int = 400_000
    """Number of the first identity, which is its seed."""


def main(config: BenchmarkConfig) -> None:
    """Corrupt, prepare and compare."""
    script = _load(config.model)
    model = script.HeadModel()
    clean = {}
    for identity in range(config.first, config.first + config.count):
        name = f"head_{identity}.ply"
        vertices, faces = _head(model, identity)
        for seed, corruption in enumerate(CORRUPTIONS):
            path = config.out / corruption / name
            if not path.exists():
                scan = script.scanlike(vertices, faces, np.random.default_rng([identity, seed]))
                path.parent.mkdir(parents=True, exist_ok=True)
                trimesh.Trimesh(*scan, process=False).export(path)
        clean[name] = trimesh.Trimesh(MM_PER_UNIT * vertices, faces, process=False)
    skipped = set[str]()
    for corruption in CORRUPTIONS:
        result = prepare(config.out / corruption, config.out / f"{corruption}_prepared", machine=config.machine)
        skipped |= set(clean) - {head.name for head in result.heads}
    kept = [name for name in clean if name not in skipped]
    if not kept:
        raise BadInput(f"{config.out}: no head was prepared twice; read {CORRUPTIONS[0]}_prepared/prepared.csv")
    errors = [_compare(config.out, name, clean[name]) for name in tqdm(kept, desc="comparing", unit="head")]
    angles, distances = np.transpose(errors)
    print(f"{len(clean)} heads, {len(skipped)} skipped\n")
    rows = [
        error_row("rotation between the two, degrees", angles, bound=ROTATION_BOUND_DEG, scans=len(clean)),
        error_row("distance on the face, mm", distances, bound=DISTANCE_BOUND_MM, scans=len(clean)),
    ]
    publish("prepare_repeatability", PREPARE_QUALITY, rows, config)


def _load(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None or not script.exists():
        raise BadInput(f"{script}: not a Python file; give the head model's script")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _head(model: Any, identity: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a head with a neutral expression."""
    weights = IDENTITY_SCALE * np.random.default_rng(identity).standard_normal(len(model.identity))
    return model.mesh(weights, np.zeros(len(model.expression)))


def _compare(out: Path, name: str, clean: trimesh.Trimesh) -> tuple[float, float]:
    """Return the rotation in degrees and the distance in mm between two prepared corruptions of a head."""
    first, second = (
        aligned_face(clean, trimesh.load_mesh(out / f"{corruption}_prepared" / name, process=False))[1]
        for corruption in CORRUPTIONS
    )
    rotation, _ = Rotation.align_vectors(first - first.mean(0), second - second.mean(0))
    return float(np.degrees(rotation.magnitude())), float(np.linalg.norm(first - second, axis=1).mean())


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
