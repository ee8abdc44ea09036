"""The neck of solids whose volumes are known: the plane is found, the neck extended below it, and cut there again."""

import numpy as np
import pytest
import trimesh
from support import ellipsoid

from overfit.canonical.neck import EXTENSION_MM, cut_neck, extend_neck, neck_height, without_neck_cut

UPRIGHT = trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0])


def cylinder() -> trimesh.Trimesh:
    mesh = trimesh.creation.cylinder(60, 200, sections=64)
    mesh.apply_transform(UPRIGHT)
    return mesh


def box() -> trimesh.Trimesh:
    """A box with many triangles in the plane in which it ends."""
    mesh = trimesh.creation.box((100, 200, 130)).subdivide().subdivide().subdivide()
    mesh.apply_translation([3, 0, 5])
    return mesh


def capsule() -> trimesh.Trimesh:
    """A capsule cut across, with a hollow that ends in the plane too: the cut is a ring."""
    mesh, hollow = trimesh.creation.capsule(150, 70), trimesh.creation.capsule(160, 30)
    for one in (mesh, hollow):
        one.apply_transform(UPRIGHT)
    return trimesh.boolean.difference([cut_neck(mesh, -100.0), hollow], engine="manifold")


SOLIDS = {"cylinder": cylinder, "box": box, "capsule with a hollow": capsule}


@pytest.fixture(scope="module", params=list(SOLIDS))
def solid(request) -> trimesh.Trimesh:
    """A solid that ends in the plane at -100 mm."""
    return SOLIDS[request.param]()


def cut_area(mesh: trimesh.Trimesh) -> float:
    return mesh.area_faces[np.isclose(mesh.triangles[:, :, 1], mesh.bounds[0, 1]).all(1)].sum()


def test_the_plane_is_found_at_its_height(solid):
    assert solid.is_watertight and neck_height(solid) == pytest.approx(-100, abs=1e-6)


@pytest.mark.parametrize("tilt, roughness", [(0.0, 0.3), (0.4, 0.0)], ids=["rough", "tilted"])
def test_a_plane_that_is_not_quite_flat_is_found_too(tilt, roughness):
    mesh = box()
    low = mesh.vertices[:, 1] < -99
    share = (mesh.vertices[low, 0] - mesh.bounds[0, 0]) / 100
    mesh.vertices[low, 1] += tilt * share + roughness * np.random.default_rng(0).random(low.sum())
    assert neck_height(mesh) == pytest.approx(mesh.bounds[0, 1])
    extended = extend_neck(mesh)
    assert extended.is_watertight
    assert extended.volume == pytest.approx(mesh.volume + EXTENSION_MM * 100 * 130, rel=1e-6)


def test_shapes_that_do_not_end_in_a_plane_have_no_neck_and_stay_as_they_are():
    ball, small = ellipsoid((80, 110, 90), 4), trimesh.creation.box((30, 30, 30))
    turned = cylinder()
    turned.apply_transform(trimesh.transformations.rotation_matrix(np.radians(15), [1, 0, 0]))
    for mesh in (ball, small, turned):
        assert neck_height(mesh) is None and extend_neck(mesh) is mesh
        assert np.array_equal(without_neck_cut(mesh).faces, mesh.faces)


def test_a_plane_above_the_lowest_point_is_none():
    """As of a chin that a scan shows from below: the neck goes on beneath it."""
    step = trimesh.creation.box((100, 20, 100)) + trimesh.creation.box((20, 100, 20))
    assert neck_height(step) is None


def test_without_the_cut_a_solid_is_open_below_and_nothing_else_is_missing(solid):
    open_below = without_neck_cut(solid)
    assert not open_below.is_watertight
    assert solid.area - open_below.area == pytest.approx(cut_area(solid))
    rim = trimesh.grouping.group_rows(open_below.edges_sorted, require_count=1)
    np.testing.assert_allclose(open_below.vertices[open_below.edges_sorted[rim]][..., 1], -100, atol=1e-6)


