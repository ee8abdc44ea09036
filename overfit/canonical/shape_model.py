"""The shape model of dense registration: the template's vertices, and how they move from head to head.

A vertex moves by the template's modes, the principal components of many heads, and by smooth offsets, which let it
follow heads that the modes have not seen (Lüthi et al., Gaussian Process Morphable Models, 2018). Both have unit
variance in their coefficients, so that one prior serves them.

Many scans show shoulders. Their vertices follow the head's modes as shoulders do, have modes of their own, and offsets
that grow with the distance from the head, since scans hold them in other ways than the template.
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
OFFSET_COMPONENTS = 130
# How many times as large offsets are on the shoulders, and how far (mm) below the head's cut they are.
SHOULDER_OFFSETS = 3.0
SHOULDER_START_MM = 50.0
# Keeps the kernel matrix positive definite in floating point.
KERNEL_JITTER = 1e-6
# How much denser points chosen among the vertices are on the face, and on the shoulders, as a ratio of distances.
FACE_DENSITY = 2.5
SHOULDER_DENSITY = 0.5
# The face of the template: what lies in front of this plane and above this height, in mm.
FACE_FRONT_MM = 20.0
FACE_BOTTOM_MM = -110.0
# Vertices this close (mm) to the lowest one lie on the neck's cut, which scans do not have.
NECK_CUT_MM = 1.0


@dataclass(frozen=True)
class ShapeModel:
    """A template's vertices and how they move."""

    mesh: trimesh.Trimesh
    """The mean head in millimetres, in canonical space, and as another component its shoulders, which are open."""
    modes: Float[np.ndarray, "modes vertices 3"]
    """How the vertices move by one standard deviation of each mode, in millimetres."""
    offsets: Float[np.ndarray, "vertices components"]
    """By how much one unit of each smooth offset moves the vertices along each axis, in millimetres."""
    head_size: int
    """Number of the head's vertices, which come first; the others are the shoulders'."""
    matched: Int[np.ndarray, " matched"]
    """The vertices that scans have too: all but those of the neck's cut."""

    @classmethod
    @cache
    def standard(cls) -> "ShapeModel":
        """Return the model of the plain heads."""
        with np.load(TEMPLATE_FILE) as stored:
            head, shoulders = (stored[name].astype(float) for name in ("vertices", "shoulder_vertices"))
            faces = np.concatenate([stored["faces"], len(head) + stored["shoulder_faces"]])
            head_modes, shoulder_modes = (stored[name].astype(float) for name in ("modes", "shoulder_modes"))
        head_modes = np.pad(head_modes, ((0, len(shoulder_modes) - len(head_modes)), (0, 0), (0, 0)))
        vertices, neck_height = np.concatenate([head, shoulders]), head[:, 1].min()
        on_cut = np.nonzero(head[:, 1] <= neck_height + NECK_CUT_MM)[0]
        return cls(
            trimesh.Trimesh(vertices, faces, process=False),
            np.concatenate([head_modes, shoulder_modes], axis=1),
            _smooth_offsets(vertices, neck_height),
            len(head),
            np.setdiff1d(np.arange(len(vertices)), on_cut),
        )

    def spread_points(self, count: int) -> Float[np.ndarray, "count 3"]:
        """Return vertices as far from each other as can be, denser on the face: the first of a fixed sequence."""
        neck_height = self.mesh.vertices[: self.head_size, 1].min()
        vertices = self.mesh.vertices[self.matched]
        return vertices[_farthest_points(vertices, count, neck_height=neck_height)]

    def vertices(
        self, shape: Float[np.ndarray, " modes"], offsets: Float[np.ndarray, "components 3"]
    ) -> Float[np.ndarray, "vertices 3"]:
        """Return the vertices of a head in canonical space."""
        return self.mesh.vertices + np.tensordot(shape, self.modes, 1) + self.offsets @ offsets


def _smooth_offsets(vertices: np.ndarray, neck_height: float) -> np.ndarray:
    """Principal components (vertices, components) of a Gaussian process at the vertices, of unit variance each."""
    below = (neck_height - vertices[:, 1]) / SHOULDER_START_MM
    amplitude = 1 + (SHOULDER_OFFSETS - 1) * below.clip(0, 1)
    centres = _farthest_points(vertices, OFFSET_CENTRES, neck_height=neck_height)
    kernel = amplitude[:, None] * amplitude[centres] * _kernel(vertices, vertices[centres])
    among = kernel[centres] + KERNEL_JITTER * np.eye(OFFSET_CENTRES)
    variance, directions = np.linalg.eigh(among)
    largest = slice(-1, -OFFSET_COMPONENTS - 1, -1)
    return kernel @ directions[:, largest] / np.sqrt(variance[largest])


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    squared = ((first[:, None] - second) ** 2).sum(-1)
    return sum(std**2 * np.exp(-squared / (2 * width**2)) for width, std in OFFSET_KERNELS)


def _farthest_points(vertices: np.ndarray, count: int, *, neck_height: float) -> np.ndarray:
    """Indices (count,) of vertices that are each farthest from those before (Gonzalez 1985), by weighted distances."""
    in_face = (vertices[:, 2] > FACE_FRONT_MM) & (vertices[:, 1] > FACE_BOTTOM_MM)
    weight = np.where(in_face, FACE_DENSITY, np.where(vertices[:, 1] < neck_height, SHOULDER_DENSITY, 1.0))
    chosen = [int(vertices[:, 2].argmax())]
    distance = np.full(len(vertices), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.linalg.norm(vertices - vertices[chosen[-1]], axis=1))
        chosen.append(int((distance * weight).argmax()))
    return np.array(chosen)
