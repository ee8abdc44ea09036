"""What alignment does for fits and for generated heads: the same scans and test heads with each kind of alignment.

    python benchmarks/alignment.py SCANS TEST OUT                               # warp and none
    python benchmarks/alignment.py SCANS TEST OUT --variants none similarity warp-80 warp-200 warp-400

SCANS and TEST hold prepared heads. Stores, models, samples and metrics of each variant are kept in OUT, and the same
command resumes. Samples are measured as they are drawn, without repair. Prints a table, and writes a picture of test
heads above the first samples of each variant.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import trimesh
import tyro
from columns import ALIGNMENT
from fit_measures import mean_of, measure_fit, midpoint, midpoint_errors
from results_io import BenchmarkOptions, kept_row, metric_values, publish, run_benchmark

from hyperdiffusion import (
    EvaluationConfig,
    ReferenceHeads,
    SamplingConfig,
    SetMetrics,
    TrainingConfig,
    evaluate_meshes,
    sample,
    train,
    write_contact_sheet,
)
from overfit import (
    AlignmentConfig,
    DecodeConfig,
    FitConfig,
    Fits,
    Machine,
    NeuralHead,
    OverfitConfig,
    RunContext,
    Scan,
    Store,
    connected_components,
    decode,
    decode_to_folder,
    find_scans,
    overfit,
    read_prepared,
    run_tasks_in_order,
)

# Heads in each row of the picture, pixels of a view, and by how many degrees heads are turned.
SHOWN = 8
VIEW_SIZE = 512
YAWS = (0.0, 35.0)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """Which alignments are compared, and how."""

    scans: tyro.conf.Positional[Path]
    """Folder of the training heads."""

    test: tyro.conf.Positional[Path]
    """Folder of the test heads."""

    out: tyro.conf.Positional[Path]
    """Folder for stores, models, samples, metrics and the picture."""

    variants: tuple[str, ...] = ("warp", "none")
    """Alignments: none, similarity, warp, or warp-K with K control points."""

    steps: int = 0
    """Steps of a fit; 0 takes the default of each alignment."""

    heads: int = 0
    """Training heads, the first of SCANS; 0 takes all."""

    count: int = 256
    """Samples, and test heads."""

    pairs: int = 128
    """Pairs of fits whose midpoints are decoded."""

    timed: int = 16
    """Heads, of the first ones, that are fitted once more on one thread to be timed; 0 for none."""

    resolution: int = 256
    """Grid on which samples are decoded, and fits and midpoints measured: that of `hyperdiffusion sample`. At 128 thin
    rims fray, of fits too."""

    sampling: SamplingConfig = SamplingConfig()
    """How heads are sampled."""

    training: TrainingConfig = TrainingConfig()
    """Training of stage 2."""

    evaluation: EvaluationConfig = EvaluationConfig(emd_heads=0, standardised=False)
    """How samples are compared with the test heads."""


@dataclass(frozen=True)
class Task:
    """What every variant gets."""

    config: BenchmarkConfig
    scans: list[Scan]
    test: list[trimesh.Trimesh]
    context: RunContext

    @cached_property
    def training(self) -> list[trimesh.Trimesh]:
        """The training heads."""
        return [read_prepared(scan).mesh for scan in self.scans]

    @cached_property
    def reference(self) -> ReferenceHeads:
        """The test heads and the training heads, prepared for comparisons."""
        return ReferenceHeads.of(self.test, self.training, config=self.config.evaluation, context=self.context)


@dataclass(frozen=True)
class Variant:
    """One kind of alignment. Nothing is made for it that was measured before."""

    task: Task
    """What every variant gets."""
    name: str
    """Its name on the command line."""

    @property
    def config(self) -> OverfitConfig:
        """How its networks are fitted."""
        kind, _, count = self.name.partition("-")
        alignment = AlignmentConfig(kind, int(count)) if count else AlignmentConfig(kind)
        return OverfitConfig(alignment=alignment, fit=FitConfig(steps=self.task.config.steps))

    @cached_property
    def store(self) -> Path:
        """The folder of its fits."""
        folder = self.task.config.out / self.name
        overfit(self.task.scans, folder, config=self.config, machine=self.task.config.machine)
        return folder

    @cached_property
    def fits(self) -> Fits:
        """Its fits."""
        return Store(self.store).read()

    def samples(self) -> list[trimesh.Trimesh | None]:
        """The first samples with all their components; those on disk are read."""
        config = self.task.config
        if all(path.exists() for path in self._sample_paths):
            return _read_meshes(self._sample_paths)
        model = train(
            self.store, config.out / f"{self.name}.safetensors", config=config.training, machine=config.machine
        )
        rows = sample(model, config.count, config=config.sampling)
        named = [(path.stem, model.head(row)) for path, row in zip(self._sample_paths, rows)]
        decoding = DecodeConfig(config.resolution, keep_all_components=True)
        folder = self._sample_paths[0].parent
        heads = decode_to_folder(named, folder, config=decoding, context=self.task.context)
        return [head.mesh for head in heads]

    def row(self) -> dict[str, Any]:
        """Its row of the table."""
        row = {
            "set": self.name,
            **self._kept("fits", lambda: _fit_row(self.task, self.fits)),
            **self._kept("midpoints", lambda: _midpoint_row(self.task, self.fits)),
        }
        if self.task.config.timed:
            row |= self._kept("time", lambda: _time_row(self.task, self.config))
        return row | self._kept("samples", lambda: _sample_row(self.task, self.samples()))

    def shown(self) -> list[trimesh.Trimesh]:
        """The first samples, for the picture."""
        return _read_meshes([path for path in self._sample_paths[:SHOWN] if path.exists()])

    @property
    def _sample_paths(self) -> list[Path]:
        folder = self.task.config.out / f"{self.name}.heads"
        return [folder / f"{index:04d}.ply" for index in range(self.task.config.count)]

    def _kept(self, measured: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return kept_row(self.task.config.out / f"{self.name}.{measured}.json", measure)


def main(config: BenchmarkConfig) -> None:
    """Fit, train, sample and compare for each variant."""
    config.out.mkdir(parents=True, exist_ok=True)
    scans = find_scans(config.scans)[: config.heads or None]
    test = [read_prepared(scan).mesh for scan in find_scans(config.test)[: config.count]]
    task = Task(config, scans, test, config.machine.start())
    rows = [
        kept_row(config.out / "test.json", partial(_test_row, task)),
        kept_row(config.out / "training.json", partial(_training_row, task)),
    ]
    variants = [Variant(task, name) for name in config.variants]
    rows += [variant.row() for variant in variants]
    pictured = [("test heads", test[:SHOWN]), *((variant.name, variant.shown()) for variant in variants)]
    write_contact_sheet(pictured, config.out / "alignment.png", size=VIEW_SIZE, yaws=YAWS)
    publish("alignment", ALIGNMENT, rows, config)


def _read_meshes(paths: Sequence[Path]) -> list[trimesh.Trimesh]:
    return [trimesh.load_mesh(path, process=False) for path in paths]


def _fit_row(task: Task, fits: Fits) -> dict[str, Any]:
    """Errors of all fits against their scans."""
    by_name = {scan.name: scan for scan in task.scans}
    tasks = [
        (fits.head(index), by_name[record.name], task.config.resolution) for index, record in enumerate(fits.records)
    ]
    with task.context.progress(len(tasks), "measuring", "fit") as bar:
        measured = run_tasks_in_order(measure_fit, tasks, task.context, bar=bar)
    mean = mean_of(measured)
    worst = max(one["mean_mm"] for one in measured)
    return {"mean_mm": mean["mean_mm"], "worst_mm": worst, "face_angle_deg": mean["face_angle_deg"]}


def _midpoint_row(task: Task, fits: Fits) -> dict[str, Any]:
    """Components of decoded midpoints of pairs of fits, and their error where the scans are in correspondence."""
    by_name = {scan.name: scan for scan in task.scans}
    pairs = [(index, index + 1) for index in range(0, len(fits.records) - 1, 2)][: task.config.pairs]
    tasks = [
        (
            midpoint(fits, a, b),
            (by_name[fits.records[a].name], by_name[fits.records[b].name]),
            task.config.resolution,
        )
        for a, b in pairs
    ]
    with task.context.progress(len(tasks), "midpoints", "pair") as bar:
        found = run_tasks_in_order(_measure_midpoint, tasks, task.context, bar=bar)
    errors = [one["midpoint_mm"] for one in found if "midpoint_mm" in one]
    row = {"midpoint_one_component": float(np.mean([one["one_component"] for one in found]))}
    return row | ({"midpoint_mm": float(np.mean(errors))} if errors else {})


def _measure_midpoint(head: NeuralHead, scans: tuple[Scan, Scan], resolution: int) -> dict[str, float]:
    meshes = (read_prepared(scans[0]).mesh, read_prepared(scans[1]).mesh)
    errors = midpoint_errors(head, meshes, resolution=resolution)
    if errors is None:
        components = connected_components(decode(head, DecodeConfig(resolution, keep_all_components=True)))
        return {"one_component": float(len(components) == 1)}
    return {"one_component": errors["one_component"], "midpoint_mm": errors["mean_mm"]}


def _time_row(task: Task, config: OverfitConfig) -> dict[str, Any]:
    """Seconds of one thread for a head: aligned, labelled, fitted, repaired and measured, without the first fit."""
    # Not with the second run resumed from the first: unaligned heads lie in a cube around those of the first run.
    count = 1 + task.config.timed
    (heads, seconds), (first, first_seconds) = (_timed_fits(task.scans[:end], config) for end in (count, 1))
    return {"seconds_per_head": (seconds - first_seconds) / (heads - first)}


def _timed_fits(scans: Sequence[Scan], config: OverfitConfig) -> tuple[int, float]:
    """How many scans were fitted by one thread, and the seconds that they took together."""
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = overfit(scans, folder, config=config, machine=Machine(device="cpu", threads=1))
        return len(result.fitted), time.perf_counter() - start


def _sample_row(task: Task, samples: Sequence[trimesh.Trimesh | None]) -> dict[str, Any]:
    return _values(evaluate_meshes(samples, task.reference, context=task.context))


def _training_row(task: Task) -> dict[str, Any]:
    """As many training heads as there are test heads: what samples can reach."""
    heads = task.training[: task.config.count]
    metrics = evaluate_meshes(heads, task.reference, name="training", measure_novelty=False, context=task.context)
    return {"set": "training scans", **_values(metrics)}


def _test_row(task: Task) -> dict[str, Any]:
    return {"set": "test scans", **_values(task.reference.metrics(context=task.context))}


def _values(metrics: SetMetrics) -> dict[str, Any]:
    """The metrics of a set that the table shows."""
    values = metric_values(metrics)
    return {column.key: values[column.key] for column in ALIGNMENT if column.key in values}


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
