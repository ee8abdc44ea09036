"""Completion of a folder: raw partial scans and a model in; whole heads, masks, a table and pictures out.

Each scan gives NAME.ply, its head, NAME_draw_0.ply and so on, NAME.png and NAME.json, which is written last: with it
the scan is done. Vertices have the property `seen`: 1 where the scan shows them, 0 where they are
invented.
"""

import csv
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Bool

from hyperdiffusion.completion.complete import (
    FIT_POINTS,
    MIN_SEEN_SHARE,
    Completion,
    CompletionConfig,
    complete,
)
from hyperdiffusion.completion.linear_heads import LinearHeads
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.rendering.completion_sheet import draw_completion, vertex_colours, write_completion_sheet
from overfit import BadInput, DecodeConfig, Machine, PreparationConfig, Scan, Skipped
from overfit.geometry.mesh import SEEN
from overfit.geometry.point_cloud import thin
from overfit.geometry.signed_distance import nearest_points
from overfit.geometry.similarity import Similarity
from overfit.runtime.atomic_io import atomic_write, write_json
from overfit.runtime.workers import run_tasks
from overfit.scans.formats import digest_if_readable, find_raw_scans, output_names
from overfit.scans.prepare import Steps, align_raw, load_template, reported, sample_seen

# Points of a scan whose distance to its head is measured.
MEASURED_POINTS = 2000
TABLE, PICTURE = "completed.csv", "completed.png"
NOTICE = "Where `seen` is 0, the surface is not measured but invented: drawn from a model of other heads."


@dataclass(frozen=True)
class CompletionReport:
    """What completing a scan gave; a row of completed.csv."""

    name: str
    """The scan's name."""
    file: str = ""
    """The scan's head, relative to the output folder; empty if there is none."""
    draws: int = 0
    """Random heads beside it, in files of the same name with `_draw_0` and so on."""
    seen_share: float | None = None
    """Share of the head's area that the scan shows; the rest is invented."""
    seen_mm: float | None = None
    """Mean distance of the scan's points to the head."""
    remarks: str = ""
    """What is doubtful, in words."""
    skipped: str = ""
    """Why there is no head; empty if there is one."""


@dataclass(frozen=True)
class CompletionResult:
    """What completing a folder gave."""

    reports: list[CompletionReport]
    """One for each scan, by name."""
    kept: int
    """Scans that an earlier run had completed."""
    removed: list[str]
    """Scans that are gone from the folder; what an earlier run made of them is removed."""

    @property
    def skipped(self) -> list[Skipped]:
        """Scans without a head, and why."""
        return [Skipped(report.name, report.skipped) for report in self.reports if report.skipped]


@dataclass(frozen=True)
class _Task:
    """A scan and where its heads go."""

    scan: Scan
    """The raw scan."""
    out: Path
    """Path of its files without a suffix."""
    name: str
    """The same, relative to the output folder."""
    key: dict[str, Any]
    """What its heads depend on: they are kept as long as it is the same."""


def complete_folder(
    scans: Path,
    out: Path,
    checkpoint: Checkpoint,
    *,
    names: Collection[str] | None = None,
    config: CompletionConfig = CompletionConfig(),
    preparation: PreparationConfig = PreparationConfig(),
    decoding: DecodeConfig = DecodeConfig(),
    machine: Machine = Machine(),
) -> CompletionResult:
    """Complete every scan below a folder that `out` does not hold yet.

    Each scan has a random seed of its own, so that no two of them are completed alike.

    Args:
        scans: Folder of raw scans.
        out: Folder for heads, masks, the table and pictures.
        checkpoint: The model that unseen parts are drawn from.
        names: The scans to complete; all if none are given.
        config: How scans are completed.
        preparation: How scans are brought to the canonical frame.
        decoding: How networks become meshes.
        machine: Compute resources.

    Raises BadInput if there are no scans, or the model is of another kind.
    """
    if out.resolve() == scans.resolve() or scans.resolve() in out.resolve().parents:
        raise BadInput(f"{out}: lies among the scans; give a folder outside {scans}")
    load_template(preparation.template)
    # First of all: with a model of another kind, every scan would be skipped.
    LinearHeads(checkpoint)
    context = machine.start()
    settings = {
        "scans": scans.resolve(),
        "completion": config,
        "preparation": preparation,
        "decoding": decoding,
        "model": checkpoint.digest,
    }
    tasks = _plan(scans, out, names, {name: str(value) for name, value in settings.items()})
    removed = _remove_withdrawn(scans, out, tasks)
    reports = {task.out: report for task in tasks if (report := _earlier_report(task))}
    kept = sum(not report.skipped for report in reports.values())
    new = [task for task in tasks if task.out not in reports]
    arguments = [(task, checkpoint, config, preparation, decoding) for task in new]
    with context.progress(len(new), "completing", "scan") as bar:
        for index, report in run_tasks(_complete_one, arguments, context):
            reports[new[index].out] = report
            bar.update()
    ordered = [reports[task.out] for task in tasks]
    _write_table(ordered, out / TABLE)
    write_completion_sheet([_with(task.out, ".png") for task in tasks if not reports[task.out].skipped], out / PICTURE)
    return CompletionResult(ordered, kept, removed)


def _plan(scans: Path, out: Path, chosen: Collection[str] | None, settings: dict[str, str]) -> list[_Task]:
    found = find_raw_scans(scans)
    names = output_names([scan.name for scan in found])
    return [
        _Task(scan, (out / name).absolute(), name, {**settings, "digest": digest_if_readable(scan)})
        for scan, name in zip(found, names)
        if chosen is None or scan.name in chosen
    ]


