"""What a prior is worth for few scans: generators of 16 to 128 heads, with it and without.

    python benchmarks/few_scans.py STORE PRIOR_STORE SCANS TEST OUT

STORE holds fits of SCANS at the default settings, PRIOR_STORE those of `overfit --prior`; TEST holds other heads of the
population. Models of the first heads of both are trained in OUT, and their samples are compared with the test heads and
with the heads that they were trained on. What was trained and measured before is kept.

How far samples move from the prior's population to the user's: the share of them whose nearest head, among the test
heads and as many samples of the prior, is a test head.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
import tyro
from columns import FEW_SCANS
from results_io import BenchmarkOptions, kept_row, metric_values, publish, run_benchmark

from hyperdiffusion import (
    Checkpoint,
    EvaluationConfig,
    ReferenceHeads,
    TrainingConfig,
    chamfer_distances,
    evaluate_meshes,
    sample,
    sample_point_clouds,
    train,
)
from overfit import DecodeConfig, RunContext, Store, decode_to_folder, find_scans, largest_component, read_prepared

# Points of a head when nearest heads are sought.
POINTS = 512


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """The fits, the heads, and how many."""

    store: tyro.conf.Positional[Path]
    """Store of fits without a prior."""

    prior_store: tyro.conf.Positional[Path]
    """Store of fits of the same scans that started from the included model."""

    scans: tyro.conf.Positional[Path]
    """Folder of these scans."""

    test: tyro.conf.Positional[Path]
    """Folder of test heads."""

    out: tyro.conf.Positional[Path]
    """Folder for models and for what was measured; the same command resumes."""

    counts: tuple[int, ...] = (16, 32, 64, 128)
    """Numbers of scans."""

    samples: int = 256
    """Samples of each model, and test heads."""

    resolution: int = 128
    """Grid on which samples are decoded."""

    training: TrainingConfig = TrainingConfig()
    """Training of the models."""

    evaluation: EvaluationConfig = EvaluationConfig(points=1024, emd_heads=0, standardised=False, efficientnet=False)
    """How samples are compared."""


@dataclass(frozen=True)
class Task:
    """What all rows share."""

    config: BenchmarkConfig
    """The settings."""
    context: RunContext
    """Cores and progress bars."""
    references: dict[int, ReferenceHeads] = field(default_factory=dict)
    """What was computed of the test heads, by the number of training heads."""

    @cached_property
    def test(self) -> list[trimesh.Trimesh]:
        """The test heads."""
        return [read_prepared(scan).mesh for scan in find_scans(self.config.test)[: self.config.samples]]

    @cached_property
    def prior_heads(self) -> list[trimesh.Trimesh | None]:
        """Samples of the prior."""
        return self.samples(Checkpoint.shipped(self.context.device), "prior")

    def reference(self, count: int) -> ReferenceHeads:
        """Return the test heads, and the first scans as training heads."""
        if count not in self.references:
            training = [read_prepared(scan).mesh for scan in find_scans(self.config.scans)[:count]]
            reference = ReferenceHeads.of(self.test, training, config=self.config.evaluation, context=self.context)
            self.references[count] = reference
        return self.references[count]

    def samples(self, model: Checkpoint, name: str) -> list[trimesh.Trimesh | None]:
        """Return samples of a model, repaired as `hyperdiffusion sample` does."""
        parameters = sample(model, self.config.samples)
        heads = [(f"{index:04d}", model.head(row)) for index, row in enumerate(parameters)]
        config = DecodeConfig(self.config.resolution, keep_all_components=True)
        decoded = decode_to_folder(heads, self.config.out / name, config=config, repair=True, context=self.context)
        return [head.mesh for head in decoded]

    def model(self, count: int, *, prior: bool) -> Checkpoint:
        """Return the model of the first scans; one that was trained before is read."""
        name = f"{'prior' if prior else 'alone'}_{count}"
        store = self.config.out / f"store_{name}"
        if not (store / "store.json").exists():
            _copy_first(self.config.prior_store if prior else self.config.store, store, count)
        return train(
            store,
            self.config.out / f"{name}.safetensors",
            config=self.config.training,
            prior=Checkpoint.shipped(self.context.device) if prior else None,
            machine=self.config.machine,
        )


def main(config: BenchmarkConfig) -> None:
    """Train the models and compare their samples."""
    config.out.mkdir(parents=True, exist_ok=True)
    task = Task(config, config.machine.start())
    rows = [_row(task, count, prior=prior) for count in config.counts for prior in (False, True)]
    publish("few_scans", FEW_SCANS, [_test_row(task), *rows], config)


def _row(task: Task, count: int, *, prior: bool) -> dict[str, Any]:
    name = f"{'prior' if prior else 'alone'}_{count}"
    found = kept_row(task.config.out / f"{name}.json", lambda: _measure(task, count, name, prior=prior))
    values = {column.key: found.get(column.key) for column in FEW_SCANS[1:]}
    return {"set": f"{count} scans, {'with' if prior else 'without'} the prior", **values}


def _test_row(task: Task) -> dict[str, Any]:
    """What no model can be better than: the test heads themselves."""
    path = task.config.out / "test.json"
    count = task.config.counts[-1]
    values = kept_row(path, lambda: metric_values(task.reference(count).metrics(context=task.context)))
    return {"set": "test scans", "diversity_mm": values["diversity_mm"], "copy_rate": values["copy_rate"]}


def _measure(task: Task, count: int, name: str, *, prior: bool) -> dict[str, Any]:
    model = task.model(count, prior=prior)
    meshes = task.samples(model, name)
    reference = task.reference(count)
    values = metric_values(evaluate_meshes(meshes, reference, name=name, context=task.context))
    test = metric_values(reference.metrics(context=task.context))
    return {
        **values,
        "test_nearest_training_mm": test["nearest_training_mm"],
        "of_users_population": _share_nearest(meshes, task.test, task.prior_heads, context=task.context),
        "dimensions": model.coordinates.size,
    }


def _share_nearest(meshes: list, test: list, others: list, *, context: RunContext) -> float:
    """The share of heads that are nearer to a test head than to all others."""
    clouds = [
        sample_point_clouds([mesh and largest_component(mesh) for mesh in heads], points=POINTS, seed=seed)
        for seed, heads in enumerate((meshes, test, others))
    ]
    to_test, to_others = (chamfer_distances(clouds[0], one, context=context).min(1) for one in clouds[1:])
    return float(np.mean(to_test < to_others))


def _copy_first(source: Path, target: Path, count: int) -> None:
    """Make a store of the first fits of another one."""
    store, fits = Store(source), Store(source).read()
    copy = Store.create(target, space=fits.space, settings=store.settings, prior=store.prior)
    copy.add(0, fits.parameters[:count], fits.records[:count])
    copy.merge()


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
