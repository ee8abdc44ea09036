"""What each part of the denoiser is worth on heads with factors: hair, beards, glasses, headwear.

    hyperdiffusion heads SCANS --count 1024 --without cap+thick --without curly+full
    hyperdiffusion heads TEST --count 256 --seed 1 --without cap+thick --without curly+full
    python benchmarks/population.py SCANS TEST OUT --withheld cap+thick curly+full

Fits SCANS, learns one latent space, and compares generators in it: the best Gaussian mixture of up to 32 components,
what training starts from, the transformer on top of it, and models that know the attributes of the training heads.
The fits themselves say what no generator of them can better. A classifier of rendered normal maps, trained on the
training heads and checked on the test heads, tells which factors heads show. Everything made is kept in OUT, and the
same command resumes. Prints a table and writes a picture.

A validation loss is that of heads of which nothing is known, also for models that know attributes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from quick_metrics import Heads, QuickReference
from results_io import BenchmarkOptions, kept_row, publish, run_benchmark

from hyperdiffusion import (
    AttributeTable,
    Checkpoint,
    SamplingConfig,
    TrainingConfig,
    read_attributes,
    sample,
    write_contact_sheet,
)
from hyperdiffusion.data.head_folder import ATTRIBUTES
from hyperdiffusion.diffusion.checkpoint import TrainingRecord
from hyperdiffusion.diffusion.encode_store import EncodedStore, encode_store, train_val_split
from hyperdiffusion.diffusion.loss import Objective
from hyperdiffusion.diffusion.train import learn_conditioning
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
# Noise draws for each validation head.
DRAWS = 32


@dataclass(frozen=True)
class GeneratorConfig:
    """How a generator is trained."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the training that differ from the defaults."""
    trains: bool = False
    """Whether the transformer is trained; otherwise, heads come from what training starts from."""
    attributes: bool = False
    """Whether it knows the attributes of the training heads."""


ONE_GAUSSIAN = {"max_mixture_components": 1, "independent_components": False}
GENERATORS = {
    "Gaussian": GeneratorConfig(ONE_GAUSSIAN),
    "Gaussian mixture": GeneratorConfig({"max_mixture_components": MAX_COMPONENTS, "independent_components": False}),
    "default start": GeneratorConfig(),
    "transformer on the Gaussian": GeneratorConfig(ONE_GAUSSIAN, trains=True),
    "transformer": GeneratorConfig(trains=True),
    "start with attributes": GeneratorConfig(attributes=True),
    "transformer with attributes": GeneratorConfig(trains=True, attributes=True),
}


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

    sampled: tuple[str, ...] = ("Gaussian mixture", "transformer", "transformer with attributes")
    """Generators whose samples are decoded; of the others, only the validation loss is measured."""

    columns: tuple[str, ...] = ATTRIBUTES
    """Columns of heads.csv that generators may know."""

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
        data = encode_store(rows, self.config.out / "codes.safetensors", run=run, context=self.context)
        training, validation = train_val_split(len(rows), self.config.training)
        return replace(data, attributes=self.table.rows([*training, *validation]))

    @cached_property
    def table(self) -> AttributeTable:
        """Attributes of the fitted heads, in the order of the store."""
        return read_attributes(self.config.scans / "heads.csv", self.store.folder, columns=self.config.columns)

    @cached_property
    def test(self) -> list[trimesh.Trimesh]:
        """The test heads."""
        return [read_prepared(scan).mesh for scan in find_scans(self.config.test)[: self.config.count]]

    @cached_property
    def reference(self) -> QuickReference:
        """Test and training heads, prepared for comparisons."""
        training = [read_prepared(scan).mesh for scan in find_scans(self.config.scans)]
        return QuickReference.of(self.test, training, self.context)

    @cached_property
    def classifier(self) -> HeadClassifier:
        """The classifier of factors, trained on the training heads."""
        return trained_classifier(self.config.scans, self.config.out / "classifier.pt", self.context)

    def levels(self, folder: Path) -> Int[torch.Tensor, "heads factors"]:
        """Return the true levels of the factors of a folder's first heads."""
        return KnownAttributes.read(folder, [scan.name for scan in find_scans(folder)[: self.config.count]]).chosen


def main(config: BenchmarkConfig) -> None:
    """Fit, train, sample and compare."""
    config.out.mkdir(parents=True, exist_ok=True)
    population = Population(config, config.machine.start())
    rows = [kept_row(config.out / "test.json", lambda: {"set": "test scans"} | _test_row(population))]
    pictured = [("test heads", population.test[:SHOWN])]

    def compare(name: str, path: Path, meshes: Heads, **known: Any) -> dict[str, Any]:
        pictured.append((name, [mesh for mesh in meshes[:SHOWN] if mesh is not None]))
        return kept_row(path.with_suffix(".json"), lambda: _sample_row(population, meshes, **known))

    fits = config.out / "fits"
    row = compare("fits", fits, _fits(population, fits), levels=population.levels(config.scans))
    rows.append({"set": "training fits", **row})
    for name in GENERATORS:
        path = config.out / f"{name.replace(' ', '_')}.safetensors"
        model = _model(population, name, path)
        row = {"set": name, "best_step": model.training.best_step, **_losses(population, model)}
        if name in config.sampled:
            row |= compare(name, path, _samples(population, model, path.with_suffix("")))
        rows.append(row)
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


