"""Completes what stage 1 prepared of partial scans: heads in; the same, but whole ones where little was seen, out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperdiffusion.completion.complete import CompletionConfig
from hyperdiffusion.completion.complete_folder import complete_folder
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from overfit import Machine, PreparationConfig, PrepareResult, Scan, Skipped

# Scans that show a smaller share of a head are completed.
WHOLE_SHARE = 0.6
# Random heads: the most likely ones of all face masks have nearly the same skull.
RANDOM = CompletionConfig(head="random", draws=0)


@dataclass(frozen=True)
class CompletedHeads:
    """Heads for stage 1."""

    heads: list[Scan]
    """All heads, in the order of their names."""
    completed: list[str]
    """Names of those that were completed."""
    skipped: list[Skipped]
    """Partial scans that could not be completed."""


def partial_heads(prepared: PrepareResult) -> list[Scan]:
    """Return the heads of which their scans show less than `WHOLE_SHARE`."""
    shares = {head.path: prepared.reports[head.path].seen_share for head in prepared.heads}
    return [head for head in prepared.heads if (share := shares[head.path]) is not None and share < WHOLE_SHARE]


def complete_partial(
    scans: Path,
    prepared: PrepareResult,
    out: Path,
    checkpoint: Checkpoint,
    *,
    partial: Sequence[Scan],
    preparation: PreparationConfig = PreparationConfig(),
    machine: Machine = Machine(),
) -> CompletedHeads:
    """Return prepared heads with whole ones in place of partial ones, each completed at random.

    The same call resumes; what was completed of other scans of the folder is removed.

    Args:
        scans: Folder of the raw scans.
        prepared: What was prepared of them.
        out: Folder for the completed heads.
        checkpoint: The model that unseen parts are drawn from.
        partial: The heads to complete, as `partial_heads` returns them.
        preparation: How the scans were prepared.
        machine: Compute resources.

    Raises:
        BadInput: If the model is none of warped heads.
    """
    by_name = {prepared.reports[head.path].name: head for head in partial}
    result = complete_folder(
        scans, out, checkpoint, names=by_name.keys(), config=RANDOM, preparation=preparation, machine=machine
    )
    files = {report.name: report.file for report in result.reports if not report.skipped}
    completed = [Scan(by_name[name].name, (out / file).absolute(), unit="mm") for name, file in files.items()]
    paths = {head.path for head in partial}
    whole = [head for head in prepared.heads if head.path not in paths]
    heads = sorted([*whole, *completed], key=lambda head: head.name)
    return CompletedHeads(heads, sorted(files), result.skipped)
