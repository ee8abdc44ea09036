"""A folder of scans becomes a folder of heads and reports; run again, it prepares only what is new or has changed."""

import csv
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from support import ONE_THREAD, ellipsoid

from overfit.runtime.errors import BadInput
from overfit.scans import prepare_folder as prepare_folder_module
from overfit.scans.formats import Scan, find_scans, load_raw, read_digest, read_prepared
from overfit.scans.preparation_report import PreparationReport
from overfit.scans.prepare import Preparation, PreparationConfig
from overfit.scans.prepare_folder import prepare_folder

NAMES = ("b.ply", "a.obj", "below/ü c.ply", "b.obj")


@pytest.fixture(autouse=True)
def prepared(monkeypatch) -> list[str]:
    """Replaces preparation, which takes seconds, by reading the scans. The names of the prepared scans."""
    names = []

    def prepare(scan: Scan, config: PreparationConfig) -> Preparation:
        names.append(scan.name)
        if "egg" in scan.name:
            reason = f"{scan.name}: no face in it"
            return Preparation(PreparationReport(scan.name, read_digest(scan), skipped=reason), None, None)
        raw = load_raw(scan)
        head = raw.surface.copy()
        # Numbers that a PLY file must round.
        head.vertices += 1 / 3
        return Preparation(PreparationReport(scan.name, raw.digest, "mesh", len(head.faces)), raw.surface, head)

    monkeypatch.setattr(prepare_folder_module, "prepare", prepare)
    return names


@pytest.fixture
def scans(tmp_path) -> Path:
    folder = tmp_path / "scans"
    (folder / "below").mkdir(parents=True)
    for index, name in enumerate((*NAMES, "egg.ply")):
        ellipsoid((70 + index, 110, 90)).export(folder / name)
    return folder


def run(scans: Path, **options):
    return prepare_folder(scans, scans.parent / "out", machine=ONE_THREAD, **options)


