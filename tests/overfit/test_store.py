"""The store: what goes in comes out, whole or not at all, and to one run at a time."""

import csv
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import overfit.store as store_module
from overfit import BadInput, Cube, Field, NeuralHead, OverfitConfig, Skipped, Store
from overfit.canonical.align import CORNERS
from overfit.canonical.warp import WarpSpace
from overfit.neural_head import HeadSpace
from overfit.runtime.tensor_file import write_tensor_file
from overfit.store import LOCK_FILE, VERSION, FitRecord

FIELD, CUBE = Field(hidden=(4,)), Cube((1.0, 2.0, 3.0), 100.0)
SPACE = HeadSpace(FIELD, CUBE)
# The settings of a store of version 1, with the names that they had.
SETTINGS_V1 = {
    "unit": "cm",
    "margin": 0.1,
    "field": {"coordinates": 3, "octaves": 4, "hidden": [4], "box": 1.0, "frequency": 1.5},
    "sampling": {
        "labels": "winding",
        "near": 11,
        "near_mm": 2.5,
        "near_share": 0.5,
        "wide": 12,
        "wide_mm": 9.0,
        "uniform": 13,
        "face": 0.5,
        "detail": 0.25,
        "gap_mm": 0.75,
    },
    "fitting": {
        "schedule": "plateau",
        "steps": 300,
        "first_steps": 900,
        "points": 512,
        "rate": 0.01,
        "softness_mm": 1.5,
        "distance": 0.5,
        "fade_mm": 4.0,
        "far": 0.25,
        "band_mm": 15.0,
        "seed": 3,
    },
    "healing": False,
    "review": 128,
    "worst_mm": 3.0,
}


def record(name: str, digest: str = "d") -> FitRecord:
    return FitRecord(name, digest, iou=0.9, error_mm=0.1, p95_mm=0.3, components=1)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "store", space=SPACE, settings={"unit": "auto"})


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, FIELD.size, generator=torch.Generator().manual_seed(seed))


def test_fits_come_back_by_name_before_and_after_merging(store):
    weights = rows(3)
    store.add(1, weights[:2], [record("c"), record("a")])
    store.add(0, weights[2:], [record("b")])
    for _ in range(2):
        fits = Store(store.folder).read()
        assert fits.space == SPACE
        assert [one.name for one in fits.records] == ["a", "b", "c"]
        assert torch.equal(fits.weights, weights[[1, 2, 0]])
        store.merge()
    assert not list((store.folder / "shards").iterdir())


def test_a_fit_comes_with_its_field_and_cube(store):
    store.add(0, rows(2), [record("a"), record("b")])
    head = store.read().head(1)
    assert isinstance(head, NeuralHead) and (head.field, head.cube) == (FIELD, CUBE)
    assert torch.equal(head.weights, rows(2)[1])


def test_warps_are_stored_with_their_networks(tmp_path):
    space = HeadSpace(FIELD, CUBE, WarpSpace(CORNERS, cuts_neck=True))
    displacements = np.random.default_rng(0).normal(scale=5, size=(8, 3))
    parameters = torch.cat([space.warps.parameters(displacements, -110.0), rows(1)[0]])[None]
    store = Store.create(tmp_path / "warped", space=space, settings={})
    store.add(0, parameters, [record("a")])
    for _ in range(2):
        fits = Store(store.folder).read()
        assert fits.space == space and torch.equal(fits.parameters, parameters) and torch.equal(fits.weights, rows(1))
        head = fits.head(0)
        assert head.warp is not None and head.warp.neck_height == pytest.approx(-110)
        np.testing.assert_allclose(head.warp.displacements, displacements, atol=1e-4)
        store.merge()


def test_a_newer_fit_of_a_scan_replaces_the_older(store):
    store.add(0, rows(1), [record("a", "old")])
    store.merge()
    store.add(0, rows(1, seed=1), [record("a", "new")])
    fits = store.read()
    assert [one.digest for one in fits.records] == ["new"]
    assert torch.equal(fits.weights, rows(1, seed=1))


