"""Reading scans: every format gives the same surface, every unit the same size, every broken file one line."""

import numpy as np
import pytest
import trimesh
from conftest import ellipsoid

from overfit import BadInput
from overfit.scans import FORMATS, Scan, find, output_names, read


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_closed_surface(tmp_path, suffix):
    mesh = ellipsoid((70, 110, 90))
    mesh.export(tmp_path / f"head{suffix}")
    scan, = find(tmp_path)
    got = read(scan)
    assert got.is_watertight
    assert got.volume == pytest.approx(mesh.volume, rel=1e-4)


@pytest.mark.parametrize("unit, factor", [("mm", 1), ("cm", 0.1), ("m", 0.001)])
@pytest.mark.parametrize("told", [True, False])
def test_the_unit_is_told_or_found_from_the_size_of_a_head(tmp_path, unit, factor, told):
    ellipsoid(np.array([70, 110, 90]) * factor).export(tmp_path / "head.ply")
    mesh = read(find(tmp_path)[0], unit if told else "auto")
    np.testing.assert_allclose(np.ptp(mesh.bounds, axis=0), [140, 220, 180], rtol=1e-3)


def test_finds_scans_in_subfolders_by_name(tmp_path):
    (tmp_path / "b c" / "ü").mkdir(parents=True)
    for name in ("z.ply", "b c/ü/a.OBJ", "note.txt"):
        (tmp_path / name).write_text("")
    assert [scan.name for scan in find(tmp_path)] == ["b c/ü/a.OBJ", "z.ply"]


@pytest.mark.parametrize("vertices, faces, words", [
    ([[0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200]], [[0, 1, 2], [0, 2, 3]], "only 2 triangles"),
    ([[np.nan] * 3] * 3, [[0, 1, 2]] * 200, "not finite"),
    (np.zeros((0, 3)), np.zeros((0, 3), int), "no triangles|cannot be read"),
    (np.eye(3) * 1e5, [[0, 1, 2]] * 200, "no human head"),
])
def test_what_holds_no_head_is_told_in_one_line(tmp_path, vertices, faces, words):
    trimesh.Trimesh(vertices, faces, process=False).export(tmp_path / "bad.ply")
    with pytest.raises(BadInput, match=words) as caught:
        read(Scan("bad.ply", tmp_path / "bad.ply"))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("bad.ply: ")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"", b"this is no mesh\n", bytes(range(256)) * 4])
def test_a_file_that_is_no_mesh_is_told_in_one_line(tmp_path, suffix, content):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read(Scan(path.name, path))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(path.name)


def test_indices_that_name_no_vertex_are_told(tmp_path):
    path = tmp_path / "bad.obj"
    path.write_text("v 0 0 0\nv 100 0 0\nv 0 100 0\n" + "f 1 2 9\n" * 200)
    with pytest.raises(BadInput):
        read(Scan(path.name, path))


def test_a_folder_without_scans_is_told(tmp_path):
    with pytest.raises(BadInput, match="no scans in it"):
        find(tmp_path)
    with pytest.raises(BadInput, match="no such folder"):
        find(tmp_path / "missing")


def test_scans_of_one_stem_keep_their_suffix_in_outputs():
    assert list(output_names(["a.ply", "b/c.ply", "b/c.obj"])) == ["a", "b/c.ply", "b/c.obj"]
