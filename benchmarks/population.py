"""What each part of the denoiser is worth on heads with factors: hair, beards, glasses, headwear.

    hyperdiffusion heads SCANS --count 1024 --without cap+thick --without curly+full
    hyperdiffusion heads TEST --count 256 --seed 1 --without cap+thick --without curly+full
    python benchmarks/population.py SCANS TEST OUT --withheld cap+thick curly+full

Fits SCANS, learns one latent space, and compares generators in it: the best Gaussian mixture of up to 32 components,
independent components, and the transformer on top of each start; with `--model CHECKPOINT` also a model of the same
fits that knows their attributes. The fits themselves say what no generator of them can better. A classifier of rendered
normal maps, trained on the training heads and checked on the test heads, tells which factors heads show. Everything
made is kept in OUT, and the same command resumes. Prints a table and writes a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import trimesh
import tyro
from columns import POPULATION
from denoiser import finish
from head_classifier import FACTORS, HeadClassifier, KnownAttributes, render_views
from jaxtyping import Int
from results_io import BenchmarkOptions, kept_row, metric_values, publish, run_benchmark

from hyperdiffusion import (
    Checkpoint,
    EvaluationConfig,
    ReferenceHeads,
    SamplingConfig,
    TrainingConfig,
    evaluate_meshes,
    sample,
    write_contact_sheet,
)
from hyperdiffusion.diffusion.checkpoint import TrainingRecord
from hyperdiffusion.diffusion.encode_store import EncodedStore, encode_store
from hyperdiffusion.diffusion.trainer import Trainer
from hyperdiffusion.diffusion.training_config import TrainingRun
from overfit import (
    DecodeConfig,
    NeuralHead,
    OverfitConfig,
    RunContext,
    Store,
    decode_to_folder,
    find_scans,
    overfit,
    read_prepared,
)

# Heads in each row of the picture, pixels of a view, and by how many degrees heads are turned.
SHOWN = 16
VIEW_SIZE = 384
YAWS = (30.0,)
# A head shows half of a factor if the probability that it is there at all lies between these.
HALF = (0.2, 0.8)
MAX_COMPONENTS = 32
# Starts of the denoiser: which settings of the training choose it, and whether the transformer is trained on it.
GENERATORS: dict[str, tuple[dict[str, Any], bool]] = {
    "Gaussian": ({"max_mixture_components": 1, "independent_components": False}, False),
    "Gaussian mixture": ({"max_mixture_components": MAX_COMPONENTS, "independent_components": False}, False),
    "independent components": ({}, False),
    "transformer on the Gaussian": ({"max_mixture_components": 1, "independent_components": False}, True),
    "transformer on the default start": ({}, True),
}

# The model of `--model`.
WITH_ATTRIBUTES = "model with attributes"


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """The heads, and how generators of them are trained and compared."""

    scans: tyro.conf.Positional[Path]
    """Folder of the training heads, with heads.csv."""

    test: tyro.conf.Positional[Path]
    """Folder of the test heads, with heads.csv."""

    out: tyro.conf.Positional[Path]
    """Folder for the store, models, samples, metrics and the picture."""

    withheld: tuple[str, ...] = ()
    """Combinations of levels that no training head has, such as cap+thick."""

    sampled: tuple[str, ...] = ("Gaussian mixture", "transformer on the default start")
    """Generators whose samples are decoded; of the others, only the validation loss is measured."""

    model: Path | None = None
    """A model trained with attributes on the store in OUT; its samples are compared too."""

    count: int = 256
    """Samples of each generator that are compared with as many test heads."""

    classified: int = 1024
    """Samples of each generator that are classified."""

    resolution: int = 256
    """Grid on which samples are decoded."""

    overfit: OverfitConfig = OverfitConfig()
    """How networks are fitted."""

    training: TrainingConfig = TrainingConfig()
    """Training of stage 2."""

    sampling: SamplingConfig = SamplingConfig()
    """How heads are sampled."""

    evaluation: EvaluationConfig = EvaluationConfig(emd_heads=0, standardised=False)
    """How samples are compared with the test heads."""


@dataclass(frozen=True)
class Population:
    """What all generators have in common."""

    config: BenchmarkConfig
    """The settings."""
    context: RunContext
    """CPU cores and progress bars."""

    @cached_property
    def store(self) -> Store:
        """The fits."""
        folder = self.config.out / "store"
        overfit(find_scans(self.config.scans), folder, config=self.config.overfit, machine=self.config.machine)
        return Store(folder)

    @cached_property
    def encoded(self) -> EncodedStore:
        """Latent codes of the fits."""
        rows = self.store.rows()
        run = TrainingRun(self.config.training, tuple(record.digest for record in rows.records))
        return encode_store(rows, self.config.out / "codes.safetensors", run=run, context=self.context)

    @cached_property
    def test(self) -> list[trimesh.Trimesh]:
        """The test heads."""
        return [read_prepared(scan).mesh for scan in find_scans(self.config.test)[: self.config.count]]

    @cached_property
    def reference(self) -> ReferenceHeads:
        """Test and training heads, prepared for comparisons."""
        training = [read_prepared(scan).mesh for scan in find_scans(self.config.scans)]
        return ReferenceHeads.of(self.test, training, config=self.config.evaluation, context=self.context)

    @cached_property
    def classifier(self) -> HeadClassifier:
        """The classifier of factors, trained on the training heads."""
        return trained_classifier(self.config.scans, self.config.out / "classifier.pt", self.context)

    @cached_property
    def test_levels(self) -> Int[torch.Tensor, "heads factors"]:
        """The true levels of the test heads' factors."""
        names = [scan.name for scan in find_scans(self.config.test)[: self.config.count]]
        return KnownAttributes.read(self.config.test, names).chosen


