"""How faithful a fit is: a decoded mesh and its scan in, distances in millimetres and angles out."""

from dataclasses import dataclass

import igl
import numpy as np
import torch
import trimesh
from jaxtyping import Float

from overfit.geometry.mesh import igl_arrays, on_face_front, sample_triangles, seen_faces
from overfit.neural_head import NeuralHead

# The F-score counts points within this distance of the other mesh, in millimetres.
F_SCORE_MM = 1.0
# Points on the front of the face at which normals are compared.
FACE_POINTS = 8000


@dataclass(frozen=True)
class SurfaceError:
    """Distances between two surfaces, from points uniform by area on either one to the other."""

    mean_mm: float
    """Mean distance in millimetres: the mean of both directions' means."""
    p95_mm: float
    """95th percentile of the distances of both directions together."""
    f1mm: float
    """F-score at 1 mm (Tatarchenko et al. 2019): harmonic mean of both directions' shares of points within 1 mm."""
    normals: float
    """Mean cosine between the normals of a point and of its nearest point, over both directions."""


def surface_error(
    mesh: trimesh.Trimesh, truth: trimesh.Trimesh, *, rng: np.random.Generator, points: int = 20_000
) -> SurfaceError:
    """Return the error of a mesh against another, both in millimetres, from `points` points on either one.

    What is invented of the truth does not count.
    """
    to_truth, cosine_to = distances(mesh, truth, rng=rng, points=points)
    to_mesh, cosine_from = distances(truth, mesh, rng=rng, points=points)
    precision, recall = (to_truth < F_SCORE_MM).mean(), (to_mesh < F_SCORE_MM).mean()
    return SurfaceError(
        mean_mm=float((to_truth.mean() + to_mesh.mean()) / 2),
        p95_mm=float(np.percentile(np.r_[to_truth, to_mesh], 95)),
        f1mm=float(2 * precision * recall / max(precision + recall, 1e-9)),
        normals=float((cosine_to.mean() + cosine_from.mean()) / 2),
    )


def distances(
    source: trimesh.Trimesh, target: trimesh.Trimesh, *, rng: np.random.Generator, points: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return distances from points on `source` to the surface of `target`, and the cosines between the normals.

    Points that are invented, or whose nearest ones are, are left out.
    """
    weight = source.area_faces * seen_faces(source)
    triangles = rng.choice(len(source.faces), points, p=weight / weight.sum())
    on_source = sample_triangles(source.triangles[triangles], rng)
    squared, nearest, _ = igl.point_mesh_squared_distance(on_source, *igl_arrays(target))
    cosines = (source.face_normals[triangles] * target.face_normals[nearest]).sum(1)
    counts = seen_faces(target)[nearest]
    return np.sqrt(squared)[counts], cosines[counts]


def face_normal_error(mesh: trimesh.Trimesh, truth: trimesh.Trimesh) -> float:
    """Return the mean angle in degrees between the normals on the front of the truth's face and the nearest ones."""
    rng = np.random.default_rng(0)
    weight = truth.area_faces * on_face_front(truth)
    triangles = rng.choice(len(weight), FACE_POINTS, p=weight / weight.sum())
    points = sample_triangles(truth.triangles[triangles], rng)
    nearest = igl.point_mesh_squared_distance(points, *igl_arrays(mesh))[1]
    cosine = (truth.face_normals[triangles] * mesh.face_normals[nearest]).sum(1)
    return float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean())


@torch.no_grad()
def iou(head: NeuralHead, points: Float[torch.Tensor, "n 3"], distance: Float[torch.Tensor, " n"]) -> float:
    """Return the intersection over union of the insides, on labelled points that the fit has not seen."""
    fitted, true = head.field(head.weights, points) > 0, distance < 0
    return float((fitted & true).sum() / (fitted | true).sum().clamp(min=1))
