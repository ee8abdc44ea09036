"""Point clouds: points of a scan's surface, with normals if the scanner gave them or once they are estimated.

Clouds come from files without faces and from depth captures; preparation turns them into closed meshes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

# Neighbours from which a point's normal, noise and area are estimated.
NEIGHBOURS = 16
# A point whose neighbours are farther away than the median by more than this many robust standard deviations is an
# outlier (Rusu et al. 2008).
OUTLIER_DEVIATIONS = 4.0
# The standard deviation of a normal distribution over its median absolute deviation.
DEVIATION_OVER_MAD = 1.4826
# The robust standard deviation counts as at least this share of the median: regular clouds have almost none.
MIN_RELATIVE_DEVIATION = 0.1
# A component with fewer points than this share of the largest one's is removed.
MIN_COMPONENT_SHARE = 0.05
# Percentiles of coordinates between which a cloud's extent is measured: single points far off do not count.
EXTENT_PERCENTILES = (1, 99)
# Bits of the number of a cell along each axis.
CELL_BITS = 21
# Cells grow by this factor more than seems needed, so that few rounds are.
MIN_CELL_GROWTH = 1.05
# One minus the cosine between two normals is the cost of a link; this much more, since a cost of zero is no link.
MIN_LINK_COST = 0.01
# Keeps the norm that a vector is divided by above zero.
MIN_NORM = 1e-9


@dataclass(frozen=True)
class PointCloud:
    """Points of a surface."""

    points: Float[np.ndarray, "n 3"]
    """The points' coordinates."""
    normals: Float[np.ndarray, "n 3"] | None = None
    """Unit normals, outward; None if they are not known yet."""

    @property
    def known_normals(self) -> Float[np.ndarray, "n 3"]:
        """The normals of a cloud that has them. Raises ValueError if they are not known yet."""
        if self.normals is None:
            raise ValueError("the cloud has no normals; estimate them first")
        return self.normals

    def __getitem__(self, chosen: Int[np.ndarray, " m"] | Bool[np.ndarray, " n"]) -> "PointCloud":
        """Return the points chosen by an index or a mask."""
        return PointCloud(self.points[chosen], None if self.normals is None else self.normals[chosen])


def median_radius(points: Float[np.ndarray, "n 3"]) -> float:
    """Return the median distance of points from their median: a size that single points far off do not change."""
    return float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1)))


def largest_extent(points: Float[np.ndarray, "n 3"]) -> float:
    """Return the largest extent of points along an axis, without the single ones far off."""
    return float(np.ptp(np.percentile(points, EXTENT_PERCENTILES, axis=0), axis=0).max())


def remove_outliers(cloud: PointCloud) -> PointCloud:
    """Return the cloud without points that have few others near them and without small separate components.

    The first step is the statistical outlier removal of Rusu et al. (2008).
    """
    distance, neighbours = cKDTree(cloud.points).query(cloud.points, NEIGHBOURS + 1)
    spacing = distance[:, 1:].mean(1)
    median = np.median(spacing)
    deviation = DEVIATION_OVER_MAD * np.median(np.abs(spacing - median))
    kept = spacing <= median + OUTLIER_DEVIATIONS * max(deviation, MIN_RELATIVE_DEVIATION * median)
    links = _link_neighbours(neighbours, kept[:, None] & kept[neighbours[:, 1:]])
    _, component = connected_components(links, directed=False)
    counts = np.bincount(component[kept], minlength=component.max() + 1)
    return cloud[kept & (counts[component] >= MIN_COMPONENT_SHARE * counts.max())]


def voxel_downsample(cloud: PointCloud, spacing: float) -> PointCloud:
    """Return the first point in each cell of a grid. Coinciding points go too, which would break spanning trees."""
    return cloud[_first_in_cells(cloud.points, spacing)]


