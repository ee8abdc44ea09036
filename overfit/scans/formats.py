"""Finds and reads scan files: a folder in, meshes and point clouds with the digests of their files out.

`read_prepared` reads a prepared head, a mesh in the canonical pose (+y up, +z out of the face) that is closed enough
for a winding number, and returns it in millimetres. `load_raw` reads any scan as it is. Each reads a file's bytes once:
the digest is that of the very bytes that were parsed.
"""

import hashlib
import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import trimesh
from trimesh.visual import ColorVisuals

from overfit.geometry.mesh import SEEN
from overfit.runtime.errors import BadInput
from overfit.scans.depth_capture import capture_files, is_capture, read_capture
from overfit.scans.depth_fusion import fuse_frames
from overfit.scans.gltf import CompressedError, parse_gltf
from overfit.scans.hidden_files import is_hidden
from overfit.scans.obj import parse_obj
from overfit.scans.ply import parse_ply
from overfit.scans.point_formats import LASER_FORMATS, POINT_FORMATS, finite_cloud, read_laser_scan, read_points
from overfit.scans.raw_surface import RawSurface, Surface
from overfit.scans.stl import parse_stl
from overfit.scans.units import MM_PER_UNIT, UNITS, Unit, fits_head, unit_of_head

MESH_FORMATS = (".ply", ".obj", ".stl", ".off", ".glb")
RAW_FORMATS = (*MESH_FORMATS, ".gltf", *POINT_FORMATS)

# Fewer triangles cannot show a head.
MIN_TRIANGLES = 100
# Fewer points cannot show a head.
MIN_POINTS = 500
# A file with a larger share of damaged faces is refused.
MAX_DAMAGED_SHARE = 0.1
# Bytes that are hashed at a time, so that large files do not fill the memory.
HASH_CHUNK_BYTES = 1 << 20
# Names of the reports on a folder of scans, such as prepared.csv and prepared_2.png.
_REPORT = re.compile(r"prepared(_\d+)?", re.IGNORECASE)
# Longest part of a reader's own error that is repeated: the message stays one line.
MAX_REASON_LENGTH = 120


@dataclass(frozen=True)
class PreparedScan:
    """A prepared head that was read."""

    mesh: trimesh.Trimesh
    """The surface in millimetres, equal vertices merged; of a completed head with the vertices' attribute `seen`."""
    digest: str
    """SHA-256 of the file's bytes."""

    @property
    def nbytes(self) -> int:
        """Memory that the mesh takes, in bytes."""
        return self.mesh.vertices.nbytes + self.mesh.faces.nbytes


@dataclass(frozen=True)
class RawScan:
    """A raw scan that was read."""

    content: RawSurface
    """The mesh or the points; those of a depth capture in millimetres."""
    digest: str
    """SHA-256 of the file's bytes, or of all files of a depth capture."""

    @property
    def surface(self) -> Surface:
        """The mesh or the points, in the unit of the file."""
        return self.content.surface


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

    @property
    def folder(self) -> Path:
        """The folder below which the scan has its name; that of a capture in the folder itself is the one above."""
        return self.path.parents[len(PurePosixPath(self.name).parts) - 1]


def find_scans(folder: Path, formats: tuple[str, ...] = MESH_FORMATS) -> list[Scan]:
    """Return all scans below a folder, by name. Raises BadInput if there is no such folder or no scan in it."""
    _require_folder(folder)
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in formats and path.is_file() and not is_hidden(path, folder)
    )
    if not paths:
        raise BadInput(f"{folder}: no scans in it; put scans there ({', '.join(formats)})")
    return [Scan(_name_below(folder, path), path.absolute()) for path in paths]


def find_raw_scans(folder: Path) -> list[Scan]:
    """Return all raw scans below a folder, by name: files of any format, and each folder of depth frames as one scan.

    Raises BadInput if there is no such folder or no scan in it.
    """
    _require_folder(folder)
    folders = [path for path in (folder, *sorted(folder.rglob("*"))) if path.is_dir() and not is_hidden(path, folder)]
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
    mesh = _parse(scan, data).surface
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
        return RawScan(RawSurface(fuse_frames(capture.frames), "mm", capture.remarks), capture.digest)
    suffix = scan.path.suffix.lower()
    if suffix in LASER_FORMATS:
        # Files of several gigabytes, read by libraries that take what they need of them: hashed on their own.
        content, digest = read_laser_scan(scan.path, name=scan.name), read_digest(scan)
    else:
        data = _read_bytes(scan)
        digest = hashlib.sha256(data).hexdigest()
        content = read_points(data, suffix, name=scan.name) if suffix in POINT_FORMATS else _parse(scan, data)
    surface = content.surface
    if isinstance(surface, trimesh.Trimesh):
        content = replace(content, surface=_finite_part(surface, scan.name))
    elif len(surface.points) < MIN_POINTS:
        raise BadInput(f"{scan.name}: only {len(surface.points)} points; a head needs at least {MIN_POINTS}")
    return RawScan(content, digest)


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


