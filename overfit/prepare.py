"""Preparing one raw scan: a file in any pose and unit in, a closed head in the canonical frame and a report out.

read ─ cleaned ─ oriented points ─ register on the template ─ cut to the head ─ close. What is no head, or cannot be
aligned, is told by its reason and gives no mesh.
"""

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import igl
import numpy as np
import trimesh

from .closing import closed
from .clouds import Cloud, with_normals, without_noise
from .decode import largest_body
from .errors import BadInput
from .occupancy import surface_samples
from .registration import Registration, Similarity, Template, register
from .scans import MILLIMETRES, Scan, Unit, load, read, unit_of

# Points that a scan is registered by.
SAMPLES = 20_000
# A piece of a mesh with less than this share of the largest's area is noise.
SPECK = 0.02
# What a head must reach: relief of the face (heads have 0.55 to 0.9, a skull 0.4, an egg 0.3, a teapot 0.25), and
# nearness of face and whole in mm.
LEAST_RELIEF, WORST_FACE_MM, WORST_RESIDUAL_MM = 0.45, 6.0, 8.0
# Smallest volume of a closed face mask or head, in litres.
LEAST_LITRES = 0.2
# Variance of coordinates, in any unit squared, that is no scan's; and thickness over length of what is flat.
LEAST_SPREAD, MOST_SPREAD, FLAT = 1e-12, 1e18, 0.01
# Collars: what lies this far (mm) off the template's surface, below this share of its height.
COLLAR_MM, COLLAR_HEIGHT = 25.0, 0.3


@dataclass(frozen=True)
class Preparation:
    """How raw scans become heads."""

    # Unit of the files; auto finds it from the size of a human head, and any other scale from the template.
    unit: Unit = "auto"
    # Trust the unit: never change a scan's size.
    keep_scale: bool = False
    # Mesh of a head in the canonical frame, on which scans are laid; without it, the mean of the default heads.
    template: Path | None = None


@dataclass(frozen=True)
class Report:
    """What was found about a scan and done to it."""

    name: str
    digest: str = ""
    # mesh or points, and how many of either.
    kind: str = ""
    count: int = 0
    # Pieces and holes of a mesh, and the share of points or area that was taken for noise.
    pieces: int = 0
    holes: int = 0
    noise: float = 0.0
    # Factor to millimetres, with the size that registration gave it, and the turn to the canonical frame in degrees.
    scale: float = 0.0
    turn_degrees: float = 0.0
    # How it lies on the template, see registration.Registration.
    residual_mm: float = 0.0
    face_mm: float = 0.0
    relief: float = 0.0
    # Empty for a head that was prepared; else why it was set aside.
    set_aside: str = ""


@dataclass(frozen=True)
class Prepared:
    """What came of a scan."""

    report: Report
    # Its surface as it was read, or None where nothing could be.
    raw: trimesh.Trimesh | Cloud | None
    # Its closed head in millimetres in the canonical frame, or None where it was set aside.
    head: trimesh.Trimesh | None


def prepare(scan: Scan, preparation: Preparation) -> Prepared:
    """Bring a scan to a closed head in the canonical frame, or tell why that cannot be."""
    about: dict = {"name": scan.name}
    raw = head = None
    # Damaged files overflow here and there on the way to their verdict.
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        try:
            about["digest"] = scan.digest
            raw = load(scan.path)
            head = _head(raw, preparation, about)
        except BadInput as error:
            reason = str(error)
            about["set_aside"] = reason if reason.startswith(scan.path.name) else f"{scan.name}: {reason}"
        # A scan that nobody thought of must not end hours of others; the report names what it met.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            about["set_aside"] = f"{scan.name}: cannot be prepared ({reason}); repair or export it again"
    return Prepared(Report(**about), raw, head)


def _head(raw: trimesh.Trimesh | Cloud, preparation: Preparation, about: dict) -> trimesh.Trimesh:
    if isinstance(raw, Cloud):
        surface = _clean_cloud(raw, about)
        sample = surface[np.random.default_rng(0).permutation(len(surface.points))[:SAMPLES]]
    else:
        surface = _clean_mesh(raw, about)
        sample = Cloud(*surface_samples(surface, SAMPLES, np.random.default_rng(0)))
    _check_solid(sample.points)
    template = template_of(preparation.template)
    whole, found = _aligned(sample, template, preparation)
    turn = np.degrees(np.arccos(np.clip((np.trace(whole.rotation) - 1) / 2, -1, 1)))
    about |= {"scale": whole.scale, "turn_degrees": float(turn), "residual_mm": found.residual_mm,
              "face_mm": found.face_mm, "relief": found.relief}
    if reason := _refusal(found):
        raise BadInput(reason)
    head = largest_body(closed(_head_part(_moved(surface, whole), template), *template.box))
    if head.volume < LEAST_LITRES * 1e6:
        raise BadInput(f"encloses {head.volume / 1e6:.2f} litres, no head; scan more of it")
    return head


