"""Prepares a folder of raw scans: a folder in, a folder of closed heads in the canonical frame and their reports out.

    OUT/<name>.ply        the head, in millimetres
    OUT/<name>.json       its report: what was found and done, or why the scan was skipped
    OUT/<name>.png        the scan next to its head
    OUT/prepared.csv      all reports as a table

Run again, it prepares only scans that are new or have changed, and removes the heads of scans that are gone.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from trimesh.exchange.ply import export_ply

from overfit.runtime.atomic_io import atomic_write, write_json
from overfit.runtime.errors import BadInput, Skipped
from overfit.runtime.machine import Machine, RunContext
from overfit.runtime.workers import run_tasks
from overfit.scans.formats import Scan, digest_if_readable, find_raw_scans, output_names, parse_prepared
from overfit.scans.preparation_report import PreparationReport
from overfit.scans.prepare import Preparation, PreparationConfig, load_template, prepare

# Heads in memory for the fits that follow, in bytes: about 200 of them. The others are read again.
MAX_MESH_BYTES = 1 << 30
# What the report on a scan says whose bytes are those of another.
DUPLICATE = "the same file as"
# Fields of reports that the first version wrote, by today's names.
FIRST_VERSION_FIELDS = {
    "pieces": "components",
    "noise": "noise_share",
    "turn_degrees": "rotation_degrees",
    "set_aside": "skipped",
}

Draw = Callable[[Preparation, Path], None]
"""Draws a prepared scan into a PNG file."""


@dataclass(frozen=True)
class PrepareResult:
    """What a run did."""

    reports: dict[Path, PreparationReport]
    """Reports on all scans by the paths of their heads, which exist unless the report says why not."""
    heads: list[Scan]
    """All heads in the order of their paths, named relative to the output folder and ready to be fitted."""
    kept: list[str]
    """Names of those heads that an earlier run prepared."""
    removed: list[str]
    """Names of scans that are gone from the folder, and whose heads and reports were removed."""

    @property
    def skipped(self) -> list[Skipped]:
        """The scans without a head, with the reasons."""
        return [Skipped(report.name, report.skipped) for report in self.reports.values() if report.skipped]


@dataclass(frozen=True)
class _Task:
    """A scan and where its head goes."""

    scan: Scan
    """The raw scan."""
    head: Scan
    """Its head, not written yet."""
    digest: str
    """SHA-256 of the scan's bytes; empty if it cannot be read."""
    same_as: str = ""
    """Name of the first scan with the same bytes, if this is another one: one head must not count twice."""

    @property
    def duplicate(self) -> str:
        """Why the scan is left out if it is the same as another; else an empty string."""
        return f"{self.scan.name}: {DUPLICATE} {self.same_as}; keep one of them" if self.same_as else ""


@dataclass(frozen=True)
class _Done:
    """A scan that was prepared or skipped."""

    report: PreparationReport
    """What was found and done."""
    head: Scan | None
    """The head that was written, with its mesh in memory; None if the scan was skipped."""


def prepare_folder(
    scans: Path | str,
    out: Path | str,
    *,
    config: PreparationConfig = PreparationConfig(),
    machine: Machine = Machine(),
    draw: Draw | None = None,
) -> PrepareResult:
    """Prepare every scan below a folder that `out` does not hold yet.

    Args:
        scans: Folder of raw scans.
        out: Folder for the heads and reports.
        config: How scans are prepared.
        machine: Compute resources.
        draw: What draws each scan next to its head; without it, there are no pictures.

    Raises BadInput if there are no scans, one folder lies in the other, or the template cannot be read.
    """
    scans, out = Path(scans), Path(out)
    _check_folders(scans, out)
    # First of all: with a template that cannot be read, every scan would be skipped.
    load_template(config.template)
    context = machine.start()
    tasks = _plan(scans, out)
    removed = _remove_withdrawn(scans, out, tasks)
    reports = {task.head.path: report for task in tasks if (report := _earlier_report(task, config))}
    heads = [task.head for task in tasks if task.head.path in reports and not reports[task.head.path].skipped]
    kept = [head.name for head in heads]
    new = [task for task in tasks if task.head.path not in reports]
    for task, done in _prepare_all(new, scans, config=config, draw=draw, context=context):
        reports[task.head.path] = done.report
        heads += [] if done.head is None else [done.head]
    reports = {task.head.path: reports[task.head.path] for task in tasks}
    _write_table(list(reports.values()), out / "prepared.csv")
    return PrepareResult(reports, sorted(heads, key=lambda head: head.path), kept, removed)


def _check_folders(scans: Path, out: Path) -> None:
    if out.is_file():
        raise BadInput(f"{out}: a file where a folder is expected; give a new folder, or one that holds prepared heads")
    scan_folder, head_folder = scans.resolve(), out.resolve()
    if head_folder == scan_folder or scan_folder in head_folder.parents:
        raise BadInput(f"{out}: lies among the scans; give a folder outside {scans}")
    if head_folder in scan_folder.parents:
        raise BadInput(f"{scans}: lies in {out}, where the heads go; give another folder for the heads")


