"""Depth frames lie on the surface that they show; both layouts of captures are read, damaged ones refused."""

import hashlib
import json

import numpy as np
import pytest
import trimesh
from PIL import Image
from support import ellipsoid, nearest_on, photograph

from overfit.runtime.errors import BadInput
from overfit.scans.depth_capture import DepthFrame, is_capture, read_capture, unproject
from overfit.scans.formats import Scan, find_raw_scans, load_raw, read_digest

FRAME = {"fx": 180.0, "fy": 180.0, "cx": 80.0, "cy": 60.0}
CAMERA = FRAME | {"width": 160, "height": 120}


def head() -> trimesh.Trimesh:
    return ellipsoid((75.0, 115.0, 95.0), 4)


def test_a_frame_lies_on_the_surface_that_it_shows():
    frame, pose = photograph(head(), yaw=20)
    cloud = unproject(frame)
    points, normals = cloud.points @ pose[:3, :3].T + pose[:3, 3], cloud.normals @ pose[:3, :3].T
    distance, triangles = nearest_on(head(), points)
    assert len(points) > 1500 and distance.max() < 0.5
    assert np.median((head().face_normals[triangles] * normals).sum(1)) > 0.98


def test_a_lens_moves_pixels_outwards():
    flat = np.full((120, 160), 0.4)
    plain, corrected = (unproject(DepthFrame(flat, **FRAME, lens=lens)) for lens in (None, np.full(10, 0.02)))
    np.testing.assert_allclose(corrected.points[:, :2], 1.02 * plain.points[:, :2])


def write_image(path, frame):
    depth = np.where(frame.depth < 10, frame.depth * 1000, 0).astype(np.uint16)
    if path.suffix == ".npy":
        np.save(path, depth)
    elif path.suffix == ".png":
        Image.fromarray(depth).save(path)
    else:
        openexr = pytest.importorskip("OpenEXR")
        openexr.File({}, {"Z": depth.astype(np.float32)}).write(str(path))


@pytest.mark.parametrize("suffix", [".png", ".npy", ".exr"])
def test_images_with_intrinsics_are_a_capture(tmp_path, suffix):
    folder = tmp_path / "capture"
    folder.mkdir()
    frames = [photograph(head(), yaw=yaw)[0] for yaw in (0, 10)]
    for index, frame in enumerate(frames):
        write_image(folder / f"{index}{suffix}", frame)
    (folder / "intrinsics.json").write_text(json.dumps(CAMERA | {"depth_scale": 0.001}))
    (folder / "notes.txt").write_text("not a frame")
    assert is_capture(folder) and [scan.name for scan in find_raw_scans(tmp_path)] == ["capture"]
    capture = read_capture(folder)
    assert len(capture.frames) == 2
    seen = frames[0].depth < 10
    np.testing.assert_allclose(capture.frames[0].depth[seen], frames[0].depth[seen], atol=0.001)
    contents = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    assert capture.digest == hashlib.sha256(contents).hexdigest() == read_digest(Scan("capture", folder))
    assert len(load_raw(Scan("capture", folder)).surface.points) > 1500


@pytest.mark.parametrize(
    "intrinsics, words",
    [
        (CAMERA | {"depth_scale": 0.001, "poses": {"0.png": [1, 2]}}, "poses of 4x4"),
        (CAMERA | {"depth_scale": 0.001, "poses": {"0.png": np.ones((4, 4)).tolist()}}, "no rotation"),
        (CAMERA, "depth_scale"),
        ([1], "it needs the numbers"),
        (CAMERA | {"depth_scale": 0.001}, "no depth frame in it"),
    ],
)
def test_damaged_intrinsics_and_captures_without_images_are_refused(tmp_path, intrinsics, words):
    (tmp_path / "intrinsics.json").write_text(json.dumps(intrinsics))
    with pytest.raises(BadInput, match=words):
        read_capture(tmp_path)


def huge_npy() -> bytes:
    """A header that promises a terabyte."""
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (400000, 400000), }"
    return b"\x93NUMPY\x01\x00" + len(text.ljust(117) + "\n").to_bytes(2, "little") + (text.ljust(117) + "\n").encode()


@pytest.mark.parametrize("name, content", [("0.png", b"junk"), ("0.npy", b"junk"), ("0.npy", huge_npy())])
def test_damaged_images_are_refused(tmp_path, name, content):
    (tmp_path / "intrinsics.json").write_text(json.dumps(CAMERA | {"depth_scale": 0.001}))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=rf"no depth frame in it \({name} left out: "):
        read_capture(tmp_path)


def test_colour_images_are_refused(tmp_path):
    (tmp_path / "intrinsics.json").write_text(json.dumps(CAMERA | {"depth_scale": 0.001}))
    Image.new("RGB", (160, 120)).save(tmp_path / "0.png")
    with pytest.raises(BadInput, match="0.png left out: an array of shape"):
        read_capture(tmp_path)