def test_the_first_fit_comes_back(store):
    assert store.base is None
    store.save_base(rows(1)[0], scan="a")
    assert torch.equal(store.base, rows(1)[0])


def test_removed_fits_are_gone_from_every_file_and_others_can_follow(store, monkeypatch):
    monkeypatch.setattr("overfit.store.SCANS_PER_FILE", 2)
    weights = rows(5)
    records = [record(name, f"digest of {name}") for name in "abcde"]
    store.add(0, weights[:2], records[:2])
    store.add(1, weights[2:4], records[2:4])
    store.merge()
    store.add(2, weights[4:], records[4:])
    store.remove({"a", "b", "d"})
    fits = store.read()
    assert [one.name for one in fits.records] == ["c", "e"] and torch.equal(fits.weights, weights[[2, 4]])
    content = b"".join(path.read_bytes() for path in store.folder.rglob("*.safetensors"))
    assert weights[2].numpy().tobytes() in content
    assert not any(weights[gone].numpy().tobytes() in content for gone in (0, 1, 3))
    assert store.withdrawn() == {"digest of a", "digest of b", "digest of d"}
    store.add(0, rows(1, seed=1), [record("f", "digest of a")])
    store.merge()
    assert store.withdrawn() == {"digest of b", "digest of d"}
    assert [one.name for one in store.read().records] == ["c", "e", "f"]


def test_the_mean_of_the_others_replaces_the_first_fit_of_a_removed_scan(store):
    weights = rows(3)
    store.add(0, weights, [record("a"), record("b"), record("c")])
    store.save_base(weights[0], scan="a")
    store.remove({"b"})
    assert torch.equal(store.base, weights[0])
    store.remove({"a"})
    assert torch.equal(store.base, weights[2])
    store.save_base(weights[2], scan="c")
    store.remove({"c"})
    assert store.base is None and not store.records()


def test_a_kill_while_fits_are_removed_leaves_the_rest_to_the_next_call(store, monkeypatch):
    weights = rows(4)
    store.add(0, weights, [record(name) for name in "abcd"])
    store.save_base(weights[0], scan="a")
    write = store_module._write

    def killed(path, *rest):
        if path.name == "weights.safetensors" and len(rest[0]) < 4:
            raise KeyboardInterrupt
        write(path, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store_module, "_write", killed)
        store.remove({"a"})
    store.remove({"a"})
    assert sorted(store.records()) == ["b", "c", "d"]
    torch.testing.assert_close(store.base, weights[1:].mean(0))


def test_a_kill_between_merging_and_deleting_leaves_the_same_fits(store, monkeypatch):
    store.add(0, rows(2), [record("a"), record("b")])
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        store.merge()
    assert torch.equal(store.read().weights, rows(2))


def test_an_unfinished_file_does_not_count(store):
    store.add(0, rows(1), [record("a")])
    (store.folder / "shards" / ".000001.safetensors.7.part").write_bytes(b"half")
    assert list(store.records()) == ["a"]


def test_many_fits_are_in_several_files_and_are_read_in_their_order(store, monkeypatch):
    monkeypatch.setattr("overfit.store.SCANS_PER_FILE", 4)
    weights = rows(11)
    for start in range(0, 11, 3):
        names = [f"{index:02d}" for index in range(start, min(start + 3, 11))]
        store.add(start, weights[start : start + 3], list(map(record, names)))
        if start == 3:
            store.merge()
    store.merge()
    assert len(list(store.folder.glob("weights*.safetensors"))) > 1
    assert torch.equal(store.read().weights, weights)
    on_disk = store.rows()
    assert len(on_disk) == 11 and [one.name for one in on_disk.records] == [f"{index:02d}" for index in range(11)]
    assert torch.equal(on_disk[torch.tensor([9, 0, 9])], weights[[9, 0, 9]])
    store.add(0, rows(1, seed=5), [record("02")])
    store.merge()
    assert torch.equal(store.read().weights[2], rows(1, seed=5)[0])


