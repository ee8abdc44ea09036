"""Folders of synthetic heads, the default data: a count and a seed in, meshes and heads.csv out."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import trimesh

from hyperdiffusion.data.expressions import EXPRESSIONS, facial_actions
from hyperdiffusion.data.factors import LEVELS, Factors, draw_factors, parse_combinations
from hyperdiffusion.data.population import HeadPopulation
from hyperdiffusion.data.synthetic_heads import MAX_EXPRESSIONS, HeadModel, Person
from overfit.decode_folder import MeshFormat
from overfit.runtime.atomic_io import atomic_write
from overfit.runtime.errors import BadInput, require_at_least, require_between
from overfit.runtime.machine import Machine, RunContext

MAX_HEADS = 1_000_000
# Columns of heads.csv that a person would name, of heads that are not plain.
ATTRIBUTES = (*LEVELS, *EXPRESSIONS, "age", "gender", "weight")
# Keys of the random generators of a head, after its seed and number: the person's has none.
FACTORS_KEY, SHAPES_KEY = 1, 2
# Names of files: the seed, and the number of the head.
NAME = "head_{seed:03d}_{index:05d}.{suffix}"
NAME_PATTERN = re.compile(r"head_(\d+)_(\d+)\.\w+")


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

    Head k of a seed is the same for every count. Heads that exist are kept, and so are their rows in heads.csv.

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
            avoided, heads.csv lists heads of other options, or the extra `demo` is not installed.
    """
    out = Path(out)
    require_between(1, MAX_HEADS, count=count)
    require_at_least(0, seed=seed, expressions=expressions)
    combinations = parse_combinations(without)
    if plain and combinations:
        raise BadInput("`without`: plain heads have no factors; leave out `without` or `plain`")
    paths = [out / NAME.format(seed=seed, index=index, suffix=mesh_format) for index in range(count)]
    _require_kind(out / "heads.csv", plain=plain)
    context = machine.start()
    model = _load_model(context)
    source = _PlainHeads(model, expressions) if plain else _PopulationHeads(model, expressions, combinations)
    # Before the meshes, so that heads of other options cannot be added even if this is interrupted.
    with atomic_write(out / "heads.csv") as unfinished, open(unfinished, "w", newline="") as file:
        csv.writer(file).writerows(_rows(out / "heads.csv", source, paths=paths, seed=seed))
    with context.progress(count, "heads", "head") as bar:
        for index, path in enumerate(paths):
            if not path.exists():
                with atomic_write(path) as unfinished:
                    source.mesh(seed, index).export(unfinished, file_type=mesh_format)
            bar.update()
    return paths


class _PlainHeads:
    """Bald people with faint expressions."""

    def __init__(self, model: HeadModel, expressions: int) -> None:
        self.model, self.expressions = model, expressions

    def person(self, seed: int, index: int) -> Person:
        rng = np.random.default_rng([seed, index])
        return self.model.person(rng, expressions=min(self.expressions, len(self.model.actions)))

    def mesh(self, seed: int, index: int) -> trimesh.Trimesh:
        return self.model.mesh(self.person(seed, index))

    def columns(self, seed: int, index: int) -> dict[str, str | float]:
        return _parameters(self.person(seed, index), self.model.actions)


class _PopulationHeads:
    """People with factors."""

    def __init__(self, model: HeadModel, expressions: int, without: list[frozenset[str]]) -> None:
        self.model, self.expressions, self.without = model, expressions, without
        expressive = {name for expression in EXPRESSIONS.values() for name in expression.actions}
        labels = model.model.facial_action_labels
        used = {label for label in labels if label.removesuffix("Left").removesuffix("Right") in expressive}
        self.actions = [label for label in labels if label in used]

    @cached_property
    def population(self) -> HeadPopulation:
        return HeadPopulation(self.model)

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


def _require_kind(table: Path, *, plain: bool) -> None:
    """Raise BadInput if a table lists plain heads and others are to be written, or the reverse."""
    header = next(_read(table), None)
    if header and plain and "hair" in header:
        raise BadInput(f"{table}: lists heads with factors; leave out `plain`, or write to another folder")
    if header and not plain and "hair" not in header:
        raise BadInput(f"{table}: lists plain heads; add `plain`, or write to another folder")


def _rows(table: Path, source: _PlainHeads | _PopulationHeads, *, paths: list[Path], seed: int) -> Iterator[list[str]]:
    """Yield the header, the rows that the table has, and one for each further head.

    Heads are drawn one by one: the values of a million would not fit into memory.

    Raises:
        BadInput: If a row differs from what the source draws, so that heads of several populations would be mixed.
    """
    header = ["file", *source.columns(seed, 0)]
    yield header
    written = _read(table)
    if next(written, header) != header:
        raise BadInput(f"{table}: has other columns, those of another version; write to another folder")
    names = set()
    for name, *values in written:
        number = NAME_PATTERN.fullmatch(name)
        if not number or values != _values(source, int(number[1]), int(number[2])):
            raise BadInput(
                f"{table}: {name} was drawn with other `expressions` or `without`, or by another version; "
                "repeat the options of the heads that are there, or write to another folder"
            )
        names.add(name)
        yield [name, *values]
    for index, path in enumerate(paths):
        if path.name not in names:
            yield [path.name, *_values(source, seed, index)]


def _read(table: Path) -> Iterator[list[str]]:
    """Yield the rows of a table; none if there is no such file. Raises BadInput if it is none."""
    if not table.exists():
        return
    try:
        with open(table, newline="") as file:
            yield from filter(None, csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{table}: not a table of heads; move it away, or write to another folder") from error


def _values(source: _PlainHeads | _PopulationHeads, seed: int, index: int) -> list[str]:
    return [str(value) for value in source.columns(seed, index).values()]


def _load_model(context: RunContext) -> HeadModel:
    description = "loading the head model, minutes the first time"
    with context.progress(1, description, "model", bar_format="{desc} [{elapsed}]") as bar:
        model = HeadModel()
        bar.update()
    return model
