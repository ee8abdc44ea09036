"""How faithful a fit is: a decoded mesh and its scan in, distances in millimetres and angles out."""

from dataclasses import dataclass

import igl
import numpy as np
import torch
import trimesh

from .field import Field
from .occupancy import arrays, barycentric_points


@dataclass(frozen=True)
class SurfaceError:
    """Point-to-surface figures, both ways, over points uniform by area on either mesh."""

    # Mean distance in millimetres: the mean of the two ways' means.
    mean_mm: float
    # 95th percentile of the distances of both ways together.
    p95_mm: float
    # F-score at 1 mm (Tatarchenko et al. 2019): harmonic mean of the shares of points within 1 mm, either way.
    f1mm: float
    # Mean cosine between the normals of a point and of its nearest, both ways.
    normals: float


def surface_error(mesh: trimesh.Trimesh, truth: trimesh.Trimesh, rng: np.random.Generator,
                  points: int = 20_000) -> SurfaceError:
    """Error of a mesh against another, both in millimetres."""
    to_truth, cosine_to = distances(mesh, truth, rng, points)
    to_mesh, cosine_from = distances(truth, mesh, rng, points)
    precision, recall = (to_truth < 1).mean(), (to_mesh < 1).mean()
    return SurfaceError(
        mean_mm=float((to_truth.mean() + to_mesh.mean()) / 2),
        p95_mm=float(np.percentile(np.r_[to_truth, to_mesh], 95)),
        f1mm=float(2 * precision * recall / max(precision + recall, 1e-9)),
        normals=float((cosine_to.mean() + cosine_from.mean()) / 2))


def distances(source: trimesh.Trimesh, target: trimesh.Trimesh, rng: np.random.Generator,
              points: int) -> tuple[np.ndarray, np.ndarray]:
    """From points on `source` to the surface of `target`: distances (n,) and cosines of the normals (n,)."""
    triangles = rng.choice(len(source.faces), points, p=source.area_faces / source.area_faces.sum())
    on_source = barycentric_points(source.triangles[triangles], rng)
    squared, nearest, _ = igl.point_mesh_squared_distance(on_source, *arrays(target))
    cosines = (source.face_normals[triangles] * target.face_normals[nearest]).sum(1)
    return np.sqrt(squared), cosines


@torch.no_grad()
def iou(field: Field, weights: torch.Tensor, points: torch.Tensor, distance: torch.Tensor) -> float:
    """Intersection over union of inside, on labelled points (n, 3) that no step has seen."""
    fitted, true = field(weights, points) > 0, distance < 0
    return float((fitted & true).sum() / (fitted | true).sum().clamp(min=1))