def test_damaged_files_are_named(store):
    store.add(0, rows(1), [record("a")])
    path = store.folder / "shards" / "000000.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BadInput, match="000000.safetensors: not a complete safetensors file"):
        store.read()
    for content in ("{", "[]", '{"version": 2}', '{"version": "2"}'):
        (store.folder / "store.json").write_text(content)
        with pytest.raises(BadInput, match="store.json: damaged"):
            Store(store.folder)


def test_networks_of_another_field_are_refused(store):
    other = Store.create(store.folder.parent / "other", space=HeadSpace(Field(hidden=(5,)), CUBE), settings={})
    other.add(0, torch.zeros(1, other.space.size), [record("a")])
    (store.folder / "shards").mkdir()
    (other.folder / "shards" / "000000.safetensors").rename(store.folder / "shards" / "000000.safetensors")
    with pytest.raises(BadInput, match="holds other networks than the store's"):
        store.read()


def test_weights_that_are_not_finite_are_refused_with_their_scan(store):
    store.add(0, torch.stack([rows(1)[0], torch.full((FIELD.size,), torch.nan)]), [record("a"), record("b")])
    on_disk = store.rows()
    assert torch.equal(on_disk[[0]], rows(1))
    with pytest.raises(BadInput, match="the weights of b are not finite"):
        on_disk[[0, 1]]