def test_every_scan_gets_a_head_and_a_report(scans):
    out = scans.parent / "out"
    result = run(scans, draw=lambda preparation, path: path.write_text(preparation.report.name))
    assert result.kept == [] and len(result.reports) == 5
    for path, report in result.reports.items():
        assert path.exists() == (not report.skipped)
        assert path.with_suffix(".png").read_text() == report.name
        assert json.loads(path.with_suffix(".json").read_text())["report"]["name"] == report.name
    with open(out / "prepared.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == sorted((*NAMES, "egg.ply"))
    assert {row["skipped"] for row in rows} == {"", "egg.ply: no face in it"}
    # What was not found is empty, not zero.
    assert {row["relief"] for row in rows} == {""}


def test_skipped_scans_are_named_with_their_reasons(scans):
    (skipped,) = run(scans).skipped
    assert (skipped.name, skipped.reason) == ("egg.ply", "egg.ply: no face in it")


def test_heads_in_memory_are_what_their_files_hold(scans):
    heads = run(scans).heads
    found = find_scans(scans.parent / "out")
    assert [(head.name, head.path) for head in heads] == [(scan.name, scan.path) for scan in found]
    assert {head.name for head in heads} == {"a.obj.ply", "b.ply", "b.obj.ply", "below/ü c.ply"}
    for head, scan in zip(pickle.loads(pickle.dumps(heads)), found):
        in_memory, from_file = read_prepared(head), read_prepared(scan)
        assert head.unit == "mm" and in_memory is head.prepared
        assert in_memory.digest == from_file.digest == read_digest(scan)
        for values in ("vertices", "faces", "vertex_normals"):
            np.testing.assert_array_equal(getattr(in_memory.mesh, values), getattr(from_file.mesh, values))


def test_heads_beyond_the_memory_limit_are_read_again(scans, monkeypatch):
    size = run(scans).heads[0].prepared.nbytes
    monkeypatch.setattr(prepare_folder_module, "MAX_MESH_BYTES", 2 * size)
    heads = prepare_folder(scans, scans.parent / "other", machine=ONE_THREAD).heads
    assert [head.prepared is None for head in heads].count(True) == 2
    assert all(read_prepared(head).mesh.is_watertight for head in heads)


def test_a_second_run_prepares_only_what_is_new_or_has_changed(scans, prepared):
    first = run(scans)
    assert len(prepared) == 5
    prepared.clear()
    again = run(scans)
    assert prepared == [] and again.reports == first.reports
    assert again.kept == ["a.obj.ply", "b.obj.ply", "b.ply", "below/ü c.ply"]
    assert [head.name for head in again.heads] == [head.name for head in first.heads]

    (scans.parent / "out" / "a.obj.ply").unlink()
    ellipsoid((70, 90, 90)).export(scans / "egg.ply")
    ellipsoid((70, 100, 90)).export(scans / "b.ply")
    ellipsoid((72, 100, 90)).export(scans / "new.ply")
    changed = run(scans)
    assert prepared == ["a.obj", "b.ply", "egg.ply", "new.ply"]
    assert changed.kept == ["b.obj.ply", "below/ü c.ply"] and len(changed.heads) == 5


def test_another_config_prepares_all_again(scans, prepared):
    run(scans)
    prepared.clear()
    run(scans, config=PreparationConfig(unit="mm"))
    assert len(prepared) == 5


def test_a_head_that_is_skipped_after_a_change_is_removed(scans, monkeypatch):
    run(scans)
    (scans / "a.obj").write_text("no mesh")

    def skip(scan, config):
        return Preparation(PreparationReport(scan.name, skipped="a.obj: cannot be read"), None, None)

    monkeypatch.setattr(prepare_folder_module, "prepare", skip)
    assert "a.obj.ply" not in [head.name for head in run(scans).heads]
    assert not (scans.parent / "out" / "a.obj.ply").exists()


def test_reports_of_the_first_version_are_read(scans, prepared):
    result = run(scans)
    for path in result.reports:
        content = json.loads(path.with_suffix(".json").read_text())
        for old, new in prepare_folder_module.FIRST_VERSION_FIELDS.items():
            content["report"][old] = content["report"].pop(new)
        path.with_suffix(".json").write_text(json.dumps(content))
    prepared.clear()
    assert run(scans).reports == result.reports and prepared == []


def test_a_damaged_report_prepares_its_scan_again(scans, prepared):
    run(scans)
    for name, text in (("a.obj.json", ""), ("b.json", "[]"), ("b.obj.json", '{"report": {"x": 1}}')):
        (scans.parent / "out" / name).write_text(text)
    prepared.clear()
    run(scans)
    assert prepared == ["a.obj", "b.obj", "b.ply"]


@pytest.mark.parametrize("out", ["scans", "scans/out", "."])
def test_folders_inside_each_other_are_refused(scans, out):
    with pytest.raises(BadInput, match="lies"):
        prepare_folder(scans, scans.parent / out, machine=ONE_THREAD)
    assert not (scans.parent / "prepared.csv").exists()


def test_files_in_place_of_folders_are_refused(scans):
    (scans.parent / "out").write_text("")
    with pytest.raises(BadInput, match="out: a file where a folder is expected"):
        run(scans)
    with pytest.raises(BadInput, match="a.obj: a file where a folder is expected"):
        prepare_folder(scans / "a.obj", scans.parent / "new", machine=ONE_THREAD)


def test_a_missing_template_ends_the_run_before_it_begins(scans, prepared):
    with pytest.raises(BadInput, match="nowhere.ply: cannot be read"):
        run(scans, config=PreparationConfig(template=scans / "nowhere.ply"))
    assert prepared == [] and not (scans.parent / "out").exists()


def test_the_ply_of_a_head_is_what_trimesh_exports(scans):
    (scans / "a.obj").rename(scans / "z.obj")
    run(scans)
    head = load_raw(Scan("z.obj", scans / "z.obj")).surface
    head.vertices += 1 / 3
    assert (scans.parent / "out" / "z.obj.ply").read_bytes() == trimesh.Trimesh(
        head.vertices, head.faces, process=False
    ).export(file_type="ply")


def test_scans_that_are_gone_disappear(scans):
    run(scans)
    out = scans.parent / "out"
    (scans / "a.obj").rename(scans / "renamed.obj")
    (scans / "egg.ply").unlink()
    # Not a report of ours.
    (out / "notes.json").write_text("[1]")
    result = run(scans)
    assert result.removed == ["a.obj", "egg.ply"]
    names = {path.name for path in out.rglob("*") if path.is_file()}
    assert not names & {"a.obj.ply", "a.obj.png", "a.obj.json", "egg.png", "egg.json"}
    assert {"renamed.obj.ply", "notes.json"} <= names
    assert run(scans).removed == []


def test_a_second_file_of_a_name_changes_nothing_for_the_first(scans, prepared):
    (scans / "b.obj").unlink()
    run(scans)
    prepared.clear()
    ellipsoid((70, 90, 90)).export(scans / "b.obj")
    result = run(scans)
    assert prepared == ["b.obj"] and not result.removed
    assert [head.name for head in result.heads if head.name.startswith("b.")] == ["b.obj.ply", "b.ply"]


def test_heads_of_another_folder_are_left_alone(scans, tmp_path):
    run(scans)
    other = tmp_path / "others"
    other.mkdir()
    ellipsoid((70, 90, 90)).export(other / "z.ply")
    assert prepare_folder(other, scans.parent / "out", machine=ONE_THREAD).removed == []
    assert (scans.parent / "out" / "a.obj.ply").exists()


def test_equal_files_are_one_head(scans, prepared):
    shutil.copy(scans / "a.obj", scans / "z copy.obj")
    result = run(scans)
    assert "z copy.obj" not in prepared and len(result.heads) == 4
    reasons = {one.name: one.reason for one in result.skipped}
    assert reasons["z copy.obj"] == "z copy.obj: the same file as a.obj; keep one of them"
    prepared.clear()
    assert run(scans).reports == result.reports and prepared == []
    # The copy takes the place of a file that is gone.
    (scans / "a.obj").unlink()
    assert "z copy.obj.ply" in [head.name for head in run(scans).heads]
    assert prepared == ["z copy.obj"]