def digest_if_readable(scan: Scan) -> str:
    """Return a scan's digest, or an empty string if it cannot be read; one that changes later is then tried again."""
    try:
        return read_digest(scan)
    except OSError:
        return ""


def output_names(names: list[str]) -> list[str]:
    """Return a name for what is made of each scan, which does not depend on the scans beside it.

    It is the scan's name, less `.ply`, so that `a.ply` and `a.obj` give two heads, whichever comes first. Where two
    scans would still get the same name, or one that of a report, nothing is left out.
    """
    stems = [name[:-4] if name.lower().endswith(".ply") else name for name in names]
    uses = Counter(stems)
    return [name if uses[stem] > 1 or _REPORT.fullmatch(stem) else stem for name, stem in zip(names, stems)]


def _require_folder(folder: Path) -> None:
    if folder.is_file():
        raise BadInput(f"{folder}: a file where a folder is expected; give the folder that holds the scans")
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the folder that holds the scans")


def _capture_name(path: Path, folder: Path) -> str:
    return folder.name if path == folder else _name_below(folder, path)


def _name_below(folder: Path, path: Path) -> str:
    """Return a path below a folder as text that can be written everywhere: what is no UTF-8 becomes a question mark."""
    name = path.relative_to(folder).as_posix()
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read_bytes(scan: Scan) -> bytes:
    try:
        return scan.path.read_bytes()
    except OSError as error:
        raise BadInput(f"{scan.name}: cannot be read ({error.strerror}); check the file and its permissions") from error


def _parse(scan: Scan, data: bytes) -> RawSurface:
    """Return the mesh or the points in the bytes of a mesh file. Raises BadInput if it cannot be read."""
    with _quiet_trimesh():
        try:
            return _READERS[scan.path.suffix.lower()](scan, data)
        except BadInput:
            raise
        except CompressedError as error:
            raise BadInput(f"{scan.name}: {error}; export it without compression") from error
        # Readers raise errors of any type on broken files.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadInput(
                f"{scan.name}: cannot be read as a mesh ({reason[:MAX_REASON_LENGTH]}); export the scan again"
            ) from error


def _parse_ply(scan: Scan, data: bytes) -> RawSurface:
    content = parse_ply(data)
    if len(content.triangles):
        mesh = trimesh.Trimesh(content.vertices, content.triangles, process=False)
        if content.seen is not None:
            mesh.vertex_attributes[SEEN] = content.seen
        return RawSurface(mesh)
    return finite_cloud(content.vertices, content.normals, scan.name)


def _parse_obj(scan: Scan, data: bytes) -> RawSurface:
    content = parse_obj(data)
    damaged, faces = content.damaged_faces, content.damaged_faces + len(content.triangles)
    if damaged > MAX_DAMAGED_SHARE * faces:
        raise BadInput(f"{scan.name}: {damaged} of {faces} faces name vertices that it lacks; export the scan again")
    if not faces:
        return finite_cloud(content.vertices, None, scan.name)
    remarks = [f"{damaged:,} faces that name vertices which it lacks left out"] if damaged else []
    remarks += ["vertices counted from 0, not from 1"] if content.counts_from_zero else []
    mesh = trimesh.Trimesh(content.vertices, content.triangles, process=False)
    return RawSurface(mesh, remarks=tuple(remarks))


def _parse_stl(scan: Scan, data: bytes) -> RawSurface:
    corners = parse_stl(data)
    if corners is None:
        return _parse_other(scan, data)
    return RawSurface(
        trimesh.Trimesh(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), process=False)
    )


def _parse_gltf(scan: Scan, data: bytes) -> RawSurface:
    content = parse_gltf(data, scan.path)
    if len(content.triangles):
        return RawSurface(trimesh.Trimesh(content.vertices, content.triangles, process=False))
    return finite_cloud(content.vertices, None, scan.name)


def _parse_other(scan: Scan, data: bytes) -> RawSurface:
    suffix = scan.path.suffix.lower().removeprefix(".")
    return RawSurface(trimesh.load_mesh(io.BytesIO(data), file_type=suffix, process=False))


_READERS: dict[str, Callable[[Scan, bytes], RawSurface]] = {
    ".ply": _parse_ply,
    ".obj": _parse_obj,
    ".stl": _parse_stl,
    ".off": _parse_other,
    ".glb": _parse_gltf,
    ".gltf": _parse_gltf,
}


def _check_corners(mesh: trimesh.Trimesh, name: str) -> None:
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise BadInput(f"{name}: triangles name vertices that it lacks; export the scan again")


def _finite_part(mesh: trimesh.Trimesh, name: str) -> trimesh.Trimesh:
    """Return a mesh without triangles whose coordinates are not finite. Raises BadInput if few are left."""
    if not len(mesh.faces):
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
    found = unit_of_head(extent) if unit == "auto" else unit
    if found is None or not fits_head(extent, found):
        units = UNITS if unit == "auto" else unit
        raise BadInput(f"{name}: an extent of {extent:.4g} is no human head in {units}; scale it, or give its `unit`")
    return MM_PER_UNIT[found]


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
