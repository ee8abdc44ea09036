"""Effect of stage 1's settings: error, normals, components and midpoints of fits, next to those of the default.

    python benchmarks/fit_settings.py HEADS --count 4
    python benchmarks/fit_settings.py HEADS --count 4 --settings.fit.lr 2e-3 --settings.fit.steps 1200

HEADS is a folder of meshes in correspondence: the mean of two heads' vertices is then their true midpoint, with which
the decoded mean of their parameters is compared.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
import tyro
from columns import FIT_SETTINGS
from fit_measures import align_scans, first_fit, fit_errors, mean_of, midpoint_errors
from results_io import BenchmarkOptions, publish, run_benchmark

from overfit import (
    AlignedScan,
    BatchSetup,
    HeadSpace,
    Machine,
    OverfitConfig,
    RunContext,
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
    context = benchmark.machine.start()
    rows = [{"settings": "default", **_measure(benchmark, benchmark.default, context)}]
    if benchmark.settings != benchmark.default:
        rows.append({"settings": "given", **_measure(benchmark, benchmark.settings, context)})
    publish("fit_settings", FIT_SETTINGS, rows, benchmark)


def _measure(benchmark: BenchmarkConfig, config: OverfitConfig, context: RunContext) -> dict[str, Any]:
    scans = find_scans(benchmark.heads)[: benchmark.count + 1]
    meshes = [read_prepared(scan).mesh for scan in scans]
    start = time.perf_counter()
    space, aligned = align_scans(scans, config, context)
    seconds_per_head = (time.perf_counter() - start) / len(scans)
    parameters, seconds = _fit(aligned, space, config)
    seconds_per_head += seconds / len(parameters)
    errors = [
        fit_errors(space.head(row), mesh, resolution=benchmark.resolution)
        for row, mesh in zip(parameters, meshes[1:], strict=True)
    ]
    midpoint_mm = _midpoint_error(space, parameters, meshes[1:], resolution=benchmark.resolution)
    return {**mean_of(errors), "midpoint_mm": midpoint_mm, "seconds_per_head": seconds_per_head}


def _fit(scans: Sequence[AlignedScan], space: HeadSpace, config: OverfitConfig) -> tuple[torch.Tensor, float]:
    """Return fits (heads, S) of all scans but the first, from which they start, and their time in seconds."""
    cpu = torch.device("cpu")
    base = first_fit(scans[0], space, config=config, device=cpu)
    start = time.perf_counter()
    parameters = fit_scan_batch(scans[1:], BatchSetup(base, space, config, cpu)).parameters
    return parameters, time.perf_counter() - start


def _midpoint_error(
    space: HeadSpace, parameters: torch.Tensor, scans: Sequence[trimesh.Trimesh], *, resolution: int
) -> float | None:
    """Return the mean error in mm of the midpoints of pairs; None if no pair is in correspondence."""
    errors = []
    for i in range(0, len(parameters) - 1, 2):
        middle = space.head((parameters[i] + parameters[i + 1]) / 2)
        errors.append(midpoint_errors(middle, (scans[i], scans[i + 1]), resolution=resolution))
    found = [error["mean_mm"] for error in errors if error is not None]
    return float(np.mean(found)) if found else None


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
