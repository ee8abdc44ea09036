"""Cleans a raw scan: a mesh or points in; the same without noise, oriented outwards, out, still in its own frame.

Meshes are welded; double triangles, small components and inner walls of shells are dropped; each component is turned
to the side that sees out. Clouds are thinned, freed from outliers and given normals.
"""

from dataclasses import dataclass, replace

import igl
import numpy as np
import trimesh
from scipy.sparse import coo_array, csgraph
from scipy.spatial import cKDTree

from overfit.geometry.point_cloud import PointCloud, cell_numbers, estimate_normals, remove_outliers, thin
from overfit.geometry.rays import RAY_OFFSET, openness, ray_intersector
from overfit.runtime.errors import BadInput
from overfit.scans.raw_surface import Surface

# Points of a cloud that are kept; on a head they are half a millimetre apart.
MAX_CLOUD_POINTS = 500_000
# Triangles of a mesh that are kept; on a head they are half a millimetre wide.
MAX_TRIANGLES = 800_000
# Components of a mesh with less than this share of the largest one's area are noise.
MIN_COMPONENT_AREA = 0.02
# A mesh with a larger share of edges of one triangle only is not welded: its corners may lie apart by rounding.
MAX_OPEN_EDGES = 0.2
# Corners are welded that lie apart by less than this share of the mesh's size ...
WELD_DISTANCE = 2e-4
# ... and of the median edge's length, so that no triangle vanishes.
WELD_EDGE_SHARE = 0.25
# Larger meshes are not welded by distance: all pairs of close corners would not fit the memory.
MAX_WELDED_VERTICES = 5_000_000
# Triangles of a component that tell which side of it sees out, and directions in which each looks.
LOOKING_TRIANGLES = 300
LOOKING_DIRECTIONS = 32
# One side of a component, or of a wall, sees out more than the other by this much, or neither does.
MIN_OPENNESS_DIFFERENCE = 0.05
# Walls are no thicker than this share of the mesh's size: 12 mm of a head.
MAX_WALL = 0.03
# A mesh whose inner walls have a larger share of the area is a shell, of which only the outer wall is kept. Ears are
# thin too, on less of a head than this.
MAX_INNER_SHARE = 0.25
# Triangles by which that share is estimated, and directions in which each looks.
WALL_TRIANGLES = 3000
WALL_DIRECTIONS = 16


@dataclass(frozen=True)
class SurfaceStatistics:
    """What cleaning found."""

    noise_share: float
    """Share of the area or the points that was removed."""
    components: int | None = None
    """Connected components of a mesh, with those that were removed."""
    holes: int | None = None
    """Boundary loops of a mesh."""
    remarks: tuple[str, ...] = ()
    """What was mended, a phrase each."""


@dataclass(frozen=True)
class CleanedSurface:
    """A scan without noise, in its own frame."""

    surface: Surface
    """A consistently oriented mesh, or points with outward normals."""
    statistics: SurfaceStatistics
    """What was removed."""


def clean(surface: Surface) -> CleanedSurface:
    """Return a scan without noise, its normals outwards. Raises BadInput if nothing of a mesh has an area."""
    return _clean_cloud(surface) if isinstance(surface, PointCloud) else _clean_mesh(surface)


def _clean_mesh(mesh: trimesh.Trimesh) -> CleanedSurface:
    mesh, remarks = _weld(mesh)
    given = np.asarray(mesh.faces, np.int64)
    area = mesh.area_faces
    faces, component = igl.bfs_orient(given)
    component_area = np.bincount(component, area)
    kept = (component_area >= MIN_COMPONENT_AREA * component_area.max())[component]
    statistics = SurfaceStatistics(
        noise_share=float(1 - area[kept].sum() / area.sum()),
        components=len(component_area),
        holes=_count_holes(faces),
        remarks=tuple(remarks),
    )
    turned = np.bincount(component, area * np.where(_is_turned(given, faces), 1, -1)) > 0
    faces = np.where(turned[component, None], faces[:, ::-1], faces)[kept]
    cleaned = trimesh.Trimesh(mesh.vertices, faces, process=False)
    cleaned.remove_unreferenced_vertices()
    labels = np.unique(component[kept], return_inverse=True)[1]
    inwards = _looks_inwards(cleaned, labels)
    cleaned.faces = np.where(inwards[labels, None], cleaned.faces[:, ::-1], cleaned.faces)
    inner = _inner_walls(cleaned)
    if inner.any():
        cleaned.update_faces(~inner)
        cleaned.remove_unreferenced_vertices()
        statistics = replace(statistics, remarks=(*statistics.remarks, "the inner wall of a shell left out"))
    return CleanedSurface(cleaned, statistics)


def _weld(mesh: trimesh.Trimesh) -> tuple[trimesh.Trimesh, list[str]]:
    """Return a mesh whose neighbours share corners, each triangle once, and remarks on what was mended."""
    remarks = []
    mesh = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    if len(mesh.faces) > MAX_TRIANGLES:
        remarks.append(f"thinned from {len(mesh.faces):,} triangles")
        mesh = _thin_mesh(mesh)
    mesh.merge_vertices()
    mesh.update_faces(mesh.nondegenerate_faces())
    if not len(mesh.faces):
        raise BadInput("no triangle of it has an area; export the scan again")
    if _open_edge_share(mesh.faces) > MAX_OPEN_EDGES and len(mesh.vertices) <= MAX_WELDED_VERTICES:
        welded = _weld_by_distance(mesh)
        if _open_edge_share(welded.faces) <= MAX_OPEN_EDGES:
            mesh = welded
            remarks.append("corners that lay apart by rounding welded")
    once = mesh.unique_faces()
    if not once.all():
        remarks.append(f"{np.count_nonzero(~once):,} double triangles dropped")
        mesh.update_faces(once)
    return mesh, remarks


