"""OBJ files of every kind hold the triangles that they were built from."""

import numpy as np
import pytest
from support import ellipsoid

from overfit.scans.obj import BLOCK_BYTES, parse_obj

MESH = ellipsoid((70.0, 110.0, 90.0))
VERTEX_LINES = [f"v {x} {y} {z}" for x, y, z in MESH.vertices]
FACE_LINES = [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in MESH.faces]


def parse(lines):
    return parse_obj("\n".join(lines).encode())


def assert_is_mesh(content):
    np.testing.assert_allclose(content.vertices, MESH.vertices)
    np.testing.assert_array_equal(content.triangles, MESH.faces)
    assert content.damaged_faces == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace(" ", "\t"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\nf ", " 0.5 0.5 0.5\nf ", 1),
        lambda text: "mtllib a.mtl\no head\n" + text.replace("\nf ", "\nusemtl skin\ns 1\nf ", 1),
        lambda text: text.replace(" 1 ", " \\\n1 "),
        lambda text: text.replace("\n", "\n  "),
    ],
)
def test_spellings_of_the_same_mesh(change):
    assert_is_mesh(parse_obj(change("\n".join(VERTEX_LINES + FACE_LINES)).encode()))


@pytest.mark.parametrize("corner", ["{0}/1", "{0}/1/2", "{0}//2", "{0}/-1/-2"])
def test_indices_of_textures_and_normals_are_left_out(corner):
    faces = ["f " + " ".join(corner.format(index + 1) for index in face) for face in MESH.faces]
    assert_is_mesh(parse(VERTEX_LINES + faces))


def test_negative_indices_count_back_from_their_line():
    lines, mesh_faces, count = [], [], 0
    for face in MESH.faces[:300]:
        lines += [VERTEX_LINES[index] for index in face] + ["f -3 -2 -1"]
        mesh_faces.append([count, count + 1, count + 2])
        count += 3
    content = parse(lines)
    np.testing.assert_array_equal(content.triangles, mesh_faces)
    np.testing.assert_allclose(content.vertices[content.triangles], MESH.triangles[:300])


def test_negative_indices_across_blocks():
    padding = ["# " + "x" * 100] * (BLOCK_BYTES // 100)
    content = parse([*VERTEX_LINES, *padding, "f -3 -2 -1", VERTEX_LINES[0], "f -1 1 2"])
    last = len(VERTEX_LINES)
    np.testing.assert_array_equal(content.triangles, [[last - 3, last - 2, last - 1], [last, 0, 1]])


def test_faces_of_more_corners_are_fans():
    content = parse([*VERTEX_LINES, "f 1 2 3 4", "f 5 6 7", "f 8 9 10 11 12"])
    assert content.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [4, 5, 6], [7, 8, 9], [7, 9, 10], [7, 10, 11]]


def test_faces_that_name_missing_vertices_are_counted():
    content = parse([*VERTEX_LINES, *FACE_LINES, "f 0 1 2", f"f 1 2 {len(VERTEX_LINES) + 1}", "f 1 2", "f a b c"])
    np.testing.assert_array_equal(content.triangles, MESH.faces)
    assert content.damaged_faces == 4


def test_a_file_that_counts_from_zero():
    content = parse([*VERTEX_LINES, *[f"f {a} {b} {c}" for a, b, c in MESH.faces]])
    assert_is_mesh(content)
    assert content.counts_from_zero and not parse(VERTEX_LINES + FACE_LINES).counts_from_zero


def test_points_alone():
    content = parse(VERTEX_LINES)
    assert len(content.vertices) == len(MESH.vertices) and not len(content.triangles)
