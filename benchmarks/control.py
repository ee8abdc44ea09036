"""How well generated heads show the attributes that are asked for, at several guidance scales.

    python benchmarks/control.py CHECKPOINT SCANS TEST OUT

CHECKPOINT was trained with `--attributes`. For each test head a head with its attributes is generated. A classifier of
rendered normal maps, trained on the training heads SCANS and checked on the test heads, tells what the heads show.
Identity: heads of the same noise, neutral and with a strong expression, are compared where expressions do not reach.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
import tyro
from columns import CONTROL
from head_classifier import FACTORS, NUMBERS, HeadClassifier, KnownAttributes, render_views
from population import kept_meshes, trained_classifier
from quick_metrics import Heads, QuickReference
from results_io import BenchmarkOptions, publish, run_benchmark
from scipy.spatial import cKDTree

from hyperdiffusion import Checkpoint, SamplingConfig, write_contact_sheet
from hyperdiffusion.diffusion.attributes import Attributes, Numeric
from hyperdiffusion.diffusion.generate import sample_given
from overfit import DecodeConfig, RunContext, decode_to_folder, find_scans, read_prepared

# Heads in each row of the picture, pixels of a view, and by how many degrees heads are turned.
SHOWN = 12
VIEW_SIZE = 384
YAWS = (30.0,)
# Expressions whose change is measured, and how strong they are.
EXPRESSIONS = ("smile", "open_mouth")
STRENGTH = 0.9
# Expressions reach neither above this height nor behind this depth, in mm in the canonical frame.
NEUTRAL_ABOVE_MM, NEUTRAL_BEHIND_MM = 45.0, -20.0


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """The model, the heads, and how many."""

    checkpoint: tyro.conf.Positional[Path]
    """A model with attributes."""

    scans: tyro.conf.Positional[Path]
    """Folder of the training heads, with heads.csv."""

    test: tyro.conf.Positional[Path]
    """Folder of the test heads, with heads.csv."""

    out: tyro.conf.Positional[Path]
    """Folder for the classifier, the samples and the picture."""

    count: int = 128
    """Test heads whose attributes are asked for."""

    people: int = 24
    """People whose expression is changed."""

    guidance: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)
    """Guidance scales."""

    resolution: int = 256
    """Grid on which samples are decoded."""

    sampling: SamplingConfig = SamplingConfig("dpm", 50)
    """How heads are sampled."""


def main(config: BenchmarkConfig) -> None:
    """Generate heads with the attributes of test heads, and compare."""
    config.out.mkdir(parents=True, exist_ok=True)
    context = config.machine.start()
    model = Checkpoint.load(config.checkpoint)
    classifier = trained_classifier(config.scans, config.out / "classifier.pt", context)
    scans = find_scans(config.test)[: config.count]
    asked = KnownAttributes.read(config.test, [scan.name for scan in scans])
    test = [read_prepared(scan).mesh for scan in scans]
    values = _values(model, config.test, [scan.name for scan in scans])
    reference = QuickReference.of(test, [], context)
    rows = [{"set": "test scans", **_agreement(classifier, test, asked, context), **reference.of_test()}]
    pictured = [("test heads", test[:SHOWN])]
    for guidance in config.guidance:
        name = f"guidance {guidance:g}"
        meshes = _generate(model, values, replace(config, sampling=replace(config.sampling, guidance=guidance)), name)
        rows.append({"set": name, **_agreement(classifier, meshes, asked, context), **reference.metrics(meshes)})
        pictured.append((name, [mesh for mesh in meshes[:SHOWN] if mesh is not None]))
    rows += [_identity(model, values[: config.people], expression, config) for expression in EXPRESSIONS]
    write_contact_sheet(pictured, config.out / "control.png", size=VIEW_SIZE, yaws=YAWS)
    publish("control", CONTROL, rows, config)


def _values(model: Checkpoint, folder: Path, names: Sequence[str]) -> torch.Tensor:
    """The attributes of the heads with these file names."""
    attributes = model.require_conditioning().attributes
    with open(folder / "heads.csv", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    return torch.stack([attributes.parse(_within_range(attributes, rows[name])) for name in names])


def _within_range(attributes: Attributes, row: Mapping[str, str]) -> dict[str, float | str]:
    """A row's attributes; numbers that no training head has become the nearest that one has."""
    request: dict[str, float | str] = {}
    for column in attributes.columns:
        text = row[column.name]
        request[column.name] = min(max(float(text), column.low), column.high) if isinstance(column, Numeric) else text
    return request


def _generate(model: Checkpoint, values: torch.Tensor, config: BenchmarkConfig, name: str) -> Heads:
    """One head for each row of values, kept in OUT; row k has the noise of seed k."""
    folder = config.out / name.replace(" ", "_")

    def decode(names: Sequence[str]) -> Heads:
        seeds = [(0, index) for index in range(len(values))]
        rows = sample_given(model, values, wanted=values, seeds=seeds, config=config.sampling)
        named = [(name, model.head(row)) for name, row in zip(names, rows)]
        decoding = DecodeConfig(config.resolution)
        return [
            head.mesh
            for head in decode_to_folder(named, folder, config=decoding, repair=True, context=config.machine.start())
        ]

    return kept_meshes(folder, len(values), decode)


def _agreement(
    classifier: HeadClassifier,
    meshes: Heads,
    asked: KnownAttributes,
    context: RunContext,
) -> dict[str, float]:
    """Share of heads with the right level of each factor, and correlation of each number."""
    found = classifier(render_views(meshes, context, "normal maps"))
    right = (found.chosen == asked.chosen).double().mean(0)
    correlations = [
        float(np.corrcoef(found.numbers[:, index], asked.numbers[:, index])[0, 1]) for index in range(len(NUMBERS))
    ]
    return dict(zip(FACTORS, right.tolist())) | dict(zip(NUMBERS, correlations))


def _identity(model: Checkpoint, values: torch.Tensor, expression: str, config: BenchmarkConfig) -> dict[str, Any]:
    """Distance of the parts that an expression does not reach, within and between people."""
    attributes = model.require_conditioning().attributes
    neutral = values.clone()
    for name in NUMBERS[3:]:
        if name in attributes.names:
            neutral[:, attributes.index(name)] = 0.0
    changed = neutral.clone()
    changed[:, attributes.index(expression)] = STRENGTH
    before = _generate(model, neutral, config, "neutral")
    after = _generate(model, changed, config, expression)
    pairs = [(a, b) for a, b in zip(before, after) if a is not None and b is not None]
    within = np.median([_neutral_distance(a, b) for a, b in pairs])
    between = np.median([_neutral_distance(a, b) for (a, _), (b, _) in zip(pairs, pairs[1:])])
    return {"set": f"{expression}: identity", "within_mm": float(within), "between_mm": float(between)}


def _neutral_distance(first: trimesh.Trimesh, second: trimesh.Trimesh) -> float:
    """Mean distance in mm from the parts of a head that expressions do not reach to another head."""
    points = first.vertices
    reached = (points[:, 1] <= NEUTRAL_ABOVE_MM) & (points[:, 2] >= NEUTRAL_BEHIND_MM)
    return float(cKDTree(second.vertices).query(points[~reached])[0].mean())


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
