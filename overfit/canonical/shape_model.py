"""The shape model of dense registration: the template's vertices, and how they move from head to head.

A vertex moves by the template's modes, the principal components of many heads, and by smooth offsets, which let it
follow heads that the modes have not seen (Lüthi et al., Gaussian Process Morphable Models, 2018). Both have unit
variance in their coefficients, so that one prior serves them.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import trimesh
from jaxtyping import Float, Int

from overfit.scans.template import TEMPLATE_FILE

# Smooth offsets are a Gaussian process: (range in mm, standard deviation in mm) of the kernels that it sums up.
OFFSET_KERNELS = ((60.0, 3.0), (25.0, 1.5), (10.0, 0.8))
# Vertices between which the process is known; its principal components are computed from these (Nyström).
OFFSET_CENTRES = 500
# Principal components that are kept; twice as many register heads no better.
OFFSET_COMPONENTS = 100
# Keeps the kernel matrix positive definite in floating point.
KERNEL_JITTER = 1e-6
# How much denser points chosen among the vertices are on the face, as a ratio of distances.
FACE_DENSITY = 2.5
# The face of the template: what lies in front of this plane and above this height, in mm.
FACE_FRONT_MM = 20.0
FACE_BOTTOM_MM = -110.0
# Vertices this close (mm) to the lowest one lie on the neck's cut, which scans do not have.
NECK_CUT_MM = 1.0


@dataclass(frozen=True)
class ShapeModel:
    """A template's vertices and how they move."""

    mesh: trimesh.Trimesh
    """The mean head in millimetres, in canonical space."""
    modes: Float[np.ndarray, "modes vertices 3"]
    """How the vertices move by one standard deviation of each mode, in millimetres."""
    offsets: Float[np.ndarray, "vertices components"]
    """By how much one unit of each smooth offset moves the vertices along each axis, in millimetres."""
    matched: Int[np.ndarray, " matched"]
    """The vertices that scans have too: all but those of the neck's cut."""

    @classmethod
    @cache
    def standard(cls) -> "ShapeModel":
        """Return the model of the default heads."""
        with np.load(TEMPLATE_FILE) as stored:
            vertices, faces = stored["vertices"].astype(float), stored["faces"]
            modes = stored["modes"].astype(float)
        mesh = trimesh.Trimesh(vertices, faces, process=False)
        matched = np.nonzero(vertices[:, 1] > vertices[:, 1].min() + NECK_CUT_MM)[0]
        return cls(mesh, modes, _smooth_offsets(vertices), matched)

    def spread_points(self, count: int) -> Float[np.ndarray, "count 3"]:
        """Return vertices as far from each other as can be, denser on the face: the first of a fixed sequence."""
        vertices = self.mesh.vertices[self.matched]
        return vertices[_farthest_points(vertices, count)]

    def vertices(
        self, shape: Float[np.ndarray, " modes"], offsets: Float[np.ndarray, "components 3"]
    ) -> Float[np.ndarray, "vertices 3"]:
        """Return the vertices of a head in canonical space."""
        return self.mesh.vertices + np.tensordot(shape, self.modes, 1) + self.offsets @ offsets


def _smooth_offsets(vertices: np.ndarray) -> np.ndarray:
    """Principal components (vertices, components) of a Gaussian process at the vertices, of unit variance each."""
    centres = vertices[_farthest_points(vertices, OFFSET_CENTRES)]
    kernel = _kernel(centres, centres) + KERNEL_JITTER * np.eye(len(centres))
    variance, directions = np.linalg.eigh(kernel)
    largest = slice(-1, -OFFSET_COMPONENTS - 1, -1)
    return _kernel(vertices, centres) @ directions[:, largest] / np.sqrt(variance[largest])


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    squared = ((first[:, None] - second) ** 2).sum(-1)
    return sum(std**2 * np.exp(-squared / (2 * width**2)) for width, std in OFFSET_KERNELS)


def _farthest_points(vertices: np.ndarray, count: int) -> np.ndarray:
    """Indices (count,) of vertices that are each farthest from those before (Gonzalez 1985), by weighted distances."""
    in_face = (vertices[:, 2] > FACE_FRONT_MM) & (vertices[:, 1] > FACE_BOTTOM_MM)
    weight = np.where(in_face, FACE_DENSITY, 1.0)
    chosen = [int(vertices[:, 2].argmax())]
    distance = np.full(len(vertices), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.linalg.norm(vertices - vertices[chosen[-1]], axis=1))
        chosen.append(int((distance * weight).argmax()))
    return np.array(chosen)