def test_what_is_no_store_is_refused(store, tmp_path):
    with pytest.raises(BadInput, match=f"{tmp_path}: not a store"):
        Store(tmp_path)
    with pytest.raises(BadInput, match="no fits in it"):
        store.read()
    content = json.loads((store.folder / "store.json").read_text()) | {"version": 99}
    (store.folder / "store.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match="newer version"):
        Store(store.folder)


def test_a_file_where_a_store_is_expected_is_called_a_file(tmp_path):
    """As when a checkpoint and a store are swapped."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="model.safetensors: a file where a store folder is expected"):
        Store(tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match="a file where a store folder"), Store.locked(tmp_path / "model.safetensors"):
        pass


def test_a_store_of_version_1_is_read_under_todays_names(tmp_path):
    content = {
        "version": 1,
        "field": SETTINGS_V1["field"],
        "cube": {"centre": [0, 0, 0], "half": 9.0},
        "settings": SETTINGS_V1,
    }
    (tmp_path / "store.json").write_text(json.dumps(content))
    old_record = {"name": "a", "digest": "d", "iou": 0.9, "error_mm": 0.1, "p95_mm": 0.3, "bodies": 2}
    write_tensor_file(tmp_path / "weights.safetensors", {"weights": rows(1)}, {"records": [old_record]})
    store = Store(tmp_path)
    assert store.read().records == [FitRecord("a", "d", 0.9, 0.1, 0.3, components=2)]
    labels, fit = store.settings["labels"], store.settings["fit"]
    assert (labels["sign_method"], labels["near_points"], labels["near_sigma_mm"]) == ("winding-number", 11, 2.5)
    assert (labels["near_sigma_share"], labels["band_points"], labels["band_sigma_mm"]) == (0.5, 12, 9.0)
    assert (labels["uniform_points"], labels["face_share"], labels["detail_share"]) == (13, 0.5, 0.25)
    assert (fit["lr_schedule"], fit["points_per_step"], fit["lr"], fit["seed"]) == ("plateau", 512, 0.01, 3)
    assert (fit["distance_weight"], fit["distance_falloff_mm"]) == (0.5, 4.0)
    assert (fit["distance_floor"], fit["distance_band_mm"]) == (0.25, 15.0)
    assert (store.settings["repair"], store.settings["check_resolution"]) == (False, 128)
    assert store.settings["max_error_mm"] == 3.0

    def names(settings: dict) -> dict:
        return {name: names(value) if isinstance(value, dict) else None for name, value in settings.items()}

    fresh = Store.create(tmp_path / "new", space=SPACE, settings=dataclasses.asdict(OverfitConfig()))
    assert names(store.settings) == names(fresh.settings)
    # Reading leaves the store as it is.
    assert json.loads((tmp_path / "store.json").read_text()) == content
    store.upgrade()
    assert json.loads((tmp_path / "store.json").read_text())["version"] == VERSION
    again = Store(tmp_path)
    assert again.settings == store.settings and again.read().records == store.read().records


def test_a_store_of_version_2_is_read_as_one_of_relu_networks_and_heads_that_are_not_warped(tmp_path):
    settings = dataclasses.asdict(OverfitConfig())
    field = dataclasses.asdict(FIELD)
    del settings["alignment"], settings["field"]["activation"], field["activation"]
    content = {
        "version": 2,
        "field": field,
        "cube": dataclasses.asdict(CUBE),
        "settings": settings,
    }
    (tmp_path / "store.json").write_text(json.dumps(content))
    own = {"records": [dataclasses.asdict(record("a"))]}
    write_tensor_file(tmp_path / "weights.safetensors", {"weights": rows(1)}, own)
    store = Store(tmp_path)
    assert store.space == HeadSpace(Field(hidden=(4,), activation="relu"), CUBE)
    assert (store.settings["alignment"]["align"], store.settings["field"]["activation"]) == ("none", "relu")
    fits = store.read()
    assert torch.equal(fits.parameters, rows(1)) and fits.head(0).warp is None
    store.add(1, rows(1, seed=1), [record("b")])
    store.upgrade()
    store.merge()
    again = Store(tmp_path)
    assert again.version == VERSION == 4 and (again.space, again.settings) == (store.space, store.settings)
    assert torch.equal(again.read().parameters, torch.cat([rows(1), rows(1, seed=1)]))


def test_a_store_of_version_3_is_refused_if_its_warps_are_splines(tmp_path):
    space = HeadSpace(FIELD, CUBE, WarpSpace(((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))))
    Store.create(tmp_path, space=space, settings=dataclasses.asdict(OverfitConfig()))
    content = json.loads((tmp_path / "store.json").read_text())
    (tmp_path / "store.json").write_text(json.dumps(content | {"version": 3}))
    with pytest.raises(BadInput, match="splines, which are no longer read; fit the scans into a new folder"):
        Store(tmp_path)


def test_a_second_run_is_kept_out(store):
    with Store.locked(store.folder), pytest.raises(BadInput, match="another run"), Store.locked(store.folder):
        pass
    with Store.locked(store.folder):
        pass


def test_a_killed_run_holds_nothing(store):
    script = "import sys, time, pathlib, overfit\nwith overfit.Store.locked(pathlib.Path(sys.argv[1])):\n"
    script += "    print('held', flush=True)\n    time.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", script, store.folder], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(BadInput, match="another run"), Store.locked(store.folder):
            pass
        holder.kill()
    with Store.locked(store.folder):
        pass


def test_what_a_killed_run_left_half_written_is_removed(store):
    half = store.folder / ".store.json.7.part"
    half.write_text("{")
    with Store.locked(store.folder):
        assert not half.exists()


def test_a_folder_in_which_nothing_was_made_is_removed(tmp_path):
    folder = tmp_path / "a" / "new"
    with Store.locked(folder):
        assert folder.is_dir()
    assert not folder.exists()
    # A killed run leaves its lock file behind.
    folder.mkdir()
    (folder / LOCK_FILE).touch()
    with Store.locked(folder):
        pass
    assert not folder.exists()


def test_the_report_lists_fits_and_skipped_scans(store):
    store.add(0, rows(1), [record("a")])
    store.report([Skipped("bad", "bad: no triangles")])
    with open(store.folder / "scans.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["name"], row["error_mm"], row["skipped"]) for row in table] == [
        ("a", "0.1", ""),
        ("bad", "", "bad: no triangles"),
    ]
