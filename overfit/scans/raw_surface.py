"""What readers of raw scans return: the surface in a file, with its unit and remarks where the file gives cause."""

from dataclasses import dataclass

import trimesh

from overfit.geometry.point_cloud import PointCloud
from overfit.scans.units import Unit

Surface = trimesh.Trimesh | PointCloud


@dataclass(frozen=True)
class RawSurface:
    """The surface in a file."""

    surface: Surface
    """The mesh or the points, in the unit of the file."""
    unit: Unit | None = None
    """The unit, where the file names it."""
    remarks: tuple[str, ...] = ()
    """What was left out or is doubtful, a phrase each."""
