"""Finds and reads scan files: a folder in, meshes and point clouds with the digests of their files out.

`read_prepared` reads a prepared head, a mesh in the canonical pose (+y up, +z out of the face) that is closed enough
for a winding number, and returns it in millimetres. `load_raw` reads any scan as it is. Each reads a file's bytes once:
the digest is that of the very bytes that were parsed.
"""

import hashlib
import io
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import trimesh
from trimesh.parent import Geometry
from trimesh.resolvers import FilePathResolver
from trimesh.visual import ColorVisuals

from overfit.geometry.point_cloud import PointCloud
from overfit.runtime.errors import BadInput
from overfit.scans.depth_capture import capture_files, is_capture, read_capture
from overfit.scans.depth_fusion import fuse_frames
from overfit.scans.point_formats import LASER_FORMATS, POINT_FORMATS, ply_points, read_laser_scan, read_points

MESH_FORMATS = (".ply", ".obj", ".stl", ".off", ".glb")
RAW_FORMATS = (*MESH_FORMATS, ".gltf", *POINT_FORMATS)

Unit = Literal["auto", "mm", "cm", "m"]
MM_PER_UNIT: dict[Unit, float] = {"mm": 1.0, "cm": 10.0, "m": 1000.0}

# Range in mm of the largest extent of a face mask, a head, or a head with shoulders. It spans one decade, so that no
# scan fits two units.
HEAD_EXTENT_MM = (90.0, 900.0)
# Fewer triangles cannot show a head.
MIN_TRIANGLES = 100
# Bytes that are hashed at a time, so that large files do not fill the memory.
HASH_CHUNK_BYTES = 1 << 20
# Longest part of a reader's own error that is repeated: the message stays one line.
MAX_REASON_LENGTH = 120


@dataclass(frozen=True)
class PreparedScan:
    """A prepared head that was read."""

    mesh: trimesh.Trimesh
    """The surface in millimetres, equal vertices merged."""
    digest: str
    """SHA-256 of the file's bytes."""

    @property
    def nbytes(self) -> int:
        """Memory that the mesh takes, in bytes."""
        return self.mesh.vertices.nbytes + self.mesh.faces.nbytes


@dataclass(frozen=True)
class RawScan:
    """A raw scan that was read."""

    surface: trimesh.Trimesh | PointCloud
    """The mesh or the points, in the unit of the file; those of a depth capture in millimetres."""
    digest: str
    """SHA-256 of the file's bytes, or of all files of a depth capture."""


@dataclass(frozen=True)
class Scan:
    """A scan of a folder: a file, or a folder of depth frames."""

    name: str
    """Path below the scan folder with forward slashes: the scan's name everywhere."""
    path: Path
    """Absolute path: workers may run in another folder."""
    unit: Unit | None = None
    """Unit of the file where it is known for certain; it overrides the one that readers are given."""
    prepared: PreparedScan | None = None
    """What the file holds where it is in memory already; readers then leave the file alone."""


def find_scans(folder: Path, formats: tuple[str, ...] = MESH_FORMATS) -> list[Scan]:
    """Return all scans below a folder, by name. Raises BadInput if there is no such folder or no scan in it."""
    _require_folder(folder)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in formats and path.is_file())
    if not paths:
        raise BadInput(f"{folder}: no scans in it; put scans there ({', '.join(formats)})")
    return [Scan(path.relative_to(folder).as_posix(), path.absolute()) for path in paths]


def find_raw_scans(folder: Path) -> list[Scan]:
    """Return all raw scans below a folder, by name: files of any format, and each folder of depth frames as one scan.

    Raises BadInput if there is no such folder or no scan in it.
    """
    _require_folder(folder)
    folders = [path for path in (folder, *sorted(folder.rglob("*"))) if path.is_dir()]
    captures = [Scan(_capture_name(path, folder), path.absolute()) for path in folders if is_capture(path)]
    capture_folders = {scan.path for scan in captures}
    try:
        files = [scan for scan in find_scans(folder, RAW_FORMATS) if not capture_folders & set(scan.path.parents)]
    except BadInput:
        if not captures:
            raise
        files = []
    return sorted(files + captures, key=lambda scan: scan.name)


def read_prepared(scan: Scan, unit: Unit = "auto") -> PreparedScan:
    """Return a prepared scan's mesh in millimetres, equal vertices merged, and its digest.

    Raises BadInput if the file holds no surface, or one that is no head in that unit.
    """
    return scan.prepared or parse_prepared(scan, _read_bytes(scan), unit=unit)


def parse_prepared(scan: Scan, data: bytes, *, unit: Unit = "auto") -> PreparedScan:
    """Return what `read_prepared` returns for a file of these bytes. Raises BadInput as it does."""
    mesh = _parse_mesh(scan, data)
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise BadInput(f"{scan.name}: no triangles in it; export the scan as a mesh with faces")
    if not np.isfinite(mesh.vertices).all():
        raise BadInput(f"{scan.name}: coordinates that are not finite; export the scan again")
    _check_corners(mesh, scan.name)
    if len(mesh.faces) < MIN_TRIANGLES:
        raise BadInput(f"{scan.name}: only {len(mesh.faces)} triangles; a head needs at least {MIN_TRIANGLES}")
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    extent = float(np.ptp(mesh.vertices, axis=0).max())
    mesh.apply_scale(_mm_per_unit(scan.name, extent, scan.unit or unit))
    # Textures and the copy of the file are larger than the surface.
    mesh.visual = ColorVisuals(mesh)
    mesh.metadata.clear()
    return PreparedScan(mesh, hashlib.sha256(data).hexdigest())


