"""Runs on folders that change: no fit is lost, and no broken scan stops the others."""

import dataclasses
import json
import multiprocessing
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from support import ONE_THREAD, SMALL, ellipsoid, random_head

from overfit import (
    BadInput,
    Cube,
    Field,
    Machine,
    OverfitConfig,
    OverfitResult,
    Store,
    find_scans,
    overfit,
    prepared_folder,
)
from overfit.canonical.align import CORNERS, AlignmentConfig, ScanAlignment
from overfit.canonical.warp import Warp, WarpSpace
from overfit.fit_batch import AlignedScan
from overfit.fit_scans import MIN_SCANS_PER_WORKER, PREPARED_FOLDER, NewScan, _create, _survey
from overfit.geometry.similarity import Similarity
from overfit.neural_head import HeadSpace
from overfit.runtime.machine import RunContext
from overfit.scans.formats import Scan, read_prepared
from overfit.store import VERSION

# Without repair: fits as short as these have hundreds of strays.
QUICK = dataclasses.replace(
    SMALL,
    field=Field(hidden=(32, 32, 32)),
    repair=False,
    max_error_mm=1e6,
    fit=dataclasses.replace(SMALL.fit, steps=20, first_steps=50),
)
# What stores of earlier versions were made with.
RELU = dataclasses.replace(
    QUICK,
    field=dataclasses.replace(QUICK.field, activation="relu"),
    fit=dataclasses.replace(QUICK.fit, mixture_weight=0.0),
)


