"""A folder of raw scans in, a folder of closed heads in the canonical frame out, with a report. Run again, it goes on.

    OUT/<name>.ply        the head, in millimetres
    OUT/<name>.json       its report: what was read and found, and why it was set aside if it was
    OUT/<name>.png        the scan beside its head
    OUT/prepared.csv      all reports as a table
"""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tqdm import tqdm

from . import workers
from .errors import BadInput
from .files import replacing
from .prepare import Preparation, Prepared, Report, prepare, template_of
from .scans import Scan, find_raw, output_names
from .workers import Machine

# Draws a prepared scan into a file.
Draw = Callable[[Prepared, Path], None]


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    # Reports of all scans by the paths of the heads, which are there unless the report says why not.
    reports: dict[Path, Report]
    # Those that were kept from before.
    kept: set[Path]

    @property
    def set_aside(self) -> list[str]:
        """The reasons for the scans without a head."""
        return [report.set_aside for report in self.reports.values() if report.set_aside]


def prepare_folder(folder: Path | str, out: Path | str, preparation: Preparation = Preparation(),
                   machine: Machine = Machine(), draw: Draw | None = None) -> Outcome:
    """Prepare every scan below a folder that `out` does not hold yet, and draw it where a function for that is given.

    Raises BadInput where there is nothing to prepare, `out` lies where the scans are, or the template cannot be read.
    """
    folder, out = Path(folder), Path(out)
    if out.resolve() == folder.resolve() or folder.resolve() in out.resolve().parents:
        raise BadInput(f"{out}: lies among the scans; give a folder outside {folder}")
    # Before any scan: one that cannot be read would set them all aside.
    template_of(preparation.template)
    scans = find_raw(folder)
    targets = [out / f"{name}.ply" for name in output_names([scan.name for scan in scans])]
    kept = {target: report for scan, target in zip(scans, targets) if (report := _kept(scan, target, preparation))}
    todo = [(scan, target, preparation, draw) for scan, target in zip(scans, targets) if target not in kept]
    reports = dict(kept)
    with tqdm(total=len(todo), desc="preparing", unit="scan", disable=not todo) as bar:
        for index, report in workers.run(_prepare_to, todo, workers=machine.cores):
            reports[todo[index][1]] = report
            bar.update()
    with replacing(out / "prepared.csv") as path, open(path, "w", newline="") as file:
        table = csv.DictWriter(file, [one.name for one in fields(Report)])
        table.writeheader()
        table.writerows(asdict(reports[target]) for target in targets)
    return Outcome({target: reports[target] for target in targets}, set(kept))


def _prepare_to(scan: Scan, target: Path, preparation: Preparation, draw: Draw | None,
                progress: Callable[[int], None]) -> Report:
    prepared = prepare(scan, preparation)
    target.parent.mkdir(parents=True, exist_ok=True)
    if prepared.head is not None:
        with replacing(target) as path:
            prepared.head.export(path, file_type="ply")
    else:
        target.unlink(missing_ok=True)
    if draw:
        with replacing(target.with_suffix(".png")) as path:
            draw(prepared, path)
    # Last: a head counts when its report is there.
    with replacing(target.with_suffix(".json")) as path:
        path.write_text(json.dumps({"preparation": _plain(preparation), "report": asdict(prepared.report)}, indent=1))
    return prepared.report


def _kept(scan: Scan, target: Path, preparation: Preparation) -> Report | None:
    """The report of a scan that was prepared before, from the same file and in the same way."""
    try:
        said = json.loads(target.with_suffix(".json").read_text())
        report = Report(**said["report"])
        same = report.digest == scan.digest and said["preparation"] == _plain(preparation)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return report if same and (target.exists() or report.set_aside) else None


def _plain(preparation: Preparation) -> dict:
    return {name: value if value is None else str(value) for name, value in asdict(preparation).items()}