def _plan(scans: Path, out: Path) -> list[_Task]:
    """Return all scans and their heads, which are named as `find_scans` names them in the output folder."""
    found = find_raw_scans(scans)
    names = [f"{name}.ply" for name in output_names([scan.name for scan in found])]
    first: dict[str, str] = {}
    tasks = []
    for scan, name in zip(found, names):
        digest = digest_if_readable(scan)
        same_as = first.setdefault(digest, scan.name) if digest else scan.name
        head = Scan(name, (out / name).absolute(), unit="mm")
        tasks.append(_Task(scan, head, digest, "" if same_as == scan.name else same_as))
    return tasks


def _remove_withdrawn(scans: Path, out: Path, tasks: list[_Task]) -> list[str]:
    """Remove what earlier runs made of scans that this folder no longer holds, and return the scans' names.

    People withdraw their consent. What was made of other folders is left alone.
    """
    planned = {task.head.path.with_suffix(".json") for task in tasks}
    removed = []
    for path in sorted(out.absolute().rglob("*.json")):
        content = _read_report(path)
        if path in planned or content.get("scans") != str(scans.resolve()):
            continue
        for suffix in (".ply", ".png", ".json"):
            path.with_suffix(suffix).unlink(missing_ok=True)
        removed.append(str(content["report"]["name"]))
    return removed


def _read_report(path: Path) -> dict[str, Any]:
    """Return what a report's file holds; nothing if it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_report = isinstance(content, dict) and isinstance(content.get("report"), dict) and "name" in content["report"]
    return content if is_report else {}


def _prepare_all(
    tasks: list[_Task], scans: Path, *, config: PreparationConfig, draw: Draw | None, context: RunContext
) -> list[tuple[_Task, _Done]]:
    """Return what every scan gave; heads beyond the memory limit come without their meshes."""
    results = []
    mesh_bytes = 0
    with context.progress(len(tasks), "preparing", "scan") as bar:
        for index, done in run_tasks(_prepare_one, [(task, scans, config, draw) for task in tasks], context):
            if done.head is not None and done.head.prepared is not None:
                mesh_bytes += done.head.prepared.nbytes
                if mesh_bytes > MAX_MESH_BYTES:
                    done = replace(done, head=replace(done.head, prepared=None))
            results.append((tasks[index], done))
            bar.update()
    return results


def _prepare_one(task: _Task, scans: Path, config: PreparationConfig, draw: Draw | None) -> _Done:
    """Prepare a scan and write its head, picture and report."""
    if task.same_as:
        report = PreparationReport(task.scan.name, task.digest, skipped=task.duplicate)
        preparation = Preparation(report, None, None)
    else:
        preparation = prepare(task.scan, config)
    head = None
    if preparation.head is not None:
        data = export_ply(preparation.head)
        with atomic_write(task.head.path) as path:
            path.write_bytes(data)
        head = _parsed(task.head, data)
    else:
        task.head.path.unlink(missing_ok=True)
    if draw:
        with atomic_write(task.head.path.with_suffix(".png")) as path:
            draw(preparation, path)
    # Last: a head counts only with its report.
    write_json(
        task.head.path.with_suffix(".json"),
        {"preparation": _as_text(config), "scans": str(scans.resolve()), "report": asdict(preparation.report)},
    )
    return _Done(preparation.report, head)


def _parsed(head: Scan, data: bytes) -> Scan:
    """Return a head with what its file holds: exactly what reading the file gives, for that rounds its vertices."""
    try:
        return replace(head, prepared=parse_prepared(head, data))
    # Too small for a fit, for instance; whoever reads the file says so.
    except BadInput:
        return head


def _earlier_report(task: _Task, config: PreparationConfig) -> PreparationReport | None:
    """Return the report of an earlier run on the same bytes with the same config, if its head is still there."""
    try:
        content = json.loads(task.head.path.with_suffix(".json").read_text(encoding="utf-8"))
        values = {FIRST_VERSION_FIELDS.get(name, name): value for name, value in content["report"].items()}
        report = PreparationReport(**values)
        same = content["preparation"] == _as_text(config) and report.digest == task.digest
        # Which of equal files is prepared may have changed.
        same = same and (report.skipped == task.duplicate or not (task.same_as or DUPLICATE in report.skipped))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return report if same and (task.head.path.exists() or report.skipped) else None


def _as_text(config: PreparationConfig) -> dict[str, str | None]:
    """Return a config as a report has it."""
    return {name: value if value is None else str(value) for name, value in asdict(config).items()}


def _write_table(reports: list[PreparationReport], path: Path) -> None:
    with atomic_write(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(PreparationReport)])
        table.writeheader()
        table.writerows(asdict(report) for report in reports)