def write(folder, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        ellipsoid(np.random.default_rng([*name.encode()]).uniform(70, 110, 3)).export(folder / name)


def run(tmp_path, config: OverfitConfig = QUICK, **options) -> OverfitResult:
    return overfit(tmp_path / "scans", tmp_path / "store", config=config, machine=ONE_THREAD, batch_size=2, **options)


def reasons(result: OverfitResult) -> dict[str, str]:
    return {one.name: one.reason for one in result.skipped}


def test_shards_of_a_killed_run_survive_scans_that_sort_before_them(tmp_path, monkeypatch):
    write(tmp_path / "scans", "b.ply", "c.ply")
    with monkeypatch.context() as patch:
        # A kill just before the shards are merged.
        patch.setattr(Store, "merge", lambda store: None)
        run(tmp_path)
    before = Store(tmp_path / "store").read()
    write(tmp_path / "scans", "a.ply")
    result = run(tmp_path)
    assert result.fitted == ["a.ply"] and result.kept == ["b.ply", "c.ply"]
    after = Store(tmp_path / "store").read()
    assert [record.name for record in after.records] == ["a.ply", "b.ply", "c.ply"]
    assert torch.equal(after.weights[1:], before.weights)


def test_a_changed_scan_is_fitted_again(tmp_path):
    write(tmp_path / "scans", "a.ply", "b.ply")
    run(tmp_path)
    ellipsoid((75, 80, 85)).export(tmp_path / "scans" / "a.ply")
    assert run(tmp_path).fitted == ["a.ply"]
    assert run(tmp_path).fitted == []


def test_fits_of_withdrawn_and_renamed_scans_are_removed(tmp_path):
    scans = tmp_path / "scans"
    write(scans, "a.ply", "b.ply", "c.ply")
    write(scans / "more", "d.ply")
    run(tmp_path)
    before = Store(tmp_path / "store").read()
    (scans / "a.ply").unlink()
    (scans / "b.ply").rename(scans / "e.ply")
    result = run(tmp_path)
    assert result.removed == ["a.ply", "b.ply"] and result.fitted == ["e.ply"]
    after = Store(tmp_path / "store").read()
    assert [record.name for record in after.records] == ["c.ply", "e.ply", "more/d.ply"]
    assert torch.equal(after.weights[[0, 2]], before.weights[2:])
    assert "a.ply" not in (tmp_path / "store" / "scans.csv").read_text()
    assert run(tmp_path).removed == []


def test_fits_of_other_folders_are_kept(tmp_path):
    write(tmp_path / "scans", "a.ply", "b.ply")
    run(tmp_path)
    (tmp_path / "others").mkdir()
    shutil.copy(tmp_path / "scans" / "b.ply", tmp_path / "others" / "c.ply")
    added = overfit(tmp_path / "others", tmp_path / "store", config=QUICK, machine=ONE_THREAD)
    assert added.removed == [] and len(added.records) == 3
    # Of heads in memory too, only those count whose files are gone.
    (found, _) = find_scans(tmp_path / "scans")
    scan = dataclasses.replace(found, prepared=read_prepared(found))
    assert overfit([scan], tmp_path / "store", config=QUICK, machine=ONE_THREAD).removed == []
    (tmp_path / "scans" / "b.ply").unlink()
    assert overfit([scan], tmp_path / "store", config=QUICK, machine=ONE_THREAD).removed == ["b.ply"]


def test_a_store_that_was_moved_with_its_heads_still_follows_them(tmp_path):
    (tmp_path / "store").mkdir()
    write(tmp_path / "store" / PREPARED_FOLDER, "a.ply", "b.ply")
    overfit(tmp_path / "store" / PREPARED_FOLDER, tmp_path / "store", config=QUICK, machine=ONE_THREAD)
    moved = (tmp_path / "store").rename(tmp_path / "moved")
    (moved / PREPARED_FOLDER / "b.ply").unlink()
    assert overfit(moved / PREPARED_FOLDER, moved, config=QUICK, machine=ONE_THREAD).removed == ["b.ply"]


def test_a_first_scan_without_a_volume_does_not_stop_the_others(tmp_path):
    write(tmp_path / "scans", "b.ply", "c.ply")
    flat = trimesh.creation.box((100, 100, 100)).subdivide().subdivide().subdivide()
    flat.update_faces(flat.triangles_center[:, 2] > 49)
    flat.export(tmp_path / "scans" / "a.ply")
    result = run(tmp_path)
    assert result.fitted == ["b.ply", "c.ply"]
    assert "encloses no volume" in reasons(result)["a.ply"]


def test_folders_without_a_usable_scan_make_no_store(tmp_path):
    (tmp_path / "scans").mkdir()
    with pytest.raises(BadInput, match="no scans in it"):
        run(tmp_path)
    (tmp_path / "scans" / "broken.ply").write_text("ply")
    with pytest.raises(BadInput, match="`scans`: none of them can be used; the first: broken.ply"):
        run(tmp_path)
    with pytest.raises(BadInput, match="`scans`: none given"):
        overfit([], tmp_path / "store", config=QUICK, machine=ONE_THREAD)
    assert not (tmp_path / "store").exists()


def test_scans_of_another_unit_or_size_are_skipped(tmp_path):
    write(tmp_path / "scans", "a.ply", "b.ply", "c.ply")
    for name in ("a", "b", "c"):
        ellipsoid((80, 110, 90)).export(tmp_path / "scans" / f"{name}.ply")
    ellipsoid((20, 50, 20)).export(tmp_path / "scans" / "small.ply")
    result = run(tmp_path)
    assert result.fitted == ["a.ply", "b.ply", "c.ply"]
    assert "far from the others" in reasons(result)["small.ply"]
    ellipsoid((150, 200, 150)).export(tmp_path / "scans" / "large.ply")
    assert "larger than the store's cube" in reasons(run(tmp_path))["large.ply"]


def test_a_scan_that_cannot_be_fitted_is_skipped(tmp_path):
    write(tmp_path / "scans", "a.ply")
    result = run(tmp_path, dataclasses.replace(QUICK, max_error_mm=0.001))
    assert "no fit within 0.001 mm" in reasons(result)["a.ply"] and result.records == []


def test_the_cube_keeps_relative_sizes(tmp_path):
    write(tmp_path / "scans", "a.ply", "b.ply")
    run(tmp_path)
    store = Store(tmp_path / "store")
    for name in ("a.ply", "b.ply"):
        assert store.space.cube.contains(trimesh.load_mesh(tmp_path / "scans" / name).bounds)


def test_a_store_keeps_its_settings(tmp_path):
    write(tmp_path / "scans", "a.ply")
    run(tmp_path)
    other = dataclasses.replace(QUICK, labels=dataclasses.replace(QUICK.labels, near_points=7000))
    for use in (lambda: run(tmp_path, other), lambda: prepared_folder(tmp_path / "store", other)):
        with pytest.raises(BadInput, match="`near_points=7000`: .*store was made with 6000"):
            use()
    wider = dataclasses.replace(QUICK, field=Field(hidden=(48, 32)))
    with pytest.raises(BadInput, match=r"`hidden=\[48,32\]`: .*store was made with \[32,32,32\]"):
        run(tmp_path, wider)


def test_a_store_of_version_1_resumes(tmp_path):
    write(tmp_path / "scans", "a.ply")
    run(tmp_path, RELU)
    before = Store(tmp_path / "store").read()
    description = tmp_path / "store" / "store.json"
    content = json.loads(description.read_text())
    settings = content["settings"]
    del content["field"]["activation"], settings["field"]["activation"]
    labels, fit = settings.pop("labels"), settings.pop("fit")
    settings["sampling"] = {"labels": "winding"} | {
        old: labels[new]
        for old, new in {
            "near": "near_points",
            "near_mm": "near_sigma_mm",
            "near_share": "near_sigma_share",
            "wide": "band_points",
            "wide_mm": "band_sigma_mm",
            "uniform": "uniform_points",
            "face": "face_share",
            "detail": "detail_share",
            "gap_mm": "gap_mm",
        }.items()
    }
    settings["fitting"] = {
        old: fit[new]
        for old, new in {
            "schedule": "lr_schedule",
            "steps": "steps",
            "first_steps": "first_steps",
            "points": "points_per_step",
            "rate": "lr",
            "softness_mm": "softness_mm",
            "distance": "distance_weight",
            "fade_mm": "distance_falloff_mm",
            "far": "distance_floor",
            "band_mm": "distance_band_mm",
            "seed": "seed",
        }.items()
    }
    settings["healing"] = settings.pop("repair")
    settings["review"] = settings.pop("check_resolution")
    settings["worst_mm"] = settings.pop("max_error_mm")
    # Heads were not warped then.
    del settings["alignment"], content["warps"]
    description.write_text(json.dumps(content | {"version": 1}))
    # Small enough for a cube around the first one.
    ellipsoid((60, 60, 60)).export(tmp_path / "scans" / "b.ply")
    result = run(tmp_path, RELU)
    assert result.kept == ["a.ply"] and result.fitted == ["b.ply"]
    after = Store(tmp_path / "store")
    assert after.version == VERSION and torch.equal(after.read().weights[:1], before.weights)


def test_a_store_of_version_2_resumes_without_alignment(tmp_path):
    write(tmp_path / "scans", "a.ply")
    run(tmp_path, RELU)
    before = Store(tmp_path / "store").read()
    description = tmp_path / "store" / "store.json"
    content = json.loads(description.read_text()) | {"version": 2}
    del content["warps"], content["settings"]["alignment"]
    del content["field"]["activation"], content["settings"]["field"]["activation"]
    description.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="`align=warp`: .*store was made with none; use its settings"):
        run(tmp_path, dataclasses.replace(RELU, alignment=AlignmentConfig()))
    # What is refused stays as it is.
    assert json.loads(description.read_text()) == content
    ellipsoid((60, 60, 60)).export(tmp_path / "scans" / "b.ply")
    result = run(tmp_path, RELU)
    assert result.kept == ["a.ply"] and result.fitted == ["b.ply"]
    after = Store(tmp_path / "store")
    assert after.version == VERSION and torch.equal(after.read().parameters[:1], before.parameters)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """A store of one head in three sizes and places, aligned by similarity transforms."""
    folder = tmp_path_factory.mktemp("aligned")
    (folder / "scans").mkdir()
    for name, scale, height in (("a", 0.85, 20.0), ("b", 1.0, -50.0), ("c", 1.15, 0.0)):
        random_head(1, pose=Similarity(scale, translation=np.array([0.0, height, 10.0]))).export(
            folder / "scans" / f"{name}.ply"
        )
    config = dataclasses.replace(QUICK, alignment=AlignmentConfig(align="similarity"))
    assert run(folder, config).fitted == ["a.ply", "b.ply", "c.ply"]
    return folder, config


