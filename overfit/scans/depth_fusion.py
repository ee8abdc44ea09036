"""Fuses depth frames: the frames of one head in, one oriented point cloud in millimetres out.

Each frame is first registered on the frames before it by generalised ICP (Segal et al. 2009; small_gicp). Small errors
add up on the way round a head, so that then, for a few rounds, each frame is registered on all others: this closes the
loop.
"""

import numpy as np
import small_gicp
from scipy.spatial import cKDTree

from overfit.geometry.point_cloud import PointCloud, voxel_downsample
from overfit.runtime.errors import BadInput
from overfit.scans.depth_capture import DepthFrame, unproject

# Cells in mm, one point each, of the clouds that are registered.
REGISTRATION_CELL_MM = 3.0
# Cells in mm, one point each, of the cloud that is returned.
FUSED_CELL_MM = 1.2
# Farthest in mm that points are matched while a frame is registered on those before it.
SEQUENTIAL_REACH_MM = 25.0
# Farthest in mm that points are matched while a frame is registered on all others.
LOOP_REACH_MM = 8.0
# Rounds in which every frame is registered on all others.
LOOP_ROUNDS = 4
# Iterations of one registration; from a neighbouring frame, far fewer are needed.
MAX_ICP_ITERATIONS = 40
# Frames before it that a frame is first registered on: farther back there may be another side of the head.
PREVIOUS_FRAMES = 4
# A frame is left out if no more than this share of its points ...
MIN_OVERLAP = 0.4
# ... is this close, in mm, to the other frames.
OVERLAP_MM = 4.0
# A frame with fewer points after downsampling shows no head.
MIN_FRAME_POINTS = 500
# Of more frames, every second, third and so on is taken: more show nothing new, and what noise they have averages out.
MAX_FRAMES = 60
# Neighbours over which a fused point is averaged.
AVERAGED_NEIGHBOURS = 12
# Keeps the division by the length of a mean normal finite.
EPSILON = 1e-12


def fuse_frames(frames: list[DepthFrame]) -> PointCloud:
    """Return the cloud of all frames in the first camera's axes, with normals.

    Raises BadInput if no frame shows a surface, or the frames do not match each other.
    """
    frames = frames[:: -(-len(frames) // MAX_FRAMES)]
    downsampled = [(frame, voxel_downsample(unproject(frame), FUSED_CELL_MM)) for frame in frames]
    usable = [(frame, cloud) for frame, cloud in downsampled if len(cloud.points) >= MIN_FRAME_POINTS]
    if not usable:
        raise BadInput("its frames show no surface near the camera; capture it from 20 to 60 cm")
    frames, clouds = [frame for frame, _ in usable], [cloud for _, cloud in usable]
    if len(clouds) == 1:
        return clouds[0]
    coarse = [voxel_downsample(cloud, REGISTRATION_CELL_MM) for cloud in clouds]
    poses = _close_loop(coarse, _register_in_sequence(frames, coarse))
    kept = _overlapping(coarse, poses)
    if len(kept) < 2:
        raise BadInput("its frames do not match each other; capture it more slowly")
    return _average(_merge([clouds[index] for index in kept], [poses[index] for index in kept]))


def _register_in_sequence(frames: list[DepthFrame], clouds: list[PointCloud]) -> list[np.ndarray]:
    """Return the pose (4, 4) of each frame in the first camera's axes, each registered on the few before it."""
    poses = [np.eye(4)]
    for index in range(1, len(clouds)):
        previous = slice(max(0, index - PREVIOUS_FRAMES), index)
        start = poses[-1] @ _known_motion(frames[index - 1], frames[index])
        target = _merge(clouds[previous], poses[previous])
        poses.append(_register(clouds[index], target, start, reach=SEQUENTIAL_REACH_MM))
    return poses


def _close_loop(clouds: list[PointCloud], poses: list[np.ndarray]) -> list[np.ndarray]:
    """Return the poses after each frame but the first was registered on all others, some rounds long."""
    poses = list(poses)
    for _ in range(LOOP_ROUNDS):
        for index in range(1, len(clouds)):
            target = voxel_downsample(_merge_others(clouds, poses, index), REGISTRATION_CELL_MM)
            poses[index] = _register(clouds[index], target, poses[index], reach=LOOP_REACH_MM)
    return poses


def _known_motion(before: DepthFrame, now: DepthFrame) -> np.ndarray:
    """Return (4, 4) from a frame's camera to that of the frame before; the identity if the app does not know it."""
    return np.eye(4) if before.pose is None or now.pose is None else np.linalg.inv(before.pose) @ now.pose


def _register(source: PointCloud, target: PointCloud, start: np.ndarray, *, reach: float) -> np.ndarray:
    """Return the pose (4, 4) of the source on the target; points are matched up to `reach` mm apart."""
    result = small_gicp.align(
        target.points,
        source.points,
        start,
        "GICP",
        downsampling_resolution=REGISTRATION_CELL_MM,
        max_correspondence_distance=reach,
        max_iterations=MAX_ICP_ITERATIONS,
    )
    return result.T_target_source


def _merge(clouds: list[PointCloud], poses: list[np.ndarray]) -> PointCloud:
    return PointCloud(
        np.concatenate([cloud.points @ pose[:3, :3].T + pose[:3, 3] for cloud, pose in zip(clouds, poses)]),
        np.concatenate([cloud.known_normals @ pose[:3, :3].T for cloud, pose in zip(clouds, poses)]),
    )


def _merge_others(clouds: list[PointCloud], poses: list[np.ndarray], index: int) -> PointCloud:
    return _merge(clouds[:index] + clouds[index + 1 :], poses[:index] + poses[index + 1 :])


def _overlapping(clouds: list[PointCloud], poses: list[np.ndarray]) -> list[int]:
    """Return the indices of the frames that overlap with the others."""
    kept = []
    for index, (cloud, pose) in enumerate(zip(clouds, poses)):
        tree = cKDTree(_merge_others(clouds, poses, index).points)
        distance = tree.query(_merge([cloud], [pose]).points)[0]
        if (distance < OVERLAP_MM).mean() > MIN_OVERLAP:
            kept.append(index)
    return kept


def _average(cloud: PointCloud) -> PointCloud:
    """Return one point a cell, moved along its normal to the median of its neighbours, which removes noise."""
    chosen = voxel_downsample(cloud, FUSED_CELL_MM)
    _, neighbours = cKDTree(cloud.points).query(chosen.points, AVERAGED_NEIGHBOURS)
    normals = cloud.known_normals[neighbours].mean(1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + EPSILON
    offset = ((cloud.points[neighbours] - chosen.points[:, None]) * normals[:, None]).sum(-1)
    return PointCloud(chosen.points + np.median(offset, axis=1)[:, None] * normals, normals)
