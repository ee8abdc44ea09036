"""Folders of decoded stores: meshes under the scans' names, which follow their store."""

import csv

import pytest
import torch
import trimesh
from support import ONE_THREAD

from overfit.decode_fits import decode_store
from overfit.decoder import DecodeConfig, decode
from overfit.field import Field
from overfit.geometry.bounding_cube import Cube
from overfit.neural_head import HeadSpace
from overfit.store import FitRecord, Store

FIELD = Field(octaves=2, hidden=(16,))
CONFIG = DecodeConfig(resolution=24)


@pytest.fixture
def store(tmp_path) -> Store:
    return make_store(tmp_path / "store", "a.ply", "part/b.ply", "c.obj")


def make_store(folder, *names: str) -> Store:
    store = Store.create(folder, space=HeadSpace(FIELD, Cube((0.0, 0.0, 0.0), 100.0)), settings={})
    weights = torch.stack([FIELD.initial(torch.Generator().manual_seed(seed)) for seed in range(len(names))])
    store.add(0, weights, [FitRecord(name, name, 1.0, 0.1, 0.1, 1) for name in names])
    store.merge()
    return store


def files(out) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def run(store: Store, out, **options):
    return decode_store(store.folder, out, config=CONFIG, machine=ONE_THREAD, **options)


def test_meshes_are_those_of_the_fits_under_names_that_do_not_depend_on_each_other(store, tmp_path):
    result = run(store, tmp_path / "out")
    assert files(tmp_path / "out") == {"a.ply", "part/b.ply", "c.obj.ply", "decoded.csv"}
    assert [head.name for head in result.heads] == ["a", "c.obj", "part/b"] and not result.removed
    mesh = trimesh.load_mesh(tmp_path / "out" / "a.ply")
    assert len(mesh.faces) == len(decode(store.read().head(0), CONFIG).faces)
    with open(tmp_path / "out" / "decoded.csv", newline="") as file:
        assert {row["scan"]: row["file"] for row in csv.DictReader(file)} == {
            "a.ply": "a.ply",
            "part/b.ply": "part/b.ply",
            "c.obj": "c.obj.ply",
        }


def test_meshes_of_scans_that_left_the_store_are_removed_in_every_format(store, tmp_path):
    out = tmp_path / "out"
    run(store, out)
    run(store, out, mesh_format="stl")
    (out / "mine.ply").write_text("not ours")
    store.remove({"a.ply", "part/b.ply"})
    assert run(store, out, mesh_format="stl").removed == ["a.ply", "part/b.ply"]
    assert files(out) == {"c.obj.ply", "c.obj.stl", "mine.ply", "decoded.csv"}


def test_meshes_of_other_stores_are_left_alone(store, tmp_path):
    out = tmp_path / "out"
    run(store, out)
    other = make_store(tmp_path / "other", "d.ply")
    assert not run(other, out).removed
    store.remove({"a.ply"})
    assert run(store, out).removed == ["a.ply"]
    assert files(out) == {"part/b.ply", "c.obj.ply", "d.ply", "decoded.csv"}


def test_a_table_never_leads_out_of_its_folder(store, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious.ply").write_text("precious")
    (out / "decoded.csv").write_text(f"file,scan,store\n../precious.ply,gone.ply,{store.folder}\n")
    assert run(store, out).removed == ["gone.ply"]
    assert (tmp_path / "precious.ply").exists()


@pytest.mark.parametrize("content", ["", "something,else\n1,2\n", "file,scan,store\na,b,c,d,e\n"])
def test_a_table_that_is_not_ours_is_written_anew(store, tmp_path, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "decoded.csv").write_text(content)
    assert not run(store, out).removed
    assert (out / "decoded.csv").read_text().count("a.ply") == 2