def test_heads_of_different_sizes_and_places_are_aligned_in_one_cube(aligned):
    folder, _ = aligned
    fits = Store(folder / "store").read()
    assert fits.space.warps == WarpSpace(CORNERS, cuts_neck=True)
    size = np.ptp(random_head(1).bounds, axis=0).max()
    # As small as for one of them: they have the same place in it.
    assert fits.space.cube.half == pytest.approx(size / 2 * (1 + QUICK.margin), rel=0.03)
    warps = [fits.head(index).warp for index in range(3)]
    corners = np.array(CORNERS)
    scales = [Similarity.between(corners, warp(corners)).scale for warp in warps]
    np.testing.assert_allclose(np.divide(scales, scales[1]), [0.85, 1, 1.15], atol=0.01)
    for name, warp in zip("abc", warps):
        assert warp.neck_height == pytest.approx(
            trimesh.load_mesh(folder / "scans" / f"{name}.ply").bounds[0, 1], abs=1e-3
        )


def test_scans_are_aligned_once_and_a_second_run_keeps_their_fits(aligned, monkeypatch):
    folder, config = aligned
    before = Store(folder / "store").read()
    monkeypatch.setattr("overfit.fit_scans.align", None)
    assert run(folder, config).kept == ["a.ply", "b.ply", "c.ply"]
    assert torch.equal(Store(folder / "store").read().parameters, before.parameters)


