"""The part of heads that evaluation may take for true: test heads, some of them completed, in; what to compare out.

Parts that `hyperdiffusion complete` has invented are no truth. If test heads have some, all sets are compared in those
directions from the middle of a head alone in which every test head was seen: with one region for all, distances stay
symmetric.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from overfit.geometry.mesh import SEEN
from overfit.geometry.point_cloud import directions_from
from overfit.runtime.errors import BadInput

# Number of directions, 4 degrees from each other.
DIRECTIONS = 3000
# A smaller share of them is too little to compare heads by.
MIN_SHARE = 0.05


@dataclass(frozen=True)
class SeenRegion:
    """Directions from the middle of a head in which heads are compared."""

    centre: Float[np.ndarray, " 3"]
    """The middle of the test heads in millimetres."""
    directions: Float[np.ndarray, "n 3"]
    """Unit vectors, evenly spread."""
    seen: Bool[np.ndarray, " n"]
    """Whether each is compared."""

    @classmethod
    def of(cls, test: Sequence[trimesh.Trimesh]) -> "SeenRegion | None":
        """Return where every test head was seen, or None if nothing of any of them is invented.

        Raises BadInput if that is next to nowhere.
        """
        if not any(SEEN in mesh.vertex_attributes for mesh in test):
            return None
        centre = np.mean([mesh.bounds.mean(0) for mesh in test], axis=0)
        region = cls(centre, _spread_directions(), np.ones(DIRECTIONS, bool))
        for mesh in test:
            if SEEN in mesh.vertex_attributes:
                nearest = cKDTree(directions_from(centre, mesh.vertices)).query(region.directions)[1]
                region.seen[:] &= np.asarray(mesh.vertex_attributes[SEEN], bool)[nearest]
        if region.share < MIN_SHARE:
            raise BadInput(
                f"`reference`: only {region.share:.1%} of a head was seen of all test heads, the rest is invented; "
                "give test heads that show more, or the same part"
            )
        return region

    @property
    def share(self) -> float:
        """Share of all directions."""
        return float(self.seen.mean())

    def part(self, mesh: trimesh.Trimesh) -> trimesh.Trimesh:
        """Return the part of a head in the region, all of it if none is."""
        kept = self.seen[cKDTree(self.directions).query(directions_from(self.centre, mesh.triangles_center))[1]]
        if not kept.any():
            return mesh
        return trimesh.Trimesh(mesh.vertices, mesh.faces[kept], process=False)


def _spread_directions() -> np.ndarray:
    """Evenly spread unit vectors (DIRECTIONS, 3): a Fibonacci lattice (González 2010)."""
    index = np.arange(DIRECTIONS) + 0.5
    height, angle = 1 - 2 * index / DIRECTIONS, np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], axis=1)
