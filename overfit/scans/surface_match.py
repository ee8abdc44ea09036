"""Compares a prepared head with its scan: both in the canonical frame in, the distances between them out."""

from dataclasses import dataclass

import igl
import numpy as np
import trimesh
from jaxtyping import Float
from scipy.spatial import cKDTree

from overfit.geometry.mesh import igl_arrays, sample_surface
from overfit.geometry.point_cloud import PointCloud
from overfit.geometry.rays import seen_from_outside
from overfit.scans.raw_surface import Surface

# Distances in mm that differ by less are the same.
SAME_MM = 1e-3
# Points by which surfaces are compared.
COMPARED_POINTS = 10_000
# Largest share of the scan that may lie on other components than the head, such as a neck in the chin's shadow. Beyond
# it the surface is in pieces, and what lies there counts as being off the head.
MAX_SHARE_APART = 1 / 3
# Farther from the scan than this (mm), the head closes what was not scanned.
SCANNED_MM = 3.0


@dataclass(frozen=True)
class SurfaceMatch:
    """How far a head and its scan are from each other."""

    scan_mm: float
    """Mean distance to the head of what is seen of the scan in the head's box and does not lie apart."""
    scan_p95_mm: float
    """95th percentile of that distance."""
    share_apart: float
    """Share of what is seen of the scan that lies on other components than the head."""
    head_mm: float
    """Mean distance to the scan of the head, where the scan is closer than `SCANNED_MM`."""


def match_surfaces(
    scan: Surface,
    head: trimesh.Trimesh,
    *,
    closed: trimesh.Trimesh,
    box: tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]],
) -> SurfaceMatch:
    """Return how far a head and its scan are from each other.

    Args:
        scan: The scan, in millimetres.
        head: The head.
        closed: All components of the closed scan, of which the head is one.
        box: Lowest and highest corner of the box about the head.
    """
    points = _seen_points(scan, box)
    distance = _distance_to_mesh(points, head)
    # Where another component lies closer, the scan is not the head's.
    apart = distance > _distance_to_mesh(points, closed) + SAME_MM
    if apart.mean() <= MAX_SHARE_APART:
        distance = distance[~apart]
    back = _distance_to_scan(sample_surface(head, COMPARED_POINTS, rng=np.random.default_rng(0))[0], scan)
    scanned = back[back < SCANNED_MM]
    return SurfaceMatch(
        float(distance.mean()),
        float(np.percentile(distance, 95)),
        share_apart=float(apart.mean()),
        head_mm=float(scanned.mean()) if len(scanned) else np.inf,
    )


def _seen_points(scan: Surface, box: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Random points (n, 3) of a scan in a box, of a mesh only those that are seen from outside."""
    rng = np.random.default_rng(0)
    low, high = box
    if isinstance(scan, PointCloud):
        points = scan.points[((scan.points > low) & (scan.points < high)).all(1)]
        return rng.permutation(points)[:COMPARED_POINTS]
    points, normals = sample_surface(scan, COMPARED_POINTS, rng=rng)
    in_box = ((points > low) & (points < high)).all(1)
    points, normals = points[in_box], normals[in_box]
    return points[seen_from_outside(scan, points, normals)]


def _distance_to_scan(points: np.ndarray, scan: Surface) -> np.ndarray:
    if isinstance(scan, PointCloud):
        return cKDTree(scan.points).query(points)[0]
    return _distance_to_mesh(points, scan)


def _distance_to_mesh(points: np.ndarray, mesh: trimesh.Trimesh) -> np.ndarray:
    return np.sqrt(igl.point_mesh_squared_distance(points, *igl_arrays(mesh))[0])
