"""Reads the geometry of OBJ files: bytes in; vertices, triangles and how many faces are damaged out.

Colours, textures and normals are left out. Negative indices count back from the last vertex before their line, as
Wavefront's specification has it.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from overfit.geometry.polygons import fan_triangles

# Bytes that are parsed at a time.
BLOCK_BYTES = 1 << 22
_UTF8_MARK = b"\xef\xbb\xbf"
# What follows the vertex in a corner: `/texture/normal`.
_OTHER_INDICES = re.compile(rb"/[^\s]*")
_CONTINUED_LINE = re.compile(rb"\\\r?\n")


@dataclass(frozen=True)
class ObjContent:
    """What an OBJ file holds."""

    vertices: Float[np.ndarray, "vertices 3"]
    """Coordinates in the unit of the file."""
    triangles: Int[np.ndarray, "triangles 3"]
    """Faces, those of more corners divided into fans."""
    damaged_faces: int
    """Faces that name vertices which the file lacks, or fewer than three; they are left out."""
    counts_from_zero: bool
    """Whether its first vertex has index 0, as OBJ does not have it."""


def parse_obj(data: bytes) -> ObjContent:
    """Return what is in the bytes of an OBJ file. Raises ValueError if a vertex is damaged."""
    data = _CONTINUED_LINE.sub(b" ", data.removeprefix(_UTF8_MARK))
    vertices, triangles = [np.empty((0, 3))], [np.empty((0, 3), np.int64)]
    count = damaged = 0
    for block in _blocks(data):
        lines = [line.lstrip() for line in block.splitlines()]
        vertex_lines = [line[1:] for line in lines if line[:2] in (b"v ", b"v\t")]
        if vertex_lines:
            vertices.append(np.loadtxt(vertex_lines, usecols=(0, 1, 2), ndmin=2))
        found, lost = _parse_faces(lines, count)
        triangles.append(found)
        count, damaged = count + len(vertex_lines), damaged + lost
    corners = np.concatenate(triangles)
    # OBJ counts from 1. A file that uses 0 and leaves out the last vertex counts from 0 throughout.
    counts_from_zero = len(corners) > 0 and bool(corners.min() == -1 and corners.max() == count - 2)
    corners += counts_from_zero
    present = ((corners >= 0) & (corners < count)).all(1)
    damaged += int(np.count_nonzero(~present))
    return ObjContent(np.concatenate(vertices), corners[present], damaged, counts_from_zero)


def _blocks(data: bytes) -> Iterator[bytes]:
    """Yield the bytes in blocks of whole lines."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + BLOCK_BYTES) + 1 or len(data)
        yield data[start:end]
        start = end


def _parse_faces(lines: list[bytes], vertices_before: int) -> tuple[np.ndarray, int]:
    """Return the triangles (n, 3) of a block's faces, counted from 0, and how many faces are damaged.

    `vertices_before` is the number of vertices before the block.
    """
    faces = [line[1:] for line in lines if line[:2] in (b"f ", b"f\t")]
    if not faces:
        return np.empty((0, 3), np.int64), 0
    bare = _OTHER_INDICES.sub(b"", b"\n".join(faces))
    if b"-" not in bare:
        try:
            corners = np.loadtxt(io.BytesIO(bare), dtype=np.int64, ndmin=2)
            return fan_triangles(corners - 1), 0
        except ValueError:
            # Faces of several lengths, or damaged ones.
            pass
    return _parse_faces_one_by_one(lines, vertices_before)


def _parse_faces_one_by_one(lines: list[bytes], vertices_before: int) -> tuple[np.ndarray, int]:
    triangles: list[tuple[int, int, int]] = []
    count, damaged = vertices_before, 0
    for line in lines:
        if line[:2] in (b"v ", b"v\t"):
            count += 1
        elif line[:2] in (b"f ", b"f\t"):
            try:
                indices = [int(index) for index in _OTHER_INDICES.sub(b"", line[1:]).split()]
            except ValueError:
                indices = []
            # Index 0 stays -1, which no vertex has.
            corners = [index - 1 if index >= 0 else count + index for index in indices]
            damaged += len(corners) < 3
            triangles += [(corners[0], *pair) for pair in zip(corners[1:], corners[2:])]
    return np.array(triangles, np.int64).reshape(-1, 3), damaged
