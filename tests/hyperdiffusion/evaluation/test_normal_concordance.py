"""Surface Normal Concordance of shapes whose answer is known."""

import numpy as np
import pytest
import trimesh
from support import ellipsoid

from hyperdiffusion.evaluation.normal_concordance import RADIUS_MM, normal_concordance, snc_distance


@pytest.mark.parametrize("radius", [60, 100])
def test_the_concordance_of_a_sphere_is_known(radius):
    (values,) = normal_concordance([ellipsoid((radius,) * 3, 5)])
    # The squared distance of points near each other is uniform up to that of the radius r, and the cosine of their
    # normals 1 - d^2 / 2 R^2.
    assert values.mean() == pytest.approx(1 - RADIUS_MM**2 / (4 * radius**2), abs=2e-4)


def test_the_concordance_hardly_depends_on_the_triangles():
    coarse, fine = normal_concordance([ellipsoid((80,) * 3, 4), ellipsoid((80,) * 3, 6)])
    bumpy = ellipsoid((80,) * 3, 6)
    bumpy.vertices += np.sin(bumpy.vertices[:, :1] / 3) * bumpy.vertex_normals
    (other,) = normal_concordance([bumpy])
    assert snc_distance([coarse], [fine]) < 0.05 * snc_distance([other], [fine])


def test_what_is_hidden_behind_a_face_does_not_count():
    plate, hidden = trimesh.creation.box((200, 200, 1)), ellipsoid((50, 50, 4)).apply_translation((0, 0, -5))
    (values,) = normal_concordance([trimesh.util.concatenate([plate, hidden])])
    np.testing.assert_allclose(values, 1)


def test_the_distance_is_the_mean_shift_of_a_distribution():
    first = list(np.random.default_rng(0).uniform(size=(3, 50)))
    assert snc_distance([values + 0.25 for values in first], first) == pytest.approx(250)
    assert snc_distance(first[::-1], first) == pytest.approx(0)


def test_a_head_without_a_face_has_no_concordance():
    behind = trimesh.Trimesh([[0, 0, 0], [0, 100, 0], [100, 0, 0]], [[0, 1, 2]])
    assert not np.any(normal_concordance([None, behind]))
