"""Every format gives the same surface, every unit the same size, and every broken file one line."""

import hashlib
import json
import os
import pickle

import numpy as np
import pytest
import trimesh
from support import ellipsoid

from overfit.geometry.mesh import SEEN, seen_share
from overfit.runtime.errors import BadInput
from overfit.scans.formats import (
    MESH_FORMATS,
    Scan,
    find_raw_scans,
    find_scans,
    load_raw,
    output_names,
    parse_prepared,
    read_digest,
    read_prepared,
)
from overfit.scans.units import unit_of_head


@pytest.mark.parametrize("suffix", MESH_FORMATS)
def test_every_format_gives_the_same_closed_surface(tmp_path, suffix):
    mesh = ellipsoid((70, 110, 90))
    mesh.export(tmp_path / f"head{suffix}")
    (scan,) = find_scans(tmp_path)
    read = read_prepared(scan).mesh
    assert read.is_watertight
    assert read.volume == pytest.approx(mesh.volume, rel=1e-4)


def test_what_is_invented_of_a_completed_head_is_known_when_it_is_read(tmp_path):
    mesh = ellipsoid((70, 110, 90), 4)
    corners = mesh.triangles.reshape(-1, 3)
    # Every corner of its own, as they are merged.
    apart = trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3), process=False)
    apart.vertex_attributes[SEEN] = (corners[:, 2] > 0).astype(np.uint8)
    apart.export(tmp_path / "head.ply")
    (scan,) = find_scans(tmp_path)
    read = read_prepared(scan).mesh
    assert len(read.vertices) == len(mesh.vertices)
    for one in (read, read.copy(include_cache=True)):
        assert seen_share(one) == pytest.approx(0.5, abs=0.05)
        assert (np.asarray(one.vertex_attributes[SEEN], bool) == (one.vertices[:, 2] > 0)).all()


@pytest.mark.parametrize("suffix", MESH_FORMATS)
def test_reading_from_bytes_gives_what_reading_from_the_path_gives(tmp_path, suffix):
    path = tmp_path / f"head{suffix}"
    ellipsoid((70, 110, 90)).export(path)
    loaded = trimesh.load(path, process=False)
    loaded = loaded.to_mesh() if isinstance(loaded, trimesh.Scene) else loaded
    raw = load_raw(Scan(path.name, path))
    np.testing.assert_array_equal(raw.surface.vertices, loaded.vertices)
    np.testing.assert_array_equal(raw.surface.faces, loaded.faces)
    assert raw.digest == hashlib.sha256(path.read_bytes()).hexdigest() == read_digest(Scan(path.name, path))


def test_files_that_a_scan_refers_to_are_read_from_beside_it(tmp_path):
    mesh = ellipsoid((70, 110, 90))
    for name, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(mesh)).items():
        (tmp_path / name).write_bytes(data)
    scans = {scan.name: scan for scan in find_raw_scans(tmp_path)}
    assert load_raw(scans["model.gltf"]).surface.volume == pytest.approx(mesh.volume, rel=1e-4)


def test_names_of_files_beside_a_gltf_are_decoded(tmp_path):
    mesh = ellipsoid((70, 110, 90))
    files = trimesh.exchange.gltf.export_gltf(trimesh.Scene(mesh))
    content = json.loads(files.pop("model.gltf"))
    for buffer in content["buffers"]:
        (tmp_path / f"my {buffer['uri']}").write_bytes(files[buffer["uri"]])
        buffer["uri"] = f"my%20{buffer['uri']}"
    (tmp_path / "head.gltf").write_text(json.dumps(content))
    (scan,) = find_raw_scans(tmp_path)
    assert load_raw(scan).surface.volume == pytest.approx(mesh.volume, rel=1e-4)


@pytest.mark.parametrize(
    "extension, name", [("KHR_draco_mesh_compression", "Draco"), ("EXT_meshopt_compression", "meshopt")]
)
def test_compressed_gltf_is_refused_by_its_compression(tmp_path, extension, name):
    files = trimesh.exchange.gltf.export_gltf(trimesh.Scene(ellipsoid((70, 110, 90))))
    content = json.loads(files["model.gltf"]) | {"extensionsRequired": [extension]}
    (tmp_path / "head.gltf").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=f"^head.gltf: compressed by {name}; export it without compression"):
        load_raw(Scan("head.gltf", tmp_path / "head.gltf"))


def test_points_of_a_glb_are_a_cloud(tmp_path):
    points = np.asarray(ellipsoid((70, 110, 90), 3).vertices)
    trimesh.Scene(trimesh.PointCloud(points)).export(tmp_path / "head.glb")
    cloud = load_raw(Scan("head.glb", tmp_path / "head.glb")).surface
    np.testing.assert_allclose(cloud.points, points, atol=1e-4)


def test_hidden_files_are_no_scans(tmp_path):
    (tmp_path / "__MACOSX").mkdir()
    for name in ("a.ply", "._a.ply", "__MACOSX/a.ply", ".trash.obj"):
        (tmp_path / name).write_text("")
    assert [scan.name for scan in find_scans(tmp_path)] == [scan.name for scan in find_raw_scans(tmp_path)] == ["a.ply"]


@pytest.mark.parametrize(
    "extent, unit",
    [(240, "mm"), (24, "cm"), (0.24, "m"), (9.6, "in"), (0.8, "ft"), (15, "cm"), (450, "mm"), (100, "mm"), (3.2, None)],
)
def test_the_unit_in_which_an_extent_is_a_heads(extent, unit):
    assert unit_of_head(extent) == unit


