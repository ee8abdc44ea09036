"""Depth frames of a known head, drawn by rays, come back as its surface; a real capture as its makers fused it."""

import json
from dataclasses import replace

import igl
import numpy as np
import OpenEXR
import pytest
import trimesh
from conftest import SHARED
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from trimesh.ray.ray_pyembree import RayMeshIntersector

from overfit import BadInput
from overfit.depth_frames import Frame, is_capture, read_frames, unproject
from overfit.fusion import fuse
from overfit.registration import Template
from overfit.scans import load

HIGH, WIDE, FOCAL, AWAY = 120, 160, 180.0, 0.4


@pytest.fixture(scope="module")
def head() -> trimesh.Trimesh:
    return Template.standard().mesh


def photographed(head: trimesh.Trimesh, turn: float, noise: float = 0.0, roll: float = 0.0,
                 ) -> tuple[Frame, np.ndarray]:
    """A depth frame from `turn` degrees beside the face, and the pose (4, 4) from its camera, in mm, to the head.

    `roll` is how the phone is turned in the hand.
    """
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("YZ", [turn, roll], degrees=True).as_matrix()
    pose[:3, 3] = pose[:3, :3] @ [0, 0, 1000 * AWAY]
    rows, columns = np.indices((HIGH, WIDE))
    rays = np.stack([(columns - WIDE / 2) / FOCAL, -(rows - HIGH / 2) / FOCAL, -np.ones((HIGH, WIDE))], axis=-1)
    directions = rays.reshape(-1, 3) @ pose[:3, :3].T
    origins = np.tile(pose[:3, 3], (len(directions), 1))
    hits, ray, _ = RayMeshIntersector(head).intersects_location(origins, directions, multiple_hits=False)
    depth = np.full(HIGH * WIDE, 9999.0)
    depth[ray] = -((hits - pose[:3, 3]) @ pose[:3, :3])[:, 2] / 1000
    depth[ray] += np.random.default_rng(0).normal(scale=noise, size=len(ray))
    return Frame(depth.reshape(HIGH, WIDE), FOCAL, FOCAL, WIDE / 2, HIGH / 2), pose


def nearest(points: np.ndarray, mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n,) to a mesh and the nearest triangles (n,)."""
    squared, triangles, _ = igl.point_mesh_squared_distance(points, mesh.vertices, mesh.faces)
    return np.sqrt(squared), triangles


def test_a_frame_lies_on_what_it_sees(head):
    frame, pose = photographed(head, 20)
    cloud = unproject(frame)
    points, normals = cloud.points @ pose[:3, :3].T + pose[:3, 3], cloud.normals @ pose[:3, :3].T
    off, triangles = nearest(points, head)
    assert len(points) > 1500 and off.max() < 0.5
    assert np.median((head.face_normals[triangles] * normals).sum(1)) > 0.98


def test_a_lens_moves_pixels_outwards():
    flat = np.full((HIGH, WIDE), AWAY)
    plain, bent = (unproject(Frame(flat, FOCAL, FOCAL, WIDE / 2, HIGH / 2, lens))
                   for lens in (None, np.full(10, 0.02)))
    np.testing.assert_allclose(bent.points[:, :2], 1.02 * plain.points[:, :2])


def test_frames_around_a_head_become_one_cloud(head):
    frames = [photographed(head, turn, noise=0.0005) for turn in range(0, 61, 10)]
    cloud = fuse([frame for frame, _ in frames])
    pose = frames[0][1]
    points = cloud.points @ pose[:3, :3].T + pose[:3, 3]
    off = nearest(points, head)[0]
    assert np.median(off) < 0.5 and np.percentile(off, 95) < 2


def test_known_poses_bring_frames_together_that_do_not_find_each_other(head):
    views = [photographed(head, turn, roll=120 * index) for index, turn in enumerate((-30, 0, 30))]
    first = views[0][1]
    for known, bounds in ((False, (3, np.inf)), (True, (0, 1))):
        cloud = fuse([replace(frame, pose=pose if known else None) for frame, pose in views])
        off = nearest(cloud.points @ first[:3, :3].T + first[:3, 3], head)[0]
        assert bounds[0] < np.percentile(off, 95) < bounds[1]


def test_one_frame_is_a_mask(head):
    frame, pose = photographed(head, 0)
    points = fuse([frame]).points @ pose[:3, :3].T + pose[:3, 3]
    assert nearest(points, head)[0].max() < 0.5


@pytest.mark.parametrize("suffix", [".png", ".npy", ".exr"])
def test_images_with_intrinsics_are_a_capture(head, tmp_path, suffix):
    for index, turn in enumerate((0, 10)):
        frame = photographed(head, turn)[0]
        depth = np.where(frame.depth < 10, frame.depth * 1000, 0).astype(np.uint16)
        path = tmp_path / f"{index}{suffix}"
        if suffix == ".npy":
            np.save(path, depth)
        elif suffix == ".png":
            Image.fromarray(depth).save(path)
        else:
            OpenEXR.File({}, {"Z": depth.astype(np.float32)}).write(str(path))
    camera = {"fx": FOCAL, "fy": FOCAL, "cx": WIDE / 2, "cy": HIGH / 2, "width": WIDE, "height": HIGH}
    (tmp_path / "intrinsics.json").write_text(json.dumps(camera | {"depth_scale": 0.001}))
    assert is_capture(tmp_path)
    frames = read_frames(tmp_path)
    assert len(frames) == 2 and len(unproject(frames[0]).points) > 1500
    (tmp_path / "intrinsics.json").write_text(json.dumps(camera | {"depth_scale": 0.001, "poses": {"0.png": [1, 2]}}))
    with pytest.raises(BadInput, match="poses of 4x4"):
        read_frames(tmp_path)
    (tmp_path / "intrinsics.json").write_text(json.dumps(camera))
    with pytest.raises(BadInput, match="depth_scale"):
        read_frames(tmp_path)


def test_empty_frames_are_told():
    empty = Frame(np.full((HIGH, WIDE), 9999.0), FOCAL, FOCAL, WIDE / 2, HIGH / 2)
    with pytest.raises(BadInput, match="no surface near the camera"):
        fuse([empty] * 3)


def test_a_real_capture_is_fused_as_its_makers_did():
    folder = SHARED / "scans" / "truedepth"
    if not folder.exists():
        pytest.skip("no shared data beside the checkout")
    ours = load(folder).points
    theirs = 1000 * np.asarray(trimesh.load(folder / "fused_Expected.ply").vertices)
    # They hold the phone upright, with x to the right, y up and z forward.
    there, back = laid(ours[::3] @ np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, -1]]), theirs)
    assert np.median(there) < 2
    assert (back < 5).mean() > 0.9


def laid(points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances from points to a target and back, after plain ICP."""
    tree, points = cKDTree(target), points - points.mean(0) + target.mean(0)
    for _ in range(40):
        away, found = tree.query(points)
        close = away < np.quantile(away, 0.8)
        rotation, _ = Rotation.align_vectors(target[found[close]] - target[found[close]].mean(0),
                                             points[close] - points[close].mean(0))
        points = rotation.apply(points - points[close].mean(0)) + target[found[close]].mean(0)
    return tree.query(points)[0], cKDTree(points).query(target)[0]
