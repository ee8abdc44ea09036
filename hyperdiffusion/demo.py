"""Everything once, small: an empty folder in; heads, fits, a model, new heads, a picture and metrics in it out."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh

from hyperdiffusion.data.head_folder import ATTRIBUTES, write_heads
from hyperdiffusion.diffusion.attribute_table import AttributeTable, read_attributes
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.generate import sample
from hyperdiffusion.diffusion.train import train
from hyperdiffusion.diffusion.training_config import TrainingConfig
from hyperdiffusion.evaluation.evaluate import evaluate_sets
from hyperdiffusion.evaluation.report import EXPLANATION, EvaluationReport
from hyperdiffusion.evaluation.set_metrics import EvaluationConfig
from hyperdiffusion.rendering.contact_sheet import write_contact_sheet
from overfit.decode_folder import decode_to_folder
from overfit.decoder import DecodeConfig, decode
from overfit.fit import FitConfig
from overfit.fit_batch import OverfitConfig
from overfit.fit_scans import overfit
from overfit.runtime.atomic_io import write_text
from overfit.runtime.machine import Machine, RunContext
from overfit.store import Store

# Heads in each row of the picture.
PICTURED = 8
# Grid on which fits are compared; the generated heads have the default one.
COMPARED = DecodeConfig(resolution=128)


@dataclass(frozen=True)
class DemoConfig:
    """How large the demo is."""

    training_heads: int = 96
    """Heads to train on."""
    test_heads: int = 48
    """Heads to compare with."""
    generated_heads: int = 48
    """New heads to generate."""
    overfit: OverfitConfig = OverfitConfig(fit=FitConfig(first_steps=6000))
    """How heads are fitted: after a shorter first fit than by default, to end in time."""
    training: TrainingConfig = TrainingConfig()
    """How the model is trained."""
    # The exact EMD would take longer than everything else.
    evaluation: EvaluationConfig = EvaluationConfig(emd_heads=0)
    """How thoroughly sets are compared."""
    decoding: DecodeConfig = DecodeConfig()
    """How heads become meshes."""


def run_demo(out: Path | str, config: DemoConfig = DemoConfig(), *, machine: Machine = Machine()) -> str:
    """Run both stages on the default data; return the metrics as text. The same call resumes.

    Raises BadInput if the extra `demo` is not installed.
    """
    out = Path(out)
    result = out / "metrics.md"
    if not result.exists():
        write_text(result, _run(out, config, machine))
    return result.read_text(encoding="utf-8")


def _run(out: Path, config: DemoConfig, machine: Machine) -> str:
    context = machine.start()
    training = write_heads(out / "scans", config.training_heads, seed=0, machine=machine)
    test = write_heads(out / "test_heads", config.test_heads, seed=1, machine=machine)
    fitted = overfit(out / "scans", out / "store", config=config.overfit, machine=machine)
    checkpoint = train(
        out / "store",
        out / "checkpoint.safetensors",
        config=config.training,
        attributes=_attributes(out, {record.name for record in fitted.records}),
        machine=machine,
    )
    generated = _generate(checkpoint, out / "heads", config, context)
    fits = _decode_fits(out / "store", config.test_heads, COMPARED, context)
    _draw(out, config, generated, context)
    report = _compare(training, test, fits, generated, config=config, context=context)
    report.write(out)
    errors = [record.error_mm for record in fitted.records]
    line = f"Surface error of {len(errors)} fits: mean {np.mean(errors):.3f} mm, worst {max(errors):.3f} mm."
    return "\n\n".join([line, checkpoint.training.summary(), report.table(), EXPLANATION])


def _attributes(out: Path, fitted: set[str]) -> AttributeTable:
    """What is known of the fitted heads, as far as they differ in it: a small demo may have no cap."""
    table = out / "scans" / "heads.csv"
    with open(table, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"] in fitted]
    varying = [name for name in ATTRIBUTES if len({row[name] for row in rows}) > 1]
    return read_attributes(table, out / "store", columns=varying)


def _generate(
    checkpoint: Checkpoint, out: Path, config: DemoConfig, context: RunContext
) -> list[trimesh.Trimesh | None]:
    """The generated heads, also written to a folder."""
    rows = sample(checkpoint, config.generated_heads)
    named = [(f"head_{index:05d}", checkpoint.head(row)) for index, row in enumerate(rows)]
    decoded = decode_to_folder(named, out, config=config.decoding, repair=True, context=context)
    return [head.mesh for head in decoded]


def _decode_fits(store: Path, count: int, config: DecodeConfig, context: RunContext) -> list[trimesh.Trimesh]:
    """The first fits of a store, as many as there are test heads: 1-NNA also tells sets of different sizes apart."""
    fits = Store(store).read()
    meshes = []
    with context.progress(min(count, len(fits.records)), "decoding fits", "head") as bar:
        for index in range(min(count, len(fits.records))):
            meshes.append(decode(fits.head(index), config))
            bar.update()
    return meshes


def _draw(out: Path, config: DemoConfig, generated: Sequence[trimesh.Trimesh | None], context: RunContext) -> None:
    fits = _decode_fits(out / "store", PICTURED, config.decoding, context)
    decoded = [mesh for mesh in generated if mesh is not None]
    write_contact_sheet([("fits of training heads", fits), ("generated heads", decoded[:PICTURED])], out / "heads.png")


def _compare(
    training: Sequence[Path],
    test: Sequence[Path],
    fits: Sequence[trimesh.Trimesh],
    generated: Sequence[trimesh.Trimesh | None],
    *,
    config: DemoConfig,
    context: RunContext,
) -> EvaluationReport:
    return evaluate_sets(
        {"fits": fits, "generated": generated},
        test=[trimesh.load_mesh(path) for path in test],
        training=[trimesh.load_mesh(path) for path in training],
        config=config.evaluation,
        context=context,
    )
