"""Damaged files of every format give a scan or one line, never anything else."""

import base64
import json
import struct

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ellipsoid

from overfit.geometry.point_cloud import PointCloud
from overfit.runtime.errors import BadInput
from overfit.scans.formats import Scan, load_raw

# 2,000 mutations in all.
MUTATIONS_PER_FORMAT = 143
MESH = ellipsoid((70.0, 110.0, 90.0))
POINTS = np.asarray(MESH.vertices)


def text(delimiter: str, header: str = "") -> bytes:
    lines = [delimiter.join(f"{value:.3f}" for value in row) for row in POINTS]
    return "\n".join([header] * bool(header) + lines).encode()


def pcd(encoding: str) -> bytes:
    header = (
        f"VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {len(POINTS)}\nHEIGHT 1\n"
        f"POINTS {len(POINTS)}\nDATA {encoding}\n"
    ).encode()
    return header + (POINTS.astype("<f4").tobytes() if encoding == "binary" else text(" "))


def gltf() -> bytes:
    """A glTF file with its buffer inside."""
    parts = trimesh.exchange.gltf.export_gltf(trimesh.Scene(MESH))
    document = json.loads(parts.pop("model.gltf"))
    for buffer in document["buffers"]:
        content = base64.b64encode(parts[buffer["uri"]]).decode()
        buffer["uri"] = f"data:application/octet-stream;base64,{content}"
    return json.dumps(document).encode()


FILES = {
    "binary.ply": trimesh.exchange.ply.export_ply(MESH),
    "text.ply": trimesh.exchange.ply.export_ply(MESH, encoding="ascii"),
    "a.obj": trimesh.exchange.obj.export_obj(MESH).encode(),
    "binary.stl": trimesh.exchange.stl.export_stl(MESH),
    "text.stl": trimesh.exchange.stl.export_stl_ascii(MESH).encode(),
    "a.off": trimesh.exchange.off.export_off(MESH).encode(),
    "a.glb": trimesh.exchange.gltf.export_glb(trimesh.Scene(MESH)),
    "a.gltf": gltf(),
    "a.xyz": text(" "),
    "a.pts": text(" ", str(len(POINTS))),
    "a.csv": text(",", "x,y,z"),
    "a.asc": text(";", "X (mm);Y (mm);Z (mm)").replace(b".", b","),
    "binary.pcd": pcd("binary"),
    "text.pcd": pcd("ascii"),
}

# Numbers that headers and tables break on.
SPLINTERS = [b"\x00", b"\xff" * 4, b"-1", b"1e999", b"nan", b"\n", b",", b"99999999999", struct.pack("<I", 1 << 31)]
MUTATION = st.tuples(
    # Most files break in their headers.
    st.one_of(st.floats(0, 0.02), st.floats(0, 1)),
    st.sampled_from(["replace", "insert", "delete", "end", "repeat"]),
    st.sampled_from(SPLINTERS) | st.binary(min_size=1, max_size=8),
)


def mutated(data: bytes, mutations: list[tuple[float, str, bytes]]) -> bytes:
    for place, kind, splinter in mutations:
        position = int(place * len(data))
        before, after = data[:position], data[position:]
        if kind == "replace":
            data = before + splinter + after[len(splinter) :]
        elif kind == "insert":
            data = before + splinter + after
        elif kind == "delete":
            data = before + after[len(splinter) :]
        elif kind == "end":
            data = before
        else:
            data = before + after[:100] + after
    return data


@pytest.mark.parametrize("name", FILES)
def test_a_mutated_file_is_a_scan_or_refused_in_one_line(name, tmp_path):
    path = tmp_path / name

    @settings(max_examples=MUTATIONS_PER_FORMAT, deadline=None, derandomize=True, database=None)
    @given(st.lists(MUTATION, min_size=1, max_size=4))
    def check(mutations):
        path.write_bytes(mutated(FILES[name], mutations))
        try:
            # As `prepare` does: damaged numbers may overflow before they are found to be damaged.
            with np.errstate(all="ignore"):
                surface = load_raw(Scan(name, path)).surface
        except BadInput as error:
            assert str(error).startswith(f"{name}: ") and "\n" not in str(error)
            return
        points = surface.points if isinstance(surface, PointCloud) else surface.vertices
        assert np.isfinite(points).all() and len(points) >= 3

    check()
