"""What a setting of the fit gives: error, normals, islands and the straightness of weight space, beside the default's.

    python benchmarks/fit_settings.py HEADS --count 4
    python benchmarks/fit_settings.py HEADS --count 4 --settings.fitting.rate 2e-3 --settings.fitting.steps 1200

HEADS is a folder of meshes in correspondence (`../shared/data/ict_heads/make_heads.py HEADS --count 64`): the mean of
two heads' vertices is then the true midpoint, with which the midpoint of their weights is compared.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
import tyro
from fit_quality import face_angle

from overfit import Cube, Machine, Settings, decode
from overfit.accuracy import surface_error
from overfit.batch import fit_batch, label_scan
from overfit.decode import bodies
from overfit.fit import fit
from overfit.occupancy import tensors
from overfit.scans import find, read


@dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    # Folder of meshes in correspondence.
    heads: tyro.conf.Positional[Path]
    # Heads to fit, after the first, from which they start.
    count: int = 4
    # Grid that fits are decoded on.
    resolution: int = 256
    # The settings beside the default.
    settings: Settings = Settings()


def measure(name: str, benchmark: Benchmark, settings: Settings) -> None:
    """Fit, decode, compare, and print a row."""
    scans = find(benchmark.heads)[:benchmark.count + 1]
    meshes = [read(scan) for scan in scans]
    cube = Cube.around(np.array([mesh.bounds for mesh in meshes]), settings.margin)
    cpu, fitting = torch.device("cpu"), settings.fitting
    start = settings.field.initial(torch.Generator().manual_seed(fitting.seed))
    first = tensors([label_scan(scans[0], cube, settings).fitted], cpu)
    base = fit(settings.field, start, *first, fitting, fitting.first_steps, fitting.rate)[0]
    begun = time.perf_counter()
    weights = fit_batch(scans[1:], base, cube, settings, cpu, lambda steps: None).weights
    seconds = (time.perf_counter() - begun) / benchmark.count
    rows, middles = [], []
    for row, truth in zip(weights, meshes[1:]):
        decoded = bodies(decode(settings.field, row, cube, benchmark.resolution, keep_islands=True))
        error = surface_error(decoded[0], truth, np.random.default_rng(0))
        rows.append([error.mean_mm, error.p95_mm, error.f1mm, error.normals, face_angle(decoded[0], truth),
                     len(decoded) == 1])
    for one in range(0, len(weights) - 1, 2):
        truth = trimesh.Trimesh((meshes[one + 1].vertices + meshes[one + 2].vertices) / 2, meshes[one + 1].faces,
                                process=False)
        middle = decode(settings.field, weights[one:one + 2].mean(0), cube, benchmark.resolution)
        middles.append(surface_error(middle, truth, np.random.default_rng(0)).mean_mm)
    figures = " | ".join(f"{figure:.3f}" for figure in np.mean(rows, axis=0))
    print(f"| {name} | {figures} | {np.mean(middles):.2f} | {seconds:.1f} |", flush=True)


def main(benchmark: Benchmark) -> None:
    """Print the table."""
    Machine(device="cpu", threads=1).use()
    print("| settings | mean, mm | 95 %, mm | F at 1 mm | normals | face, degrees | one body | midpoint, mm "
          "| s a head, one thread |")
    print("| --- " * 9 + "|")
    measure("default", benchmark, Settings())
    if benchmark.settings != Settings():
        measure("asked for", benchmark, benchmark.settings)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
