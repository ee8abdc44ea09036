"""Whether a mesh could be a head: a mesh in millimetres in; closed, one body, no self-intersection, human size out."""

from dataclasses import dataclass

import numpy as np
import trimesh
from trimesh.ray.ray_pyembree import RayMeshIntersector

from overfit.decode import bodies

# Litres and millimetres of heads, from a small child's to a large one with shoulders.
LITRES, HEIGHT = (1.5, 16.0), (150.0, 450.0)
# Of an edge's length, what lies so close to its ends belongs to the triangles that meet there.
ENDS = 1e-3


@dataclass(frozen=True)
class Validity:
    """What was found about one mesh; of none at all, nothing holds."""

    closed: bool
    # Connected pieces, islands and bubbles among them.
    bodies: int
    # Edges that pierce a triangle which they do not touch.
    pierced: int
    litres: float
    height_mm: float

    @property
    def one_body(self) -> bool:
        """Whether all hangs together."""
        return self.bodies == 1

    @property
    def human(self) -> bool:
        """Whether volume and height are those of a head."""
        return LITRES[0] < self.litres < LITRES[1] and HEIGHT[0] < self.height_mm < HEIGHT[1]

    @property
    def uncut(self) -> bool:
        """Whether there is a surface that does not cut itself."""
        return self.bodies > 0 and not self.pierced

    @property
    def valid(self) -> bool:
        """Whether all of it holds."""
        return self.closed and self.one_body and self.uncut and self.human


def validity(mesh: trimesh.Trimesh | None) -> Validity:
    """Look at a mesh."""
    if mesh is None or not len(mesh.faces):
        return Validity(False, 0, 0, 0.0, 0.0)
    closed = bool(mesh.is_watertight)
    return Validity(closed, len(bodies(mesh)), pierced(mesh), abs(float(mesh.volume)) / 1e6 if closed else 0.0,
                    float(np.ptp(mesh.vertices[:, 1])))


def pierced(mesh: trimesh.Trimesh) -> int:
    """Edges that go through a triangle which has neither of their ends: none on a mesh that does not cut itself."""
    edges = mesh.edges_unique
    start, along = mesh.vertices[edges[:, 0]], np.diff(mesh.vertices[edges], axis=1)[:, 0]
    length = np.linalg.norm(along, axis=1)
    whole = length > 0
    edges, start, along, length = edges[whole], start[whole], along[whole], length[whole]
    direction = along / length[:, None]
    # From outside the triangles at the edge's first end, which a ray would hit at once.
    begin = start + ENDS * along
    triangle, ray, place = RayMeshIntersector(mesh).intersects_id(begin, direction, multiple_hits=True,
                                                                  return_locations=True)
    if not len(triangle):
        return 0
    way = np.einsum("ij,ij->i", place - begin[ray], direction[ray])
    touching = (mesh.faces[triangle][:, :, None] == edges[ray][:, None]).any((1, 2))
    through = ~touching & (way > 0) & (way < (1 - 2 * ENDS) * length[ray])
    return len(np.unique(ray[through]))
