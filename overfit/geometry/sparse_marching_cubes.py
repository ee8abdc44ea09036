"""Marching cubes on a grid that is evaluated, from coarse to fine, only where the surface can be.

In:  a function of the grid's nodes and a rule that marks the cells of a coarse grid which the surface can cross.
Out: values at all nodes, exact near the surface and of the right sign elsewhere; then vertices and triangles.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from skimage.measure import marching_cubes

# Steps of the finest grid from one node of the coarsest to the next; a power of two.
COARSEST_STRIDE = 8

Nodes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Indices on the finest grid along each axis, or of a list of nodes."""
Evaluate = Callable[[Nodes], np.ndarray]
"""Values (n,) at n nodes."""
Cells = Literal["between nodes", "around nodes"]
"""Whether a cell has eight nodes as its corners, or one as its centre and holds all that is nearest to it."""


@dataclass(frozen=True)
class Level:
    """A grid between the coarsest and the finest one."""

    stride: int
    """Steps of the finest grid from node to node."""
    nodes: Nodes
    """The nodes' indices on the finest grid along each axis."""
    values: Float[np.ndarray, "a b c"]
    """Values at the nodes."""
    exact: Bool[np.ndarray, "a b c"]
    """Where the function was evaluated; elsewhere the value of a coarser node stands in."""


def sparse_grid(
    shape: tuple[int, int, int], *, evaluate: Evaluate, may_cross: Callable[[Level], np.ndarray], cells: Cells
) -> Float[np.ndarray, "a b c"]:
    """Return values at the nodes of a grid, exact near the surface and of the right sign elsewhere.

    Args:
        shape: Nodes along each axis.
        evaluate: The function whose zero level is the surface.
        may_cross: Marks the cells of a level that the surface can cross, (a - 1, b - 1, c - 1) between nodes or
            (a, b, c) around nodes. The next level is evaluated in these only.
        cells: What a cell is.
    """
    stride = COARSEST_STRIDE
    nodes = _level_nodes(shape, stride)
    everywhere = np.ones([len(axis) for axis in nodes], bool)
    values = evaluate(_list_nodes(nodes, everywhere)).reshape(everywhere.shape)
    level = Level(stride, nodes, values, everywhere)
    while level.stride > 1:
        level = _refine(level, _level_nodes(shape, level.stride // 2), may_cross(level), evaluate=evaluate, cells=cells)
    return level.values


def keep_off_zero(
    values: Float[np.ndarray, " n"], margin: float, *, inside: Literal["positive", "negative"]
) -> Float[np.ndarray, " n"]:
    """Return the values, those closer to zero than `margin` moved to it; zero itself is outside.

    Marching cubes gives all edges of a node on the surface one and the same vertex. Readers that merge equal vertices
    would find the mesh torn there.
    """
    positive = values > 0 if inside == "positive" else values >= 0
    return np.where(np.abs(values) < margin, np.where(positive, margin, -margin), values).astype(values.dtype)


def closed_surface(
    values: Float[np.ndarray, "a b c"], outside: float
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "t 3"]]:
    """Return vertices, in steps of the grid, and triangles of the zero level, closed where the grid cuts it.

    Normals point outward. Marching cubes of Lewiner et al. (2003) by scikit-image.

    Args:
        values: Values at the nodes.
        outside: The value of a layer that is added about the grid. Its sign is that of the outside.
    """
    padded = np.pad(values, 1, constant_values=outside)
    direction = "descent" if outside > 0 else "ascent"
    vertices, triangles, _, _ = marching_cubes(padded, 0.0, gradient_direction=direction)
    return vertices - 1, triangles


def over_corners(combine: np.ufunc, nodes: np.ndarray) -> np.ndarray:
    """Return the values (a, b, c) at the eight corners of each cell combined by a function: (a - 1, b - 1, c - 1)."""
    for axis in range(3):
        along = np.moveaxis(nodes, axis, 0)
        nodes = np.moveaxis(combine(along[:-1], along[1:]), 0, axis)
    return nodes


def _refine(level: Level, nodes: Nodes, crossed: np.ndarray, *, evaluate: Evaluate, cells: Cells) -> Level:
    """The next level, of half the stride: evaluated in the crossed cells, the value of a coarse node elsewhere."""
    below = [np.searchsorted(coarse, fine, side="right") - 1 for coarse, fine in zip(level.nodes, nodes)]
    if cells == "between nodes":
        parents = below
        # Nodes are the corners of the finer cells.
        wanted = over_corners(np.logical_or, np.pad(_take(crossed, [index[:-1] for index in below]), 1))
    else:
        parents = [_nearest(*axis) for axis in zip(level.nodes, nodes, below)]
        wanted = _take(crossed, parents)
    values = _take(level.values, parents)
    values[wanted] = evaluate(_list_nodes(nodes, wanted))
    return Level(level.stride // 2, nodes, values, wanted)


def _level_nodes(shape: tuple[int, int, int], stride: int) -> Nodes:
    """Every `stride`-th index along each axis, and the last."""
    first, second, third = (np.unique(np.r_[np.arange(0, count, stride), count - 1]) for count in shape)
    return first, second, third


def _nearest(coarse: np.ndarray, fine: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Positions of the coarse nodes that are nearest to the fine ones, the upper one in the middle of two."""
    above = np.minimum(below + 1, len(coarse) - 1)
    return np.where(fine - coarse[below] < coarse[above] - fine, below, above)


def _list_nodes(nodes: Nodes, wanted: np.ndarray) -> Nodes:
    """The wanted nodes' indices on the finest grid, three arrays (n,)."""
    first, second, third = (axis[index] for axis, index in zip(nodes, np.nonzero(wanted)))
    return first, second, third


def _take(grid: np.ndarray, indices: list[np.ndarray]) -> np.ndarray:
    """The entries of a grid at indices along each of its axes."""
    for axis, index in enumerate(indices):
        grid = grid.take(index, axis)
    return grid
