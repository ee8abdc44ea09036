"""Validity of shapes whose answer is known."""

import numpy as np
import pytest
import trimesh
from support import ellipsoid

from hyperdiffusion.evaluation.validity import check_validity, count_self_intersections


def test_an_ellipsoid_of_human_size_is_valid():
    validity = check_validity(ellipsoid((75, 110, 90), 3))
    assert validity.valid
    assert validity.litres == pytest.approx(4 / 3 * np.pi * 0.75 * 1.10 * 0.90, rel=0.03)
    assert validity.height_mm == pytest.approx(220, abs=3)


def test_a_small_ellipsoid_has_no_human_size():
    validity = check_validity(ellipsoid((20, 30, 25), 3))
    assert validity.watertight and not validity.human_size and not validity.valid


def test_components_are_counted():
    parts = [ellipsoid((75, 110, 90)), ellipsoid((5, 5, 5)).apply_translation((200, 0, 0))]
    validity = check_validity(trimesh.util.concatenate(parts))
    assert validity.components == 2 and not validity.one_component and not validity.valid


def test_an_open_mesh_is_not_watertight():
    mesh = ellipsoid((75, 110, 90))
    mesh.update_faces(np.arange(len(mesh.faces)) > 5)
    validity = check_validity(mesh)
    assert not validity.watertight and validity.litres == 0 and not validity.valid


@pytest.mark.parametrize("mesh", [None, trimesh.Trimesh()])
def test_a_head_without_a_surface_has_no_property_of_a_head(mesh):
    validity = check_validity(mesh)
    assert not any(
        (
            validity.watertight,
            validity.one_component,
            validity.no_self_intersections,
            validity.human_size,
            validity.valid,
        )
    )


def test_self_intersections_are_found_where_surfaces_cross_and_only_there():
    mesh = ellipsoid((75, 110, 90), 3)
    assert count_self_intersections(mesh) == 0
    crossing = ellipsoid((75, 110, 90), 3).apply_translation((31.7, 12.3, 5.1))
    assert count_self_intersections(trimesh.util.concatenate([mesh, crossing])) > 50
    apart = ellipsoid((75, 110, 90), 3).apply_translation((151, 0, 0))
    assert count_self_intersections(trimesh.util.concatenate([mesh, apart])) == 0