@pytest.mark.parametrize("unit, factor", [("mm", 1), ("cm", 0.1), ("m", 0.001)])
@pytest.mark.parametrize("given", ["as an argument", "with the scan", "not at all"])
def test_the_unit_is_given_or_found_from_the_size_of_a_head(tmp_path, unit, factor, given):
    path = tmp_path / "head.ply"
    ellipsoid(np.array([70, 110, 90]) * factor).export(path)
    scan = Scan(path.name, path, unit=unit if given == "with the scan" else None)
    mesh = read_prepared(scan, unit if given == "as an argument" else "auto").mesh
    np.testing.assert_allclose(np.ptp(mesh.bounds, axis=0), [140, 220, 180], rtol=1e-3)


def test_a_scan_in_memory_is_not_read_again(tmp_path):
    path = tmp_path / "head.ply"
    ellipsoid((70, 110, 90)).export(path)
    prepared = parse_prepared(Scan(path.name, path), path.read_bytes())
    path.unlink()
    scan = pickle.loads(pickle.dumps(Scan(path.name, path, prepared=prepared)))
    np.testing.assert_array_equal(read_prepared(scan).mesh.vertices, prepared.mesh.vertices)
    assert read_digest(scan) == prepared.digest


def test_scans_in_subfolders_are_found_by_name(tmp_path):
    (tmp_path / "b c" / "ü").mkdir(parents=True)
    for name in ("z.ply", "b c/ü/a.OBJ", "note.txt"):
        (tmp_path / name).write_text("")
    assert [scan.name for scan in find_scans(tmp_path)] == ["b c/ü/a.OBJ", "z.ply"]


@pytest.mark.parametrize(
    "vertices, faces, words",
    [
        ([[0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200]], [[0, 1, 2], [0, 2, 3]], "only 2 triangles"),
        ([[np.nan] * 3] * 3, [[0, 1, 2]] * 200, "not finite"),
        (np.zeros((0, 3)), np.zeros((0, 3), int), "no triangles|cannot be read"),
        (np.eye(3) * 1e5, [[0, 1, 2]] * 200, "no human head"),
    ],
)
def test_a_file_without_a_head_is_refused_in_one_line(tmp_path, vertices, faces, words):
    trimesh.Trimesh(vertices, faces, process=False).export(tmp_path / "bad.ply")
    with pytest.raises(BadInput, match=words) as caught:
        read_prepared(Scan("below/bad.ply", tmp_path / "bad.ply"))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("below/bad.ply: ")


@pytest.mark.parametrize("suffix", MESH_FORMATS)
@pytest.mark.parametrize("content", [b"", b"this is no mesh\n", bytes(range(256)) * 4])
def test_a_file_that_is_no_mesh_is_refused_in_one_line(tmp_path, suffix, content):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    for read in (read_prepared, load_raw):
        with pytest.raises(BadInput) as caught:
            read(Scan(path.name, path))
        assert "\n" not in str(caught.value) and str(caught.value).startswith(path.name)


def test_a_missing_file_is_refused(tmp_path):
    for read in (read_prepared, load_raw):
        with pytest.raises(BadInput, match="gone.ply: cannot be read .No such file"):
            read(Scan("gone.ply", tmp_path / "gone.ply"))


def test_indices_without_a_vertex_are_refused(tmp_path):
    path = tmp_path / "bad.obj"
    path.write_text("v 0 0 0\nv 100 0 0\nv 0 100 0\n" + "f 1 2 9\n" * 200)
    with pytest.raises(BadInput):
        read_prepared(Scan(path.name, path))


@pytest.mark.parametrize("find", [find_scans, find_raw_scans])
def test_a_folder_without_scans_is_refused(tmp_path, find):
    with pytest.raises(BadInput, match="no scans in it"):
        find(tmp_path)
    with pytest.raises(BadInput, match="no such folder"):
        find(tmp_path / "missing")
    (tmp_path / "head.ply").write_text("")
    with pytest.raises(BadInput, match="head.ply: a file where a folder is expected"):
        find(tmp_path / "head.ply")


def test_names_of_outputs_do_not_depend_on_scans_beside():
    names = ["a.ply", "b/c.ply", "b/c.obj", "D.PLY", "capture"]
    expected = ["a", "b/c", "b/c.obj", "D", "capture"]
    assert output_names(names) == expected
    assert [output_names([name])[0] for name in names] == expected


def test_no_two_scans_share_an_output():
    names = ["a.ply", "a.PLY", "b.obj", "b.obj.ply"]
    assert len(set(output_names(names))) == len(names)


def test_names_that_are_no_utf8_are_written_with_a_mark(tmp_path):
    folder = os.fsencode(tmp_path)
    try:
        with open(folder + b"/m\xfcller.ply", "w") as file:
            file.write("")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    (scan,) = find_scans(tmp_path)
    assert scan.name == "m\ufffdller.ply" and scan.path.exists()
    scan.name.encode("utf-8")


def test_scans_that_are_called_like_a_report_keep_their_ending():
    assert output_names(["prepared.obj", "prepared_2.ply", "prepared_heads.ply"]) == [
        "prepared.obj",
        "prepared_2.ply",
        "prepared_heads",
    ]
