"""A batch: each scan gets a fit of its own, or the reason why it has none."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from support import SMALL, ellipsoid

from overfit import (
    BadInput,
    Cube,
    DecodeConfig,
    Field,
    FitConfig,
    LabelConfig,
    OverfitConfig,
    Scan,
    decode,
    surface_error,
)
from overfit.canonical.align import CORNERS, AlignmentConfig
from overfit.canonical.neck import cut_neck
from overfit.canonical.warp import WarpSpace
from overfit.fit_batch import TEST_EVERY, AlignedScan, BatchSetup, fit_scan_batch, label_scan
from overfit.neural_head import HeadSpace

CPU = torch.device("cpu")
CONFIG = dataclasses.replace(
    SMALL,
    field=Field(hidden=(32, 32, 32)),
    # Fits as short as these have hundreds of strays.
    repair=False,
    max_error_mm=1e6,
    fit=dataclasses.replace(SMALL.fit, steps=20, first_steps=20),
)
SPACE = HeadSpace(CONFIG.field, Cube((0.0, 0.0, 0.0), 150.0))
START = CONFIG.field.initial(torch.Generator().manual_seed(0))


def unwarped(name: str, path: Path) -> AlignedScan:
    return AlignedScan(Scan(name, path), torch.zeros(0))


@pytest.fixture
def scans(tmp_path) -> list[AlignedScan]:
    """A sphere, an ellipsoid, and a square that encloses nothing."""
    flat = trimesh.creation.box((100, 100, 100)).subdivide().subdivide().subdivide()
    flat.update_faces(flat.triangles_center[:, 2] > 49)
    for name, mesh in {"a": ellipsoid((90,) * 3), "b": ellipsoid((70, 110, 80)), "c": flat}.items():
        mesh.export(tmp_path / f"{name}.ply")
    return [unwarped(f"{name}.ply", tmp_path / f"{name}.ply") for name in "abc"]


def test_scans_are_fitted_and_measured_and_those_without_a_volume_are_skipped(scans):
    steps: list[int] = []
    result = fit_scan_batch(scans, BatchSetup(START, SPACE, CONFIG, CPU), progress=steps.append)
    assert [record.name for record in result.records] == ["a.ply", "b.ply"]
    assert result.parameters.shape == (2, CONFIG.field.size)
    assert [one.name for one in result.skipped] == ["c.ply"]
    assert "c.ply: encloses no volume" in result.skipped[0].reason
    assert sum(steps) == 2 * CONFIG.fit.steps
    assert all(0 <= record.iou <= 1 for record in result.records)


def test_a_batch_of_unusable_scans_has_no_fits(scans):
    result = fit_scan_batch(scans[2:], BatchSetup(START, SPACE, CONFIG, CPU))
    assert not result.records and result.parameters.shape == (0, CONFIG.field.size) and len(result.skipped) == 1


def test_a_fit_with_a_large_error_is_done_again_from_scratch(scans):
    strict = dataclasses.replace(
        CONFIG, repair=True, max_error_mm=5.0, fit=dataclasses.replace(CONFIG.fit, first_steps=300, lr=1e-2)
    )
    # A network without a surface, which a few steps do not change.
    nothing = torch.zeros(CONFIG.field.size)
    nothing[-1] = -100
    (record,) = fit_scan_batch(scans[:1], BatchSetup(nothing, SPACE, strict, CPU)).records
    assert record.error_mm < 5
    hopeless = dataclasses.replace(strict, max_error_mm=0.001)
    (skipped,) = fit_scan_batch(scans[:1], BatchSetup(nothing, SPACE, hopeless, CPU)).skipped
    assert "a.ply: no fit within 0.001 mm" in skipped.reason and "raise `max_error_mm`" in skipped.reason


@pytest.mark.parametrize("neck_height", [None, -60.0], ids=["closed", "ends in a plane"])
def test_a_warped_scan_is_fitted_in_canonical_space_and_measured_on_the_head(tmp_path, neck_height):
    """An ellipsoid that its warp makes of a ball."""
    matrix, corners = np.diag([0.7, 1.1, 0.8]), np.array(CORNERS)
    space = dataclasses.replace(SPACE, warps=WarpSpace(CORNERS, cuts_neck=neck_height is not None))
    mesh = ellipsoid((70, 110, 80), 4)
    if neck_height is not None:
        mesh = cut_neck(mesh, neck_height)
    mesh.export(tmp_path / "a.ply")
    row = space.warps.parameters(corners @ matrix - corners, neck_height)
    config = dataclasses.replace(CONFIG, check_resolution=48, fit=dataclasses.replace(CONFIG.fit, steps=300, lr=1e-2))
    scan = AlignedScan(Scan("a.ply", tmp_path / "a.ply"), row)
    result = fit_scan_batch([scan], BatchSetup(START, space, config, CPU))
    (parameters,), (record,) = result.parameters, result.records
    assert torch.equal(space.warp_parameters(parameters), row) and record.iou > 0.9
    head = decode(space.head(parameters), DecodeConfig(48))
    error = surface_error(head, mesh, rng=np.random.default_rng(0)).mean_mm
    assert record.error_mm == pytest.approx(error, rel=1e-3) and error < 2
    np.testing.assert_allclose(head.bounds, mesh.bounds, atol=12)
    if neck_height is not None:
        assert head.bounds[0, 1] == pytest.approx(neck_height, abs=1e-3)
    # The network holds a ball, as far as it was fitted.
    ball = decode(dataclasses.replace(space.head(parameters), warp=None), DecodeConfig(48))
    above = ball.vertices[:, 1] > (-100.0 if neck_height is None else neck_height / 1.1)
    assert np.abs(np.linalg.norm(ball.vertices[above], axis=1) - 100).mean() < 5


def test_labels_of_a_scan_are_split_into_training_and_test(scans):
    labelled = label_scan(scans[0], SPACE, config=CONFIG)
    total = CONFIG.labels.near_points + CONFIG.labels.band_points + CONFIG.labels.uniform_points
    assert len(labelled.training) == pytest.approx(total, abs=2)
    assert len(labelled.test) == pytest.approx(total / (TEST_EVERY - 1), abs=2)
    training, test = (set(map(tuple, part.points.tolist())) for part in (labelled.training, labelled.test))
    assert not training & test


def test_labels_of_a_scan_depend_on_its_name_and_not_on_its_place(scans, tmp_path):
    moved = scans[0].scan.path.rename(tmp_path / "elsewhere.ply")
    first = label_scan(unwarped("a.ply", moved), SPACE, config=CONFIG)
    other = label_scan(unwarped("elsewhere.ply", moved), SPACE, config=CONFIG)
    again = label_scan(unwarped("a.ply", moved), SPACE, config=CONFIG)
    assert np.array_equal(first.training.points, again.training.points)
    assert not np.array_equal(first.training.points, other.training.points)


def test_the_number_of_steps_follows_the_alignment_unless_it_is_given():
    steps = {
        kind: OverfitConfig(alignment=AlignmentConfig(align=kind)).with_steps().fit.steps
        for kind in ("warp", "similarity", "none")
    }
    assert steps == {"warp": 1000, "similarity": 2000, "none": 2000}
    assert OverfitConfig(fit=FitConfig(steps=7)).with_steps().fit.steps == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"field": Field(coordinates=4)}, "`coordinates=4`: scans have 3"),
        ({"margin": -0.1}, "`margin=-0.1`: give 0 or more"),
        ({"check_resolution": 10}, "`check_resolution=10`: give 11 to 1024"),
        ({"labels": LabelConfig(near_points=100, band_points=100, uniform_points=100)}, "300 in all"),
    ],
)
def test_settings_that_scans_cannot_be_fitted_with_are_refused(changes, message):
    with pytest.raises(BadInput, match=message):
        OverfitConfig(**changes)
