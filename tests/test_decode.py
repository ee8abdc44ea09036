"""The decoder on fields that are known in closed form."""

import numpy as np
import pytest
import torch
import trimesh
from skimage.measure import marching_cubes

from overfit import BadInput, Cube, Field, decode
from overfit.decode import _evaluate, bodies, largest_body, logit_grid

CUBE = Cube((10.0, -20.0, 30.0), 100.0)
NONE = torch.zeros(0)


class Spheres:
    """A field whose logits are distances into the nearest of some spheres (centre, radius), over a softness."""

    def __init__(self, *spheres, softness=0.01):
        self.spheres, self.softness = spheres, softness

    def __call__(self, weights, points):
        depths = [radius - (points - torch.tensor(centre)).norm(dim=-1) for centre, radius in self.spheres]
        return torch.stack(depths).amax(0) / self.softness


BALL = Spheres(((0.1, 0.0, -0.1), 0.5))


@torch.no_grad()
def every_node(field, weights, resolution):
    grid = np.empty((resolution,) * 3, np.float32)
    _evaluate(field, weights, torch.linspace(-1, 1, resolution), grid, np.ones_like(grid, bool))
    return grid


def test_a_sphere_comes_out_in_millimetres_closed_and_outward():
    mesh = decode(BALL, NONE, CUBE, 64)
    middle = np.array(CUBE.centre) + 100 * np.array([0.1, 0.0, -0.1])
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices - middle, axis=1), 50, atol=0.05)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 50**3, rel=0.01)


@pytest.mark.parametrize("suffix", ["ply", "obj", "stl", "glb"])
def test_a_surface_through_grid_nodes_stays_closed_when_equal_vertices_are_merged(tmp_path, suffix):
    # Nodes of 65 lie at multiples of 1/32, and the surface through 6 and many others of them.
    mesh = decode(Spheres(((0.0, 0.0, 0.0), 0.625)), NONE, CUBE, 65)
    mesh.export(tmp_path / f"mesh.{suffix}")
    again = trimesh.load_mesh(tmp_path / f"mesh.{suffix}")
    again.merge_vertices()
    assert again.is_watertight and len(again.faces) == len(mesh.faces)


@pytest.mark.parametrize("resolution", [17, 40, 65])
def test_the_mesh_is_that_of_the_dense_grid_vertex_for_vertex(resolution):
    field = Field(hidden=(32, 32))
    weights = 1.5 * field.initial(torch.Generator().manual_seed(3))
    # Half of the cube is inside.
    weights[-1] -= float(np.median(every_node(field, weights, resolution)))
    dense, sparse = every_node(field, weights, resolution), logit_grid(field, weights, resolution)
    assert np.array_equal(sparse > 0, dense > 0)
    for got, expected in zip(marching_cubes(sparse, 0)[:2], marching_cubes(dense, 0)[:2], strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-3)


def test_few_nodes_are_evaluated_far_from_the_surface():
    seen = 0

    def counting(weights, points):
        nonlocal seen
        seen += points.shape[-2]
        return BALL(weights, points)

    logit_grid(counting, NONE, 129)
    assert seen < 129**3 / 20


def test_islands_and_bubbles_are_dropped_unless_kept():
    field = Spheres(((0.0, 0.0, 0.0), 0.5), ((0.8, 0.8, 0.8), 0.1))
    assert decode(field, NONE, CUBE, 64).body_count == 1
    assert decode(field, NONE, CUBE, 64, keep_islands=True).body_count == 2
    shell = decode(lambda weights, points: BALL(weights, points).minimum(-Spheres(((0.1, 0.0, -0.1), 0.2))(
        weights, points)), NONE, CUBE, 64)
    assert shell.volume == pytest.approx(4 / 3 * np.pi * 50**3, rel=0.01)


def test_what_the_cube_cuts_is_closed_flat():
    mesh = decode(Spheres(((0.0, -1.0, 0.0), 0.5)), NONE, CUBE, 64)
    assert mesh.is_watertight
    assert mesh.bounds[0][1] == pytest.approx(CUBE.centre[1] - CUBE.half)
    assert mesh.volume == pytest.approx(2 / 3 * np.pi * 50**3, rel=0.03)


def test_a_field_without_a_surface_and_a_tiny_resolution_are_told():
    for field in (Spheres(((0.0, 0.0, 0.0), -1.0)), Spheres(((0.0, 0.0, 0.0), 9.0))):
        with pytest.raises(BadInput, match="no surface"):
            decode(field, NONE, CUBE, 16)
    with pytest.raises(BadInput, match="resolution of 4"):
        decode(BALL, NONE, CUBE, 4)


def test_weights_that_are_not_finite_are_told():
    with pytest.raises(BadInput, match="no surface"):
        decode(Field(), torch.full((Field().size,), torch.nan), CUBE, 16)


@pytest.mark.parametrize("seed", range(3))
def test_bodies_are_the_pieces_that_edges_hold_together(seed):
    field = Field(octaves=6)
    mesh = decode(field, field.initial(torch.Generator().manual_seed(seed)), CUBE, 40, keep_islands=True)
    ours, theirs = (sorted((len(piece.faces), len(piece.vertices), round(float(piece.area), 3)) for piece in pieces)
                    for pieces in (bodies(mesh), mesh.split(only_watertight=False)))
    assert len(ours) > 100 and ours == theirs


def test_the_largest_body_is_the_one_with_most_triangles():
    small, large = trimesh.creation.icosphere(1), trimesh.creation.icosphere(3)
    assert len(largest_body(small + large).faces) == len(large.faces)
