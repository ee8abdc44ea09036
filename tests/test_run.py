"""Runs on folders that change: nothing made is lost, nothing broken stops the rest."""

import dataclasses
import multiprocessing
import signal

import numpy as np
import pytest
import torch
import trimesh
from conftest import ONE_THREAD, SMALL, ellipsoid

from overfit import BadInput, Settings, Store, overfit

QUICK = dataclasses.replace(SMALL, worst_mm=1e6, fitting=dataclasses.replace(SMALL.fitting, steps=20, first_steps=100))


def write(folder, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        ellipsoid(np.random.default_rng([*name.encode()]).uniform(70, 110, 3)).export(folder / name)


def run(tmp_path, settings: Settings = QUICK):
    return overfit(tmp_path / "scans", tmp_path / "store", settings, ONE_THREAD, batch=2)


def test_shards_of_a_killed_run_survive_scans_that_sort_before_them(tmp_path, monkeypatch):
    write(tmp_path / "scans", "b.ply", "c.ply")
    with monkeypatch.context() as patch:
        # A kill just before the shards are merged.
        patch.setattr(Store, "merge", lambda store: None)
        run(tmp_path)
    before = Store(tmp_path / "store").read()
    write(tmp_path / "scans", "a.ply")
    outcome = run(tmp_path)
    assert outcome.fitted == ["a.ply"] and outcome.kept == ["b.ply", "c.ply"]
    after = Store(tmp_path / "store").read()
    assert [record.name for record in after.records] == ["a.ply", "b.ply", "c.ply"]
    assert np.array_equal(after.weights[1:], before.weights)


def test_a_changed_scan_is_fitted_again(tmp_path):
    write(tmp_path / "scans", "a.ply", "b.ply")
    run(tmp_path)
    ellipsoid((75, 80, 85)).export(tmp_path / "scans" / "a.ply")
    assert run(tmp_path).fitted == ["a.ply"]
    assert run(tmp_path).fitted == []


def test_a_first_scan_without_a_volume_does_not_stop_the_others(tmp_path):
    write(tmp_path / "scans", "b.ply", "c.ply")
    flat = trimesh.creation.box((100, 100, 100)).subdivide().subdivide().subdivide()
    flat.update_faces(flat.triangles_center[:, 2] > 49)
    flat.export(tmp_path / "scans" / "a.ply")
    outcome = run(tmp_path)
    assert outcome.fitted == ["b.ply", "c.ply"]
    assert "encloses no volume" in outcome.set_aside["a.ply"]


def test_scans_of_another_unit_or_size_are_set_aside(tmp_path):
    write(tmp_path / "scans", "a.ply", "b.ply", "c.ply")
    for name in ("a", "b", "c"):
        ellipsoid((80, 110, 90)).export(tmp_path / "scans" / f"{name}.ply")
    ellipsoid((20, 50, 20)).export(tmp_path / "scans" / "small.ply")
    outcome = run(tmp_path)
    assert outcome.fitted == ["a.ply", "b.ply", "c.ply"]
    assert "far from the others" in outcome.set_aside["small.ply"]
    ellipsoid((150, 200, 150)).export(tmp_path / "scans" / "large.ply")
    assert "larger than the store's cube" in run(tmp_path).set_aside["large.ply"]


def test_a_fit_that_fails_is_tried_again_from_noise_and_then_set_aside(tmp_path):
    write(tmp_path / "scans", "a.ply")
    outcome = run(tmp_path, dataclasses.replace(QUICK, worst_mm=0.001))
    assert "no fit within 0.001 mm" in outcome.set_aside["a.ply"] and outcome.records == []


def test_the_cube_keeps_relative_sizes(tmp_path):
    write(tmp_path / "scans", "a.ply", "b.ply")
    run(tmp_path)
    store = Store(tmp_path / "store")
    for name in ("a.ply", "b.ply"):
        assert store.cube.contains(trimesh.load_mesh(tmp_path / "scans" / name).bounds)


def test_a_store_that_is_a_file_is_told(tmp_path):
    write(tmp_path / "scans", "a.ply")
    (tmp_path / "store").write_text("")
    with pytest.raises(BadInput, match="a file, where the store's folder should be"):
        run(tmp_path)


def test_twenty_kills_at_random_moments_leave_the_store_of_an_undisturbed_run(tmp_path):
    write(tmp_path / "scans", *(f"{index}.ply" for index in range(8)))
    overfit(tmp_path / "scans", tmp_path / "undisturbed", QUICK, ONE_THREAD, batch=1)
    context = multiprocessing.get_context("forkserver")
    # Workers that start with the modules at hand: a moment is spent on work, not on imports.
    context.set_forkserver_preload(["overfit"])
    moments = np.random.default_rng(0).uniform(0.0, 0.8, 20)
    arguments = (tmp_path / "scans", tmp_path / "store", QUICK, ONE_THREAD, 1)
    killed = 0
    for moment in moments:
        process = context.Process(target=overfit, args=arguments)
        process.start()
        process.join(moment)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if (tmp_path / "store" / "store.json").exists():
            Store(tmp_path / "store").records()  # Whole files only: a half-written one would raise.
    assert killed > 5
    overfit(*arguments)
    assert not list((tmp_path / "store").rglob("*.part"))
    kept, undisturbed = (Store(tmp_path / name).read() for name in ("store", "undisturbed"))
    assert kept.records == undisturbed.records
    assert torch.equal(kept.weights, undisturbed.weights)
