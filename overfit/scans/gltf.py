"""Reads GLB and glTF files: bytes in; the vertices, triangles and points of the scene in its rest pose out.

Positions may be quantised (KHR_mesh_quantization). A skinned mesh lies where its joints put it, whatever the transform
of its own node, as section 3.7.3.3 of the specification of glTF 2.0 has it.
"""

import base64
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from overfit.geometry.polygons import fan_triangles, strip_triangles

_GLB_MAGIC = b"glTF"
_GLB_HEADER_BYTES = 12
_CHUNK_HEADER_BYTES = 8
_COMPRESSIONS = {"KHR_draco_mesh_compression": "Draco", "EXT_meshopt_compression": "meshopt"}
# Component types and their sizes, by the numbers of OpenGL.
_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
# Modes of primitives that have triangles.
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
# Nodes below each other; a scene of more has a cycle.
_MAX_DEPTH = 200


class CompressedError(ValueError):
    """A file whose geometry is compressed."""


@dataclass(frozen=True)
class GltfContent:
    """What a file holds."""

    vertices: Float[np.ndarray, "vertices 3"]
    """Coordinates in the scene's frame: of the triangles' corners, or of the points if there are no triangles."""
    triangles: Int[np.ndarray, "triangles 3"]
    """The triangles."""


