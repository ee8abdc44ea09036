"""Reads point tables: a text file's bytes in; its points, normals and unit, and how many rows were unreadable, out.

A row holds one point: numbers separated by spaces, tabs, commas or semicolons, with decimal points or commas. A header
that names its columns decides which of them are coordinates and normals, and may name their unit. Without one, the
first three columns are coordinates, after numbers that count the rows, and three columns of unit length are normals. A
header that is not understood is refused: its columns are never guessed.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from overfit.runtime.errors import BadInput
from overfit.scans.units import Unit

# Lines that are searched for the header and the first point, and from which the columns' meaning is taken.
SAMPLE_LINES = 300
# Bytes of the file in which they are sought: a file without line ends must not be split as a whole.
SAMPLE_BYTES = 1 << 20
# A row of more columns is no point.
MAX_COLUMNS = 200
# Bytes that are parsed at a time; one unreadable row makes its block several times slower.
BLOCK_BYTES = 1 << 22
# A file with a larger share of unreadable rows is refused.
MAX_UNREADABLE_SHARE = 0.1
# Longest part of a header that a message repeats.
MAX_HEADER_LENGTH = 60

# Columns count as normals if nearly all of their rows have unit length: this far off at most, ...
UNIT_LENGTH_TOLERANCE = 0.01
# ... in more than this share of the rows.
UNIT_LENGTH_SHARE = 0.95
# Fewest rows of the sample from which row numbers and normals are told apart from coordinates.
MIN_SAMPLE_ROWS = 20

AXES = ("x", "y", "z")
UNIT_WORDS: dict[str, Unit] = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), "mm"),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), "cm"),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), "m"),
    **dict.fromkeys(("in", "inch", "inches"), "in"),
    **dict.fromkeys(("ft", "foot", "feet"), "ft"),
}
_UNIT = "|".join(sorted(UNIT_WORDS, key=len, reverse=True))
# `X (mm)`, `x [m]`, `x_cm`, `x in mm`.
_NAMED_UNIT = re.compile(rf"[\s_]*(?:[(\[]\s*({_UNIT})\s*[)\]]|(?:[\s_]|\bin\s+)({_UNIT}))\s*$")
# `x`, `pos_x`, `Points:0`, `position.x`, `x coordinate`.
_COORDINATE = re.compile(
    r"(?:(?:pos|position|point|points|coord|coords|coordinate|coordinates|vertex|world|p|v)[\s_.:\-]*)?([xyz])"
    r"(?:[\s_\-]*(?:coord|coords|coordinate|coordinates|koordinate|pos|position|value))?"
    r"|(?:points|point|pos|position|coordinates|coords)[\s_.:\-]*\(?([012])\)?"
)
_NORMAL = re.compile(r"(?:n|norm|normal|normals)[\s_.:\-]*\(?([xyz012])\)?")
_COMMA_NUMBER = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?")
# What stands for a number that was not measured.
_MISSING = ("", "-", "--", "nan", "null", "none", "na", "n/a")
_COMMENT_MARKS = "#/% "
# Byte order marks of text that is not ASCII's superset.
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class PointTable:
    """What a text file holds."""

    points: Float[np.ndarray, "rows 3"]
    """Coordinates in the unit of the file."""
    normals: Float[np.ndarray, "rows 3"] | None
    """Normals as the file has them, of any length; None if there are none."""
    unit: Unit | None
    """The unit that the header names, if it does."""
    unreadable_rows: int
    """Rows that are no numbers, which were left out."""


@dataclass(frozen=True)
class _Dialect:
    """How numbers are written and separated."""

    delimiter: str | None
    """What separates columns; None is white space."""
    decimal_comma: bool = False
    """Whether decimals follow a comma."""

    def split(self, line: str) -> list[str]:
        """Return the fields of a line, without quotes and the white space around them."""
        return [field.strip() for field in line.replace('"', "").split(self.delimiter)]

    def number(self, field: str) -> float | None:
        """Return the number in a field, or None if there is none."""
        if self.decimal_comma:
            field = field.replace(",", ".")
        try:
            return float(field)
        except ValueError:
            return None

    def numbers(self, line: str) -> list[float | None]:
        """Return the numbers of a line, None for fields that are none."""
        return [self.number(field) for field in self.split(line)]


# In the order in which they are tried. The first two need decimal commas, which no other dialect can read.
_DIALECTS = (
    _Dialect(";", decimal_comma=True),
    _Dialect(None, decimal_comma=True),
    _Dialect(";"),
    _Dialect("\t"),
    _Dialect(","),
    _Dialect(None),
)


@dataclass(frozen=True)
class _Layout:
    """Where the points of a file are."""

    dialect: _Dialect
    """How it is written."""
    first_line: int
    """Number of the first line that may hold a point."""
    coordinates: tuple[int, ...]
    """Columns of x, y and z."""
    normals: tuple[int, ...] | None
    """Columns of the normals."""
    unit: Unit | None
    """The unit that the header names."""

    @property
    def columns(self) -> tuple[int, ...]:
        """All columns that are read."""
        return self.coordinates + (self.normals or ())


def read_table(data: bytes, *, name: str) -> PointTable:
    """Return the points in the bytes of a text file; a row without measured coordinates has NaN.

    `name` is what messages call the file. Raises BadInput if there are no points in it, its header is not understood,
    or more than a tenth of its rows are unreadable.
    """
    if data.startswith(_UTF16_MARKS):
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(_UTF8_MARK)
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    lines = _first_lines(data)
    layout = _find_layout(lines, name)
    start = _line_start(data, layout.first_line)
    # Filled block by block, so that a file of many millions of points is in memory once.
    values = np.empty((data.count(b"\n", start) + 1, len(layout.columns)))
    count = unreadable = 0
    for block in _blocks(data, start):
        rows, lost = _parse_block(block, layout)
        values[count : count + len(rows)] = rows
        count, unreadable = count + len(rows), unreadable + lost
    if unreadable > MAX_UNREADABLE_SHARE * (count + unreadable):
        raise BadInput(
            f"{name}: {unreadable} of {count + unreadable} rows are not {len(layout.columns)} numbers; "
            "export the points as text again"
        )
    points, normals = values[:count, :3], values[:count, 3:]
    return PointTable(points, normals if layout.normals else None, layout.unit, unreadable)


def _first_lines(data: bytes) -> list[str]:
    text = data[:SAMPLE_BYTES].decode("utf-8", "replace")
    return [line.removesuffix("\r") for line in text.split("\n")[:SAMPLE_LINES]]


def _find_layout(lines: list[str], name: str) -> _Layout:
    """Return where the points are. Raises BadInput if there are none, or the header is not understood."""
    found = next(
        ((index, dialect) for index, line in enumerate(lines) if (dialect := _dialect_of(line)) is not None), None
    )
    if found is None:
        raise BadInput(f"{name}: no row of three numbers in its first {len(lines)} lines; export the points again")
    first, dialect = found
    width = len(dialect.split(lines[first]))
    if dialect == _Dialect(",") and _splits_decimals(lines[first:], width):
        raise BadInput(f"{name}: commas before decimals and between columns; export it with semicolons or points")
    for index in reversed(range(first)):
        columns = _column_names(lines[index], dialect)
        if layout := _named_layout(columns, dialect, first_line=index + 1):
            if len(columns) == width or max(layout.columns) < width < 2 * len(columns):
                return layout
            raise BadInput(
                f"{name}: {len(columns)} columns in its header and {width} in its first row "
                f"({lines[first].strip()[:MAX_HEADER_LENGTH]}); export the points as text again"
            )
    if first and _looks_like_header(lines[first - 1], dialect, width):
        header = lines[first - 1].strip()[:MAX_HEADER_LENGTH]
        raise BadInput(f"{name}: a header without x, y and z ({header}); name these columns so, or delete the line")
    return _unnamed_layout(lines[first:], dialect, first_line=first, name=name)


def _dialect_of(line: str) -> _Dialect | None:
    """Return the dialect in which a line holds a point, or None if there is none."""
    for dialect in _DIALECTS:
        fields = dialect.split(line)
        if dialect.decimal_comma and not any(_COMMA_NUMBER.fullmatch(field) for field in fields):
            continue
        numbers = sum(dialect.number(field) is not None for field in fields)
        if numbers >= 3 and len(fields) <= MAX_COLUMNS:
            return dialect
    return None


def _column_names(line: str, dialect: _Dialect) -> list[str]:
    """Return the names of columns in a header, in lower case."""
    text = line.lstrip(_COMMENT_MARKS).lower()
    if dialect.delimiter is None or dialect.delimiter not in text:
        # A unit in brackets belongs to the name before it: `X (mm) Y (mm) Z (mm)`.
        text = re.sub(r"\s+([(\[])", r"\1", text)
        return [field.strip('"') for field in re.split(r"[\s,;]+", text) if field]
    return dialect.split(text)


def _named_layout(columns: list[str], dialect: _Dialect, *, first_line: int) -> _Layout | None:
    """Return the layout that a header gives, or None if it does not name x, y and z."""
    bare = [_NAMED_UNIT.sub("", column).strip() for column in columns]
    coordinates = _find_axes(bare, _COORDINATE)
    if coordinates is None:
        return None
    named = _NAMED_UNIT.search(columns[coordinates[0]])
    unit = UNIT_WORDS[named[1] or named[2]] if named else None
    return _Layout(dialect, first_line, coordinates, _find_axes(bare, _NORMAL), unit)


def _find_axes(columns: list[str], pattern: re.Pattern[str]) -> tuple[int, ...] | None:
    """Return the columns of the three axes, whose names match a pattern, or None if one is missing."""
    found: dict[str, int] = {}
    for index, column in enumerate(columns):
        if match := pattern.fullmatch(column):
            axis = next(group for group in match.groups() if group)
            found.setdefault(AXES[int(axis)] if axis.isdigit() else axis, index)
    return tuple(found[axis] for axis in AXES) if len(found) == len(AXES) else None


def _looks_like_header(line: str, dialect: _Dialect, width: int) -> bool:
    """Return whether a line has as many words as rows have columns, none of them a number."""
    columns = _column_names(line, dialect)
    return len(columns) == width and all(column and dialect.number(column) is None for column in columns)


def _unnamed_layout(lines: list[str], dialect: _Dialect, *, first_line: int, name: str) -> _Layout:
    """Return the layout of a file without a header. Raises BadInput if its rows do not begin with a point."""
    rows = [dialect.numbers(line) for line in lines]
    width = len(rows[0])
    sample = np.array([[np.nan if field is None else field for field in row] for row in rows if len(row) == width])
    start = int(width > 3 and _counts_rows(sample[:, 0]))
    if np.isnan(sample[0, start : start + 3]).any():
        first = lines[0].strip()[:MAX_HEADER_LENGTH]
        raise BadInput(
            f"{name}: a first row that does not begin with x, y and z ({first}); add a header that names them"
        )
    return _Layout(dialect, first_line, (start, start + 1, start + 2), _unit_columns(sample, start + 3), None)


def _splits_decimals(lines: list[str], width: int) -> bool:
    """Return whether every second column holds digits only, as many in each row, as decimals after a comma would."""
    rows = [row for line in lines if len(row := line.strip().split(",")) == width]
    if width % 2 or len(rows) < MIN_SAMPLE_ROWS:
        return False
    decimals = [row[column] for row in rows for column in range(1, width, 2)]
    return (
        len({len(field) for field in decimals}) == 1
        and all(field.isdigit() for field in decimals)
        and (len(decimals[0]) > 1)
    )


def _counts_rows(column: np.ndarray) -> bool:
    """Return whether a column counts the rows from 0 or 1."""
    return len(column) >= MIN_SAMPLE_ROWS and column[0] in (0, 1) and bool((np.diff(column) == 1).all())


def _unit_columns(sample: np.ndarray, start: int) -> tuple[int, ...] | None:
    """Return three columns in a row of unit length, the first such, or None."""
    if len(sample) < MIN_SAMPLE_ROWS:
        return None
    for first in range(start, sample.shape[1] - 2):
        length = np.linalg.norm(sample[:, first : first + 3], axis=1)
        if (np.abs(length - 1) < UNIT_LENGTH_TOLERANCE).mean() > UNIT_LENGTH_SHARE:
            return first, first + 1, first + 2
    return None


def _line_start(data: bytes, line: int) -> int:
    """Return where a line begins."""
    position = 0
    for _ in range(line):
        position = data.index(b"\n", position) + 1
    return position


def _blocks(data: bytes, start: int) -> Iterator[bytes]:
    """Yield the bytes in blocks of whole lines."""
    while start < len(data):
        end = data.rfind(b"\n", start, start + BLOCK_BYTES) + 1
        if not end:
            end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end


def _parse_block(block: bytes, layout: _Layout) -> tuple[np.ndarray, int]:
    """Return the rows (n, columns) of a block, and how many lines were unreadable."""
    if layout.dialect.decimal_comma:
        block = block.replace(b",", b".")
    delimiter = layout.dialect.delimiter
    try:
        if not block.strip():
            return np.empty((0, len(layout.columns))), 0
        rows = np.loadtxt(
            io.BytesIO(block), delimiter=delimiter, usecols=layout.columns, ndmin=2, comments=None, quotechar='"'
        )
        return rows, 0
    except ValueError:
        return _parse_lines(block, layout)


def _parse_lines(block: bytes, layout: _Layout) -> tuple[np.ndarray, int]:
    """Return what `_parse_block` does, one line after the other."""
    rows, unreadable = [], 0
    for line in block.decode("utf-8", "replace").splitlines():
        if not line.strip() or line.startswith(("#", "//")):
            continue
        try:
            fields = layout.dialect.split(line)
            wanted = [fields[column] for column in layout.columns]
            missing = all(field.lower() in _MISSING for field in wanted)
            rows.append([np.nan] * len(wanted) if missing else [float(field) for field in wanted])
        except (ValueError, IndexError):
            unreadable += 1
    return np.array(rows, float).reshape(-1, len(layout.columns)), unreadable