def main(config: BenchmarkConfig) -> None:
    """Fit, train, sample and compare."""
    config.out.mkdir(parents=True, exist_ok=True)
    population = Population(config, config.machine.start())
    rows = [kept_row(config.out / "test.json", lambda: _test_row(population))]
    pictured = [("test heads", population.test[:SHOWN])]

    def compare(name: str, path: Path, meshes: Sequence[trimesh.Trimesh | None]) -> dict[str, Any]:
        pictured.append((name, [mesh for mesh in meshes[:SHOWN] if mesh is not None]))
        return kept_row(path.with_suffix(".json"), lambda: _sample_row(population, meshes))

    fits = config.out / "fits"
    rows.append({"set": "fits", **compare("fits", fits, _fits(population, fits))})
    for name in GENERATORS:
        path = config.out / f"{name.replace(' ', '_')}.safetensors"
        model = _model(population, name, path)
        row = {"set": name, "val_loss": model.training.val_loss, "best_step": model.training.best_step}
        if name in config.sampled:
            row |= compare(name, path, _samples(population, model, path.with_suffix("")))
        rows.append(row)
    if config.model is not None:
        path = config.out / WITH_ATTRIBUTES.replace(" ", "_")
        meshes = _samples(population, Checkpoint.load(config.model), path)
        rows.append({"set": WITH_ATTRIBUTES, **compare(WITH_ATTRIBUTES, path, meshes)})
    write_contact_sheet(pictured, config.out / "population.png", size=VIEW_SIZE, yaws=YAWS)
    publish("population", POPULATION, rows, config)


def trained_classifier(folder: Path, path: Path, context: RunContext) -> HeadClassifier:
    """Return a classifier trained on the heads of a folder; one on disk is read."""
    if path.exists():
        model = HeadClassifier()
        model.load_state_dict(torch.load(path))
        return model.eval()
    scans = find_scans(folder)
    views = render_views([read_prepared(scan).mesh for scan in scans], context, "training heads")
    model = HeadClassifier.train_on(views, KnownAttributes.read(folder, [scan.name for scan in scans]))
    torch.save(model.state_dict(), path)
    return model


