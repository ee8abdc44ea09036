"""The command line from end to end on heads that are warped: fits, a model, samples and metrics."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from support import random_head, run_cli

from overfit import Store, surface_error
from overfit.geometry.similarity import Similarity

QUICK = [
    *("--prepared", "--align", "warp", "--control-points", "60"),
    *("--near-points", "6000", "--band-points", "2000", "--uniform-points", "2000"),
    *("--first-steps", "300", "--steps", "60", "--points-per-step", "512", "--hidden", "64", "64", "64"),
    *("--max-error-mm", "20", "--check-resolution", "32", "--no-repair"),
]
TINY = [
    *("--width", "32", "--depth", "1", "--attention-heads", "2"),
    *("--steps", "20", "--latent-steps", "30", "--latent-points", "64", "--encode-steps", "20"),
]
COUNT = 4


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with heads of different sizes and places that end in planes, a store of them, and a model."""
    work = tmp_path_factory.mktemp("work")
    (work / "scans").mkdir()
    for index, (scale, height) in enumerate(((0.9, 30.0), (1.0, 0.0), (1.1, -20.0), (1.2, 50.0))):
        pose = Similarity(scale, translation=np.array([10.0, height, 0.0]))
        random_head(index, pose=pose).export(work / "scans" / f"head_{index}.ply")
    done = run_cli("overfit", work / "scans", work / "store", *QUICK)
    assert done.returncode == 0 and f"{COUNT} fitted, 0 kept from before, 0 skipped" in done.stdout, done.stderr
    done = run_cli("train", work / "store", work / "model.safetensors", *TINY)
    assert done.returncode == 0, done.stderr
    return work


def require_plane(path: Path) -> float:
    """The height of the plane in which the head in a file ends. Fails if it does not."""
    mesh = trimesh.load_mesh(path)
    assert mesh.is_watertight and mesh.is_winding_consistent
    low = mesh.bounds[0, 1]
    in_plane = (mesh.triangles[:, :, 1] == low).all(1) & (mesh.area_faces > 1e-6)
    assert mesh.area_faces[in_plane].sum() > 2000 and (mesh.face_normals[in_plane, 1] < -0.99).all()
    return low


def test_fits_are_stored_with_warps_and_their_necks(work):
    fits = Store(work / "store").read()
    assert len(fits.space.warps.control_points) == 60 and fits.space.warps.cuts_neck
    assert fits.parameters.shape == (COUNT, 3 * 60 + 1 + fits.space.field.size)
    assert max(record.error_mm for record in fits.records) < 8


def test_decoded_fits_end_where_their_scans_do(work):
    done = run_cli("decode", work / "store", work / "fits", "--resolution", "64")
    assert done.returncode == 0, done.stderr
    for index in range(COUNT):
        path = work / "fits" / f"head_{index}.ply"
        fit, scan = trimesh.load_mesh(path), trimesh.load_mesh(work / "scans" / path.name)
        assert require_plane(path) == pytest.approx(scan.bounds[0, 1], abs=0.01)
        # Fits this short have bumps; scans are centimetres apart.
        assert surface_error(fit, scan, rng=np.random.default_rng(0)).mean_mm < 8


def test_a_second_run_adds_nothing(work):
    before = Store(work / "store").read().parameters
    done = run_cli("overfit", work / "scans", work / "store", *QUICK)
    assert f"0 fitted, {COUNT} kept from before, 0 skipped" in done.stdout, done.stderr
    assert torch.equal(Store(work / "store").read().parameters, before)


def test_a_new_head_is_added_to_the_store(work, tmp_path):
    for name in ("scans", "store"):
        shutil.copytree(work / name, tmp_path / name)
    before = Store(tmp_path / "store").read()
    # In the store's cube, whatever its own size.
    random_head(1, pose=Similarity(1.4)).export(tmp_path / "scans" / "large.ply")
    done = run_cli("overfit", tmp_path / "scans", tmp_path / "store", *QUICK)
    assert f"1 fitted, {COUNT} kept from before, 0 skipped" in done.stdout, done.stderr
    after = Store(tmp_path / "store").read()
    assert after.space == before.space and torch.equal(after.parameters[:COUNT], before.parameters)


@pytest.mark.parametrize(
    "changes, flag", [(["--align", "none"], "--align none"), (["--control-points", "61"], "--control-points 61")]
)
def test_another_alignment_is_refused(work, changes, flag):
    line = run_cli("overfit", work / "scans", work / "store", *QUICK, *changes).error
    assert line.startswith(f"hyperdiffusion: {flag}: ") and "was made with" in line


def test_samples_end_in_planes(work, tmp_path):
    model = ["--checkpoint", work / "model.safetensors"]
    done = run_cli("sample", tmp_path, *model, "--count", "3", "--resolution", "48")
    assert done.returncode == 0, done.stderr
    heights = [require_plane(path) for path in sorted(tmp_path.glob("*.ply"))]
    assert len(heights) == 3 and len(set(heights)) == 3 and (tmp_path / "heads.png").exists()


@pytest.mark.parametrize(
    "words, count",
    [
        (["interpolate", "head_0", "head_3", "--frames", "3"], 3),
        (["interpolate", "head_0", "1", "--frames", "3", "--space", "noise"], 3),
        (["mix", "0", "head_2"], 5),
    ],
    ids=["weights", "noise", "mix"],
)
def test_heads_between_two_end_in_planes(work, tmp_path, words, count):
    options = ["--checkpoint", work / "model.safetensors", "--store", work / "store", "--resolution", "48"]
    done = run_cli(words[0], tmp_path, *words[1:], *options)
    assert done.returncode == 0, done.stderr
    heights = [require_plane(path) for path in sorted(tmp_path.glob("*.ply"))]
    assert len(heights) == count
    if words[0] == "interpolate":
        assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=0.01 if "noise" not in words else 20)
    else:
        # The warp comes with the first layer.
        np.testing.assert_allclose(heights[1:], heights[-1], atol=0.01)
        assert abs(heights[0] - heights[1]) > 1


def test_evaluate_reports_on_warped_heads(work, tmp_path):
    quick = ["--points", "200", "--emd-heads", "0", "--resolution", "48", "--count", "4"]
    folders = ["--reference", work / "scans", "--train", work / "scans"]
    done = run_cli("evaluate", work / "model.safetensors", tmp_path, *folders, *quick)
    assert done.returncode == 0, done.stderr
    assert "1-NNA" in done.stdout and (tmp_path / "report.html").exists()
