"""Folders of synthetic heads, the default data: a count and a seed in, meshes and heads.csv out."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import trimesh

from hyperdiffusion.data.expressions import EXPRESSIONS, facial_actions
from hyperdiffusion.data.factors import Factors, draw_factors, parse_combinations
from hyperdiffusion.data.population import HeadPopulation
from hyperdiffusion.data.synthetic_heads import MAX_EXPRESSIONS, HeadModel, Person
from overfit.decode_folder import MeshFormat
from overfit.runtime.atomic_io import atomic_write
from overfit.runtime.errors import BadInput, require_at_least, require_between
from overfit.runtime.machine import Machine, RunContext

MAX_HEADS = 1_000_000
# Keys of the random generators of a head, after its seed and number: the person's has none.
FACTORS_KEY, SHAPES_KEY = 1, 2


def write_heads(
    out: Path | str,
    count: int = 64,
    *,
    seed: int = 0,
    mesh_format: MeshFormat = "ply",
    expressions: int = MAX_EXPRESSIONS,
    plain: bool = False,
    without: Sequence[str] = (),
    machine: Machine = Machine(),
) -> list[Path]:
    """Write heads of random people and heads.csv with their factors and parameters; return the paths of the heads.

    Head k of a seed is the same for every count. Heads that exist are kept.

    Args:
        out: Folder for the meshes, which are in millimetres.
        count: Number of heads.
        seed: Seed of the heads. Plain heads of a seed show the same people.
        mesh_format: Format of the files.
        expressions: Expressions that a head shows at once, at most; of plain heads, faint facial actions.
        plain: Whether heads are without hair, beards, glasses, headwear, strong expressions and traces of a scanner.
        without: Combinations of factors that no head has, such as "cap+beard"; see `parse_combinations`.
        machine: CPU threads to use.

    Raises:
        BadInput: If the count, the seed or the expressions are out of bounds, a combination is unknown or cannot be
            avoided, or the extra `demo` is not installed.
    """
    out = Path(out)
    require_between(1, MAX_HEADS, count=count)
    require_at_least(0, seed=seed, expressions=expressions)
    combinations = parse_combinations(without)
    if plain and combinations:
        raise BadInput("`without`: plain heads have no factors; leave out `without` or `plain`")
    paths = [out / f"head_{seed:03d}_{index:05d}.{mesh_format}" for index in range(count)]
    if all(path.exists() for path in (*paths, out / "heads.csv")):
        return paths
    context = machine.start()
    model = _load_model(context)
    source = _PlainHeads(model, expressions) if plain else _PopulationHeads(model, expressions, combinations)
    with context.progress(count, "heads", "head") as bar:
        for index, path in enumerate(paths):
            if not path.exists():
                with atomic_write(path) as unfinished:
                    source.mesh(seed, index).export(unfinished, file_type=mesh_format)
            bar.update()
    with atomic_write(out / "heads.csv") as unfinished, open(unfinished, "w", newline="") as file:
        csv.writer(file).writerows(_table(source, paths, seed))
    return paths


@dataclass(frozen=True)
class _PlainHeads:
    model: HeadModel
    expressions: int

    def person(self, seed: int, index: int) -> Person:
        rng = np.random.default_rng([seed, index])
        return self.model.person(rng, expressions=min(self.expressions, len(self.model.actions)))

    def mesh(self, seed: int, index: int) -> trimesh.Trimesh:
        return self.model.mesh(self.person(seed, index))

    def columns(self, seed: int, index: int) -> dict[str, str | float]:
        return _parameters(self.person(seed, index), self.model.actions)


class _PopulationHeads:
    def __init__(self, model: HeadModel, expressions: int, without: list[frozenset[str]]) -> None:
        self.model, self.expressions, self.without = model, expressions, without
        self.population = HeadPopulation(model)
        expressive = {name for expression in EXPRESSIONS.values() for name in expression.actions}
        labels = model.model.facial_action_labels
        used = {label for label in labels if label.removesuffix("Left").removesuffix("Right") in expressive}
        self.actions = [label for label in labels if label in used]

    def head(self, seed: int, index: int) -> tuple[Person, Factors]:
        person = self.model.person(np.random.default_rng([seed, index]), expressions=0)
        rng = np.random.default_rng([seed, index, FACTORS_KEY])
        factors = draw_factors(rng, person.phenotype, expressions=self.expressions, without=self.without)
        actions = facial_actions(rng, factors.expressions, self.model.model.facial_action_labels)
        return replace(person, actions=actions), factors

    def mesh(self, seed: int, index: int) -> trimesh.Trimesh:
        return self.population.mesh(*self.head(seed, index), np.random.default_rng([seed, index, SHAPES_KEY]))

    def columns(self, seed: int, index: int) -> dict[str, str | float]:
        person, factors = self.head(seed, index)
        return factors.columns() | _parameters(person, self.actions)


def _parameters(person: Person, actions: Sequence[str]) -> dict[str, str | float]:
    """Return Anny's parameters by name, the same names for every person."""
    values = person.phenotype | person.local | {label: person.actions.get(label, 0.0) for label in actions}
    return {label: round(value, 5) for label, value in values.items()}


def _table(source: _PlainHeads | _PopulationHeads, paths: list[Path], seed: int) -> Iterator[list]:
    """Yield the header and a row for each head, which is drawn anew: a million would not fit into memory."""
    for index, path in enumerate(paths):
        columns = source.columns(seed, index)
        if index == 0:
            yield ["file", *columns]
        yield [path.name, *columns.values()]


def _load_model(context: RunContext) -> HeadModel:
    description = "loading the head model, minutes the first time"
    with context.progress(1, description, "model", bar_format="{desc} [{elapsed}]") as bar:
        model = HeadModel()
        bar.update()
    return model