def _thin_mesh(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Return about `MAX_TRIANGLES` triangles: corners that share a cell of a grid become the first of them.

    Of the many ways to simplify a mesh this one needs the least memory, and corners stay where they were measured.
    """
    # A surface has about two triangles for each cell that it crosses.
    spacing = np.sqrt(2 * mesh.area / MAX_TRIANGLES)
    _, first, corner = np.unique(cell_numbers(mesh.vertices, spacing), return_index=True, return_inverse=True)
    thinned = trimesh.Trimesh(mesh.vertices[first], corner[mesh.faces], process=False)
    thinned.update_faces(thinned.nondegenerate_faces() & thinned.unique_faces())
    return thinned


def _open_edge_share(faces: np.ndarray) -> float:
    """Return the share of the edges of faces (n, 3) that belong to one triangle only."""
    edges = np.sort(trimesh.geometry.faces_to_edges(faces), axis=1)
    uses = np.unique(edges[:, 0] * (faces.max() + 1) + edges[:, 1], return_counts=True)[1]
    return float((uses == 1).mean())


def _weld_by_distance(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Return the mesh with corners merged that lie closer to each other than rounding explains."""
    reach = min(WELD_DISTANCE * mesh.scale, WELD_EDGE_SHARE * float(np.median(mesh.edges_unique_length)))
    count = len(mesh.vertices)
    pairs = cKDTree(mesh.vertices).query_pairs(reach, output_type="ndarray")
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels = csgraph.connected_components(links, directed=False)[1]
    _, first = np.unique(labels, return_index=True)
    welded = trimesh.Trimesh(mesh.vertices[first], labels[mesh.faces], process=False)
    welded.update_faces(welded.nondegenerate_faces())
    return welded


def _is_turned(given: np.ndarray, oriented: np.ndarray) -> np.ndarray:
    """Return whether each face (n, 3) of the same corners runs the other way round."""
    start = np.argmin(given, axis=1), np.argmin(oriented, axis=1)
    rows = np.arange(len(given))
    return given[rows, (start[0] + 1) % 3] != oriented[rows, (start[1] + 1) % 3]


def _count_holes(faces: np.ndarray) -> int:
    """Return the number of boundary loops of triangles (n, 3)."""
    # libigl cannot count the loops of a closed mesh.
    return len(igl.boundary_loop_all(faces)) if _open_edge_share(faces) > 0 else 0


def _looks_inwards(mesh: trimesh.Trimesh, component: np.ndarray) -> np.ndarray:
    """Return for each component (c,) whether its back sees out of the mesh and its front does not."""
    rng = np.random.default_rng(0)
    inwards = np.zeros(component.max() + 1, bool)
    for label in range(len(inwards)):
        members = np.flatnonzero(component == label)
        weight = mesh.area_faces[members]
        chosen = rng.choice(members, LOOKING_TRIANGLES, p=weight / weight.sum())
        points, normals = mesh.triangles_center[chosen], mesh.face_normals[chosen]
        front, back = (
            openness(mesh, points, side * normals, directions=LOOKING_DIRECTIONS).mean() for side in (1.0, -1.0)
        )
        inwards[label] = back > front + MIN_OPENNESS_DIFFERENCE
    return inwards


def _inner_walls(mesh: trimesh.Trimesh) -> np.ndarray:
    """Return which faces (n,) are the inner wall of a shell, such as a printed mask; none if it is no shell."""
    area = mesh.area_faces
    chosen = np.random.default_rng(0).choice(len(area), min(WALL_TRIANGLES, len(area)), replace=False)
    share = area[chosen][_is_inner(mesh, chosen)].sum() / area[chosen].sum()
    if share < MAX_INNER_SHARE:
        return np.zeros(len(area), bool)
    return _is_inner(mesh, np.arange(len(area)))


def _is_inner(mesh: trimesh.Trimesh, faces: np.ndarray) -> np.ndarray:
    """Return whether there is a wall close behind each of the faces that sees out more than the face does."""
    points, normals = mesh.triangles_center[faces], mesh.face_normals[faces]
    starts = points - RAY_OFFSET * mesh.scale * normals
    hits, ray, hit_face = ray_intersector(mesh).intersects_location(starts, -normals, multiple_hits=False)
    hits = hits.reshape(-1, 3)
    close = np.linalg.norm(hits - points[ray], axis=1) < MAX_WALL * mesh.scale
    ray, hits, behind = ray[close], hits[close], mesh.face_normals[hit_face[close]]
    own = openness(mesh, points[ray], normals[ray], directions=WALL_DIRECTIONS)
    other = openness(mesh, hits, behind, directions=WALL_DIRECTIONS)
    inner = np.zeros(len(faces), bool)
    inner[ray] = own < other - MIN_OPENNESS_DIFFERENCE
    return inner


def _clean_cloud(cloud: PointCloud) -> CleanedSurface:
    """Return the cloud without outliers, with normals that point outwards."""
    remarks = []
    thinned = thin(cloud, MAX_CLOUD_POINTS)
    if len(thinned.points) < len(cloud.points):
        remarks.append(f"thinned from {len(cloud.points):,} to {len(thinned.points):,} points")
    kept = remove_outliers(thinned)
    statistics = SurfaceStatistics(1 - len(kept.points) / len(thinned.points), remarks=tuple(remarks))
    kept = estimate_normals(kept)
    outward = ((kept.points - kept.points.mean(0)) * kept.known_normals).sum()
    return CleanedSurface(kept if outward > 0 else PointCloud(kept.points, -kept.known_normals), statistics)
