"""Reads point files: XYZ, ASC, TXT, CSV, PTS, PCD, LAS, LAZ and E57 in, point clouds in the unit of the file out.

Text files hold one point a line, with numbers separated by spaces, tabs, commas or semicolons; lines that are not
numbers are headers. If a header names the columns, they are taken by name. Otherwise the first three are coordinates,
and three columns of unit length are normals; colours are ignored.
"""

import io
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import trimesh

from overfit.geometry.point_cloud import PointCloud
from overfit.runtime.errors import BadInput

TEXT_FORMATS = (".xyz", ".asc", ".txt", ".csv", ".pts")
LASER_FORMATS = (".las", ".laz", ".e57")
POINT_FORMATS = (*TEXT_FORMATS, ".pcd", *LASER_FORMATS)

# No more points of a file are read: a head needs some ten thousand.
MAX_POINTS = 5_000_000
# Fewer points cannot show a head.
MIN_POINTS = 500
# A line or record of more numbers is no point.
MAX_COLUMNS = 200
# Lines that are searched for the first point.
MAX_HEADER_LINES = 100
# Characters of a line that are looked at: a file without line ends must not be split as a whole.
MAX_LINE_LENGTH = 10_000
# Longest part of a library's own error that is repeated: the message stays one line.
MAX_REASON_LENGTH = 120

# Columns count as normals if nearly all of their rows have unit length: this far off at most, ...
UNIT_LENGTH_TOLERANCE = 0.01
# ... in more than this share of the rows.
UNIT_LENGTH_SHARE = 0.95

# Position and size in bytes of the number of variable length records in the header of a LAS file.
LAS_RECORD_COUNT = slice(100, 104)
# Smallest size in bytes of such a record: that of its own header (LAS 1.4, table 5).
LAS_RECORD_BYTES = 54

_SEPARATORS = re.compile(r"[\s,;]+")
# PCD's letters for the types of numbers, and NumPy's.
_PCD_TYPES = {"F": "f", "I": "i", "U": "u"}


def read_points(data: bytes, suffix: str, *, name: str) -> PointCloud:
    """Return the points in the bytes of a text or PCD file, with normals if it has any.

    Args:
        data: The file's content.
        suffix: The file name's ending in lower case, one of `TEXT_FORMATS` or ".pcd".
        name: What messages call the file.

    Raises BadInput if there are no points in it.
    """
    table, columns = _parse_pcd(data, name) if suffix == ".pcd" else _parse_text(data, name)
    if table.shape[1] < 3:
        raise BadInput(f"{name}: {table.shape[1]} numbers a line; a point has at least three")
    coordinates = _find_columns(columns, ("x", "y", "z")) or [0, 1, 2]
    return _finite_cloud(table[:, coordinates], _find_normals(table, columns), name)


def read_laser_scan(path: Path, *, name: str) -> PointCloud:
    """Return the points of a LAS, LAZ or E57 file. Raises BadInput if it is damaged or its library is missing."""
    try:
        import laspy
        import pye57
    except ImportError as error:
        raise BadInput(
            f"{name}: reading it needs {error.name}; install it by `pip install 'hyperdiffusion-heads[scanners]'`"
        ) from error
    try:
        points = _read_e57(path, pye57) if path.suffix.lower() == ".e57" else _read_las(path, laspy)
    # These libraries raise errors of any type on damaged files.
    except Exception as error:
        raise _damaged(name, error) from error
    return _finite_cloud(points, None, name)


def ply_points(loaded: trimesh.PointCloud, name: str) -> PointCloud:
    """Return the points of a PLY file without faces, with normals if it has any. Raises BadInput if there are few."""
    vertices = loaded.metadata.get("_ply_raw", {}).get("vertex", {}).get("data")
    properties = [] if vertices is None else list(getattr(vertices, "dtype", np.dtype([])).names or vertices)
    normals = None
    if {"nx", "ny", "nz"} <= set(properties):
        normals = np.stack([np.asarray(vertices[axis], float).ravel() for axis in ("nx", "ny", "nz")], axis=1)
    return _finite_cloud(np.asarray(loaded.vertices, float), normals, name)


def _finite_cloud(points: np.ndarray, normals: np.ndarray | None, name: str) -> PointCloud:
    """Return the points with finite coordinates and usable normals. Raises BadInput if too few are."""
    if points.ndim != 2 or points.shape[1] != 3:
        raise BadInput(f"{name}: its points have no three coordinates; export the scan again")
    kept = np.isfinite(points).all(1)
    if normals is not None:
        length = np.linalg.norm(normals, axis=1)
        kept &= np.isfinite(length) & (length > 0)
        normals = normals[kept] / length[kept, None]
    if kept.sum() < MIN_POINTS:
        raise BadInput(f"{name}: only {int(kept.sum())} points; a head needs at least {MIN_POINTS}")
    return PointCloud(points[kept], normals)