def _check_solid(points: np.ndarray) -> None:
    """Raises BadInput where points (n, 3) lie in one place, on a line or in a plane, or where squares overflow."""
    if len(points) < 4:
        raise BadInput("nothing is left of it without noise; export the scan again")
    with np.errstate(over="ignore", invalid="ignore"):
        spread = np.linalg.eigvalsh(np.nan_to_num(np.cov(points.T)))
    if not LEAST_SPREAD < spread[-1] < MOST_SPREAD or spread[0] < FLAT**2 * spread[-1]:
        raise BadInput("its points lie in one place or in a plane; no head does")


def _aligned(sample: Cloud, template: Template, preparation: Preparation) -> tuple[Similarity, Registration]:
    """From the scan's frame to the canonical one: at the size that its unit says, else at whatever size fits."""
    extent = float(np.ptp(np.percentile(sample.points, [1, 99], axis=0), axis=0).max())
    unit = unit_of(extent) if preparation.unit == "auto" else preparation.unit
    if unit is None and preparation.keep_scale:
        raise BadInput(f"an extent of {extent:.4g} is no human head in mm, cm or m; tell its unit by --unit")
    sized = Similarity(MILLIMETRES[unit] if unit else 1.0)
    cloud = sized.moved(sample)
    found = register(cloud, template, free_scale=unit is None)
    if unit is not None and not preparation.keep_scale and _refusal(found):
        free = register(cloud, template, free_scale=True)
        found = found if _refusal(free) else free
    return sized.then(found.similarity), found


def _refusal(found: Registration) -> str:
    """Why a registration is not to be trusted, or nothing."""
    if found.relief < LEAST_RELIEF:
        return f"no face in it (relief {found.relief:.2f}, a face has {LEAST_RELIEF} or more)"
    if found.face_mm > WORST_FACE_MM or found.residual_mm > WORST_RESIDUAL_MM:
        return (f"cannot be aligned: {found.face_mm:.1f} mm off the template on the face, "
                f"{found.residual_mm:.1f} mm in all")
    return ""


def _clean_mesh(mesh: trimesh.Trimesh, about: dict) -> trimesh.Trimesh:
    """The mesh without specks, its triangles turned to agree with each other and outwards."""
    about |= {"kind": "mesh", "count": len(mesh.faces)}
    mesh = mesh.copy()
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.update_faces(mesh.nondegenerate_faces())
    if not len(mesh.faces):
        raise BadInput("no triangle of it has an area; export the scan again")
    faces, piece = igl.bfs_orient(np.asarray(mesh.faces, np.int64))
    area = np.bincount(piece, mesh.area_faces)
    kept = (area >= SPECK * area.max())[piece]
    edges = np.sort(trimesh.geometry.faces_to_edges(faces), axis=1)
    _, uses = np.unique(edges, axis=0, return_counts=True)
    about |= {"pieces": int(len(area)), "noise": float(1 - mesh.area_faces[kept].sum() / area.sum()),
              "holes": len(igl.boundary_loop_all(faces)) if (uses == 1).any() else 0}
    mesh = trimesh.Trimesh(mesh.vertices, faces, process=False)
    # Outwards: away from the middle, for most of a head's skin and of a face's.
    outward = ((mesh.triangles_center - mesh.centroid) * mesh.face_normals).sum(1) * mesh.area_faces
    inverted = np.bincount(piece, outward) < 0
    faces = np.where(inverted[piece, None], faces[:, ::-1], faces)[kept]
    mesh = trimesh.Trimesh(mesh.vertices, faces, process=False)
    mesh.remove_unreferenced_vertices()
    return mesh


def _clean_cloud(cloud: Cloud, about: dict) -> Cloud:
    """The cloud without noise, with normals that point outwards."""
    about |= {"kind": "points", "count": len(cloud.points)}
    sound = without_noise(cloud)
    about["noise"] = 1 - len(sound.points) / len(cloud.points)
    sound = with_normals(sound)
    outward = ((sound.points - sound.points.mean(0)) * sound.normals).sum()
    return sound if outward > 0 else Cloud(sound.points, -sound.normals)


def _moved(surface: trimesh.Trimesh | Cloud, similarity: Similarity) -> trimesh.Trimesh | Cloud:
    if isinstance(surface, Cloud):
        return similarity.moved(surface)
    return trimesh.Trimesh(similarity(surface.vertices), surface.faces, process=False)


def _head_part(surface: trimesh.Trimesh | Cloud, template: Template) -> trimesh.Trimesh | Cloud:
    """The surface without collars: what is low and far off the template."""
    low, high = template.mesh.bounds[:, 1]

    def belongs(points: np.ndarray) -> np.ndarray:
        return (points[:, 1] > low + COLLAR_HEIGHT * (high - low)) | (template.tree.query(points)[0] < COLLAR_MM)

    if isinstance(surface, Cloud):
        return surface[belongs(surface.points)]
    part = surface.copy()
    part.update_faces(belongs(part.triangles_center))
    if not len(part.faces):
        raise BadInput("nothing of it lies where a head should be")
    return part


@cache
def template_of(path: Path | None) -> Template:
    """The template in a file, or the mean of the default heads. Raises BadInput where the file holds no mesh."""
    return Template.standard() if path is None else Template(read(Scan(str(path), path)))
