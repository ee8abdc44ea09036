"""The command line from end to end on partial scans: heads with masks, a table and pictures; resuming; bad input."""

import csv
import dataclasses
import importlib
import json
import shutil

import numpy as np
import pytest
import trimesh
from support import nearest_on, random_head, run_cli

QUICK = ["--unit", "cm", "--draws", "1", "--completion-steps", "20", "--resolution", "64"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the front of a head in centimetres, turned, and files that are none; and what comes of them."""
    work = tmp_path_factory.mktemp("work")
    (work / "scans").mkdir()
    head = random_head(3)
    front = head.submesh([head.triangles_center[:, 2] > np.median(head.vertices[:, 2])], append=True)
    turn = trimesh.transformations.rotation_matrix(0.4, [1, 2, 3])
    front.apply_transform(turn).apply_scale(0.1).export(work / "scans" / "front.v2.ply")
    (work / "scans" / "text.ply").write_text("no mesh")
    head.export(work / "head.ply")
    done = run_cli("complete", work / "scans", work / "out", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "1 completed, 0 kept from before, 1 skipped" in done.stdout and "skipped: text.ply" in done.stdout
    return work


def test_heads_are_whole_and_say_what_is_seen(work):
    head = trimesh.load_mesh(work / "head.ply")
    for name in ("front.v2.ply", "front.v2_draw_0.ply"):
        mesh = trimesh.load_mesh(work / "out" / name, process=False)
        assert mesh.is_watertight
        # Both are in the canonical frame in millimetres.
        above = head.vertices[head.vertices[:, 1] > head.bounds[0, 1] + 60]
        assert nearest_on(mesh, above)[0].mean() < 6
        seen = np.asarray(mesh.metadata["_ply_raw"]["vertex"]["data"]["seen"]).ravel()
        assert set(np.unique(seen)) == {0, 1}
        assert mesh.vertices[seen == 1, 2].mean() > mesh.vertices[seen == 0, 2].mean() + 50


def test_the_table_and_the_metadata_tell_inventions_from_measurements(work):
    with open(work / "out" / "completed.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert 0.1 < float(rows["front.v2.ply"]["seen_share"]) < 0.7 and float(rows["front.v2.ply"]["seen_mm"]) < 1
    assert rows["text.ply"]["skipped"].startswith("text.ply: ")
    content = json.loads((work / "out" / "front.v2.json").read_text())
    assert "invented" in content["notice"]
    scan = trimesh.load_mesh(work / "scans" / "front.v2.ply").apply_transform(content["from_scan"])
    head = trimesh.load_mesh(work / "out" / "front.v2.ply")
    assert np.median(nearest_on(head, scan.vertices)[0]) < 1
    assert (work / "out" / "completed.png").exists() and (work / "out" / "front.v2.png").exists()


def test_the_same_command_resumes(work):
    before = (work / "out" / "front.v2.ply").stat().st_mtime_ns
    done = run_cli("complete", work / "scans", work / "out", *QUICK)
    assert done.returncode == 0 and "0 completed, 1 kept from before, 1 skipped" in done.stdout
    assert (work / "out" / "front.v2.ply").stat().st_mtime_ns == before


def test_what_was_made_of_a_withdrawn_scan_is_removed(work, tmp_path):
    shutil.copytree(work, tmp_path / "work")
    scans, out = work / "scans", tmp_path / "work" / "out"
    (out / "front.v2.ply.txt").write_text("another program's")
    (scans / "front.v2.ply").rename(tmp_path / "front.v2.ply")
    try:
        done = run_cli("complete", scans, out, *QUICK)
    finally:
        (tmp_path / "front.v2.ply").rename(scans / "front.v2.ply")
    assert "no scan could be completed" in done.error
    assert not [path.name for path in out.iterdir() if path.name.startswith("front") and path.suffix != ".txt"]


def test_bad_input_ends_in_one_line(work, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "text.ply").write_text("no mesh")
    assert "no scan could be completed" in run_cli("complete", tmp_path / "texts", tmp_path / "out", *QUICK).error
    assert "lies among the scans" in run_cli("complete", work / "scans", work / "scans" / "out").error
    assert "no such folder" in run_cli("complete", tmp_path / "missing", tmp_path / "out").error
    assert (
        "give a number above 0" in run_cli("complete", work / "scans", tmp_path / "out", "--model-error-mm", "0").error
    )


def test_stage_1_completes_scans_that_show_little(work, tmp_path, monkeypatch):
    partial = importlib.import_module("hyperdiffusion.completion.complete_partial")
    monkeypatch.setattr(partial, "RANDOM", dataclasses.replace(partial.RANDOM, completion_steps=5))
    quick = ["--unit", "cm", "--steps", 3, "--first-steps", 3, "--check-resolution", 48, "--max-error-mm", 99]
    scans, store = tmp_path / "scans", tmp_path / "store"
    scans.mkdir()
    shutil.copy(work / "scans" / "front.v2.ply", scans)
    done = run_cli("overfit", scans, store, *quick, "--no-repair")
    assert done.returncode == 0 and "1 of the scans show less than 60%" in done.stdout, done.stderr
    assert record(store)["folder"] == "completed" and 0.1 < float(record(store)["seen_share"]) < 0.6
    back = trimesh.load_mesh(store / "completed" / "front.v2.ply").bounds[0, 2]
    assert back < trimesh.load_mesh(store / "prepared" / "front.v2.ply").bounds[0, 2] - 30
    # As it is, if it is wanted so.
    done = run_cli("overfit", scans, store, *quick, "--no-repair", "--no-complete")
    assert done.returncode == 0 and "1 fitted" in done.stdout, done.stderr
    assert record(store)["folder"] == "prepared" and float(record(store)["seen_share"]) == 1
    assert not (store / "completed" / "front.v2.ply").exists()


def record(store) -> dict[str, str]:
    """The only row of a store's table."""
    with open(store / "scans.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    return row
