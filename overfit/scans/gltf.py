"""Reads GLB and glTF files: bytes in, a mesh or points in the scene's frame out."""

import io
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import trimesh
from trimesh.resolvers import FilePathResolver

_GLB_MAGIC = b"glTF"
_GLB_HEADER_BYTES = 12
_COMPRESSIONS = {"KHR_draco_mesh_compression": "Draco", "EXT_meshopt_compression": "meshopt"}


class CompressedError(ValueError):
    """A file whose geometry is compressed."""


class _Resolver(FilePathResolver):
    """Finds files beside a glTF whose names are percent-encoded there, as its specification has it."""

    def get(self, name: str) -> bytes:
        return super().get(unquote(name))


def parse_gltf(data: bytes, path: Path) -> trimesh.Trimesh | trimesh.PointCloud:
    """Return the triangles of a file, or its points if it has no triangles.

    Args:
        data: The bytes of the file.
        path: Where it lies: buffers may lie beside it.

    Raises CompressedError if its geometry is compressed, and errors of any type if it is damaged.
    """
    _check_compression(_read_json(data))
    scene = trimesh.load_scene(
        io.BytesIO(data),
        file_type=path.suffix.lower().removeprefix("."),
        resolver=_Resolver(str(path)),
        process=False,
    )
    parts = scene.dump()
    meshes = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    if meshes:
        vertices, faces = trimesh.util.append_faces([part.vertices for part in meshes], [part.faces for part in meshes])
        return trimesh.Trimesh(vertices, faces, process=False)
    clouds = [part.vertices for part in parts if isinstance(part, trimesh.PointCloud)]
    return trimesh.PointCloud(np.concatenate(clouds or [np.empty((0, 3))]))


def _read_json(data: bytes) -> dict[str, Any]:
    """Return the description of the scene. Raises ValueError if there is none."""
    if data[:4] == _GLB_MAGIC:
        (length,) = struct.unpack_from("<I", data, _GLB_HEADER_BYTES)
        data = data[_GLB_HEADER_BYTES + 8 :][:length]
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError("no glTF scene in it")
    return content


def _check_compression(content: dict[str, Any]) -> None:
    used = [*content.get("extensionsRequired", []), *content.get("extensionsUsed", [])]
    for extension, name in _COMPRESSIONS.items():
        if extension in used:
            raise CompressedError(f"compressed by {name}")