@pytest.mark.parametrize("kind, words", [("warp", "`align=warp`"), ("none", "`align=none`")])
def test_a_store_keeps_its_alignment(aligned, kind, words):
    folder, config = aligned
    other = dataclasses.replace(config, alignment=AlignmentConfig(align=kind))
    with pytest.raises(BadInput, match=f"{words}: .*store was made with similarity"):
        run(folder, other)


def test_a_store_with_the_control_points_of_another_template_is_not_continued(aligned, tmp_path):
    folder, config = aligned
    shutil.copytree(folder / "store", tmp_path / "store")
    description = tmp_path / "store" / "store.json"
    content = json.loads(description.read_text())
    content["warps"]["control_points"][0][1] += 0.5
    description.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="store: was made by an earlier version with another template; fit into a new"):
        overfit(folder / "scans", tmp_path / "store", config=config)
    # What it holds can be read nevertheless.
    assert len(Store(tmp_path / "store").read().records) == 3


def new_scan(name: str, *, ends_in_plane: bool = True, displacements: np.ndarray = np.zeros((8, 3))) -> NewScan:
    bounds = np.array([[-80.0, -120, -100], [80, 110, 90]])
    return NewScan(
        Scan(f"{name}.ply", Path(f"{name}.ply")), 230.0, ScanAlignment(displacements, bounds, -120.0, ends_in_plane)
    )


@pytest.mark.parametrize(
    "kind, planes, cuts_neck",
    [
        ("similarity", (True, True, False), True),
        ("similarity", (True, False, False), False),
        ("none", (True, True), False),
    ],
)
def test_necks_are_cut_if_most_heads_end_in_a_plane_and_heads_are_aligned(tmp_path, kind, planes, cuts_neck):
    new = [new_scan(str(index), ends_in_plane=plane) for index, plane in enumerate(planes)]
    store = _create(tmp_path, new, dataclasses.replace(QUICK, alignment=AlignmentConfig(align=kind)))
    assert store.space.warps.cuts_neck == cuts_neck
    assert store.space.cube.half == pytest.approx(115 * 1.05)


def test_a_warp_that_folds_is_smoothed_before_its_scan_is_fitted():
    displacements = np.zeros((8, 3))
    displacements[0] = 240.0
    space = HeadSpace(Field(hidden=(4,)), Cube((0.0, 0.0, 0.0), 120.0), WarpSpace(CORNERS, cuts_neck=True))
    nodes = np.random.default_rng(0).uniform(-120, 120, (2000, 3))
    assert Warp(space.warps, displacements).determinants(nodes).min() < 0
    folding = new_scan("a", displacements=displacements)
    row = AlignedScan.of(folding.scan, folding.alignment, space=space).warp
    warp = space.warps.warp(row)
    assert warp is not None and warp.determinants(nodes).min() > 0 and warp.neck_height == pytest.approx(-120)
    # What is stored is what the scan is fitted with: reading it smooths nothing more.
    assert warp.unfolded(space.cube) is warp


def test_the_store_must_be_a_folder_of_its_own(tmp_path):
    write(tmp_path / "scans", "a.ply")
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    for store, message in {
        tmp_path / "file": "a file where a store folder is expected",
        tmp_path / "full": "not a store, and not empty",
        tmp_path / "scans": "inside the folder of scans",
        tmp_path / "scans" / "store": "inside the folder of scans",
        tmp_path: "inside the store",
    }.items():
        with pytest.raises(BadInput, match=message):
            overfit(tmp_path / "scans", store, config=QUICK, machine=ONE_THREAD)
    assert not (tmp_path / "scans" / "store").exists()


def test_scans_may_be_in_the_folder_that_a_store_has_for_them(tmp_path):
    folder = prepared_folder(tmp_path / "store", QUICK)
    assert folder == tmp_path / "store" / PREPARED_FOLDER
    folder.mkdir(parents=True)
    write(folder, "a.ply")
    assert overfit(folder, tmp_path / "store", config=QUICK, machine=ONE_THREAD).fitted == ["a.ply"]
    assert prepared_folder(tmp_path / "store", QUICK) == folder


