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

# Points by which surfaces are compared.
COMPARED_POINTS = 10_000
# Farther from the scan than this (mm), the head closes what was not scanned.
SCANNED_MM = 3.0


@dataclass(frozen=True)
class SurfaceMatch:
    """How far a head and its scan are from each other."""

    scan_mm: float
    """Mean distance to the head of what is seen of the scan in the head's box."""
    scan_p95_mm: float
    """95th percentile of that distance."""
    head_mm: float
    """Mean distance to the scan of the head, where the scan is closer than `SCANNED_MM`."""


def match_surfaces(
    scan: Surface, head: trimesh.Trimesh, box: tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]
) -> SurfaceMatch:
    """Return how far a head and its scan, both in millimetres, are from each other in a box of two corners."""
    points = _seen_points(scan, box)
    distance = np.sqrt(igl.point_mesh_squared_distance(points, *igl_arrays(head))[0])
    back = _distance_to_scan(sample_surface(head, COMPARED_POINTS, rng=np.random.default_rng(0))[0], scan)
    scanned = back[back < SCANNED_MM]
    return SurfaceMatch(
        float(distance.mean()), float(np.percentile(distance, 95)), float(scanned.mean()) if len(scanned) else np.inf
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
    return np.sqrt(igl.point_mesh_squared_distance(points, *igl_arrays(scan))[0])
