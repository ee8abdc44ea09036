"""Solids of glasses and caps: curves and grids of points in, closed manifold3d solids out."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

# Corners of a tube's cross-section.
SIDES = 8


def to_manifold(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"]) -> Any:
    """Return the closed surface of triangles as a manifold3d.Manifold."""
    import manifold3d

    used, faces = np.unique(faces, return_inverse=True)
    return manifold3d.Manifold(manifold3d.Mesh64(vertices[used], faces.reshape(-1, 3).astype(np.uint64)))


def to_arrays(surface: Any) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]:
    """Return the vertices and triangles of a manifold3d.Manifold."""
    mesh = surface.to_mesh64()
    return np.asarray(mesh.vert_properties)[:, :3], np.asarray(mesh.tri_verts).astype(np.int64)


def boundary_loops(faces: Int[np.ndarray, "m 3"]) -> list[Int[np.ndarray, " k"]]:
    """Return the boundary of triangles as loops of vertices, ordered so that a fan faces outwards."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = set(map(tuple, edges.tolist()))
    following = {b: a for a, b in present if (b, a) not in present}
    return list(follow_loops(following))


def follow_loops(following: dict[int, int]) -> Iterator[Int[np.ndarray, " k"]]:
    """Yield the closed loops of vertices, each of which is followed by one other."""
    following = dict(following)
    while following:
        loop = [next(iter(following))]
        while (after := following.pop(loop[-1])) != loop[0]:
            loop.append(after)
        yield np.array(loop)


def tube(
    path: Float[np.ndarray, "n 3"],
    *,
    width: float,
    depth: float,
    closed: bool = False,
    up: tuple[float, float, float] = (0, 0, 1),
) -> Any:
    """Return a tube of elliptic cross-section along a path.

    Args:
        path: Points in mm.
        width: Diameter across `up` in mm.
        depth: Diameter along `up` in mm.
        closed: Whether the path ends where it begins.
        up: A direction that is nowhere along the path.
    """
    side, lift = _frame(path, np.array(up, float), closed=closed)
    angles = 2 * np.pi * np.arange(SIDES) / SIDES
    ring = (width / 2) * np.cos(angles)[:, None, None] * side + (depth / 2) * np.sin(angles)[:, None, None] * lift
    points = (path + ring).transpose(1, 0, 2)
    n = len(path)
    rows = np.arange(n if closed else n - 1)
    i, j = np.meshgrid(rows, np.arange(SIDES), indexing="ij")
    corner = lambda a, b: (a % n) * SIDES + b % SIDES  # noqa: E731
    a, b, c, d = (corner(i + di, j + dj).ravel() for di, dj in ((0, 0), (1, 0), (1, 1), (0, 1)))
    faces = [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
    vertices = points.reshape(-1, 3)
    if not closed:
        k = np.arange(SIDES)
        vertices = np.concatenate([vertices, path[[0, -1]]])
        last = (n - 1) * SIDES
        faces.append(np.stack([np.full(SIDES, n * SIDES), k, np.roll(k, -1)], 1))
        faces.append(np.stack([np.full(SIDES, n * SIDES + 1), last + np.roll(k, -1), last + k], 1))
    return _outwards(vertices, np.concatenate(faces))


def _frame(
    path: Float[np.ndarray, "n 3"], up: Float[np.ndarray, "3"], *, closed: bool
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Return unit vectors across a path: at right angles to `up`, and to the former."""
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    if not closed:
        ahead[0], ahead[-1] = path[1] - path[0], path[-1] - path[-2]
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    side = np.cross(ahead, up)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return side, np.cross(side, ahead)


def plate(top: Float[np.ndarray, "n m 3"], bottom: Float[np.ndarray, "n m 3"]) -> Any:
    """Return the solid between two grids of points with the same edges' order."""
    n, m = top.shape[:2]
    i, j = np.meshgrid(np.arange(n - 1), np.arange(m - 1), indexing="ij")
    a, b, c, d = ((i + di) * m + j + dj for di, dj in ((0, 0), (1, 0), (1, 1), (0, 1)))
    a, b, c, d = (x.ravel() for x in (a, b, c, d))
    upper = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    numbers = np.arange(n * m).reshape(n, m)
    edge = np.concatenate([numbers[0, :-1], numbers[:-1, -1], numbers[-1, :0:-1], numbers[:0:-1, 0]])
    after = np.roll(edge, -1)
    wall = np.concatenate([np.stack([edge, after, after + n * m], 1), np.stack([edge, after + n * m, edge + n * m], 1)])
    faces = np.concatenate([upper, upper[:, ::-1] + n * m, wall])
    return _outwards(np.concatenate([top.reshape(-1, 3), bottom.reshape(-1, 3)]), faces)


def _outwards(vertices: np.ndarray, faces: np.ndarray) -> Any:
    """Return the solid of a closed surface whose triangles all face in or all face out."""
    corners = vertices[faces] - vertices.mean(0)
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum()
    return to_manifold(vertices, faces if volume > 0 else faces[:, ::-1])
