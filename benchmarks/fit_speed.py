"""Time per head at equal surface error: our fits next to the published ones, on the same heads and machine.

    python benchmarks/fit_speed.py HEADS
    python benchmarks/fit_speed.py HEADS --device cuda

Both start from a network that was fitted to the first head in their own way; alignment and labels are included, the
first fit is not.
The published method (preset `paper`) fits one network at a time with all threads, in float32 with Adam and a plateau
schedule; ours fits several heads at once in the workers that `hyperdiffusion overfit` uses. Neither is repaired: the
published method has no repair, and unfinished fits have much to repair. Each is stopped after several numbers of steps.
The second table tells how many times faster ours reaches the errors of the published method, by linear interpolation
between our errors.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from columns import FIT_SPEED, SPEED_UP
from fit_measures import align_scans, first_fit
from results_io import BenchmarkOptions, publish, run_benchmark
from tables import markdown_table

from overfit import (
    BATCH_SIZE,
    PRESETS,
    AlignedScan,
    BatchSetup,
    DecodeConfig,
    NeuralHead,
    OverfitConfig,
    RunContext,
    Scan,
    decode,
    find_scans,
    fit_scan_batch,
    read_prepared,
    run_tasks_in_order,
    surface_error,
)

# Heads of each method whose error is measured.
MEASURED = 4


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """Which heads are fitted, and for how long."""

    heads: tyro.conf.Positional[Path]
    """Folder of heads; the first one gives the networks from which the others start."""

    published_heads: int = 1
    """Heads that the published method fits."""

    our_heads: int = 0
    """Heads that our method fits; 0 takes one batch per worker."""

    published_steps: tuple[int, ...] = (1000, 2000, 4000, 8000, 16000)
    """Steps after which the published method is measured, in ascending order."""

    our_steps: tuple[int, ...] = (150, 300, 600, 1200, 2000)
    """Steps after which ours is measured, in ascending order."""

    published: OverfitConfig = PRESETS["paper"]
    """Settings of the published method; its first fit has as many steps as its longest fits."""

    ours: OverfitConfig = OverfitConfig()
    """Settings of our method."""

    resolution: int = 256
    """Grid on which fits are decoded."""


@dataclass(frozen=True)
class Method:
    """A way to fit heads."""

    name: str
    config: OverfitConfig
    steps: Sequence[int]
    heads: int
    batch_size: int


def main(config: BenchmarkConfig) -> None:
    """Measure both methods and compare them."""
    context = config.machine.start()
    batch_size = BATCH_SIZE[context.device.type]
    published_fit = replace(config.published.fit, first_steps=config.published_steps[-1])
    published = replace(config.published, fit=published_fit)
    our_heads = config.our_heads or max(2, context.cores) * batch_size
    methods = (
        Method("published", published, config.published_steps, config.published_heads, 1),
        Method("ours", config.ours, config.our_steps, our_heads, batch_size),
    )
    scans = find_scans(config.heads)[: 1 + max(method.heads for method in methods)]
    rows = [row for method in methods for row in _measure(method, scans, resolution=config.resolution, context=context)]
    publish("fit_speed", FIT_SPEED, rows, config)
    print(f"\n{markdown_table(SPEED_UP, speed_ups(rows))}")


def speed_ups(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how many times faster ours reaches each error of the published method; empty where it does not."""
    ours = sorted((row for row in rows if row["method"] == "ours"), key=lambda row: row["mean_mm"])
    errors, times = [row["mean_mm"] for row in ours], [row["seconds_per_head"] for row in ours]
    found = []
    for row in rows:
        if row["method"] != "published":
            continue
        compared = {"mean_mm": row["mean_mm"], "published_seconds": row["seconds_per_head"]}
        if errors[0] <= row["mean_mm"]:
            seconds = float(np.interp(row["mean_mm"], errors, times))
            compared |= {"our_seconds": seconds, "speed_up": row["seconds_per_head"] / seconds}
        found.append(compared)
    return found


def _measure(method: Method, scans: Sequence[Scan], *, resolution: int, context: RunContext) -> list[dict[str, Any]]:
    config = replace(method.config, max_error_mm=np.inf, repair=False)
    start = time.perf_counter()
    space, aligned = align_scans(scans, config, context)
    aligning = (time.perf_counter() - start) / len(scans)
    base = first_fit(aligned[0], space, config=config, device=context.device)
    rows = []
    for steps in method.steps:
        stopped = replace(config, fit=replace(config.fit, steps=steps))
        start = time.perf_counter()
        parameters = _fit(
            method, aligned[1 : 1 + method.heads], BatchSetup(base, space, stopped, context.device), context
        )
        seconds = aligning + (time.perf_counter() - start) / len(parameters)
        errors = [
            _error(space.head(row), scan, resolution)
            for row, scan in zip(parameters[:MEASURED], scans[1:], strict=False)
        ]
        rows.append(
            {
                "method": method.name,
                "steps": f"{steps} x {config.fit.points_per_step}",
                "mean_mm": float(np.mean(errors)),
                "seconds_per_head": seconds,
                "heads_per_hour": 3600 / seconds,
            }
        )
    return rows


def _fit(method: Method, scans: Sequence[AlignedScan], setup: BatchSetup, context: RunContext) -> torch.Tensor:
    """Return the fits (heads, S): the published ones one after another, ours in the workers of `overfit`."""
    batches = [scans[start : start + method.batch_size] for start in range(0, len(scans), method.batch_size)]
    tasks = [(batch, setup) for batch in batches]
    cores = 1 if method.batch_size == 1 else max(2, context.cores)
    return torch.cat(
        [batch.parameters for batch in run_tasks_in_order(fit_scan_batch, tasks, replace(context, cores=cores))]
    )


def _error(head: NeuralHead, scan: Scan, resolution: int) -> float:
    decoded = decode(head, DecodeConfig(resolution))
    return surface_error(decoded, read_prepared(scan).mesh, rng=np.random.default_rng(0)).mean_mm


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