def load_raw(scan: Scan) -> RawScan:
    """Return the mesh or the points of any scan, in the unit of its file, and its digest.

    The frames of a depth capture are fused into one cloud, in millimetres. Raises BadInput if nothing can be read.
    """
    if scan.path.is_dir():
        capture = read_capture(scan.path)
        return RawScan(fuse_frames(capture.frames), capture.digest)
    suffix = scan.path.suffix.lower()
    if suffix in LASER_FORMATS:
        # Files of several gigabytes, read by libraries that take what they need of them: hashed on their own.
        return RawScan(read_laser_scan(scan.path, name=scan.name), read_digest(scan))
    data = _read_bytes(scan)
    digest = hashlib.sha256(data).hexdigest()
    if suffix in POINT_FORMATS:
        return RawScan(read_points(data, suffix, name=scan.name), digest)
    loaded = _parse_mesh(scan, data)
    if isinstance(loaded, trimesh.PointCloud):
        return RawScan(ply_points(loaded, scan.name), digest)
    return RawScan(_finite_part(loaded, scan.name), digest)


def read_digest(scan: Scan) -> str:
    """Return the SHA-256 of the file's bytes, or of those of all files of a depth capture, without parsing them."""
    if scan.prepared is not None:
        return scan.prepared.digest
    digest = hashlib.sha256()
    for path in capture_files(scan.path) if scan.path.is_dir() else [scan.path]:
        with open(path, "rb") as file:
            while chunk := file.read(HASH_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def unit_of_head(extent: float) -> Unit | None:
    """Return the unit in which a human head has this largest extent, or None if there is none."""
    low, high = HEAD_EXTENT_MM
    return next((unit for unit, factor in MM_PER_UNIT.items() if low <= extent * factor < high), None)


def output_names(names: list[str]) -> list[str]:
    """Return each scan's name without its suffix, or with it where two scans would get the same."""
    stems = [PurePosixPath(name).with_suffix("").as_posix() for name in names]
    uses = Counter(stems)
    return [name if uses[stem] > 1 else stem for name, stem in zip(names, stems)]


def _require_folder(folder: Path) -> None:
    if folder.is_file():
        raise BadInput(f"{folder}: a file where a folder is expected; give the folder that holds the scans")
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the folder that holds the scans")


def _capture_name(path: Path, folder: Path) -> str:
    return folder.name if path == folder else path.relative_to(folder).as_posix()


def _read_bytes(scan: Scan) -> bytes:
    try:
        return scan.path.read_bytes()
    except OSError as error:
        raise BadInput(f"{scan.name}: cannot be read ({error.strerror}); check the file and its permissions") from error


def _parse_mesh(scan: Scan, data: bytes) -> Geometry:
    """Return the geometry in a mesh file; what it refers to, such as a glTF's buffers, is read from beside it."""
    with _quiet_trimesh():
        try:
            loaded = trimesh.load(
                io.BytesIO(data),
                file_type=scan.path.suffix.lower().removeprefix("."),
                resolver=FilePathResolver(str(scan.path)),
                process=False,
            )
            return loaded.to_mesh() if isinstance(loaded, trimesh.Scene) else loaded
        # Readers raise errors of any type on broken files.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadInput(
                f"{scan.name}: cannot be read as a mesh ({reason[:MAX_REASON_LENGTH]}); export the scan again"
            ) from error


def _check_corners(mesh: trimesh.Trimesh, name: str) -> None:
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise BadInput(f"{name}: triangles name vertices that it lacks; export the scan again")


def _finite_part(mesh: Geometry, name: str) -> trimesh.Trimesh:
    """Return a mesh without triangles whose coordinates are not finite. Raises BadInput if few are left."""
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise BadInput(f"{name}: neither triangles nor points in it; export the scan again")
    _check_corners(mesh, name)
    finite = np.isfinite(np.asarray(mesh.vertices)).all(axis=1)[mesh.faces].all(axis=1)
    if finite.sum() < MIN_TRIANGLES:
        raise BadInput(f"{name}: only {int(finite.sum())} sound triangles; a head needs {MIN_TRIANGLES} or more")
    mesh.update_faces(finite)
    mesh.remove_unreferenced_vertices()
    return mesh


def _mm_per_unit(name: str, extent: float, unit: Unit) -> float:
    """Return the factor from the file's unit to millimetres. Raises BadInput if a head cannot have this extent."""
    found = unit_of_head(extent)
    low, high = HEAD_EXTENT_MM
    if unit == "auto" and found is not None:
        return MM_PER_UNIT[found]
    if unit != "auto" and low <= extent * MM_PER_UNIT[unit] < high:
        return MM_PER_UNIT[unit]
    units = "mm, cm or m" if unit == "auto" else unit
    raise BadInput(f"{name}: an extent of {extent:.4g} is no human head in {units}; scale it, or give its `unit`")


@contextmanager
def _quiet_trimesh() -> Iterator[None]:
    """Silence trimesh's log: its readers log a traceback before they raise, and BadInput says it in one line."""
    log = logging.getLogger("trimesh")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)
