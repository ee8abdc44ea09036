"""Fusion: depth frames of one head in, one oriented cloud in millimetres out.

The frames are laid on each other one after another, each on what the frames before it have seen, by generalised ICP
(Segal et al. 2009; small_gicp). Then, since small errors add up on the way round a head, each is laid on all others
again until none moves: that closes the loop.
"""

import numpy as np
import small_gicp
from scipy.spatial import cKDTree

from .clouds import Cloud, thinned
from .depth_frames import Frame, unproject
from .errors import BadInput

# Points of a frame closer than this (mm) are one for the registration, and for the cloud that comes out.
COARSE, FINE = 3.0, 1.2
# Farthest that two points are matched, in mm: on the way, and at the end.
LOOSE, TIGHT = 25.0, 8.0
# Rounds in which every frame is laid on all others.
ROUNDS = 4
# Frames before it that one is first laid on.
LAST = 4
# A frame with a smaller share of points within a few millimetres of the others is left out.
OVERLAP, CLOSE = 0.4, 4.0
FEWEST_POINTS = 500
# More frames than this show nothing new: every second, third and so on is taken. What noise they have averages out.
MOST_FRAMES = 60
# Neighbours over which a fused point is averaged.
AVERAGED = 12


def fuse(frames: list[Frame]) -> Cloud:
    """The cloud of all frames, as the first camera sees it. Raises BadInput where they do not lie on each other."""
    frames = frames[::-(-len(frames) // MOST_FRAMES)]
    seen = [(frame, thinned(unproject(frame), FINE)) for frame in frames]
    seen = [(frame, cloud) for frame, cloud in seen if len(cloud.points) >= FEWEST_POINTS]
    if not seen:
        raise BadInput("its frames show no surface near the camera; capture it from 20 to 60 cm")
    frames, clouds = map(list, zip(*seen))
    if len(clouds) == 1:
        return clouds[0]
    coarse = [thinned(cloud, COARSE) for cloud in clouds]
    poses = [np.eye(4)]
    for index in range(1, len(coarse)):
        # What the last frames have seen: farther back there may be another side of the head.
        last = slice(max(0, index - LAST), index)
        start = poses[-1] @ _since(frames[index - 1], frames[index])
        poses.append(_laid(_together(coarse[last], poses[last]), coarse[index], start, LOOSE))
    for _ in range(ROUNDS):
        for index in range(1, len(coarse)):
            seen = _together(coarse[:index] + coarse[index + 1:], poses[:index] + poses[index + 1:])
            poses[index] = _laid(thinned(seen, COARSE), coarse[index], poses[index], TIGHT)
    kept = _agreeing(coarse, poses)
    if len(kept) < 2:
        raise BadInput("its frames do not lie on each other; capture it more slowly")
    return _averaged(_together([clouds[one] for one in kept], [poses[one] for one in kept]))


def _since(before: Frame, now: Frame) -> np.ndarray:
    """(4, 4) from a frame's camera to that of the frame before, as far as the app knows."""
    return np.eye(4) if before.pose is None or now.pose is None else np.linalg.inv(before.pose) @ now.pose


def _laid(target: Cloud, source: Cloud, start: np.ndarray, reach: float) -> np.ndarray:
    """Pose (4, 4) of the source on the target."""
    return small_gicp.align(target.points, source.points, start, "GICP", downsampling_resolution=COARSE,
                            max_correspondence_distance=reach, max_iterations=40).T_target_source


def _together(clouds: list[Cloud], poses: list[np.ndarray]) -> Cloud:
    return Cloud(np.concatenate([cloud.points @ pose[:3, :3].T + pose[:3, 3] for cloud, pose in zip(clouds, poses)]),
                 np.concatenate([cloud.normals @ pose[:3, :3].T for cloud, pose in zip(clouds, poses)]))


def _agreeing(clouds: list[Cloud], poses: list[np.ndarray]) -> list[int]:
    """The frames that lie on the others."""
    kept = []
    for index, (cloud, pose) in enumerate(zip(clouds, poses)):
        tree = cKDTree(_together(clouds[:index] + clouds[index + 1:], poses[:index] + poses[index + 1:]).points)
        away = tree.query(_together([cloud], [pose]).points)[0]
        if (away < CLOSE).mean() > OVERLAP:
            kept.append(index)
    return kept


def _averaged(cloud: Cloud) -> Cloud:
    """One point a cell, at the mean of its neighbourhood along the normal: many frames' noise averages out."""
    chosen = thinned(cloud, FINE)
    _, near = cKDTree(cloud.points).query(chosen.points, AVERAGED)
    normals = cloud.normals[near].mean(1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    offset = ((cloud.points[near] - chosen.points[:, None]) * normals[:, None]).sum(-1)
    return Cloud(chosen.points + np.median(offset, axis=1)[:, None] * normals, normals)
