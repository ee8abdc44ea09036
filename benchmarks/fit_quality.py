"""Quality of the fits in a store: each is compared with its scan, and midpoints of pairs with true midpoints.

    hyperdiffusion overfit HEADS STORE --prepared
    python benchmarks/fit_quality.py HEADS STORE
    python benchmarks/fit_quality.py HEADS STORE --reference OTHERS     # and 1-NNA against heads that were never fitted

If the scans are in correspondence, the mean of two heads' vertices is their true midpoint; the decoded mean of their
parameters is compared with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
import tyro
from columns import FIT_MIDPOINTS, FIT_NEIGHBOURS, FIT_QUALITY
from fit_measures import mean_of, measure_fit, midpoint, midpoint_errors
from results_io import BenchmarkOptions, run_benchmark, write_result
from tables import markdown_table

from hyperdiffusion import chamfer_distances, compare_sets, sample_point_clouds, write_contact_sheet
from overfit import (
    DecodeConfig,
    Fits,
    Machine,
    NeuralHead,
    RunContext,
    Scan,
    Store,
    decode,
    find_scans,
    read_prepared,
    run_tasks_in_order,
)

# Heads in the picture, pixels of a view, and by how many degrees heads are turned.
SHOWN = 8
VIEW_SIZE = 512
YAWS = (0.0,)
# Values of which the smallest is the worst.
HIGHER_IS_BETTER = ("f1mm", "normals", "one_component")
# Seeds of the point clouds of fits and of the reference.
FIT_SEED = 0
REFERENCE_SEED = 1


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """Which fits are measured, and how."""

    scans: tyro.conf.Positional[Path]
    """Folder of the scans that the store was made from."""

    store: tyro.conf.Positional[Path]
    """Store of the fits."""

    reference: Path | None = None
    """Folder of heads that were not fitted; fits and scans are compared with them by 1-NNA."""

    count: int = 0
    """Number of fits to measure; 0 takes all."""

    resolution: int = 256
    """Grid on which fits are decoded."""

    picture: Path | None = None
    """File for a picture of the first eight scans above their fits."""

    machine: tyro.conf.OmitArgPrefixes[Machine] = Machine(device="cpu")
    """The computer's resources."""


def main(config: BenchmarkConfig) -> None:
    """Measure the fits and print the tables."""
    context = config.machine.start()
    fits = Store(config.store).read()
    count = min(config.count or len(fits.records), len(fits.records))
    by_name = {scan.name: scan for scan in find_scans(config.scans)}
    scans = [by_name[record.name] for record in fits.records[:count]]
    rows = _quality_rows(fits, scans, config, context)
    print(f"{count} fits at {config.resolution}^3\n\n{markdown_table(FIT_QUALITY, rows)}")
    for columns, more in (
        (FIT_MIDPOINTS, _midpoint_rows(fits, scans, config, context)),
        (FIT_NEIGHBOURS, _neighbour_rows(fits, scans, config, context)),
    ):
        if more:
            print(f"\n{markdown_table(columns, more)}", flush=True)
            rows += more
    if config.picture:
        _draw(fits, scans[:SHOWN], config, config.picture)
    write_result("fit_quality", rows, config)


def _quality_rows(
    fits: Fits, scans: Sequence[Scan], config: BenchmarkConfig, context: RunContext
) -> list[dict[str, Any]]:
    tasks = [(fits.head(index), scan, config.resolution) for index, scan in enumerate(scans)]
    with context.progress(len(tasks), "measuring", "fit") as bar:
        measured = run_tasks_in_order(measure_fit, tasks, context, bar=bar)
    values = {key: np.array([one[key] for one in measured]) for key in measured[0]}
    worst = {key: float(array.min() if key in HIGHER_IS_BETTER else array.max()) for key, array in values.items()}
    medians = {key: float(np.median(array)) for key, array in values.items()}
    return [{"fits": "mean", **mean_of(measured)}, {"fits": "median", **medians}, {"fits": "worst", **worst}]


def _midpoint_rows(
    fits: Fits, scans: Sequence[Scan], config: BenchmarkConfig, context: RunContext
) -> list[dict[str, Any]]:
    """Return one row, or none if the scans are not in correspondence."""
    pairs = list(zip(range(0, len(scans) - 1, 2), range(1, len(scans), 2), strict=True))
    tasks = [(midpoint(fits, a, b), (scans[a], scans[b]), config.resolution) for a, b in pairs]
    with context.progress(len(tasks), "midpoints", "pair") as bar:
        found = run_tasks_in_order(_measure_midpoint, tasks, context, bar=bar)
    errors = [one for one in found if one is not None]
    if not errors:
        return []
    mean = mean_of(errors)
    return [{"pairs": len(errors), "midpoint_mm": mean["mean_mm"], "one_component": mean["one_component"]}]


def _measure_midpoint(head: NeuralHead, scans: tuple[Scan, Scan], resolution: int) -> dict[str, float] | None:
    meshes = (read_prepared(scans[0]).mesh, read_prepared(scans[1]).mesh)
    return midpoint_errors(head, meshes, resolution=resolution)


def _neighbour_rows(
    fits: Fits, scans: Sequence[Scan], config: BenchmarkConfig, context: RunContext
) -> list[dict[str, Any]]:
    """Return the 1-NNA of the fits and of their scans against heads that were not fitted, if there are any."""
    if config.reference is None:
        return []
    reference = [read_prepared(scan).mesh for scan in find_scans(config.reference)]
    tasks = [(fits.head(index), config.resolution) for index in range(len(scans))]
    with context.progress(len(tasks), "decoding", "fit") as bar:
        decoded = run_tasks_in_order(_decoded, tasks, context, bar=bar)
    sets = {"training fits": decoded, "training scans": [read_prepared(scan).mesh for scan in scans]}
    return [{"set": name, "one_nna_chamfer": _one_nna(meshes, reference, context)} for name, meshes in sets.items()]


def _decoded(head: NeuralHead, resolution: int) -> trimesh.Trimesh:
    return decode(head, DecodeConfig(resolution))


def _one_nna(
    meshes: Sequence[trimesh.Trimesh], reference: Sequence[trimesh.Trimesh], context: RunContext
) -> dict[str, float]:
    """Return the 1-NNA of two sets by Chamfer distance, with its interval."""
    clouds = sample_point_clouds(meshes, seed=FIT_SEED)
    others = sample_point_clouds(reference, seed=REFERENCE_SEED)
    within = chamfer_distances(clouds, clouds, context=context, description="Chamfer")
    across = chamfer_distances(clouds, others, context=context, description="Chamfer, to the reference")
    among = chamfer_distances(others, others, context=context, description="Chamfer, reference")
    estimate = compare_sets(within, across, within_test=among).one_nna
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}


def _draw(fits: Fits, scans: Sequence[Scan], config: BenchmarkConfig, path: Path) -> None:
    decoded = [_decoded(fits.head(index), config.resolution) for index in range(len(scans))]
    rows = [("scans", [read_prepared(scan).mesh for scan in scans]), ("fits", decoded)]
    write_contact_sheet(rows, path, size=VIEW_SIZE, yaws=YAWS)


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
