"""Loop subdivision (Loop 1987) as a linear map: triangles in; a matrix for vertices, and finer triangles, out."""

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Bool, Float, Int


def subdivide(faces: Int[np.ndarray, "m 3"], vertices: int) -> tuple[sparse.csr_matrix, Int[np.ndarray, "k 3"]]:
    """Return the matrix (fine, vertices) that subdivides a closed surface once, and the triangles of the fine one."""
    edges, sides = _edges(faces)
    return _loop(faces, vertices, edges, sides), _divided(faces, vertices + sides)


def subdivide_long(
    faces: Int[np.ndarray, "m 3"],
    points: Float[np.ndarray, "n 3"],
    *,
    limit: Float[np.ndarray, " n"],
    smooth: bool = True,
) -> tuple[sparse.csr_matrix, Int[np.ndarray, "k 3"]]:
    """Return the matrix (fine, n) that divides long edges only, and the triangles.

    Args:
        faces: Triangles of a closed surface.
        points: Its vertices, which say how long edges are.
        limit: Length above which an edge is divided, at each vertex.
        smooth: Whether vertices are those of Loop subdivision; otherwise, old ones stay and new ones are midpoints.
    """
    edges, sides = _edges(faces)
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    long = length > limit[edges].min(1)
    count = len(points)
    if smooth:
        matrix = _loop(faces, count, edges, sides)[np.concatenate([np.ones(count, bool), long])]
    else:
        ends = edges[long]
        rows = np.repeat(np.arange(len(ends)), 2)
        middles = sparse.coo_matrix((np.full(len(rows), 0.5), (rows, ends.ravel())), (len(ends), count))
        matrix = sparse.vstack([sparse.eye(count), middles]).tocsr()
    new = count + np.cumsum(long) - 1
    return matrix, _divided(faces, np.where(long, new, -1)[sides])


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges (k, 2), and the numbers (m, 3) of each triangle's edges: ab, bc and ca."""
    half_edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges, numbers = np.unique(np.sort(half_edges, axis=1), axis=0, return_inverse=True)
    return edges, numbers.reshape(-1, 3)


def _loop(faces: np.ndarray, vertices: int, edges: np.ndarray, sides: np.ndarray) -> sparse.csr_matrix:
    # A new vertex is 3/8 of the ends of its edge and 1/8 of each of the two corners opposite.
    ends = np.repeat(np.arange(len(edges)), 2)
    odd = sparse.coo_matrix((np.full(len(ends), 3 / 8), (ends, edges.ravel())), (len(edges), vertices))
    opposite = faces[:, [2, 0, 1]]
    odd += sparse.coo_matrix((np.full(opposite.size, 1 / 8), (sides.ravel(), opposite.ravel())), odd.shape)
    # An old vertex moves towards its neighbours.
    both = np.concatenate([edges, edges[:, ::-1]])
    adjacency = sparse.coo_matrix((np.ones(len(both)), both.T), (vertices, vertices)).tocsr()
    valence = np.asarray(adjacency.sum(1)).ravel().clip(1)
    share = (5 / 8 - (3 / 8 + np.cos(2 * np.pi / valence) / 4) ** 2) / valence
    even = sparse.diags(1 - valence * share) + sparse.diags(share) @ adjacency
    return sparse.vstack([even, odd]).tocsr()


def _divided(faces: Int[np.ndarray, "m 3"], middles: Int[np.ndarray, "m 3"]) -> Int[np.ndarray, "k 3"]:
    """Return triangles divided at the vertices in the middle of their edges, which are -1 on undivided edges."""
    count = (middles >= 0).sum(1)
    # With one middle, turn its edge to the front; with two, turn the undivided edge there.
    turn = np.where(count == 1, (middles >= 0).argmax(1), np.where(count == 2, (middles < 0).argmax(1), 0))
    order = (turn[:, None] + np.arange(3)) % 3
    rows = np.arange(len(faces))[:, None]
    corners, middles = faces[rows, order], middles[rows, order]

    def pieces(chosen: Bool[np.ndarray, " m"], *triangles: str) -> list[np.ndarray]:
        vertices = dict(zip("abcxyz", np.concatenate([corners[chosen], middles[chosen]], axis=1).T))
        return [np.stack([vertices[letter] for letter in triangle], axis=1) for triangle in triangles]

    return np.concatenate(
        pieces(count == 0, "abc")
        + pieces(count == 1, "axc", "xbc")
        + pieces(count == 2, "czy", "aby", "ayz")
        + pieces(count == 3, "axz", "xby", "zyc", "xyz")
    )
