"""Scan files: a folder in, what the files hold out.

`read` takes prepared scans, meshes that are aligned (+y up, +z out of the face) and closed enough for a winding number,
and gives them in millimetres; `load` takes any.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import trimesh

from . import depth_frames, point_files
from .clouds import Cloud
from .errors import BadInput
from .fusion import fuse

FORMATS = (".ply", ".obj", ".stl", ".off", ".glb")
RAW_FORMATS = (*FORMATS, ".gltf", *point_files.FORMATS)
Unit = Literal["auto", "mm", "cm", "m"]
MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
# The largest extent of a face mask, a head, or a head with shoulders. One decade wide: no scan fits two units.
HEAD_EXTENT = (90.0, 900.0)
FEWEST_TRIANGLES = 100


@dataclass(frozen=True)
class Scan:
    """A file of a scan folder, not yet read."""

    # Path below the scan folder with forward slashes: the scan's name everywhere.
    name: str
    path: Path

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file's bytes, or of all the files' of a depth capture."""
        paths = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]
        total = hashlib.sha256()
        for path in paths:
            with open(path, "rb") as file:
                while chunk := file.read(1 << 20):
                    total.update(chunk)
        return total.hexdigest()


def find(folder: Path, formats: tuple[str, ...] = FORMATS) -> list[Scan]:
    """All scans below a folder, by name. Raises BadInput where there is no folder or no scan in it."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the folder that holds the scans")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in formats and path.is_file())
    if not paths:
        raise BadInput(f"{folder}: no scans in it; put scans there ({', '.join(formats)})")
    # Absolute, since workers may run in another folder.
    return [Scan(path.relative_to(folder).as_posix(), path.absolute()) for path in paths]


def find_raw(folder: Path) -> list[Scan]:
    """All raw scans below a folder, by name: files of any format, and folders of depth frames, which count as one.

    Raises BadInput where there is no folder or no scan in it.
    """
    folders = [path for path in (folder, *sorted(folder.rglob("*"))) if path.is_dir()]
    named = [Scan(folder.name if path == folder else path.relative_to(folder).as_posix(), path.absolute())
             for path in folders if depth_frames.is_capture(path)]
    try:
        files = [scan for scan in find(folder, RAW_FORMATS) if not set(scan.path.parents) & {one.path for one in named}]
    except BadInput:
        if not named:
            raise
        files = []
    return sorted(files + named, key=lambda scan: scan.name)


def load(path: Path) -> trimesh.Trimesh | Cloud:
    """The mesh or the points in a file, in its unit, or the points that a folder of depth frames shows, in millimetres.

    Raises BadInput where there is neither.
    """
    if path.is_dir():
        return fuse(depth_frames.read_frames(path))
    if path.suffix.lower() in point_files.FORMATS:
        return point_files.read_points(path)
    loaded = _load(path)
    if isinstance(loaded, trimesh.PointCloud):
        return point_files.of_ply(loaded, path)
    if not len(loaded.faces):
        raise BadInput(f"{path.name}: neither triangles nor points in it; export the scan again")
    _check_corners(loaded, path.name)
    sound = np.isfinite(loaded.vertices).all(1)[loaded.faces].all(1)
    if sound.sum() < FEWEST_TRIANGLES:
        raise BadInput(f"{path.name}: only {int(sound.sum())} sound triangles; a head needs {FEWEST_TRIANGLES} or more")
    loaded.update_faces(sound)
    loaded.remove_unreferenced_vertices()
    return loaded


def unit_of(extent: float) -> Unit | None:
    """The unit in which a human head has this extent, or None where there is none."""
    low, high = HEAD_EXTENT
    return next((unit for unit, factor in MILLIMETRES.items() if low <= extent * factor < high), None)


def read(scan: Scan, unit: Unit = "auto") -> trimesh.Trimesh:
    """The scan's mesh in millimetres, equal vertices merged. Raises BadInput where it holds no surface."""
    mesh = _load(scan.path)
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise BadInput(f"{scan.name}: no triangles in it; export the scan as a mesh with faces")
    if not np.isfinite(mesh.vertices).all():
        raise BadInput(f"{scan.name}: coordinates that are not finite; export the scan again")
    _check_corners(mesh, scan.name)
    if len(mesh.faces) < FEWEST_TRIANGLES:
        raise BadInput(f"{scan.name}: only {len(mesh.faces)} triangles; a head needs at least {FEWEST_TRIANGLES}")
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.apply_scale(_millimetres(scan.name, float(np.ptp(mesh.vertices, axis=0).max()), unit))
    return mesh


def _check_corners(mesh: trimesh.Trimesh, name: str) -> None:
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise BadInput(f"{name}: triangles name vertices that it lacks; export the scan again")


def _load(path: Path) -> trimesh.Trimesh | trimesh.PointCloud:
    with _quiet_trimesh():
        try:
            loaded = trimesh.load(path, process=False)
            return loaded.to_mesh() if isinstance(loaded, trimesh.Scene) else loaded
        # Whatever a reader raises on a broken file, the file is what is wrong.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadInput(f"{path.name}: cannot be read as a mesh ({reason[:120]}); export the scan again") from error


def _millimetres(name: str, extent: float, unit: Unit) -> float:
    """Factor from the file's unit to millimetres, found from the extent where the unit is not told."""
    low, high = HEAD_EXTENT
    units = MILLIMETRES if unit == "auto" else {unit: MILLIMETRES[unit]}
    for factor in units.values():
        if low <= extent * factor < high:
            return factor
    told = "in mm, cm or m" if unit == "auto" else f"in {unit}"
    raise BadInput(f"{name}: an extent of {extent:.4g} is no human head {told}; scale it, or tell its unit by --unit")


class _quiet_trimesh:
    """Readers log a traceback of their own before they raise; the message of BadInput says it once."""

    def __enter__(self):
        self.log = logging.getLogger("trimesh")
        self.level = self.log.level
        self.log.setLevel(logging.CRITICAL + 1)

    def __exit__(self, *_):
        self.log.setLevel(self.level)


def output_names(names: list[str]) -> Iterator[str]:
    """A name without its suffix for every scan, or the whole name where two scans would get the same."""
    stems = [PurePosixPath(name).with_suffix("").as_posix() for name in names]
    for name, stem in zip(names, stems):
        yield name if stems.count(stem) > 1 else stem
