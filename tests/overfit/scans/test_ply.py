"""PLY files of every kind hold the same triangles as trimesh wrote, or as they were built from."""

import numpy as np
import pytest
import trimesh
from support import ellipsoid

from overfit.scans.ply import parse_ply

MESH = ellipsoid((70.0, 110.0, 90.0))
QUADS = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
TRIANGLES = np.array([[0, 1, 4], [2, 3, 6], [5, 6, 7]])
VERTICES = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def header(order, *, faces, count_type="uchar", index_type="int", extra=""):
    return (
        f"ply\nformat {order} 1.0\ncomment a head\nelement vertex {len(VERTICES)}\nproperty float x\nproperty float y\n"
        f"property float z\nelement face {faces}\n{extra}property list {count_type} {index_type} vertex_indices\n"
        "end_header\n"
    ).encode()


def mixed(order):
    """Bytes with quads between triangles, and what they divide into."""
    mark = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(order)
    faces = [TRIANGLES[0], QUADS[0], TRIANGLES[1], QUADS[1], TRIANGLES[2]]
    if mark:
        body = VERTICES.astype(mark + "f4").tobytes()
        body += b"".join(bytes([len(face)]) + face.astype(mark + "i4").tobytes() for face in faces)
    else:
        lines = [" ".join(map(str, row)) for row in VERTICES.tolist()]
        lines += [" ".join(map(str, [len(face), *face])) for face in faces]
        body = "\n".join(lines).encode()
    return header(order, faces=len(faces)) + body


def as_set(triangles):
    """Triangles whatever their order and first corner."""
    return {tuple(np.roll(one, -int(np.argmin(one))).tolist()) for one in triangles}


@pytest.mark.parametrize("encoding", ["binary", "ascii"])
def test_files_as_trimesh_writes_them(encoding):
    data = trimesh.exchange.ply.export_ply(MESH, encoding=encoding, vertex_normal=True)
    content = parse_ply(data)
    np.testing.assert_allclose(content.vertices, MESH.vertices, atol=1e-4)
    np.testing.assert_allclose(content.normals, MESH.vertex_normals, atol=1e-5)
    np.testing.assert_array_equal(content.triangles, MESH.faces)


@pytest.mark.parametrize("order", ["binary_little_endian", "binary_big_endian", "ascii"])
def test_triangles_and_quads_mixed(order):
    content = parse_ply(mixed(order))
    np.testing.assert_allclose(content.vertices, VERTICES)
    fans = [[face[0], face[1], face[2]] for face in QUADS] + [[face[0], face[2], face[3]] for face in QUADS]
    assert as_set(content.triangles) == as_set([*TRIANGLES, *np.array(fans)])


def test_numbers_before_and_after_the_corners():
    extra = "property uchar flags\nproperty list uchar float texcoord\n"
    body = VERTICES.tobytes()
    for face, texture in ((TRIANGLES[0], 6), (QUADS[0], 8), (TRIANGLES[1], 0)):
        body += bytes([7, texture]) + np.ones(texture, np.float32).tobytes()
        body += bytes([len(face)]) + face.astype(np.int32).tobytes()
    content = parse_ply(header("binary_little_endian", faces=3, extra=extra) + body)
    assert len(content.triangles) == 4 and as_set(TRIANGLES[:2]) <= as_set(content.triangles)


@pytest.mark.parametrize("order", ["binary_little_endian", "ascii"])
def test_triangle_strips_alternate(order):
    strip = np.array([0, 1, 2, 3, -1, 4, 5, 6])
    text = header(order, faces=0).replace(
        b"end_header", b"element tristrips 1\nproperty list int int vertex_indices\nend_header"
    )
    if order == "ascii":
        rows = [*VERTICES.tolist(), [len(strip), *strip.tolist()]]
        body = "\n".join(" ".join(map(str, row)) for row in rows).encode()
    else:
        body = VERTICES.tobytes() + np.array([len(strip), *strip], np.int32).tobytes()
    assert as_set(parse_ply(text + body).triangles) == {(0, 1, 2), (1, 3, 2), (4, 5, 6)}


def test_points_without_faces():
    text = header("binary_little_endian", faces=0)
    assert len(parse_ply(text + VERTICES.tobytes()).triangles) == 0


def test_lines_may_end_as_in_windows():
    data = mixed("ascii").replace(b"\n", b"\r\n")
    assert len(parse_ply(data).triangles) == len(parse_ply(mixed("ascii")).triangles)


@pytest.mark.parametrize("order", ["binary_little_endian", "ascii"])
@pytest.mark.parametrize("part", [0.2, 0.7, 0.95])
def test_files_that_end_early_are_refused(order, part):
    data = mixed(order)
    with pytest.raises(ValueError):
        parse_ply(data[: int(part * len(data))])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ply\nend_header\n",
        b"ply\nformat ascii 1.0\nelement vertex x\nend_header\n",
        b"ply\nformat ascii 1.0\nelement face 0\nproperty list uchar int vertex_indices\nend_header\n",
        b"ply\nformat binary_little_endian 1.0\nelement vertex 99999999999\nproperty float x\nend_header\n",
    ],
)
def test_damaged_headers_are_refused(data):
    with pytest.raises(ValueError):
        parse_ply(data)
