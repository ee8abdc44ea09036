"""The store: what goes in comes out, whole or not at all, and to one run at a time."""

import csv
import json

import pytest
import torch

from overfit import BadInput, Cube, Field, Store
from overfit.store import Record

FIELD, CUBE = Field(hidden=(4,)), Cube((1.0, 2.0, 3.0), 100.0)


def record(name: str, digest: str = "d") -> Record:
    return Record(name, digest, iou=0.9, error_mm=0.1, p95_mm=0.3, bodies=1)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "store", FIELD, CUBE, {"unit": "auto"})


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, FIELD.size, generator=torch.Generator().manual_seed(seed))


def test_fits_come_back_by_name_before_and_after_merging(store):
    weights = rows(3)
    store.add(1, weights[:2], [record("c"), record("a")])
    store.add(0, weights[2:], [record("b")])
    for _ in range(2):
        fits = Store(store.folder).read()
        assert fits.field == FIELD and fits.cube == CUBE
        assert [one.name for one in fits.records] == ["a", "b", "c"]
        assert torch.equal(fits.weights, weights[[1, 2, 0]])
        store.merge()
    assert not list((store.folder / "shards").iterdir())


def test_a_newer_fit_of_a_scan_replaces_the_older(store):
    store.add(0, rows(1), [record("a", "old")])
    store.merge()
    store.add(0, rows(1, seed=1), [record("a", "new")])
    fits = store.read()
    assert [one.digest for one in fits.records] == ["new"]
    assert torch.equal(fits.weights, rows(1, seed=1))


def test_a_kill_between_merging_and_deleting_leaves_the_same_fits(store, monkeypatch):
    store.add(0, rows(2), [record("a"), record("b")])
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
    store.merge()
    assert torch.equal(store.read().weights, rows(2))


def test_an_unfinished_file_does_not_count(store):
    store.add(0, rows(1), [record("a")])
    (store.folder / "shards" / ".000001.safetensors.7.part").write_bytes(b"half")
    assert list(store.records()) == ["a"]


def test_damage_is_told_with_its_file(store):
    store.add(0, rows(1), [record("a")])
    path = store.folder / "shards" / "000000.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BadInput, match="000000.safetensors: damaged"):
        store.read()
    (store.folder / "store.json").write_text("{")
    with pytest.raises(BadInput, match="store.json: damaged"):
        Store(store.folder)


def test_many_fits_lie_in_several_files_and_are_read_in_their_order(store, monkeypatch):
    monkeypatch.setattr("overfit.store.PART", 4)
    weights = rows(11)
    for start in range(0, 11, 3):
        names = [f"{index:02d}" for index in range(start, min(start + 3, 11))]
        store.add(start, weights[start:start + 3], list(map(record, names)))
        if start == 3:
            store.merge()
    store.merge()
    assert len(list(store.folder.glob("weights*.safetensors"))) > 1
    assert torch.equal(store.read().weights, weights)
    left = store.rows()
    assert len(left) == 11 and [one.name for one in left.records] == [f"{index:02d}" for index in range(11)]
    assert torch.equal(left[torch.tensor([9, 0, 9])], weights[[9, 0, 9]])
    store.add(0, rows(1, seed=5), [record("02")])
    store.merge()
    assert torch.equal(store.read().weights[2], rows(1, seed=5)[0])


def test_networks_of_another_kind_in_a_store_are_told(store):
    other = Store.create(store.folder.parent / "other", Field(hidden=(5,)), CUBE, {})
    other.add(0, torch.zeros(1, other.field.size), [record("a")])
    (store.folder / "shards").mkdir()
    (other.folder / "shards" / "000000.safetensors").rename(store.folder / "shards" / "000000.safetensors")
    with pytest.raises(BadInput, match="another kind"):
        store.read()


def test_what_is_no_store_a_newer_one_or_an_empty_one_is_told(store, tmp_path):
    with pytest.raises(BadInput, match="no store"):
        Store(tmp_path)
    with pytest.raises(BadInput, match="no fits in it"):
        store.read()
    about = json.loads((store.folder / "store.json").read_text()) | {"version": 99}
    (store.folder / "store.json").write_text(json.dumps(about))
    with pytest.raises(BadInput, match="newer version"):
        Store(store.folder)


def test_a_second_run_is_kept_out(store):
    with Store.locked(store.folder), pytest.raises(BadInput, match="another run"), Store.locked(store.folder):
        pass
    with Store.locked(store.folder):
        pass


def test_what_a_killed_run_left_half_written_is_swept(store):
    half = store.folder / ".store.json.7.part"
    half.write_text("{")
    with Store.locked(store.folder):
        assert not half.exists()


def test_a_folder_in_which_nothing_was_made_is_removed(tmp_path):
    with Store.locked(tmp_path / "a" / "new"):
        assert (tmp_path / "a" / "new").is_dir()
    assert not (tmp_path / "a" / "new").exists()


def test_the_report_lists_fits_and_what_was_set_aside(store):
    store.add(0, rows(1), [record("a")])
    store.report({"bad": "bad: no triangles"})
    with open(store.folder / "scans.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["name"], row["error_mm"], row["set_aside"]) for row in table] == [
        ("a", "0.1", ""), ("bad", "", "bad: no triangles")]
