"""Point files: XYZ, ASC, TXT, CSV, PTS, PCD, LAS, LAZ and E57 in, clouds in the file's unit out.

Text files hold a point a line, its numbers parted by spaces, tabs, commas or semicolons; lines that are not numbers are
headers. A header that names its columns is believed; else normals are what has unit length, and colours are left out.
"""

import re
from pathlib import Path

import numpy as np
import trimesh

from .clouds import Cloud
from .errors import BadInput

TEXT = (".xyz", ".asc", ".txt", ".csv", ".pts")
SURVEYED = (".las", ".laz", ".e57")
FORMATS = (*TEXT, ".pcd", *SURVEYED)
# More points than this are read no further: a head needs some ten thousand.
MOST = 5_000_000
FEWEST = 500
# More numbers than this are no point.
WIDEST = 200
# Lines looked through for the first point.
HEADER = 100
_PARTS = re.compile(r"[\s,;]+")
# PCD's letters for kinds of numbers.
_KINDS = {"F": "f", "I": "i", "U": "u"}


def read_points(path: Path) -> Cloud:
    """The cloud in a point file. Raises BadInput where there are no points in it."""
    suffix = path.suffix.lower()
    if suffix in SURVEYED:
        return _sound(_surveyed(path), None, path)
    table, names = _pcd(path) if suffix == ".pcd" else _text(path)
    if table.shape[1] < 3:
        raise BadInput(f"{path.name}: {table.shape[1]} numbers a line; a point has at least three")
    places = _columns(names, ("x", "y", "z")) or [0, 1, 2]
    return _sound(table[:, places], _normals(table, names), path)


def of_ply(loaded: trimesh.PointCloud, path: Path) -> Cloud:
    """The points of a PLY file without faces, with the normals where it has them."""
    vertices = loaded.metadata.get("_ply_raw", {}).get("vertex", {}).get("data")
    names = [] if vertices is None else list(getattr(vertices, "dtype", np.dtype([])).names or vertices)
    points, normals = np.asarray(loaded.vertices, float), None
    if {"nx", "ny", "nz"} <= set(names):
        normals = np.stack([np.asarray(vertices[name], float).ravel() for name in ("nx", "ny", "nz")], axis=1)
    return _sound(points, normals, path)


def _sound(points: np.ndarray, normals: np.ndarray | None, path: Path) -> Cloud:
    """A cloud of what is finite. Raises BadInput where too little is."""
    if points.ndim != 2 or points.shape[1] != 3:
        raise BadInput(f"{path.name}: its points have no three coordinates; export the scan again")
    sound = np.isfinite(points).all(1)
    if normals is not None:
        length = np.linalg.norm(normals, axis=1)
        sound &= np.isfinite(length) & (length > 0)
        normals = normals[sound] / length[sound, None]
    if sound.sum() < FEWEST:
        raise BadInput(f"{path.name}: only {int(sound.sum())} points; a head needs at least {FEWEST}")
    return Cloud(points[sound], normals)


def _text(path: Path) -> tuple[np.ndarray, list[str]]:
    with open(path, errors="replace") as file:
        lines = [file.readline(10_000) for _ in range(HEADER)]
    # A single number is the count that some formats begin with.
    numbers = [len(row) if (row := _numbers(line)) is not None else 0 for line in lines]
    first = next((index for index, count in enumerate(numbers) if 3 <= count <= WIDEST), None)
    if first is None:
        raise BadInput(f"{path.name}: no line of three numbers in its first {HEADER}; export the points as text again")
    header = lines[first - 1].lstrip("#/ ") if first else ""
    delimiter = next((mark for mark in ",;" if mark in lines[first]), None)
    try:
        table = np.loadtxt(path, delimiter=delimiter, skiprows=first, usecols=range(numbers[first]), ndmin=2,
                           max_rows=MOST, encoding="utf-8", comments=("#", "//"))
    except (ValueError, UnicodeDecodeError) as error:
        raise BadInput(f"{path.name}: {' '.join(str(error).split())[:120]}; export the points again") from error
    return table, [name.lower() for name in _PARTS.split(header.strip())]


def _numbers(line: str) -> list[float] | None:
    try:
        return [float(word) for word in _PARTS.split(line.strip()) if word]
    except ValueError:
        return None