def _model(population: Population, name: str, path: Path) -> Checkpoint:
    """A generator; one on disk is read."""
    if path.exists():
        return Checkpoint.load(path)
    settings, trains = GENERATORS[name]
    config = replace(population.config.training, **settings)
    trainer = Trainer(population.encoded, config)
    if trains:
        with population.context.progress(trainer.total_steps, name, "step") as bar:
            finish(trainer, bar)
    state = trainer.state
    loss = state.best_loss if trainer.validates else None
    record = TrainingRecord({}, [], state.step, state.best_step, mixture_components=0, val_loss=loss)
    space = population.store.rows().space
    model = Checkpoint(space, trainer.objective.coordinates, config.noise_schedule, trainer.model(), record)
    model.save(path)
    return model


def _samples(population: Population, model: Checkpoint, folder: Path) -> list[trimesh.Trimesh | None]:
    """The first samples of a generator with all their components; those on disk are read."""
    config = population.config
    return _decoded(population, folder, [*map(model.head, sample(model, config.classified, config=config.sampling))])


def _fits(population: Population, folder: Path) -> list[trimesh.Trimesh | None]:
    """Fits of as many training heads as there are test heads."""
    rows = population.store.rows()
    chosen = rows[list(range(min(population.config.count, len(rows))))]
    return _decoded(population, folder, [*map(rows.space.head, chosen)])


def _decoded(population: Population, folder: Path, heads: Sequence[NeuralHead]) -> list[trimesh.Trimesh | None]:
    """Meshes of heads with all their components, kept in a folder; those on disk are read."""
    paths = [folder / f"{index:04d}.ply" for index in range(len(heads))]
    if all(path.exists() for path in paths):
        return [trimesh.load_mesh(path, process=False) for path in paths]
    named = [(path.stem, head) for path, head in zip(paths, heads)]
    decoding = DecodeConfig(population.config.resolution, keep_all_components=True)
    return [head.mesh for head in decode_to_folder(named, folder, config=decoding, context=population.context)]


def _sample_row(population: Population, meshes: Sequence[trimesh.Trimesh | None]) -> dict[str, Any]:
    config = population.config
    metrics = evaluate_meshes(meshes[: config.count], population.reference, context=population.context)
    return _metrics(metric_values(metrics)) | _factor_row(population, meshes)


def _test_row(population: Population) -> dict[str, Any]:
    """The test heads themselves, and how often the classifier names their levels correctly."""
    correct = _classified(population, population.test).chosen == population.test_levels
    metrics = _metrics(metric_values(population.reference.metrics(context=population.context)))
    return {"set": "test heads", "accuracy": float(correct.double().mean()), **metrics} | _factor_row(
        population, population.test
    )


def _classified(population: Population, meshes: Sequence[trimesh.Trimesh | None]) -> KnownAttributes:
    return population.classifier(render_views(meshes, population.context, "normal maps"))


def _factor_row(population: Population, meshes: Sequence[trimesh.Trimesh | None]) -> dict[str, Any]:
    """Half factors, and combinations of factors."""
    found = _classified(population, meshes)
    there = torch.stack([1 - one[:, 0] for one in found.levels], 1)
    half = (there > HALF[0]) & (there < HALF[1])
    shown = set(map(tuple, found.chosen[: population.config.count].tolist()))
    wanted = set(map(tuple, population.test_levels.tolist()))
    names = [{levels[level] for levels, level in zip(FACTORS.values(), row)} for row in found.chosen.tolist()]
    return {
        "half": float(half.any(1).double().mean()),
        "half_glasses": float(half[:, list(FACTORS).index("glasses")].double().mean()),
        "combination_coverage": len(wanted & shown) / len(wanted),
        "withheld": ", ".join(
            f"{combination}: {sum(set(combination.split('+')) <= one for one in names)}"
            for combination in population.config.withheld
        ),
    }


def _metrics(values: dict[str, Any]) -> dict[str, Any]:
    return {column.key: values[column.key] for column in POPULATION if column.key in values}


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
