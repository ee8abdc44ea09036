"""glTF scenes lie where their nodes, joints and number formats put them."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation
from support import ellipsoid

from overfit.scans.gltf import CompressedError, parse_gltf

MESH = ellipsoid((70.0, 110.0, 90.0))
SHIFT = np.array([10.0, -20.0, 30.0])
KINDS = {"f4": 5126, "u2": 5123, "u1": 5121, "i2": 5122, "i1": 5120, "u4": 5125}


class Builder:
    """A scene of one mesh, whose accessors are added one by one."""

    def __init__(self):
        self.data = b""
        self.content = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": [], "scene": 0}

    def add(self, values: np.ndarray, kind: str, **options) -> int:
        values = np.ascontiguousarray(values, f"<{kind}")
        width = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}[values.shape[1]]
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes}
        self.content["bufferViews"].append(view)
        self.content["accessors"].append(
            {"bufferView": len(self.content["bufferViews"]) - 1, "componentType": KINDS[kind], "count": len(values)}
            | {"type": width}
            | options
        )
        self.data += values.tobytes() + bytes(-values.nbytes % 4)
        return len(self.content["accessors"]) - 1

    def parse(self, nodes, primitive, **content):
        uri = "data:application/octet-stream;base64," + base64.b64encode(self.data).decode()
        whole = self.content | {
            "scenes": [{"nodes": [0]}],
            "nodes": nodes,
            "meshes": [{"primitives": [primitive]}],
            "buffers": [{"byteLength": len(self.data), "uri": uri}],
        }
        return parse_gltf(json.dumps(whole | content).encode(), Path("head.gltf"))


def test_a_scene_as_trimesh_writes_it():
    scene = trimesh.Scene()
    turn = trimesh.transformations.rotation_matrix(1.0, [1, 2, 3], SHIFT)
    scene.add_geometry(MESH, transform=turn)
    content = parse_gltf(trimesh.exchange.gltf.export_glb(scene), Path("head.glb"))
    truth = MESH.copy().apply_transform(turn)
    np.testing.assert_allclose(content.vertices[content.triangles], truth.triangles, atol=1e-3)


@pytest.mark.parametrize("kind, atol", [("i2", 0.01), ("u2", 0.01), ("i1", 1.0)])
def test_quantised_positions(kind, atol):
    builder = Builder()
    # Normalised integers, which a node's scale and translation bring to the size of the head.
    share = MESH.vertices / 110.0 if kind[0] == "i" else (MESH.vertices / 110.0 + 1) / 2
    scale, shift = (110.0, SHIFT) if kind[0] == "i" else (220.0, SHIFT - 110.0)
    position = builder.add(np.round(share * np.iinfo(kind).max), kind, normalized=True)
    primitive = {"attributes": {"POSITION": position}, "indices": builder.add(MESH.faces.reshape(-1, 1), "u2")}
    found = builder.parse([{"mesh": 0, "scale": [scale] * 3, "translation": shift.tolist()}], primitive)
    np.testing.assert_allclose(found.vertices, MESH.vertices + SHIFT, atol=atol)
    np.testing.assert_array_equal(found.triangles, MESH.faces)


def test_a_skinned_mesh_lies_where_its_joints_put_it():
    builder = Builder()
    count = len(MESH.vertices)
    # The file's unit is a hundredth, which the joints undo; the upper half hangs on a joint that is turned and moved.
    turn = Rotation.from_euler("y", 30, degrees=True)
    primitive = {
        "attributes": {
            "POSITION": builder.add(MESH.vertices / 100, "f4"),
            "JOINTS_0": builder.add(np.stack([MESH.vertices[:, 1] > 0] + [np.zeros(count)] * 3, axis=1), "u1"),
            "WEIGHTS_0": builder.add(np.tile([1.0, 0, 0, 0], (count, 1)), "f4"),
        },
        "indices": builder.add(MESH.faces.reshape(-1, 1), "u2"),
    }
    inverse = builder.add(np.stack([np.eye(4).ravel()] * 2), "f4")
    nodes = [
        {"children": [1, 2], "scale": [100, 100, 100]},
        # The node's own scale counts for nothing.
        {"mesh": 0, "skin": 0, "scale": [7, 7, 7]},
        {"children": [3]},
        {"rotation": turn.as_quat().tolist(), "translation": (SHIFT / 100).tolist()},
    ]
    found = builder.parse(nodes, primitive, skins=[{"joints": [2, 3], "inverseBindMatrices": inverse}])
    upper = MESH.vertices[:, 1] > 0
    np.testing.assert_allclose(found.vertices[~upper], MESH.vertices[~upper], atol=1e-3)
    np.testing.assert_allclose(found.vertices[upper], turn.apply(MESH.vertices[upper]) + SHIFT, atol=1e-3)


@pytest.mark.parametrize(
    "mode, triangles", [(5, [[0, 1, 2], [3, 2, 1], [2, 3, 4]]), (6, [[0, 1, 2], [0, 2, 3], [0, 3, 4]])]
)
def test_strips_and_fans(mode, triangles):
    builder = Builder()
    primitive = {"attributes": {"POSITION": builder.add(MESH.vertices[:5], "f4")}, "mode": mode}
    assert builder.parse([{"mesh": 0}], primitive).triangles.tolist() == triangles


def test_sparse_values_replace_others():
    builder = Builder()
    rows = builder.add(np.array([[1], [3]]), "u2")
    values = builder.add(np.array([SHIFT, -SHIFT]), "f4")
    views = [builder.content["accessors"][index]["bufferView"] for index in (rows, values)]
    sparse = {
        "count": 2,
        "indices": {"bufferView": views[0], "componentType": KINDS["u2"]},
        "values": {"bufferView": views[1]},
    }
    position = builder.add(MESH.vertices[:6], "f4", sparse=sparse)
    found = builder.parse([{"mesh": 0}], {"attributes": {"POSITION": position}})
    expected = MESH.vertices[:6].copy()
    expected[[1, 3]] = SHIFT, -SHIFT
    np.testing.assert_allclose(found.vertices, expected, atol=1e-4)


@pytest.mark.parametrize(
    "extension, name", [("KHR_draco_mesh_compression", "Draco"), ("EXT_meshopt_compression", "meshopt")]
)
def test_compression_is_named(extension, name):
    with pytest.raises(CompressedError, match=name):
        parse_gltf(json.dumps({"extensionsUsed": [extension]}).encode(), Path("head.gltf"))


def test_damaged_scenes_are_refused():
    builder = Builder()
    primitive = {"attributes": {"POSITION": builder.add(MESH.vertices, "f4")}}
    with pytest.raises(ValueError, match="circle"):
        builder.parse([{"children": [1]}, {"children": [0], "mesh": 0}], primitive)
    builder.content["accessors"][0]["count"] *= 2
    with pytest.raises(ValueError, match="ends before"):
        builder.parse([{"mesh": 0}], primitive)
    builder.content["accessors"][0] |= {"count": 10**12}
    del builder.content["accessors"][0]["bufferView"]
    with pytest.raises(ValueError, match="more values than"):
        builder.parse([{"mesh": 0}], primitive)
