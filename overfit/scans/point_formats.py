"""Reads point files: XYZ, ASC, TXT, CSV, PTS, PCD, LAS, LAZ and E57 in, point clouds in the unit of the file out.

Text files are tables of one point a line, see `text_table`.
"""

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from overfit.geometry.point_cloud import PointCloud
from overfit.runtime.errors import BadInput
from overfit.scans.raw_surface import RawSurface
from overfit.scans.text_table import read_table
from overfit.scans.units import Unit

TEXT_FORMATS = (".xyz", ".asc", ".txt", ".csv", ".pts")
LASER_FORMATS = (".las", ".laz", ".e57")
POINT_FORMATS = (*TEXT_FORMATS, ".pcd", *LASER_FORMATS)

# Files of more points than this do not fit the memory.
MAX_POINTS = 200_000_000
# Points that are read at a time of a LAS file, whose library needs several times their size.
LAS_CHUNK_POINTS = 1_000_000
# A line or record of more numbers is no point.
MAX_COLUMNS = 200
# Longest part of a library's own error that is repeated: the message stays one line.
MAX_REASON_LENGTH = 120

# Normals are estimated anew if more than this share of them is zero or not finite; else, their points are left out.
MAX_UNUSABLE_NORMALS = 0.05

# Position and size in bytes of the number of variable length records in the header of a LAS file.
LAS_RECORD_COUNT = slice(100, 104)
# Smallest size in bytes of such a record: that of its own header (LAS 1.4, table 5).
LAS_RECORD_BYTES = 54

# PCD's letters for the types of numbers, and NumPy's.
_PCD_TYPES = {"F": "f", "I": "i", "U": "u"}


def read_points(data: bytes, suffix: str, *, name: str) -> RawSurface:
    """Return the points in the bytes of a text or PCD file, with normals if it has any.

    Args:
        data: The file's content.
        suffix: The file name's ending in lower case, one of `TEXT_FORMATS` or ".pcd".
        name: What messages call the file.

    Raises BadInput if there are no points in it.
    """
    if suffix == ".pcd":
        return finite_cloud(*_parse_pcd(data, name), name)
    table = read_table(data, name=name)
    remarks = [f"{table.unreadable_rows:,} rows that are no numbers left out"] if table.unreadable_rows else []
    return finite_cloud(table.points, table.normals, name, unit=table.unit, remarks=remarks)


def read_laser_scan(path: Path, *, name: str) -> RawSurface:
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
    return finite_cloud(points, None, name)


def finite_cloud(
    points: np.ndarray,
    normals: np.ndarray | None,
    name: str,
    *,
    unit: Unit | None = None,
    remarks: Sequence[str] = (),
) -> RawSurface:
    """Return the points with finite coordinates, and their normals if nearly all are usable."""
    if points.ndim != 2 or points.shape[1] != 3:
        raise BadInput(f"{name}: its points have no three coordinates; export the scan again")
    kept = np.isfinite(points).all(1)
    if not kept.all():
        remarks = [*remarks, f"{np.count_nonzero(~kept):,} points without coordinates left out"]
    if normals is not None:
        length = np.linalg.norm(normals, axis=1)
        usable = np.isfinite(length) & (length > 0)
        if kept.any() and usable[kept].mean() < 1 - MAX_UNUSABLE_NORMALS:
            remarks = [*remarks, "normals of length zero estimated anew"]
            normals = None
        else:
            kept &= usable
            normals = normals[kept] / length[kept, None]
    return RawSurface(PointCloud(points if kept.all() else points[kept], normals), unit, tuple(remarks))


def _parse_pcd(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return points and normals of a file in the Point Cloud Library's format, version 0.7, text or binary."""
    start = re.search(rb"^DATA +(\w+)[^\n]*\n", data, re.MULTILINE)
    if not start:
        raise BadInput(f"{name}: no PCD header in it; export the scan again")
    body, encoding = data[start.end() :], start[1].decode()
    try:
        columns, record, count = _parse_pcd_header(data[: start.start()])
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise BadInput(f"{name}: a damaged PCD header ({error}); export the scan again") from error
    coordinates, normals = _find_columns(columns, "xyz"), _find_columns(columns, ("normal_x", "normal_y", "normal_z"))
    if coordinates is None:
        raise BadInput(f"{name}: no fields x, y and z among {' '.join(columns)}; export the scan again")
    wanted = coordinates + (normals or [])
    if encoding == "binary":
        count = min(count, len(body) // record.itemsize, MAX_POINTS)
        rows = np.frombuffer(body, record, count)
        values = np.stack([rows[f"f{column}"].astype(float) for column in wanted], axis=1)
    elif encoding == "ascii":
        try:
            # NumPy warns where there is no row at all.
            with warnings.catch_warnings(action="error", category=UserWarning):
                values = np.loadtxt(io.BytesIO(body), usecols=wanted, ndmin=2)
        except (ValueError, UserWarning) as error:
            raise _damaged(name, error) from error
    else:
        raise BadInput(f"{name}: PCD data of the kind {encoding}; save it as binary or ascii")
    return values[:, :3], values[:, 3:] if normals else None


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
        chunks = [
            np.stack([chunk.X, chunk.Y, chunk.Z], axis=1) * file.header.scales + file.header.offsets
            for chunk in file.chunk_iterator(LAS_CHUNK_POINTS)
        ]
    return np.concatenate(chunks)


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


def _find_columns(columns: list[str], wanted: Sequence[str]) -> list[int] | None:
    return [columns.index(name) for name in wanted] if all(name in columns for name in wanted) else None


def _damaged(name: str, error: Exception, what: str = "scan") -> BadInput:
    reason = " ".join(str(error).split())[:MAX_REASON_LENGTH]
    return BadInput(f"{name}: {reason}; export the {what} again")