def test_an_extended_neck_is_the_solid_prolonged_straight_down(solid):
    extended = extend_neck(solid)
    assert extended.is_watertight and extended.is_winding_consistent
    assert extended.volume == pytest.approx(solid.volume + EXTENSION_MM * cut_area(solid))
    np.testing.assert_allclose(extended.bounds - solid.bounds, [[0, -EXTENSION_MM, 0], [0, 0, 0]], atol=1e-9)
    # The plane has moved, and is still one.
    assert neck_height(extended) == pytest.approx(-100 - EXTENSION_MM)


def test_an_extended_neck_that_is_cut_is_the_solid_again(solid):
    again = cut_neck(extend_neck(solid), -100.0)
    assert again.is_watertight and again.is_winding_consistent
    assert again.volume == pytest.approx(solid.volume, rel=1e-6) and again.area == pytest.approx(solid.area, rel=1e-6)
    np.testing.assert_allclose(again.bounds, solid.bounds, atol=1e-6)


def test_a_cut_halfway_down_the_extension_leaves_half_of_it(solid):
    cut = cut_neck(extend_neck(solid), -100 - EXTENSION_MM / 2)
    assert cut.is_watertight
    assert cut.volume == pytest.approx(solid.volume + EXTENSION_MM / 2 * cut_area(solid), rel=1e-6)


def test_a_sphere_is_cut_to_its_cap():
    sphere, height = ellipsoid((100,) * 3, 5), 40.0
    cap = cut_neck(sphere, height)
    assert cap.is_watertight and cap.bounds[0, 1] == pytest.approx(height)
    assert cap.volume == pytest.approx(np.pi * 60**2 * (3 * 100 - 60) / 3, rel=0.01)
    assert cut_area(cap) == pytest.approx(np.pi * (100**2 - height**2), rel=0.01)


@pytest.mark.parametrize("height", [-70.0, 0.0, 33.3])
def test_cuts_of_any_outline_are_closed(height):
    """Two legs, of which one is hollow, under a body with a dent: several loops, some in each other, some concave."""
    body = trimesh.creation.box((240, 120, 100), transform=trimesh.transformations.translation_matrix([0, 60, 0]))
    dent = trimesh.creation.cylinder(60, 400, transform=trimesh.transformations.translation_matrix([0, 70, 50]))
    legs = [
        trimesh.creation.box((80, 140, 80), transform=trimesh.transformations.translation_matrix([x, -50, 0]))
        for x in (-70, 70)
    ]
    hollow = trimesh.creation.box((40, 100, 40), transform=trimesh.transformations.translation_matrix([70, -65, 0]))
    mesh = trimesh.boolean.difference(
        [trimesh.boolean.union([body, *legs], engine="manifold"), dent, hollow], engine="manifold"
    )
    cut = cut_neck(mesh, height)
    assert cut.is_watertight and cut.is_winding_consistent
    block = trimesh.creation.box(
        (1000, 1000, 1000), transform=trimesh.transformations.translation_matrix([0, height + 500, 0])
    )
    expected = trimesh.boolean.intersection([mesh, block], engine="manifold")
    assert cut.volume == pytest.approx(expected.volume, rel=1e-6) and cut.area == pytest.approx(expected.area, rel=1e-6)


def test_vertices_in_the_plane_are_no_obstacle():
    """Of an icosphere, whose equator is a row of vertices and edges."""
    sphere = ellipsoid((100,) * 3, 4)
    assert np.isclose(sphere.vertices[:, 1], 0).sum() > 20
    half = cut_neck(sphere, 0.0)
    assert half.is_watertight and half.is_winding_consistent
    assert half.volume == pytest.approx(sphere.volume / 2) and half.bounds[0, 1] == 0


def test_what_lies_above_the_plane_stays_as_it_is():
    mesh = cylinder()
    assert cut_neck(mesh, -100.0 - 1e-6) is mesh and cut_neck(mesh, -500.0) is mesh


def test_nothing_is_left_above_the_top():
    assert len(cut_neck(cylinder(), 100.5).faces) == 0