def kept_meshes(folder: Path, count: int, make: Callable[[Sequence[str]], Heads]) -> Heads:
    """Return the meshes in a folder, which are read if all are there and otherwise made, given their names."""
    paths = [folder / f"{index:04d}.ply" for index in range(count)]
    if all(path.exists() for path in paths):
        return [trimesh.load_mesh(path, process=False) for path in paths]
    return make([path.stem for path in paths])


def _model(population: Population, name: str, path: Path) -> Checkpoint:
    """A generator; one on disk is read."""
    if path.exists():
        return Checkpoint.load(path)
    generator = GENERATORS[name]
    config = replace(population.config.training, **generator.settings)
    data = population.encoded if generator.attributes else replace(population.encoded, attributes=None)
    trainer = Trainer(data, config, device=population.context.device)
    if generator.trains:
        with population.context.progress(trainer.total_steps, name, "step") as bar:
            finish(trainer, bar)
    state, conditioning = trainer.state, None
    if generator.attributes:
        conditioning = learn_conditioning(population.table, data, config, device=population.context.device)
    record = TrainingRecord({}, [], state.step, state.best_step, mixture_components=0, val_loss=None)
    space, coordinates = population.store.rows().space, trainer.objective.coordinates
    model = Checkpoint(space, coordinates, config.noise_schedule, trainer.model(), record, conditioning)
    model.save(path)
    return model


def _losses(population: Population, model: Checkpoint) -> dict[str, float]:
    """Validation losses relative to the Gaussian's."""
    data = population.encoded
    if not len(data.validation):
        return {}
    objective = Objective.on(model.device, data.coordinates, model.schedule)
    baseline = objective.baseline_loss(data.validation, draws=DRAWS)
    losses = {"val_loss": objective.validation_loss(model.denoiser, data.validation, draws=DRAWS) / baseline}
    if model.conditioning is not None and data.attributes is not None:
        values = data.attributes.values[len(data.training) :]
        given = objective.validation_loss(model.denoiser, data.validation, draws=DRAWS, values=values)
        losses["given_loss"] = given / baseline
    return losses


def _samples(population: Population, model: Checkpoint, folder: Path) -> Heads:
    """The first samples of a generator."""
    count = population.config.classified
    return _decoded(
        population, folder, count, lambda: sample(model, count, config=population.config.sampling), model.head
    )


def _fits(population: Population, folder: Path) -> Heads:
    """Fits of as many training heads as there are test heads."""
    rows = population.store.rows()
    count = min(population.config.count, len(rows))
    return _decoded(population, folder, count, lambda: rows[list(range(count))], rows.space.head)


def _decoded(
    population: Population,
    folder: Path,
    count: int,
    parameters: Callable[[], torch.Tensor],
    head: Callable[[torch.Tensor], NeuralHead],
) -> Heads:
    """Heads of heads with all their components."""

    def decode(names: Sequence[str]) -> Heads:
        named = [(name, head(row.cpu())) for name, row in zip(names, parameters())]
        decoding = DecodeConfig(population.config.resolution, keep_all_components=True)
        return [one.mesh for one in decode_to_folder(named, folder, config=decoding, context=population.context)]

    return kept_meshes(folder, count, decode)


def _sample_row(population: Population, meshes: Heads, **known: Any) -> dict[str, Any]:
    return population.reference.metrics(meshes[: population.config.count]) | _factor_row(population, meshes, **known)


def _test_row(population: Population) -> dict[str, Any]:
    """The test heads themselves."""
    levels = population.levels(population.config.test)
    return population.reference.of_test() | _factor_row(population, population.test, levels=levels)


def _factor_row(
    population: Population,
    meshes: Heads,
    *,
    levels: Int[torch.Tensor, "heads factors"] | None = None,
) -> dict[str, Any]:
    """Half factors, combinations of factors and, if the levels are known, how many the classifier names correctly."""
    found = population.classifier(render_views(meshes, population.context, "normal maps"))
    there = torch.stack([1 - one[:, 0] for one in found.levels], 1)
    half = (there > HALF[0]) & (there < HALF[1])
    shown = set(map(tuple, found.chosen[: population.config.count].tolist()))
    wanted = set(map(tuple, population.levels(population.config.test).tolist()))
    names = [{levels[level] for levels, level in zip(FACTORS.values(), row)} for row in found.chosen.tolist()]
    accuracy = {} if levels is None else {"accuracy": float((found.chosen == levels).double().mean())}
    return accuracy | {
        "half": float(half.any(1).double().mean()),
        **{f"half_{name}": share for name, share in zip(FACTORS, half.double().mean(0).tolist())},
        "combination_coverage": len(wanted & shown) / len(wanted),
        "withheld": ", ".join(
            f"{combination}: {sum(set(combination.split('+')) <= one for one in names)} of {len(names)}"
            for combination in population.config.withheld
        ),
    }


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
