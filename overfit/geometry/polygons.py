"""Polygons and strips as file formats have them: corners in, triangles out."""

import numpy as np
from jaxtyping import Int


def fan_triangles(corners: Int[np.ndarray, "faces corners"]) -> Int[np.ndarray, "triangles 3"]:
    """Return the triangles of faces, each a fan about its first corner; faces of fewer than three corners have none."""
    fans = [corners[:, [0, index, index + 1]] for index in range(1, corners.shape[1] - 1)]
    return np.concatenate([np.empty((0, 3), np.int64), *fans])


def strip_triangles(corners: Int[np.ndarray, " corners"]) -> Int[np.ndarray, "triangles 3"]:
    """Return the triangles of a strip: each corner makes one with the two before it.

    Every second one is turned, so that all face the same side.
    """
    if len(corners) < 3:
        return np.empty((0, 3), np.int64)
    triangles = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1).astype(np.int64)
    triangles[1::2] = triangles[1::2, ::-1]
    return triangles
