"""Validity of a mesh as a head: a mesh in millimetres in; watertight, components, self-intersections and size out."""

from dataclasses import dataclass

import numpy as np
import trimesh

from overfit.geometry.mesh import connected_components
from overfit.geometry.rays import ray_intersector

# Volume of a human head in litres, from a small child's to a large one with shoulders.
HEAD_LITRES = (1.5, 16.0)
# Height of the same in millimetres.
HEAD_HEIGHT_MM = (150.0, 450.0)
# An intersection this close to an edge's end, as a share of its length, is with the triangles that meet there.
EDGE_END_SHARE = 1e-3


@dataclass(frozen=True)
class Validity:
    """Properties that the mesh of a head should have. A head without a surface is not valid."""

    watertight: bool
    """Whether every edge joins two triangles."""
    components: int
    """Connected components, bubbles inside the head among them."""
    self_intersections: int
    """Edges that pierce a triangle which shares no vertex with them."""
    litres: float
    """Volume in litres; 0 if the mesh is not watertight."""
    height_mm: float
    """Extent along +y in millimetres."""

    @property
    def one_component(self) -> bool:
        """Whether the mesh is a single connected component."""
        return self.components == 1

    @property
    def no_self_intersections(self) -> bool:
        """Whether there is a surface that does not intersect itself."""
        return self.components > 0 and not self.self_intersections

    @property
    def human_size(self) -> bool:
        """Whether volume and height are those of a human head."""
        return HEAD_LITRES[0] < self.litres < HEAD_LITRES[1] and HEAD_HEIGHT_MM[0] < self.height_mm < HEAD_HEIGHT_MM[1]

    @property
    def valid(self) -> bool:
        """Whether all of these hold."""
        return self.watertight and self.one_component and self.no_self_intersections and self.human_size


def check_validity(mesh: trimesh.Trimesh | None) -> Validity:
    """Return the validity of a mesh in millimetres, or of a head without a surface."""
    if mesh is None or not len(mesh.faces):
        return Validity(watertight=False, components=0, self_intersections=0, litres=0.0, height_mm=0.0)
    watertight = bool(mesh.is_watertight)
    return Validity(
        watertight=watertight,
        components=len(connected_components(mesh)),
        self_intersections=count_self_intersections(mesh),
        litres=abs(float(mesh.volume)) / 1e6 if watertight else 0.0,
        height_mm=float(np.ptp(mesh.vertices[:, 1])),
    )


def count_self_intersections(mesh: trimesh.Trimesh) -> int:
    """Return the number of edges that pass through a triangle which has neither of their ends."""
    edges = mesh.edges_unique
    start, along = mesh.vertices[edges[:, 0]], np.diff(mesh.vertices[edges], axis=1)[:, 0]
    length = np.linalg.norm(along, axis=1)
    nonzero = length > 0
    edges, start, along, length = edges[nonzero], start[nonzero], along[nonzero], length[nonzero]
    direction = along / length[:, None]
    # A ray that starts on the vertex itself would hit the triangles that meet there.
    origin = start + EDGE_END_SHARE * along
    triangle, ray, hit = ray_intersector(mesh).intersects_id(
        origin, direction, multiple_hits=True, return_locations=True
    )
    if not len(triangle):
        return 0
    distance = np.einsum("ij,ij->i", hit - origin[ray], direction[ray])
    shares_vertex = (mesh.faces[triangle][:, :, None] == edges[ray][:, None]).any((1, 2))
    through = ~shares_vertex & (distance > 0) & (distance < (1 - 2 * EDGE_END_SHARE) * length[ray])
    return len(np.unique(ray[through]))