def thin(cloud: PointCloud, count: int) -> PointCloud:
    """Return at most `count` points of a cloud, evenly spread; a cloud that has no more is returned as it is.

    They are the first in each cell of a grid, whose cells grow until few enough are left.
    """
    if len(cloud.points) <= count:
        return cloud
    # A closed surface as large as the box of these points has about this many cells.
    spacing = largest_extent(cloud.points[:: len(cloud.points) // count]) / np.sqrt(count)
    chosen = _first_in_cells(cloud.points, spacing)
    while len(chosen) > count:
        spacing *= MIN_CELL_GROWTH * np.sqrt(len(chosen) / count)
        chosen = chosen[_first_in_cells(cloud.points[chosen], spacing)]
    return cloud[chosen]


def _first_in_cells(points: np.ndarray, spacing: float) -> np.ndarray:
    """Indices in rising order of the first point (n, 3) in each cell of a grid."""
    return np.sort(np.unique(cell_numbers(points, spacing), return_index=True)[1])


def cell_numbers(points: Float[np.ndarray, "n 3"], spacing: float) -> UInt64[np.ndarray, " n"]:
    """Return a number for each point, the same for those that share a cell of a grid."""
    # By one axis after the other, so that clouds of many millions fit the memory. Points farther off than the grid
    # reaches share its last cells.
    key = np.zeros(len(points), np.uint64)
    if not len(points):
        return key
    for axis in range(points.shape[1]):
        cell = np.floor((points[:, axis] - points[:, axis].min()) / spacing)
        key = (key << np.uint64(CELL_BITS)) | np.minimum(cell, 2.0**CELL_BITS - 1).astype(np.uint64)
    return key


def directions_from(centre: Float[np.ndarray, " 3"], points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Return unit vectors from a centre towards points; zero for points that lie in it."""
    offsets = points - centre
    return offsets / np.linalg.norm(offsets, axis=1, keepdims=True).clip(MIN_NORM)


def estimate_normals(cloud: PointCloud) -> PointCloud:
    """Return the cloud with normals; a cloud that has them is returned as it is.

    Normals are those of planes through the neighbours, turned to agree along a spanning tree (Hoppe et al. 1992). The
    tree's root is the outermost point, whose normal points away from the cloud's centre.
    """
    if cloud.normals is not None:
        return cloud
    neighbours = cKDTree(cloud.points).query(cloud.points, NEIGHBOURS)[1]
    normals = _plane_normals(cloud.points, neighbours)
    tree = _agreement_tree(normals, neighbours)
    _, component = connected_components(tree, directed=False)
    centre = cloud.points.mean(0)
    for label in np.unique(component):
        members = np.nonzero(component == label)[0]
        root = members[np.linalg.norm(cloud.points[members] - centre, axis=1).argmax()]
        if normals[root] @ (cloud.points[root] - centre) < 0:
            normals[root] *= -1
        order, parent = breadth_first_order(tree, root, directed=False)
        for child in order[1:]:
            if normals[child] @ normals[parent[child]] < 0:
                normals[child] *= -1
    return PointCloud(cloud.points, normals)


def point_areas(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Return the surface area that each point stands for: a disc that reaches its neighbours, shared by them."""
    distance = cKDTree(points).query(points, NEIGHBOURS + 1)[0][:, -1]
    return np.pi * distance**2 / NEIGHBOURS


def _plane_normals(points: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Unit normals (n, 3), either way round, of planes through the neighbours (n, k) of each point."""
    around = points[neighbours] - points[neighbours].mean(1, keepdims=True)
    return np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))[1][:, :, 0]


def _agreement_tree(normals: np.ndarray, neighbours: np.ndarray) -> csr_matrix:
    """A spanning tree (n, n) over links between neighbours, which are cheap where two tangent planes agree."""
    cost = (1 + MIN_LINK_COST) - np.abs(np.einsum("ni,nki->nk", normals, normals[neighbours[:, 1:]]))
    rows, columns = np.repeat(np.arange(len(normals)), NEIGHBOURS - 1), neighbours[:, 1:].ravel()
    return minimum_spanning_tree(coo_matrix((cost.ravel(), (rows, columns)), (len(normals),) * 2).tocsr())


def _link_neighbours(neighbours: np.ndarray, kept: np.ndarray) -> coo_matrix:
    """The graph (n, n) of the kept links (n, k) from each point to its neighbours (n, k + 1), itself the first."""
    rows = np.repeat(np.arange(len(neighbours)), neighbours.shape[1] - 1)[kept.ravel()]
    columns = neighbours[:, 1:].ravel()[kept.ravel()]
    return coo_matrix((np.ones(len(rows)), (rows, columns)), (len(neighbours),) * 2)