@dataclass(frozen=True)
class _File:
    """The description of a scene, and its data."""

    content: dict[str, Any]
    """The description."""
    buffers: list[bytes]
    """The data that it refers to."""

    def values(self, accessor_index: int) -> np.ndarray:
        """Return the values (count, width) of an accessor; normalised integers become numbers from -1 or 0 to 1."""
        accessor = self.content["accessors"][accessor_index]
        kind, width = np.dtype(_COMPONENTS[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        count = accessor["count"]
        if count > sum(map(len, self.buffers)):
            raise ValueError("it claims more values than it has bytes")
        if "bufferView" in accessor:
            values = self._read(accessor["bufferView"], accessor.get("byteOffset", 0), kind, (count, width))
        else:
            values = np.zeros((count, width), kind)
        if sparse := accessor.get("sparse"):
            where, what = sparse["indices"], sparse["values"]
            index_kind = np.dtype(_COMPONENTS[where["componentType"]])
            rows = self._read(where["bufferView"], where.get("byteOffset", 0), index_kind, (sparse["count"], 1))
            values = values.copy()
            values[rows[:, 0]] = self._read(
                what["bufferView"], what.get("byteOffset", 0), kind, (sparse["count"], width)
            )
        if accessor.get("normalized") and kind.kind in "iu":
            return np.maximum(values / np.iinfo(kind).max, -1.0)
        return values

    def _read(self, view_index: int, offset: int, kind: np.dtype, shape: tuple[int, int]) -> np.ndarray:
        view = self.content["bufferViews"][view_index]
        data = self.buffers[view["buffer"]]
        start = view.get("byteOffset", 0) + offset
        stride = view.get("byteStride") or kind.itemsize * shape[1]
        end = start + stride * (shape[0] - 1) + kind.itemsize * shape[1]
        if shape[0] and not 0 <= start <= end <= len(data):
            raise ValueError("it ends before its data do")
        return np.ndarray(shape, kind, data, start, (stride, kind.itemsize))


def parse_gltf(data: bytes, path: Path) -> GltfContent:
    """Return what is in the bytes of a file.

    Args:
        data: The bytes of the file.
        path: Where it lies: buffers may lie beside it.

    Raises CompressedError if its geometry is compressed, and errors of several types if it is damaged.
    """
    content, chunk = _split(data)
    used = [*content.get("extensionsRequired", []), *content.get("extensionsUsed", [])]
    for extension, name in _COMPRESSIONS.items():
        if extension in used:
            raise CompressedError(f"compressed by {name}")
    file = _File(content, [_buffer(buffer, chunk, path) for buffer in content.get("buffers", [])])
    parts = list(_scene_parts(file))
    surfaces = [(vertices, triangles) for vertices, triangles in parts if len(triangles)]
    chosen = surfaces or parts or [(np.empty((0, 3)), np.empty((0, 3), np.int64))]
    offsets = np.cumsum([0, *(len(vertices) for vertices, _ in chosen)])
    return GltfContent(
        np.concatenate([vertices for vertices, _ in chosen]),
        np.concatenate([triangles + offset for (_, triangles), offset in zip(chosen, offsets)]),
    )


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the description of the scene and the data that follow it in a GLB file."""
    chunk = b""
    if data[:4] == _GLB_MAGIC:
        (length,) = struct.unpack_from("<I", data, _GLB_HEADER_BYTES)
        start = _GLB_HEADER_BYTES + _CHUNK_HEADER_BYTES
        data, rest = data[start : start + length], data[start + length :]
        chunk = rest[_CHUNK_HEADER_BYTES:]
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError("no glTF scene in it")
    return content, chunk


def _buffer(buffer: dict[str, Any], chunk: bytes, path: Path) -> bytes:
    uri = buffer.get("uri")
    if uri is None:
        return chunk
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2])
    # Names are percent-encoded.
    return (path.parent / unquote(uri)).read_bytes()


def _scene_parts(file: _File) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the vertices (n, 3) and triangles (m, 3) of each primitive in the scene's frame."""
    nodes = file.content.get("nodes", [])
    placed = _global_transforms(file.content)
    for index, transform in placed.items():
        node = nodes[index]
        if "mesh" not in node:
            continue
        joints = _joint_matrices(file, node["skin"], placed) if "skin" in node else None
        for primitive in file.content["meshes"][node["mesh"]]["primitives"]:
            attributes = primitive["attributes"]
            if "POSITION" not in attributes:
                continue
            positions = file.values(attributes["POSITION"]).astype(float)
            if joints is not None and "JOINTS_0" in attributes and "WEIGHTS_0" in attributes:
                vertices = _skin(file, attributes, positions, joints=joints)
            else:
                vertices = _transformed(positions, transform)
            yield vertices, _primitive_triangles(file, primitive, len(vertices))


def _global_transforms(content: dict[str, Any]) -> dict[int, np.ndarray]:
    """Return the transform (4, 4) of each node of the scene to the scene's frame."""
    nodes = content.get("nodes", [])
    scenes = content.get("scenes", [])
    roots = scenes[content.get("scene", 0)].get("nodes", []) if scenes else range(len(nodes))
    placed: dict[int, np.ndarray] = {}
    waiting = [(index, np.eye(4), 0) for index in roots]
    while waiting:
        index, parent, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("its nodes refer to each other in a circle")
        placed[index] = parent @ _local_transform(nodes[index])
        waiting += [(child, placed[index], depth + 1) for child in nodes[index].get("children", [])]
    return placed


def _local_transform(node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        # By columns.
        return np.array(node["matrix"], float).reshape(4, 4).T
    transform = np.eye(4)
    rotation = Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix()
    transform[:3, :3] = rotation * np.array(node.get("scale", [1, 1, 1]), float)
    transform[:3, 3] = node.get("translation", [0, 0, 0])
    return transform


def _joint_matrices(file: _File, skin_index: int, placed: dict[int, np.ndarray]) -> np.ndarray:
    """Return the matrix (joints, 4, 4) that takes a vertex bound to each joint to the scene's frame."""
    skin = file.content["skins"][skin_index]
    joints = np.stack([placed.get(joint, np.eye(4)) for joint in skin["joints"]])
    if "inverseBindMatrices" not in skin:
        return joints
    inverse = file.values(skin["inverseBindMatrices"]).astype(float).reshape(-1, 4, 4).transpose(0, 2, 1)
    return joints @ inverse[: len(joints)]


def _skin(file: _File, attributes: dict[str, int], positions: np.ndarray, *, joints: np.ndarray) -> np.ndarray:
    """Return positions (n, 3) moved by their joints, which are weighted (linear blend skinning)."""
    bound = file.values(attributes["JOINTS_0"]).astype(int)
    weights = file.values(attributes["WEIGHTS_0"]).astype(float)
    weights = weights / np.maximum(weights.sum(1, keepdims=True), np.finfo(float).tiny)
    moved = np.zeros_like(positions)
    for corner in range(bound.shape[1]):
        matrices = joints[bound[:, corner]]
        placed = np.einsum("nij,nj->ni", matrices[:, :3, :3], positions) + matrices[:, :3, 3]
        moved += weights[:, corner, None] * placed
    return moved


def _transformed(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    return points @ transform[:3, :3].T + transform[:3, 3]


def _primitive_triangles(file: _File, primitive: dict[str, Any], count: int) -> np.ndarray:
    """Return the triangles (m, 3) of a primitive; none of points and lines."""
    corners = file.values(primitive["indices"])[:, 0].astype(np.int64) if "indices" in primitive else np.arange(count)
    mode = primitive.get("mode", _TRIANGLES)
    if mode == _TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    if mode == _STRIP:
        return strip_triangles(corners)
    return fan_triangles(corners[None]) if mode == _FAN else np.empty((0, 3), np.int64)