@pytest.mark.parametrize("max_mesh_bytes", [1 << 30, 0])
def test_each_file_is_read_once_or_twice_without_memory(tmp_path, monkeypatch, max_mesh_bytes):
    write(tmp_path / "scans", "b.ply", "c.ply")
    reads: list[str] = []

    def counted(scan: Scan, unit="auto"):
        if scan.prepared is None:
            reads.append(scan.name)
        return read_prepared(scan, unit)

    for module in ("fit_scans", "fit_batch"):
        monkeypatch.setattr(f"overfit.{module}.read_prepared", counted)
    monkeypatch.setattr("overfit.fit_scans.MAX_MESH_BYTES", max_mesh_bytes)
    run(tmp_path)
    # Without memory: the survey, the first fit, and each scan's batch.
    assert sorted(reads) == (["b.ply", "c.ply"] if max_mesh_bytes else ["b.ply"] * 3 + ["c.ply"] * 2)
    reads.clear()
    run(tmp_path)
    assert not reads


def test_scans_in_memory_are_fitted_as_their_files_are(tmp_path):
    write(tmp_path / "scans", "b.ply", "c.ply")
    run(tmp_path)
    scans = [dataclasses.replace(scan, prepared=read_prepared(scan)) for scan in find_scans(tmp_path / "scans")]
    for scan in scans:
        scan.path.unlink()
    # In any order.
    result = overfit(scans[::-1], tmp_path / "memory", config=QUICK, machine=ONE_THREAD, batch_size=2)
    assert result.fitted == ["b.ply", "c.ply"]
    one, other = (Store(tmp_path / name).read() for name in ("store", "memory"))
    assert one.records == other.records and torch.equal(one.weights, other.weights)


def test_the_survey_in_workers_finds_what_it_finds_alone(tmp_path, monkeypatch):
    write(tmp_path / "scans", "a.ply", "b.stl", "c.obj")
    (tmp_path / "scans" / "d.ply").write_text("ply")
    found = find_scans(tmp_path / "scans")
    monkeypatch.setitem(MIN_SCANS_PER_WORKER, "none", 1)
    alone, workers = (_survey(found, {}, QUICK, RunContext(cores=cores)) for cores in (1, 2))
    assert alone.skipped == workers.skipped and [one.name for one in alone.skipped] == ["d.ply"]
    for one, other in zip(alone.new, workers.new, strict=True):
        assert one.scan.name == other.scan.name and np.array_equal(one.alignment.bounds, other.alignment.bounds)
        ours, theirs = one.scan.prepared, other.scan.prepared
        assert ours is not None and theirs is not None and ours.digest == theirs.digest
        for name in ("vertices", "faces", "face_normals", "vertex_normals"):
            assert np.array_equal(getattr(ours.mesh, name), getattr(theirs.mesh, name))


def test_fits_made_by_workers_are_those_made_alone(tmp_path):
    write(tmp_path / "scans", "a.ply", "b.ply", "c.ply")
    for name, threads in (("alone", 1), ("workers", 2)):
        machine = Machine(device="cpu", threads=threads)
        overfit(tmp_path / "scans", tmp_path / name, config=QUICK, machine=machine, batch_size=2)
        torch.set_num_threads(1)
    one, other = (Store(tmp_path / name).read() for name in ("alone", "workers"))
    assert [record.name for record in one.records] == [record.name for record in other.records]
    torch.testing.assert_close(one.weights, other.weights, atol=1e-2, rtol=1e-2)


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="needs a fork server")
def test_kills_at_random_moments_leave_the_store_of_an_undisturbed_run(tmp_path):
    write(tmp_path / "scans", *(f"{index}.ply" for index in range(6)))
    options = {"machine": ONE_THREAD, "batch_size": 1}
    overfit(tmp_path / "scans", tmp_path / "undisturbed", config=QUICK, **options)
    context = multiprocessing.get_context("forkserver")
    # Workers that start with the modules loaded: a moment is spent on work, not on imports.
    context.set_forkserver_preload(["overfit"])
    arguments = (tmp_path / "scans", tmp_path / "store")
    options["config"] = QUICK
    killed = 0
    for moment in np.random.default_rng(0).uniform(0.0, 0.8, 20):
        process = context.Process(target=overfit, args=arguments, kwargs=options)
        process.start()
        process.join(moment)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if (tmp_path / "store" / "store.json").exists():
            Store(tmp_path / "store").records()  # Raises if a file is half-written.
    assert killed > 5
    overfit(*arguments, **options)
    assert not list((tmp_path / "store").rglob("*.part"))
    kept, undisturbed = (Store(tmp_path / name).read() for name in ("store", "undisturbed"))
    assert kept.records == undisturbed.records
    assert torch.equal(kept.weights, undisturbed.weights)
