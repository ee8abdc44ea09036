"""Evaluation of a generator: its heads and real ones in; a report on fidelity, diversity, novelty and validity out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import trimesh

from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.generate import sample_heads
from hyperdiffusion.evaluation.report import EvaluationReport
from hyperdiffusion.evaluation.set_metrics import (
    GENERATED_SEED,
    TRAINING_SEED,
    EvaluationConfig,
    ReferenceHeads,
    evaluate_meshes,
)
from overfit.decode_folder import decode_to_folder
from overfit.decoder import DecodeConfig
from overfit.runtime.errors import BadInput, require_at_least, require_between
from overfit.runtime.machine import Machine, RunContext
from overfit.scans.formats import Scan, find_scans, read_prepared

# Nearest neighbours and pairwise distances need two heads.
MIN_HEADS = 2
# The distances of more heads would not fit into memory.
MAX_HEADS = 100_000


def evaluate(
    generated: Path | str,
    out: Path | str,
    *,
    reference: Path | str,
    train: Path | str | None = None,
    count: int = 0,
    seed: int = 0,
    config: EvaluationConfig = EvaluationConfig(),
    decoding: DecodeConfig = DecodeConfig(resolution=128, keep_all_components=True),
    repair: bool = True,
    machine: Machine = Machine(),
) -> EvaluationReport:
    """Compare generated heads with test heads and training heads; write report.html, report.md and report.json.

    All meshes are taken as they are, in the canonical frame. The unit of real heads is found from their size; generated
    heads are in millimetres, and a file that cannot be read counts as a failed head. Of completed test heads only what
    was seen counts as true: all sets are compared where every test head was seen.

    Args:
        generated: Folder of meshes, or a checkpoint; its samples are written to OUT/heads.
        out: Folder for the report.
        reference: Folder of test heads.
        train: Folder of the training heads. Without it the report cannot tell new heads from copies.
        count: Heads to sample from the checkpoint or to take from the folder; 0 takes as many as test heads.
        seed: Seed of the samples.
        config: How thoroughly sets are compared.
        decoding: How samples are decoded.
        repair: Bring samples of several components to one first.
        machine: CPU threads and GPU to use.

    Raises:
        BadInput: If a folder holds fewer than two heads, a real head cannot be read, or an argument is out of bounds.
    """
    generated, out, reference = Path(generated), Path(out), Path(reference)
    require_at_least(0, seed=seed)
    if count:
        require_between(MIN_HEADS, MAX_HEADS, count=count)
    context = machine.start()
    test = _read_real_heads(reference, context=context)
    training = _read_real_heads(Path(train), context=context) if train else []
    if len(test) < MIN_HEADS:
        raise BadInput(f"{reference}: too few heads to compare with ({len(test)}); give {MIN_HEADS} or more")
    count = count or len(test)
    if generated.is_dir():
        meshes = _read_generated_heads(generated, count, context=context)
    else:
        checkpoint = Checkpoint.load(generated, context.device)
        meshes = _sample_meshes(
            checkpoint, count, seed=seed, out=out / "heads", decoding=decoding, repair=repair, context=context
        )
    report = evaluate_sets({"generated": meshes}, test=test, training=training, config=config, context=context)
    report.write(out)
    return report


def evaluate_sets(
    sets: Mapping[str, Sequence[trimesh.Trimesh | None]],
    *,
    test: list[trimesh.Trimesh],
    training: list[trimesh.Trimesh],
    config: EvaluationConfig = EvaluationConfig(),
    context: RunContext = RunContext(),
) -> EvaluationReport:
    """Return the report on sets of heads by their names, preceded by those of the test and the training heads.

    Args:
        sets: The heads of each set in millimetres, None for each that failed.
        test: Real heads that were held out from everything.
        training: The training heads; may be empty.
        config: How thoroughly sets are compared.
        context: CPU cores and progress bars.
    """
    reference = ReferenceHeads.of(test, training, config=config, context=context)
    metrics = {"test": reference.metrics(context=context)}
    if training:
        # As many as test heads: 1-NNA also tells sets of different sizes apart.
        metrics["training"] = evaluate_meshes(
            training[: len(test)],
            reference,
            name="training",
            seed=TRAINING_SEED,
            measure_novelty=False,
            context=context,
        )
    for seed, (name, meshes) in enumerate(sets.items(), start=GENERATED_SEED):
        metrics[name] = evaluate_meshes(meshes, reference, name=name, seed=seed, context=context)
    share = 1.0 if reference.region is None else reference.region.share
    return EvaluationReport(sets=metrics, meshes=list(sets.values())[-1], training=training, compared_share=share)


def _read_real_heads(folder: Path, *, context: RunContext) -> list[trimesh.Trimesh]:
    """Return the heads of a folder in millimetres, their unit found from their size."""
    scans = find_scans(folder)
    meshes = []
    with context.progress(len(scans), f"reading {folder.name}", "head") as bar:
        for scan in scans:
            meshes.append(read_prepared(scan).mesh)
            bar.update()
    return meshes


def _read_generated_heads(folder: Path, count: int, *, context: RunContext) -> list[trimesh.Trimesh | None]:
    """Return the first heads of a folder in millimetres, None for each that cannot be read."""
    scans = find_scans(folder)[:count]
    if len(scans) < MIN_HEADS:
        raise BadInput(f"{folder}: too few heads to evaluate ({len(scans)}); give {MIN_HEADS} or more")
    meshes = []
    with context.progress(len(scans), f"reading {folder.name}", "head") as bar:
        for scan in scans:
            meshes.append(_try_read(scan))
            bar.update()
    return meshes


def _try_read(scan: Scan) -> trimesh.Trimesh | None:
    try:
        return read_prepared(scan, "mm").mesh
    except BadInput:
        return None


def _sample_meshes(
    checkpoint: Checkpoint,
    count: int,
    *,
    seed: int,
    out: Path,
    decoding: DecodeConfig,
    repair: bool,
    context: RunContext,
) -> list[trimesh.Trimesh | None]:
    """Return samples of a checkpoint, written to a folder, None for each without a surface."""
    heads = sample_heads(checkpoint, count, seed=seed)
    decoded = decode_to_folder(heads, out, config=decoding, repair=repair, context=context)
    return [head.mesh for head in decoded]