def _pcd(path: Path) -> tuple[np.ndarray, list[str]]:
    """Point Cloud Library's format, version 0.7, text or binary."""
    content = path.read_bytes()
    start = re.search(rb"^DATA +(\w+)[^\n]*\n", content, re.MULTILINE)
    if not start:
        raise BadInput(f"{path.name}: no PCD header in it; export the scan again")
    header = {words[0]: words[1:] for line in content[:start.start()].decode("ascii", "replace").splitlines()
              if (words := line.split()) and not line.startswith("#")}
    try:
        names, points = [name.lower() for name in header["FIELDS"]], int(header["POINTS"][0])
        counts = list(map(int, header.get("COUNT", ["1"] * len(names))))
        if not 0 < sum(counts) <= WIDEST:
            raise ValueError(f"{sum(counts)} numbers a point")
        kinds = [f"{_KINDS[kind]}{size}" for kind, size in zip(header["TYPE"], header["SIZE"], strict=True)]
        columns = [f"{name}.{part}" if part else name for name, count in zip(names, counts, strict=True)
                   for part in range(count)]
        form = np.dtype([(f"f{index}", kind) for index, kind in enumerate(
            kind for kind, count in zip(kinds, counts) for _ in range(count))])
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise BadInput(f"{path.name}: a damaged PCD header ({error}); export the scan again") from error
    body, way = content[start.end():], start[1].decode()
    if way == "binary":
        points = min(points, len(body) // form.itemsize, MOST)
        rows = np.frombuffer(body, form, points)
        return np.stack([rows[name].astype(float) for name in form.names], axis=1), columns
    if way != "ascii":
        raise BadInput(f"{path.name}: PCD data of the kind {way}; save it as binary or ascii")
    try:
        return np.loadtxt(body.decode("ascii", "replace").splitlines(), ndmin=2, max_rows=MOST), columns
    except ValueError as error:
        raise BadInput(f"{path.name}: {' '.join(str(error).split())[:120]}; export the scan again") from error


def _surveyed(path: Path) -> np.ndarray:
    """Points (n, 3) of a laser scanner's file, as its library reads them. Needs the extra `scanners`."""
    try:
        import laspy
        import pye57
    except ImportError as error:
        raise BadInput(f"{path.name}: reading it needs {error.name}; install it by `pip install "
                       "'hyperdiffusion-heads[scanners]'`") from error
    try:
        if path.suffix.lower() != ".e57":
            _check_las(path)
            with laspy.open(path) as file:
                if file.header.point_count > path.stat().st_size:
                    raise ValueError("it promises more points than it has bytes")
                scale, shift = file.header.scales, file.header.offsets
                points = file.read_points(MOST)
                return np.stack([points.X, points.Y, points.Z], axis=1) * scale + shift
        with pye57.E57(str(path)) as file:
            if (promised := sum(file.get_header(index).point_count for index in range(file.scan_count))) > MOST:
                raise ValueError(f"{promised} points, more than {MOST}")
            scans = [file.read_scan(index, ignore_missing_fields=True) for index in range(file.scan_count)]
        return np.concatenate([np.stack([scan[f"cartesian{axis}"] for axis in "XYZ"], axis=1) for scan in scans])
    # These libraries raise what they like on damaged files.
    except Exception as error:
        raise BadInput(f"{path.name}: {' '.join(str(error).split())[:120]}; export the scan again") from error


def _check_las(path: Path) -> None:
    """Raises ValueError where a header promises more records than the file can hold: laspy would look for them all."""
    with open(path, "rb") as file:
        header = file.read(104)
    if len(header) < 104 or 54 * int.from_bytes(header[100:104], "little") > path.stat().st_size:
        raise ValueError("a damaged header")


def _columns(names: list[str], wanted: tuple[str, ...]) -> list[int] | None:
    return [names.index(name) for name in wanted] if all(name in names for name in wanted) else None


def _normals(table: np.ndarray, names: list[str]) -> np.ndarray | None:
    """The columns that hold normals: the named ones, or three in a row of unit length."""
    for wanted in (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")):
        if found := _columns(names, wanted):
            return table[:, found]
    for first in range(3, table.shape[1] - 2, 3):
        length = np.linalg.norm(table[:, first:first + 3], axis=1)
        if (np.abs(length - 1) < 0.01).mean() > 0.95:
            return table[:, first:first + 3]
    return None
