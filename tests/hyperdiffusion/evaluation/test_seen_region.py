"""Of completed test heads only what was seen counts, in all sets alike."""

import numpy as np
import pytest
import trimesh
from support import ellipsoid

from hyperdiffusion import EvaluationConfig, evaluate_sets
from hyperdiffusion.evaluation.seen_region import SeenRegion
from overfit import BadInput
from overfit.geometry.mesh import SEEN

RADII = [(70, 100, 90), (80, 110, 95), (75, 105, 85), (72, 112, 92)]


def seen_in_front(mesh: trimesh.Trimesh, *, from_z: float = 0.0) -> trimesh.Trimesh:
    mesh.vertex_attributes[SEEN] = mesh.vertices[:, 2] > from_z
    return mesh


def with_back(mesh: trimesh.Trimesh, factor: float) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices * np.where(mesh.vertices[:, 2:] < 0, factor, 1.0), mesh.faces, process=False)


def test_scans_are_compared_everywhere():
    assert SeenRegion.of([ellipsoid(radii) for radii in RADII]) is None


def test_the_region_is_what_every_head_shows():
    heads = [seen_in_front(ellipsoid((80, 100, 90), 4)), ellipsoid((80, 100, 90), 4)]
    region = SeenRegion.of(heads)
    assert region.share == pytest.approx(0.5, abs=0.03)
    part = region.part(heads[1])
    assert part.triangles_center[:, 2].min() > -8
    assert part.area == pytest.approx(heads[1].area / 2, rel=0.06)


def test_what_is_invented_changes_nothing():
    def metrics(factor: float):
        test = [seen_in_front(with_back(ellipsoid(radii, 4), factor)) for radii in RADII]
        own = [ellipsoid(radii, 4) for radii in RADII]
        config = EvaluationConfig(points=256, emd_heads=0, standardised=False)
        return evaluate_sets({"own": own}, test=test, training=own, config=config)

    reports = [metrics(factor) for factor in (1.0, 1.3)]
    assert reports[0].compared_share == pytest.approx(0.5, abs=0.05)
    first, second = (report.values()["own"] for report in reports)
    assert first["mmd_chamfer_mm"]["mean"] == pytest.approx(second["mmd_chamfer_mm"]["mean"], rel=0.05)
    assert first["copy_rate"] == second["copy_rate"] and first["watertight"]["mean"] == 1


def test_heads_of_which_nearly_nothing_was_seen_are_refused():
    heads = [seen_in_front(ellipsoid((80, 100, 90)), from_z=80), seen_in_front(ellipsoid((80, 100, 90)), from_z=85)]
    with pytest.raises(BadInput, match="`reference`: .* the rest is invented"):
        SeenRegion.of(heads)