def _parse_text(data: bytes, name: str) -> tuple[np.ndarray, list[str]]:
    """Return the table of a text file and the names of its columns, which mean nothing where there is no header."""
    with io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace") as file:
        lines = [file.readline(MAX_LINE_LENGTH) for _ in range(MAX_HEADER_LINES)]
    # A single number is the count that some formats begin with.
    counts = [len(row) if (row := _parse_numbers(line)) is not None else 0 for line in lines]
    first = next((index for index, count in enumerate(counts) if 3 <= count <= MAX_COLUMNS), None)
    if first is None:
        raise BadInput(
            f"{name}: no line of three numbers in its first {MAX_HEADER_LINES}; export the points as text again"
        )
    header = lines[first - 1].lstrip("#/ ") if first else ""
    try:
        table = np.loadtxt(
            io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"),
            delimiter=next((mark for mark in ",;" if mark in lines[first]), None),
            skiprows=first,
            usecols=range(counts[first]),
            ndmin=2,
            max_rows=MAX_POINTS,
            comments=("#", "//"),
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise _damaged(name, error, "points") from error
    return table, [column.lower() for column in _SEPARATORS.split(header.strip())]


def _parse_numbers(line: str) -> list[float] | None:
    try:
        return [float(word) for word in _SEPARATORS.split(line.strip()) if word]
    except ValueError:
        return None


def _parse_pcd(data: bytes, name: str) -> tuple[np.ndarray, list[str]]:
    """Return the table and the columns of a file in the Point Cloud Library's format, version 0.7, text or binary."""
    start = re.search(rb"^DATA +(\w+)[^\n]*\n", data, re.MULTILINE)
    if not start:
        raise BadInput(f"{name}: no PCD header in it; export the scan again")
    body, encoding = data[start.end() :], start[1].decode()
    try:
        columns, record, count = _parse_pcd_header(data[: start.start()])
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise BadInput(f"{name}: a damaged PCD header ({error}); export the scan again") from error
    if encoding == "binary":
        count = min(count, len(body) // record.itemsize, MAX_POINTS)
        rows = np.frombuffer(body, record, count)
        return np.stack([rows[field].astype(float) for field in record.names or ()], axis=1), columns
    if encoding != "ascii":
        raise BadInput(f"{name}: PCD data of the kind {encoding}; save it as binary or ascii")
    try:
        return np.loadtxt(body.decode("ascii", "replace").splitlines(), ndmin=2, max_rows=MAX_POINTS), columns
    except ValueError as error:
        raise _damaged(name, error) from error


def _parse_pcd_header(header: bytes) -> tuple[list[str], np.dtype, int]:
    """Return the names of the columns, the type of a record with one field a column, and the number of points.

    Raises KeyError, ValueError, IndexError or TypeError if the header is damaged.
    """
    lines = header.decode("ascii", "replace").splitlines()
    entries = {words[0]: words[1:] for line in lines if (words := line.split()) and not line.startswith("#")}
    fields = [field.lower() for field in entries["FIELDS"]]
    points = int(entries["POINTS"][0])
    counts = list(map(int, entries.get("COUNT", ["1"] * len(fields))))
    if not 0 < sum(counts) <= MAX_COLUMNS:
        raise ValueError(f"{sum(counts)} numbers a point")
    types = [f"{_PCD_TYPES[kind]}{size}" for kind, size in zip(entries["TYPE"], entries["SIZE"], strict=True)]
    columns = [
        f"{field}.{part}" if part else field
        for field, count in zip(fields, counts, strict=True)
        for part in range(count)
    ]
    column_types = [kind for kind, count in zip(types, counts) for _ in range(count)]
    return columns, np.dtype([(f"f{index}", kind) for index, kind in enumerate(column_types)]), points


def _read_las(path: Path, laspy: ModuleType) -> np.ndarray:
    """Return points (n, 3). Raises errors of any type on damaged files."""
    _check_las_header(path)
    with laspy.open(path) as file:
        # A point takes several bytes.
        if file.header.point_count > path.stat().st_size:
            raise ValueError("its header claims more points than the file has bytes")
        points = file.read_points(MAX_POINTS)
        return np.stack([points.X, points.Y, points.Z], axis=1) * file.header.scales + file.header.offsets


def _check_las_header(path: Path) -> None:
    """Raise ValueError if a header claims more records than the file can hold: laspy would look for them all."""
    with open(path, "rb") as file:
        header = file.read(LAS_RECORD_COUNT.stop)
    records = int.from_bytes(header[LAS_RECORD_COUNT], "little")
    if len(header) < LAS_RECORD_COUNT.stop or LAS_RECORD_BYTES * records > path.stat().st_size:
        raise ValueError("a damaged header")


def _read_e57(path: Path, pye57: ModuleType) -> np.ndarray:
    """Return points (n, 3) of all scans in the file. Raises errors of any type on damaged files."""
    with pye57.E57(str(path)) as file:
        count = sum(file.get_header(index).point_count for index in range(file.scan_count))
        if count > MAX_POINTS:
            raise ValueError(f"{count} points, more than {MAX_POINTS}")
        scans = [file.read_scan(index, ignore_missing_fields=True) for index in range(file.scan_count)]
    return np.concatenate([np.stack([scan[f"cartesian{axis}"] for axis in "XYZ"], axis=1) for scan in scans])


def _find_columns(columns: list[str], wanted: tuple[str, ...]) -> list[int] | None:
    return [columns.index(name) for name in wanted] if all(name in columns for name in wanted) else None


def _find_normals(table: np.ndarray, columns: list[str]) -> np.ndarray | None:
    """Return the columns (n, 3) that hold normals: those named so, or three in a row of unit length."""
    for names in (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")):
        if found := _find_columns(columns, names):
            return table[:, found]
    for first in range(3, table.shape[1] - 2, 3):
        length = np.linalg.norm(table[:, first : first + 3], axis=1)
        if (np.abs(length - 1) < UNIT_LENGTH_TOLERANCE).mean() > UNIT_LENGTH_SHARE:
            return table[:, first : first + 3]
    return None


def _damaged(name: str, error: Exception, what: str = "scan") -> BadInput:
    reason = " ".join(str(error).split())[:MAX_REASON_LENGTH]
    return BadInput(f"{name}: {reason}; export the {what} again")
