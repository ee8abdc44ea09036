"""Sparse grids against dense ones, on spheres."""

import numpy as np
import pytest
import trimesh

from overfit.geometry.sparse_marching_cubes import Level, Nodes, closed_surface, keep_off_zero, sparse_grid

SHAPE = (41, 49, 65)
CENTRE = np.array([19.3, 24.1, 30.7])
RADIUS = 14.2


class CountedSphere:
    """The signed distance to a sphere in steps of the grid, positive inside; counts the nodes it is asked for."""

    def __init__(self) -> None:
        self.evaluated = 0

    def __call__(self, nodes: Nodes) -> np.ndarray:
        self.evaluated += len(nodes[0])
        return RADIUS - np.linalg.norm(np.stack(nodes, axis=1) - CENTRE, axis=1)


def cells_between(level: Level) -> np.ndarray:
    """A distance changes by at most the diagonal of a cell between its corners."""
    nearest = np.abs(level.values)
    for axis in range(3):
        low, high = np.split(nearest, [0], axis)[1], nearest
        low, high = np.delete(low, -1, axis), np.delete(high, 0, axis)
        nearest = np.minimum(low, high)
    return nearest < np.sqrt(3) * level.stride


def cells_around(level: Level) -> np.ndarray:
    return np.abs(level.values) < np.sqrt(3) * level.stride


RULES = pytest.mark.parametrize(
    "cells, rule", [("between nodes", cells_between), ("around nodes", cells_around)], ids=["between", "around"]
)


def dense_grid() -> np.ndarray:
    nodes = np.meshgrid(*[np.arange(count) for count in SHAPE], indexing="ij")
    return CountedSphere()(tuple(axis.ravel() for axis in nodes)).reshape(SHAPE)


@RULES
def test_the_surface_is_that_of_the_dense_grid(cells, rule):
    sparse, dense = sparse_grid(SHAPE, evaluate=CountedSphere(), may_cross=rule, cells=cells), dense_grid()
    assert np.array_equal(sparse > 0, dense > 0)
    for got, expected in zip(closed_surface(sparse, -9.0), closed_surface(dense, -9.0), strict=True):
        assert np.array_equal(got, expected)


@RULES
def test_few_nodes_are_evaluated(cells, rule):
    sphere = CountedSphere()
    sparse_grid(SHAPE, evaluate=sphere, may_cross=rule, cells=cells)
    assert sphere.evaluated < np.prod(SHAPE) / 3


@RULES
def test_the_rule_sees_where_values_are_exact(cells, rule):
    dense, levels = dense_grid(), []

    def record(level: Level) -> np.ndarray:
        levels.append(level)
        return rule(level)

    sparse_grid(SHAPE, evaluate=CountedSphere(), may_cross=record, cells=cells)
    assert [level.stride for level in levels] == [8, 4, 2]
    for level in levels:
        expected = dense[np.ix_(*level.nodes)]
        assert np.array_equal(level.values[level.exact], expected[level.exact])
        assert all(axis[0] == 0 and axis[-1] == count - 1 for axis, count in zip(level.nodes, SHAPE, strict=True))


@pytest.mark.parametrize("sign", [1, -1], ids=["positive inside", "negative inside"])
def test_normals_point_outward_whichever_sign_is_inside(sign):
    vertices, triangles = closed_surface(sign * dense_grid(), outside=-9.0 * sign)
    mesh = trimesh.Trimesh(vertices, triangles, process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.01)
    np.testing.assert_allclose(mesh.centroid, CENTRE, atol=0.01)


def test_a_surface_that_the_grid_cuts_is_closed():
    mesh = trimesh.Trimesh(*closed_surface(dense_grid()[:20], outside=-9.0), process=False)
    assert mesh.is_watertight and mesh.volume > 0


@pytest.mark.parametrize("inside, outside_sign", [("positive", -1), ("negative", 1)])
def test_values_near_zero_move_to_their_side_and_zero_is_outside(inside, outside_sign):
    values = np.array([-0.5, -0.01, 0.0, 0.02, 0.7], np.float32)
    expected = np.array([-0.5, -0.1, 0.1 * outside_sign, 0.1, 0.7], np.float32)
    kept = keep_off_zero(values, 0.1, inside=inside)
    assert kept.dtype == np.float32 and np.array_equal(kept, expected)