def truedepth(depth: np.ndarray, **changes) -> bytes:
    """A frame as StandardCyborg writes it, with the intrinsics of an image twice as large."""
    camera = {
        "width": depth.shape[1],
        "height": depth.shape[0],
        "intrinsic_matrix": [360.0, 0, 0, 0, 360.0, 0, 160.0, 120.0, 1],
        "intrinsic_matrix_reference_dimensions_width": 2 * depth.shape[1],
        "intrinsic_matrix_reference_dimensions_height": 2 * depth.shape[0],
    }
    metadata = json.dumps({"camera_intrinsics": camera | changes}).encode()
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element metadata {len(metadata)}\nproperty uchar b\nelement depth {depth.size}\nproperty float d\n"
        "end_header\n"
    )
    return header.encode() + metadata + depth.astype("<f4").tobytes()


def test_truedepth_frames_are_a_capture(tmp_path):
    frame = photograph(head())[0]
    for index in range(2):
        (tmp_path / f"{index}.ply").write_bytes(truedepth(frame.depth))
    assert is_capture(tmp_path)
    frames = read_capture(tmp_path).frames
    assert len(frames) == 2 and (frames[0].fx, frames[0].cx, frames[0].cy) == (180.0, 80.0, 60.0)
    np.testing.assert_array_equal(frames[1].depth, frame.depth.astype(np.float32))


@pytest.mark.parametrize("changes", [{"width": 7}, {"intrinsic_matrix": [1]}, {"lens_distortion_lookup_table": ["x"]}])
def test_damaged_truedepth_frames_are_refused(tmp_path, changes):
    (tmp_path / "0.ply").write_bytes(truedepth(np.zeros((120, 160)), **changes))
    with pytest.raises(BadInput, match="0.ply left out: "):
        read_capture(tmp_path)


def write_capture(folder, *, count=2, scale=0.001, **changes):
    """A folder of PNG frames with their intrinsics."""
    frames = [photograph(head(), yaw=10 * index)[0] for index in range(count)]
    for index, frame in enumerate(frames):
        write_image(folder / f"{index}.png", frame)
    (folder / "intrinsics.json").write_text(json.dumps(CAMERA | {"depth_scale": scale} | changes))
    return frames


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("9.png", b"", "empty"),
        ("9.png", b"junk", "no image"),
        ("9.npy", b"junk", ""),
        ("9.png", None, "an array of shape"),
    ],
)
def test_a_file_that_is_no_depth_image_costs_only_itself(tmp_path, name, content, words):
    write_capture(tmp_path)
    if content is None:
        Image.new("RGB", (160, 120)).save(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    capture = read_capture(tmp_path)
    assert len(capture.frames) == 2
    assert len(capture.remarks) == 1 and capture.remarks[0].startswith(f"{name} left out: {words}")


def test_an_empty_truedepth_frame_costs_only_itself(tmp_path):
    frame = photograph(head())[0]
    (tmp_path / "0.ply").write_bytes(truedepth(frame.depth))
    (tmp_path / "1.ply").write_bytes(b"")
    capture = read_capture(tmp_path)
    assert len(capture.frames) == 1 and capture.remarks == ("1.ply left out: empty",)


def test_hidden_files_are_no_frames(tmp_path):
    write_capture(tmp_path)
    digest = read_capture(tmp_path).digest
    for name in ("._0.png", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"junk")
    capture = read_capture(tmp_path)
    assert not capture.remarks and capture.digest == digest


def test_hidden_files_do_not_decide_what_a_folder_is(tmp_path):
    (tmp_path / "._0.ply").write_bytes(b"junk")
    (tmp_path / "0.ply").write_bytes(truedepth(photograph(head())[0].depth))
    assert is_capture(tmp_path)


def test_depth_images_without_intrinsics_are_refused_by_name(tmp_path):
    folder = tmp_path / "capture"
    folder.mkdir()
    write_capture(folder)
    (folder / "intrinsics.json").unlink()
    assert [scan.name for scan in find_raw_scans(tmp_path)] == ["capture"]
    with pytest.raises(BadInput, match="^capture: depth images without intrinsics.json"):
        read_capture(folder)


def test_pictures_beside_meshes_are_no_capture(tmp_path):
    head().export(tmp_path / "a.obj")
    Image.new("RGB", (160, 120)).save(tmp_path / "texture.png")
    assert not is_capture(tmp_path)


def test_upright_frames_with_intrinsics_on_their_side_are_turned_back(tmp_path):
    frames = write_capture(tmp_path)
    for path in tmp_path.glob("*.png"):
        # As phones do it: a quarter turn clockwise.
        Image.fromarray(np.rot90(np.asarray(Image.open(path)), -1)).save(path)
    capture = read_capture(tmp_path)
    assert capture.remarks == ("frames turned by 90 degrees, to the shape of their intrinsics",)
    seen = frames[0].depth < 10
    np.testing.assert_allclose(capture.frames[0].depth[seen], frames[0].depth[seen], atol=0.001)


def test_coarse_depth_is_told(tmp_path):
    frame = write_capture(tmp_path, count=1, scale=0.004)[0]
    depth = np.where(frame.depth < 10, frame.depth / 0.004, 0).astype(np.uint8)
    Image.fromarray(depth).save(tmp_path / "0.png")
    assert read_capture(tmp_path).remarks == ("8-bit depth in steps of 4 mm, too coarse for a face",)


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_wrong_depth_scale_is_told_by_the_depths(tmp_path, scale):
    write_capture(tmp_path, scale=scale)
    with pytest.raises(BadInput, match="depths of .* where a face has .*; check depth_scale"):
        read_capture(tmp_path)
