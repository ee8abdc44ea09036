"""Folders of decoded heads: files, results, failures and repair."""

import dataclasses
import errno
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from overfit.canonical.align import CORNERS
from overfit.canonical.warp import Warp, WarpSpace
from overfit.decode_folder import decode_to_folder
from overfit.decoder import DecodeConfig, decode, decode_canonical
from overfit.field import Field
from overfit.geometry.bounding_cube import Cube
from overfit.geometry.mesh import connected_components
from overfit.neural_head import NeuralHead
from overfit.runtime.machine import RunContext

FIELD = Field(octaves=2, hidden=(16,))
CUBE = Cube((0.0, 0.0, 0.0), 100.0)
CONFIG = DecodeConfig(resolution=24)
ALL = DecodeConfig(resolution=24, keep_all_components=True)


def some_head(seed: int, bias: float = 0.0) -> NeuralHead:
    weights = FIELD.initial(torch.Generator().manual_seed(seed))
    weights[-1] += bias
    return NeuralHead(FIELD, CUBE, weights)


NO_SURFACE = some_head(0, bias=1000.0)


def test_results_and_files_are_those_of_decode_in_the_given_order(tmp_path):
    heads = [(f"part/head_{seed}", some_head(seed)) for seed in range(6)]
    results = decode_to_folder(heads, tmp_path / "out", config=CONFIG, context=RunContext(cores=2))
    assert [result.name for result in results] == [name for name, _ in heads]
    for result, (name, head) in zip(results, heads, strict=True):
        assert result.path == tmp_path / "out" / f"{name}.ply" and not result.failure
        assert len(trimesh.load_mesh(result.path).faces) == len(result.mesh.faces)
        assert result.mesh.vertices.tobytes() == decode(head, CONFIG).vertices.tobytes()


def test_a_head_without_a_surface_is_reported_and_the_others_are_written(tmp_path):
    heads = [("empty", NO_SURFACE), ("good", some_head(1))]
    empty, good = decode_to_folder(heads, tmp_path, config=CONFIG, context=RunContext())
    assert empty.mesh is None and "no surface" in empty.failure
    assert good.mesh is not None and not good.failure
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.ply"]


def test_the_format_is_the_one_asked_for(tmp_path):
    (result,) = decode_to_folder(
        [("v1.2", some_head(1))], tmp_path, config=CONFIG, mesh_format="stl", context=RunContext()
    )
    assert result.path == tmp_path / "v1.2.stl"
    assert len(trimesh.load_mesh(result.path).faces) == len(result.mesh.faces)


def test_components_are_kept_or_dropped_after_the_repair(tmp_path, monkeypatch):
    small, large = trimesh.creation.icosphere(1), trimesh.creation.icosphere(2)
    seen = []

    def repair_sample(head: NeuralHead, mesh: trimesh.Trimesh, *, resolution: int) -> trimesh.Trimesh:
        seen.append((len(connected_components(mesh)), resolution))
        return small + large

    monkeypatch.setattr("overfit.decode_folder.repair_sample", repair_sample)
    head = some_head(0)
    count = len(connected_components(decode(head, ALL)))
    for config, kept in ((ALL, 2), (CONFIG, 1)):
        (result,) = decode_to_folder([("a", head)], tmp_path, config=config, repair=True, context=RunContext())
        assert len(connected_components(result.mesh)) == kept
    assert seen == [(count, 24)] * 2


def test_heads_are_repaired_in_canonical_space_then_warped_and_cut(tmp_path, monkeypatch):
    canonical = trimesh.creation.icosphere(3, 60)
    seen = []

    def repair_sample(head: NeuralHead, mesh: trimesh.Trimesh, *, resolution: int) -> trimesh.Trimesh:
        seen.append(mesh)
        return canonical

    monkeypatch.setattr("overfit.decode_folder.repair_sample", repair_sample)
    head = dataclasses.replace(
        some_head(1), warp=Warp(WarpSpace(CORNERS, True), np.tile([0.0, 500.0, 0.0], (8, 1)), neck_height=480.0)
    )
    (result,) = decode_to_folder([("a", head)], tmp_path, config=CONFIG, repair=True, context=RunContext())
    np.testing.assert_array_equal(seen[0].vertices, decode_canonical(head, CONFIG.resolution).vertices)
    for mesh in (result.mesh, trimesh.load_mesh(tmp_path / "a.ply")):
        np.testing.assert_allclose(mesh.bounds[:, 1], [480, 560], atol=1e-3)
        assert mesh.is_watertight and (np.linalg.norm(mesh.vertices - [0, 500, 0], axis=1) < 60.001).all()


def test_a_head_that_lies_below_its_neck_is_a_failure(tmp_path):
    head = dataclasses.replace(some_head(1), warp=Warp(WarpSpace(CORNERS, True), np.zeros((8, 3)), neck_height=500.0))
    (result,) = decode_to_folder([("a", head)], tmp_path, config=CONFIG, context=RunContext())
    assert result.mesh is None and "no surface" in result.failure and not list(tmp_path.iterdir())


def test_a_full_disk_ends_the_run_with_the_name_of_the_file(tmp_path, monkeypatch):
    def export(mesh: trimesh.Trimesh, path: Path, file_type: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trimesh.Trimesh, "export", export)
    with pytest.raises(OSError) as caught:
        decode_to_folder([("a", some_head(1))], tmp_path, config=CONFIG, context=RunContext())
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())
