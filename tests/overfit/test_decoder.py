"""The decoder on fields that are known in closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from skimage.measure import marching_cubes

from overfit.canonical.align import CORNERS
from overfit.canonical.warp import Warp, WarpSpace
from overfit.decoder import (
    MAX_RESOLUTION,
    DecodeConfig,
    _logits,
    decode,
    decode_canonical,
    logit_grid,
    to_head_space,
    try_decode,
)
from overfit.field import Field
from overfit.geometry.bounding_cube import Cube
from overfit.neural_head import NeuralHead
from overfit.runtime.errors import BadInput

CUBE = Cube((10.0, -20.0, 30.0), 100.0)
COARSE = DecodeConfig(resolution=64)


class Spheres(Field):
    """A field whose logits are distances into the nearest of some spheres (centre, radius), over a softness."""

    def __init__(self, *spheres, softness=0.01):
        super().__init__()
        object.__setattr__(self, "spheres", spheres)
        object.__setattr__(self, "softness", softness)

    def __call__(self, weights, points):
        depths = [radius - (points - torch.tensor(centre)).norm(dim=-1) for centre, radius in self.spheres]
        return torch.stack(depths).amax(0) / self.softness


class Shell(Spheres):
    """A ball with a hollow in its middle."""

    def __call__(self, weights, points):
        outer, inner = (Spheres(sphere)(weights, points) for sphere in self.spheres)
        return outer.minimum(-inner)


def head_of(field: Field, weights: torch.Tensor | None = None) -> NeuralHead:
    return NeuralHead(field, CUBE, torch.zeros(0) if weights is None else weights)


BALL_CENTRE = (0.1, 0.0, -0.1)
BALL = Spheres((BALL_CENTRE, 0.5))


# A warp that turns balls into ellipsoids.
MATRIX = np.array([[1.1, 0.2, 0.0], [-0.1, 1.3, 0.1], [0.05, 0.0, 0.9]])
SHIFT = np.array([10.0, 5.0, -20.0])


def warped(field: Field, neck_height: float | None = None) -> NeuralHead:
    corners = np.array(CORNERS)
    space = WarpSpace(CORNERS, cuts_neck=neck_height is not None)
    return replace(head_of(field), warp=Warp(space, corners @ MATRIX.T + SHIFT - corners, neck_height))


@torch.no_grad()
def dense_grid(head: NeuralHead, resolution: int) -> np.ndarray:
    nodes = np.meshgrid(*[np.arange(resolution)] * 3, indexing="ij")
    axis = torch.linspace(-1, 1, resolution)
    return _logits(head, axis, tuple(index.ravel() for index in nodes)).reshape((resolution,) * 3)


def test_a_sphere_is_in_millimetres_watertight_and_outward():
    mesh = decode(head_of(BALL), COARSE)
    centre = np.array(CUBE.centre) + 100 * np.array(BALL_CENTRE)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices - centre, axis=1), 50, atol=0.05)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 50**3, rel=0.01)


@pytest.mark.parametrize("suffix", ["ply", "obj", "stl", "glb"])
def test_a_surface_through_grid_nodes_stays_closed_when_equal_vertices_are_merged(tmp_path, suffix):
    # Nodes of 65 lie at multiples of 1/32, and the surface passes through 6 and many others of them.
    mesh = decode(head_of(Spheres(((0.0, 0.0, 0.0), 0.625))), DecodeConfig(resolution=65))
    mesh.export(tmp_path / f"mesh.{suffix}")
    again = trimesh.load_mesh(tmp_path / f"mesh.{suffix}")
    again.merge_vertices()
    assert again.is_watertight and len(again.faces) == len(mesh.faces)


@pytest.mark.parametrize("resolution", [17, 40, 65])
def test_the_mesh_is_that_of_the_dense_grid_vertex_for_vertex(resolution):
    field = Field(hidden=(32, 32))
    weights = 1.5 * field.initial(torch.Generator().manual_seed(3))
    # Half of the cube is inside.
    weights[-1] -= float(np.median(dense_grid(head_of(field, weights), 17)))
    head = head_of(field, weights)
    dense, sparse = dense_grid(head, resolution), logit_grid(head, resolution)
    assert np.array_equal(sparse > 0, dense > 0)
    for got, expected in zip(marching_cubes(sparse, 0)[:2], marching_cubes(dense, 0)[:2], strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-3)


def test_few_nodes_are_evaluated_far_from_the_surface():
    class Counting(Spheres):
        evaluated = 0

        def __call__(self, weights, points):
            Counting.evaluated += points.shape[-2]
            return super().__call__(weights, points)

    logit_grid(head_of(Counting((BALL_CENTRE, 0.5))), 129)
    assert 0 < Counting.evaluated < 129**3 / 20


def test_only_the_largest_component_is_kept_unless_all_are_wanted():
    two = head_of(Spheres(((0.0, 0.0, 0.0), 0.5), ((0.8, 0.8, 0.8), 0.1)))
    assert decode(two, COARSE).body_count == 1
    assert decode(two, DecodeConfig(64, keep_all_components=True)).body_count == 2
    filled = decode(head_of(Shell((BALL_CENTRE, 0.5), (BALL_CENTRE, 0.2))), COARSE)
    assert filled.volume == pytest.approx(4 / 3 * np.pi * 50**3, rel=0.01)


def test_an_affine_warp_of_a_ball_is_an_ellipsoid():
    mesh = decode(warped(BALL), COARSE)
    centre = np.array(CUBE.centre) + 100 * np.array(BALL_CENTRE)
    in_ball = (mesh.vertices - SHIFT) @ np.linalg.inv(MATRIX).T
    np.testing.assert_allclose(np.linalg.norm(in_ball - centre, axis=1), 50, atol=0.05)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(np.linalg.det(MATRIX) * 4 / 3 * np.pi * 50**3, rel=0.01)


@pytest.mark.parametrize("height", [-40.0, 0.0, 10.0])
def test_a_warped_head_ends_exactly_in_the_plane_of_its_neck(height):
    mesh = decode(warped(BALL, neck_height=height), COARSE)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.bounds[0, 1] == pytest.approx(height, abs=1e-9)
    # In the ball, the plane is a plane too, at this distance above the centre.
    centre = np.array(CUBE.centre) + 100 * np.array(BALL_CENTRE)
    above = (height - SHIFT[1] - MATRIX[1] @ centre) / np.linalg.norm(MATRIX[1])
    assert abs(above) < 45
    cap = np.pi * (50 - above) ** 2 * (100 + above) / 3
    assert mesh.volume == pytest.approx(np.linalg.det(MATRIX) * cap, rel=0.01)
    # The cut is flat: nothing else faces down there.
    in_plane = np.isclose(mesh.triangles[:, :, 1], height, atol=1e-6).all(1)
    assert in_plane.any() and (mesh.face_normals[in_plane, 1] < -0.999).all()


def test_components_are_dropped_after_the_neck_is_cut():
    """What is below the plane does not count, however large it is."""
    two = Spheres(((0.0, 0.6, 0.0), 0.2), ((0.0, -0.4, 0.0), 0.5))
    assert decode(warped(two), COARSE).bounds[0, 1] < -100
    height = MATRIX[1] @ (np.array(CUBE.centre) + [0, 30, 0]) + SHIFT[1]
    kept = decode(warped(two, neck_height=height), COARSE)
    assert kept.body_count == 1 and kept.bounds[0, 1] > height
    assert kept.volume == pytest.approx(np.linalg.det(MATRIX) * 4 / 3 * np.pi * 20**3, rel=0.05)


def test_a_head_below_the_plane_of_its_neck_has_no_surface():
    head = warped(BALL, neck_height=200.0)
    for config in (COARSE, replace(COARSE, keep_all_components=True)):
        assert try_decode(head, config) is None
        with pytest.raises(BadInput, match="no surface"):
            decode(head, config)


def test_in_canonical_space_a_head_is_not_warped():
    mesh = decode_canonical(warped(BALL, neck_height=0.0), 64)
    plain = decode(head_of(BALL), COARSE)
    np.testing.assert_array_equal(mesh.vertices, plain.vertices)
    assert to_head_space(plain, None) is plain


def test_what_the_cube_cuts_is_closed_flat():
    mesh = decode(head_of(Spheres(((0.0, -1.0, 0.0), 0.5))), COARSE)
    assert mesh.is_watertight
    assert mesh.bounds[0][1] == pytest.approx(CUBE.centre[1] - CUBE.half)
    assert mesh.volume == pytest.approx(2 / 3 * np.pi * 50**3, rel=0.03)


@pytest.mark.parametrize("radius", [-1.0, 9.0], ids=["all outside", "all inside"])
def test_a_field_without_a_surface_is_refused(radius):
    head = head_of(Spheres(((0.0, 0.0, 0.0), radius)))
    with pytest.raises(BadInput, match="no surface"):
        decode(head, DecodeConfig(resolution=16))
    assert try_decode(head, DecodeConfig(resolution=16)) is None


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(BadInput, match="no surface"):
        decode(head_of(Field(), torch.full((Field().size,), torch.nan)), DecodeConfig(resolution=16))


def test_resolutions_are_bounded_and_the_message_names_the_memory():
    with pytest.raises(BadInput, match="`resolution=4`: .*give 8 or more"):
        DecodeConfig(resolution=4)
    with pytest.raises(BadInput, match="`resolution=5000`: .* 1,250 GB of memory; give 1024 or less"):
        DecodeConfig(resolution=5000)
    assert DecodeConfig(MAX_RESOLUTION).resolution == 1024
