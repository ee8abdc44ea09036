"""Point files of every kind hold the same points; damaged ones are refused."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from support import ellipsoid

from overfit.geometry.point_cloud import PointCloud
from overfit.runtime.errors import BadInput
from overfit.scans.formats import Scan, load_raw

MESH = ellipsoid((80.0, 120.0, 90.0), 4)
POINTS, NORMALS = np.asarray(MESH.vertices), np.asarray(MESH.vertex_normals)
COLOURS = np.tile([200.0, 100.0, 50.0], (len(POINTS), 1))


def read(path: Path) -> PointCloud:
    return load_raw(Scan(path.name, path)).surface


@pytest.mark.parametrize(
    "name, columns, header, delimiter",
    [
        ("a.xyz", (POINTS,), "", " "),
        ("a.asc", (POINTS, NORMALS), "", " "),
        ("a.txt", (POINTS, COLOURS, NORMALS), "", ","),
        ("a.txt", (POINTS, NORMALS), "// made by a scanner\nX;Y;Z;Nx;Ny;Nz", ";"),
        ("a.csv", (COLOURS, POINTS), "r,g,b,x,y,z", ","),
        ("a.txt", (POINTS,), "a title\n", "\t"),
        ("a.pts", (POINTS, COLOURS), str(len(POINTS)), " "),
    ],
)
def test_text_of_every_layout(tmp_path, name, columns, header, delimiter):
    table = np.concatenate(columns, axis=1)
    np.savetxt(tmp_path / name, table, fmt="%.6f", header=header, delimiter=delimiter, comments="")
    cloud = read(tmp_path / name)
    np.testing.assert_allclose(cloud.points, POINTS, atol=1e-5)
    if any(one is NORMALS for one in columns):
        np.testing.assert_allclose(cloud.normals, NORMALS, atol=1e-4)
    else:
        assert cloud.normals is None


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_pcd(tmp_path, encoding):
    table = np.concatenate([POINTS, NORMALS], axis=1).astype(np.float32)
    header = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z normal_x normal_y normal_z\nSIZE 4 4 4 4 4 4\nTYPE F F F F F F\n"
        f"COUNT 1 1 1 1 1 1\nWIDTH {len(table)}\nHEIGHT 1\nPOINTS {len(table)}\nDATA {encoding}\n"
    ).encode()
    # A blank line does no harm.
    text = "\n\n".join(" ".join(map(str, row)) for row in table)
    body = table.tobytes() if encoding == "binary" else text.encode()
    (tmp_path / "a.pcd").write_bytes(header + body)
    cloud = read(tmp_path / "a.pcd")
    np.testing.assert_allclose(cloud.points, POINTS, atol=1e-4)
    np.testing.assert_allclose(cloud.normals, NORMALS, atol=1e-4)


def test_ply_without_faces(tmp_path):
    trimesh.PointCloud(POINTS).export(tmp_path / "a.ply")
    np.testing.assert_allclose(read(tmp_path / "a.ply").points, POINTS, atol=1e-4)


def test_las_and_laz(tmp_path):
    laspy = pytest.importorskip("laspy")
    las = laspy.create(point_format=0, file_version="1.2")
    las.header.scales = [0.001] * 3
    las.x, las.y, las.z = POINTS.T
    for name in ("a.las", "a.laz"):
        las.write(tmp_path / name)
        np.testing.assert_allclose(read(tmp_path / name).points, POINTS, atol=0.001)


def test_e57(tmp_path):
    pye57 = pytest.importorskip("pye57")
    with pye57.E57(str(tmp_path / "a.e57"), mode="w") as file:
        file.write_scan_raw({f"cartesian{axis}": POINTS[:, index].copy() for index, axis in enumerate("XYZ")})
    np.testing.assert_allclose(read(tmp_path / "a.e57").points, POINTS, atol=0.001)


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.las", b"LASF" + bytes(300)),
        ("a.laz", b"junk"),
        ("a.laz", b"LASF" + bytes(range(256)) * 2),
        ("a.xyz", b"1 " * 5000),
        (
            "a.pcd",
            b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1000000000 1 1\nPOINTS 10\nDATA binary\n" + bytes(240),
        ),
        ("a.e57", b"ASTM-E57" + bytes(100)),
        ("a.xyz", b""),
        ("a.xyz", b"not a number\n" * 200),
        ("a.txt", b"1 2\n3 4\n" * 600),
        ("a.txt", b"nan nan nan\n" * 900),
        ("a.asc", b"1 2 3\n" * 20),
        ("a.asc", b"1 2 3\n" * 800 + b"4 five 6\n" * 100),
        ("a.pcd", b"FIELDS x y z\nDATA ascii\n"),
        ("a.pcd", b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 99999999999\nDATA binary\n" + bytes(24)),
        ("a.pcd", b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 4\nDATA binary_compressed\n" + bytes(24)),
        ("a.csv", bytes(range(256)) * 10),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=f"^{name}: "):
        read(tmp_path / name)
