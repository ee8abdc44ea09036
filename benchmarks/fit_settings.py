"""Effect of stage 1's settings: error, normals, components and midpoints of fits, next to those of the default.

    python benchmarks/fit_settings.py HEADS --count 4
    python benchmarks/fit_settings.py HEADS --count 4 --settings.fit.lr 2e-3 --settings.fit.steps 1200

HEADS is a folder of meshes in correspondence: the mean of two heads' vertices is then their true midpoint, with which
the decoded mean of their weights is compared.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
import tyro
from columns import FIT_SETTINGS
from fit_measures import first_fit, fit_errors, mean_of, midpoint_errors
from results_io import BenchmarkOptions, publish, run_benchmark

from overfit import (
    BatchSetup,
    Cube,
    Machine,
    NeuralHead,
    OverfitConfig,
    Scan,
    find_scans,
    fit_scan_batch,
    read_prepared,
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """Which settings are measured, and on what."""

    heads: tyro.conf.Positional[Path]
    """Folder of meshes in correspondence."""

    count: int = 4
    """Heads to fit, after the first one, from which they start."""

    resolution: int = 256
    """Grid on which fits are decoded."""

    default: OverfitConfig = OverfitConfig()
    """Settings of the first row."""

    settings: OverfitConfig = OverfitConfig()
    """Settings of the second row, if they differ from the first row's."""

    machine: tyro.conf.OmitArgPrefixes[Machine] = Machine(device="cpu", threads=1)
    """The computer's resources."""


def main(benchmark: BenchmarkConfig) -> None:
    """Measure the default and the given settings."""
    benchmark.machine.start()
    rows = [{"settings": "default", **_measure(benchmark, benchmark.default)}]
    if benchmark.settings != benchmark.default:
        rows.append({"settings": "given", **_measure(benchmark, benchmark.settings)})
    publish("fit_settings", FIT_SETTINGS, rows, benchmark)


def _measure(benchmark: BenchmarkConfig, config: OverfitConfig) -> dict[str, Any]:
    scans = find_scans(benchmark.heads)[: benchmark.count + 1]
    meshes = [read_prepared(scan).mesh for scan in scans]
    cube = Cube.around(np.array([mesh.bounds for mesh in meshes]), config.margin)
    heads, seconds = _fit(scans, cube, config)
    errors = [
        fit_errors(head, mesh, resolution=benchmark.resolution) for head, mesh in zip(heads, meshes[1:], strict=True)
    ]
    midpoint_mm = _midpoint_error(heads, meshes[1:], resolution=benchmark.resolution)
    return {**mean_of(errors), "midpoint_mm": midpoint_mm, "seconds_per_head": seconds / len(heads)}


def _fit(scans: Sequence[Scan], cube: Cube, config: OverfitConfig) -> tuple[list[NeuralHead], float]:
    """Return fits of all scans but the first, from which they start, and their time in seconds."""
    cpu = torch.device("cpu")
    base = first_fit(scans[0], cube, config=config, device=cpu)
    start = time.perf_counter()
    weights = fit_scan_batch(scans[1:], BatchSetup(base, cube, config, cpu)).weights
    seconds = time.perf_counter() - start
    return [NeuralHead(config.field, cube, row) for row in weights], seconds


def _midpoint_error(heads: Sequence[NeuralHead], scans: Sequence[trimesh.Trimesh], *, resolution: int) -> float | None:
    """Return the mean error in mm of the midpoints of pairs; None if no pair is in correspondence."""
    errors = []
    for i in range(0, len(heads) - 1, 2):
        middle = replace(heads[i], weights=(heads[i].weights + heads[i + 1].weights) / 2)
        errors.append(midpoint_errors(middle, (scans[i], scans[i + 1]), resolution=resolution))
    found = [error["mean_mm"] for error in errors if error is not None]
    return float(np.mean(found)) if found else None


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
