"""Scan files: a folder in, triangle meshes in millimetres out.

Scans are taken as aligned (+y up, +z out of the face) and closed enough for a winding number.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh

from .errors import BadInput

FORMATS = (".ply", ".obj", ".stl", ".off", ".glb")
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
        """SHA-256 of the file's bytes."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def find(folder: Path) -> list[Scan]:
    """All scans below a folder, by name. Raises BadInput where there is no folder or no scan in it."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the folder that holds the scans")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in FORMATS and path.is_file())
    if not paths:
        raise BadInput(f"{folder}: no scans in it; put meshes there ({', '.join(FORMATS)})")
    # Absolute, since workers may run in another folder.
    return [Scan(path.relative_to(folder).as_posix(), path.absolute()) for path in paths]


def read(scan: Scan, unit: Unit = "auto") -> trimesh.Trimesh:
    """The scan's mesh in millimetres, equal vertices merged. Raises BadInput where it holds no surface."""
    mesh = _load(scan.path)
    if not len(mesh.faces):
        raise BadInput(f"{scan.name}: no triangles in it; export the scan as a mesh with faces")
    if not np.isfinite(mesh.vertices).all():
        raise BadInput(f"{scan.name}: coordinates that are not finite; export the scan again")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise BadInput(f"{scan.name}: triangles name vertices that it lacks; export the scan again")
    if len(mesh.faces) < FEWEST_TRIANGLES:
        raise BadInput(f"{scan.name}: only {len(mesh.faces)} triangles; a head needs at least {FEWEST_TRIANGLES}")
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.apply_scale(_millimetres(scan.name, float(np.ptp(mesh.vertices, axis=0).max()), unit))
    return mesh


def _load(path: Path) -> trimesh.Trimesh:
    with _quiet_trimesh():
        try:
            return trimesh.load_mesh(path, process=False)
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
    stems = [name.rpartition(".")[0] for name in names]
    for name, stem in zip(names, stems):
        yield name if stems.count(stem) > 1 else stem
