"""Depth frames of a known head, drawn by rays, are fused to its surface; a real capture as its makers fused it."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from support import SHARED, nearest_on, photograph

from overfit.runtime.errors import BadInput
from overfit.scans import depth_fusion
from overfit.scans.depth_capture import DepthFrame
from overfit.scans.depth_fusion import fuse_frames
from overfit.scans.formats import Scan, load_raw
from overfit.scans.template import Template


@pytest.fixture(scope="module")
def head() -> trimesh.Trimesh:
    return Template.standard().mesh


def distance_to(head: trimesh.Trimesh, points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Distances (n,) of points in a camera's frame, whose pose (4, 4) is given, to the head."""
    return nearest_on(head, points @ pose[:3, :3].T + pose[:3, 3])[0]


def test_frames_around_a_head_become_one_cloud(head):
    frames = [photograph(head, yaw=yaw, noise=0.0005) for yaw in range(0, 61, 10)]
    cloud = fuse_frames([frame for frame, _ in frames])
    distance = distance_to(head, cloud.points, frames[0][1])
    assert np.median(distance) < 0.5 and np.percentile(distance, 95) < 2


def test_known_poses_align_frames_that_do_not_match_by_themselves(head):
    views = [photograph(head, yaw=yaw, roll=120 * index) for index, yaw in enumerate((-30, 0, 30))]
    for known, bounds in ((False, (3, np.inf)), (True, (0, 1))):
        cloud = fuse_frames([replace(frame, pose=pose if known else None) for frame, pose in views])
        assert bounds[0] < np.percentile(distance_to(head, cloud.points, views[0][1]), 95) < bounds[1]


def test_one_frame_is_a_mask(head):
    frame, pose = photograph(head)
    assert distance_to(head, fuse_frames([frame]).points, pose).max() < 0.5


def test_empty_frames_are_refused():
    empty = DepthFrame(np.full((120, 160), 9999.0), fx=180.0, fy=180.0, cx=80.0, cy=60.0)
    with pytest.raises(BadInput, match="no surface near the camera"):
        fuse_frames([empty] * 3)


def test_a_real_capture_is_fused_as_its_makers_did(monkeypatch):
    # Fewer than by default, for speed.
    monkeypatch.setattr(depth_fusion, "LOOP_ROUNDS", 1)
    folder = SHARED / "scans" / "truedepth"
    if not folder.exists():
        pytest.skip("no shared data beside the checkout")
    ours = load_raw(Scan("truedepth", folder)).surface.points
    theirs = 1000 * np.asarray(trimesh.load(folder / "fused_Expected.ply").vertices)
    # They hold the phone upright, with x to the right, y up and z forward.
    there, back = register_rigidly(ours[::10] @ np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, -1]]), theirs)
    assert np.median(there) < 2
    assert (back < 5).mean() > 0.9


def register_rigidly(points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances from points to a target and back, after plain ICP."""
    tree, points = cKDTree(target), points - points.mean(0) + target.mean(0)
    for _ in range(40):
        distance, nearest = tree.query(points)
        close = distance < np.quantile(distance, 0.8)
        goal, centre = target[nearest[close]].mean(0), points[close].mean(0)
        rotation, _ = Rotation.align_vectors(target[nearest[close]] - goal, points[close] - centre)
        points = rotation.apply(points - centre) + goal
    return tree.query(points)[0], cKDTree(points).query(target)[0]
