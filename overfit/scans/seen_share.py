"""How much of a head a scan shows: an aligned scan in, a share out.

Counted are directions from the middle of the head. Where hair or a cap lies before the skull, distances to the template
would say that nothing is seen.
"""

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from overfit.geometry.mesh import sample_points
from overfit.geometry.point_cloud import PointCloud, directions_from
from overfit.scans.raw_surface import Surface
from overfit.scans.template import Template

# Points of a mesh: 2.5 mm apart on a head.
MESH_POINTS = 20_000
# A direction is seen if the scan shows a point within this angle in radians of it: 10 mm on a head.
SEEN_ANGLE = 0.1


def seen_share(scan: Surface, template: Template) -> float:
    """Return the share of a head's surface in whose directions a scan in the canonical frame shows something."""
    points = scan.points if isinstance(scan, PointCloud) else _sampled(scan)
    low, high = template.head_box
    points = points[((points > low) & (points < high)).all(1)]
    if not len(points):
        return 0.0
    centre = template.mesh.bounds.mean(0)
    nearest, _ = cKDTree(directions_from(centre, points)).query(directions_from(centre, template.cloud.points))
    return float((nearest < SEEN_ANGLE).mean())


def _sampled(mesh: trimesh.Trimesh) -> np.ndarray:
    return sample_points(mesh, MESH_POINTS, rng=np.random.default_rng(0))
