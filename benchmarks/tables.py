"""Tables: columns and rows in, Markdown out. Rows are those of a benchmark's result, see `results_io`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

ARROWS = {"higher": " ↑", "lower": " ↓", "half": " → 0.5", "reference": " → test", "": ""}
# An estimate without a finite value, as of distances to heads without a surface.
NOT_FINITE = "not finite"
# Rows of real or fitted heads: bounds of what a generator can reach, never marked as the best.
REFERENCE_ROWS = ("test scans", "training scans", "training fits", "training fits + noise")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    key: str
    """Name of the value in a row."""

    title: str
    """Heading, with the unit."""

    better: Literal["higher", "lower", "half", "reference", ""] = ""
    """Which values are better: higher, lower, close to 0.5, close to the test scans' value, or none."""

    digits: int = 2
    """Digits after the point."""

    percent: bool = False
    """Whether a share is shown as a percentage."""

    unit: str = ""
    """Unit that follows the number, for values in sentences; that of a column belongs into its title."""

    def heading(self) -> str:
        """Return the title with the arrow that tells which values are better."""
        return self.title + ARROWS[self.better]

    def text(self, value: Any) -> str:
        """Return a cell: the formatted value, with its interval in brackets; empty where there is none."""
        if value is None:
            return ""
        if isinstance(value, Mapping):
            if None in value.values():
                return NOT_FINITE
            low, high = (self._bare(value[end]) for end in ("low", "high"))
            return f"{self.text(value['mean'])} [{low}, {high}]"
        if isinstance(value, str):
            return value
        unit = "%" if self.percent else self.unit
        return f"{self._bare(value)} {unit}".rstrip()

    def _bare(self, value: float) -> str:
        return f"{100 * value:.{self.digits}f}" if self.percent else f"{value:,.{self.digits}f}"

    def best(self, rows: Sequence[Row]) -> str | None:
        """Return the text of the best value among the generators' rows, or None where there is nothing to compare."""
        generated = [row for row in rows if row.get("set") not in REFERENCE_ROWS]
        values = [_number(row.get(self.key)) for row in generated]
        numbers = [value for value in values if value is not None]
        target = self._target(rows)
        if len(numbers) < 2 or not self.better or (self.better == "reference" and target is None):
            return None
        if self.better == "higher":
            best = max(numbers)
        elif self.better == "lower":
            best = min(numbers)
        else:
            assert target is not None
            best = min(numbers, key=lambda value: abs(value - target))
        return self.text(best)

    def _target(self, rows: Sequence[Row]) -> float | None:
        if self.better == "half":
            return 0.5
        return next((_number(row.get(self.key)) for row in rows if row.get("set") == "test scans"), None)


def markdown_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Return a Markdown table with the best value of each column in bold. Columns without any value are left out."""
    used = [column for column in columns if any(row.get(column.key) is not None for row in rows)]
    lines = [_line([column.heading() for column in used]), _line(["---"] * len(used))]
    best = {column.key: column.best(rows) for column in used}
    for row in rows:
        lines.append(_line([_cell(column, row, best[column.key]) for column in used]))
    return "\n".join(lines)


def machine_text(machine: Mapping[str, Any]) -> str:
    """Return one line that describes a machine."""
    cores = f"{machine['cores']} core{'s' if machine['cores'] != 1 else ''}"
    gpu = f"{machine['gpu']} and " if machine.get("gpu") else ""
    return f"{gpu}{cores} of {machine['cpu']}{_vectors_text(machine)}, torch {machine['torch']}"


def _vectors_text(machine: Mapping[str, Any]) -> str:
    if machine["avx512"] is None:
        return ""
    return " with AVX-512 and bf16" if machine["bf16"] else " with AVX-512" if machine["avx512"] else " without AVX-512"


def _number(value: Any) -> float | None:
    if isinstance(value, Mapping):
        value = value["mean"]
    return None if value is None or isinstance(value, str) else float(value)


def _cell(column: Column, row: Row, best: str | None) -> str:
    value = row.get(column.key)
    text, number = column.text(value), _number(value)
    if best is None or number is None or row.get("set") in REFERENCE_ROWS or column.text(number) != best:
        return text
    return f"**{best}**{text[len(best) :]}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
