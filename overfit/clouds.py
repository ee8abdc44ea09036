"""Point clouds: points of a scan's surface, with normals where the scanner gave them or where they can be found.

Clouds come from files without faces (point_files.py) and from depth captures; see prepare.py for what becomes of them.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

# Neighbours that a point's normal, its noise and its area are told by.
NEIGHBOURS = 16
# A point whose neighbours are farther than this many robust deviations above the usual is noise (Rusu et al. 2008).
OUTLYING = 4.0


@dataclass(frozen=True)
class Cloud:
    """Points of a surface."""

    # (n, 3)
    points: np.ndarray
    # (n, 3) unit normals, outward, or None where nobody knows them yet.
    normals: np.ndarray | None = None

    def __getitem__(self, chosen: np.ndarray) -> "Cloud":
        """The points chosen by an index or a mask."""
        return Cloud(self.points[chosen], None if self.normals is None else self.normals[chosen])


def without_noise(cloud: Cloud) -> Cloud:
    """The cloud without points that have few others near them, and without specks apart from its largest piece."""
    distance, neighbours = cKDTree(cloud.points).query(cloud.points, NEIGHBOURS + 1)
    usual = distance[:, 1:].mean(1)
    middle = np.median(usual)
    deviation = 1.4826 * np.median(np.abs(usual - middle))
    sound = usual <= middle + OUTLYING * max(deviation, 0.1 * middle)
    links = _links(neighbours, sound[:, None] & sound[neighbours[:, 1:]])
    _, piece = connected_components(links, directed=False)
    counts = np.bincount(piece[sound], minlength=piece.max() + 1)
    return cloud[sound & (counts[piece] >= 0.05 * counts.max())]


def thinned(cloud: Cloud, spacing: float) -> Cloud:
    """One of the cloud's points in each cell of a grid. Points in one place also break trees over them."""
    _, first = np.unique(np.floor(cloud.points / spacing), axis=0, return_index=True)
    return cloud[np.sort(first)]


def with_normals(cloud: Cloud) -> Cloud:
    """The cloud with normals: planes through the neighbours, turned to agree along a spanning tree (Hoppe et al. 1992).

    The tree's first point is the outermost one, whose normal points away from the cloud's middle.
    """
    if cloud.normals is not None:
        return cloud
    points = cloud.points
    neighbours = cKDTree(points).query(points, NEIGHBOURS)[1]
    around = points[neighbours] - points[neighbours].mean(1, keepdims=True)
    normals = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))[1][:, :, 0]
    # Cheap where two tangent planes agree; never zero, which would be no link.
    cost = 1.01 - np.abs(np.einsum("ni,nki->nk", normals, normals[neighbours[:, 1:]]))
    rows, columns = np.repeat(np.arange(len(points)), NEIGHBOURS - 1), neighbours[:, 1:].ravel()
    tree = minimum_spanning_tree(coo_matrix((cost.ravel(), (rows, columns)), (len(points),) * 2).tocsr())
    _, piece = connected_components(tree, directed=False)
    middle = points.mean(0)
    for label in np.unique(piece):
        members = np.nonzero(piece == label)[0]
        first = members[np.linalg.norm(points[members] - middle, axis=1).argmax()]
        if normals[first] @ (points[first] - middle) < 0:
            normals[first] *= -1
        order, parent = breadth_first_order(tree, first, directed=False)
        for one in order[1:]:
            if normals[one] @ normals[parent[one]] < 0:
                normals[one] *= -1
    return Cloud(points, normals)


def areas(points: np.ndarray) -> np.ndarray:
    """(n,) area of the surface that each point stands for: that of a disc to its neighbours, shared among them."""
    distance = cKDTree(points).query(points, NEIGHBOURS + 1)[0][:, -1]
    return np.pi * distance**2 / NEIGHBOURS


def _links(neighbours: np.ndarray, kept: np.ndarray) -> coo_matrix:
    rows = np.repeat(np.arange(len(neighbours)), neighbours.shape[1] - 1)[kept.ravel()]
    columns = neighbours[:, 1:].ravel()[kept.ravel()]
    return coo_matrix((np.ones(len(rows)), (rows, columns)), (len(neighbours),) * 2)
