"""A page to look through prepared scans: reports in; an HTML file, with the pictures that lie beside the heads, out."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

from overfit.runtime.atomic_io import atomic_write
from overfit.scans.preparation_report import PreparationReport

PAGE = "prepared.html"
# Columns: a report's field, its title, and how it is written.
_NUMBERS = (
    ("scan_mm", "scan to head, mm", "{:.2f}"),
    ("scan_p95_mm", "95th percentile", "{:.2f}"),
    ("width_mm", "between the ears, mm", "{:.0f}"),
    ("relief", "relief of the face", "{:.2f}"),
)
_STYLE = """
body { font: 14px/1.4 sans-serif; margin: 1em; }
table { border-collapse: collapse; }
td, th { padding: 4px 10px; border-bottom: 1px solid #ddd; text-align: left; vertical-align: middle; }
th { position: sticky; top: 0; background: white; }
tr.skipped { background: #fdeaea; }
tr.doubtful { background: #fff6dd; }
img { height: 150px; }
"""


def write_preparation_page(reports: Mapping[Path, PreparationReport], out: Path) -> Path:
    """Write a page with a row a scan: skipped ones first, then doubtful ones, then by distance to their heads.

    Args:
        reports: The report of each scan by the path of its head, below `out`.
        out: Folder for the page.
    """
    rows = sorted(reports.items(), key=lambda item: _order(item[1]))
    titles = "".join(
        f"<th>{title}</th>" for title in ("scan", "", *(title for _, title, _ in _NUMBERS), "what was done")
    )
    body = "\n".join(_row(head, report, out) for head, report in rows)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Prepared scans</title>'
        f"<style>{_STYLE}</style></head>\n<body><table>\n<tr>{titles}</tr>\n{body}\n</table></body></html>\n"
    )
    with atomic_write(out / PAGE) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return out / PAGE


def _order(report: PreparationReport) -> tuple[bool, bool, float, str]:
    """Doubtful reports sort before others."""
    return not report.skipped, not report.is_doubtful, -(report.scan_mm or 0.0), report.name


def _row(head: Path, report: PreparationReport, out: Path) -> str:
    kind = "skipped" if report.skipped else "doubtful" if report.is_doubtful else ""
    picture = quote(head.relative_to(out.absolute()).with_suffix(".png").as_posix())
    values = [getattr(report, field) for field, _, _ in _NUMBERS]
    numbers = [
        "" if value is None else pattern.format(value) for value, (_, _, pattern) in zip(values, _NUMBERS, strict=True)
    ]
    cells = [escape(report.name), f'<img src="{picture}" loading="lazy" alt="">', *numbers, escape(report.in_words())]
    return f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