def _remove_withdrawn(scans: Path, out: Path, tasks: Sequence[_Task]) -> list[str]:
    """Remove what earlier runs made of scans that this folder no longer holds: people withdraw their consent."""
    planned = {task.out for task in tasks}
    removed = []
    for path in sorted(out.absolute().rglob("*.json")):
        content, base = _read(path), path.with_name(path.name.removesuffix(".json"))
        if base not in planned and content.get("key", {}).get("scans") == str(scans.resolve()):
            _remove_heads(base)
            path.unlink()
            removed.append(content["report"]["name"])
    return removed


def _remove_heads(base: Path) -> None:
    """Remove the heads and the picture of a scan."""
    for path in (_with(base, ".ply"), _with(base, ".png"), *base.parent.glob(f"{escape(base.name)}_draw_*.ply")):
        path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """What a scan's JSON file holds; nothing if it is another program's."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and {"key", "report"} <= content.keys() else {}


def _earlier_report(task: _Task) -> CompletionReport | None:
    """The report of an earlier run on the same scan with the same settings, if its head is still there."""
    content = _read(_with(task.out, ".json"))
    if content.get("key") != task.key:
        return None
    try:
        report = CompletionReport(**content["report"])
    except TypeError:
        return None
    return report if report.skipped or _with(task.out, ".ply").exists() else None


def _with(path: Path, suffix: str) -> Path:
    """A path with a suffix added: a name may contain dots."""
    return path.with_name(path.name + suffix)


def _complete_one(
    task: _Task,
    checkpoint: Checkpoint,
    config: CompletionConfig,
    preparation: PreparationConfig,
    decoding: DecodeConfig,
) -> CompletionReport:
    """Complete a scan and write its heads, picture and report."""
    # Those of other settings or of another scan of this name.
    _remove_heads(task.out)
    steps = Steps()
    transform: Similarity | None = None
    with reported(task.scan, steps):
        align_raw(task.scan, preparation, steps)
        report, transform = _complete_aligned(task, steps, checkpoint, config, decoding)
    if steps.skipped:
        report = CompletionReport(task.scan.name, skipped=steps.skipped)
    content: dict[str, Any] = {"key": task.key, "report": asdict(report), "notice": NOTICE}
    if transform is not None:
        content["from_scan"] = _matrix(transform)
    write_json(_with(task.out, ".json"), content)
    return report


def _complete_aligned(
    task: _Task, steps: Steps, checkpoint: Checkpoint, config: CompletionConfig, decoding: DecodeConfig
) -> tuple[CompletionReport, Similarity]:
    """The report on a scan whose heads were written, and how the scan comes to their frame."""
    assert steps.aligned is not None and steps.alignment is not None
    if steps.other_head:
        raise BadInput("shows two heads; give each head a file of its own")
    own = replace(config, seed=_own_seed(task.scan.name, config.seed))
    found = complete(checkpoint, sample_seen(steps.aligned, FIT_POINTS), config=own)
    meshes = found.decode(decoding)
    share = found.seen_share(meshes[0])
    if share < MIN_SEEN_SHARE:
        raise BadInput(f"shows {share:.1%} of a head, which tells nothing of the rest; scan more of it")
    masks = [found.is_seen(mesh) for mesh in meshes]
    names = ["", *(f"_draw_{index}" for index in range(config.draws))]
    for name, mesh, seen in zip(names, meshes, masks):
        _write_mesh(mesh, seen, _with(task.out, f"{name}.ply"))
    with atomic_write(_with(task.out, ".png")) as path:
        draw_completion(task.scan.name, found.seen, meshes, masks, path)
    report = CompletionReport(
        task.scan.name,
        file=f"{task.name}.ply",
        draws=config.draws,
        seen_share=round(share, 3),
        seen_mm=round(_distance_mm(found, meshes[0]), 3),
        remarks="its size is doubtful" if steps.alignment.size_is_doubtful else "",
    )
    return report, steps.alignment.similarity.then(found.pose)


def _own_seed(name: str, seed: int) -> int:
    """A seed for the scan of a name."""
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0])


def _distance_mm(found: Completion, mesh: trimesh.Trimesh) -> float:
    """Mean distance to a head of some of the scan's points, without those below its neck."""
    points = thin(found.seen, MEASURED_POINTS).points
    points = points[points[:, 1] > mesh.bounds[0, 1]]
    return float(np.linalg.norm(points - nearest_points(mesh, points), axis=1).mean())


def _write_mesh(mesh: trimesh.Trimesh, seen: Bool[np.ndarray, " vertices"], path: Path) -> None:
    """Write a mesh with the vertices' property `seen` and colours that show it."""
    marked = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False, vertex_colors=vertex_colours(seen))
    marked.vertex_attributes[SEEN] = seen.astype(np.uint8)
    with atomic_write(path) as unfinished:
        marked.export(unfinished, file_type="ply")


def _matrix(transform: Similarity) -> list[list[float]]:
    """A transform as the rows of a 4 x 4 matrix."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = transform.scale * transform.rotation, transform.translation
    return matrix.tolist()


def _write_table(reports: Sequence[CompletionReport], path: Path) -> None:
    with atomic_write(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(CompletionReport)])
        table.writeheader()
        table.writerows(asdict(report) for report in reports)
