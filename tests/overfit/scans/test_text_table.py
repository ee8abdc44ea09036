"""Point tables of every layout hold the same points; what is not understood is refused, never guessed."""

import numpy as np
import pytest

from overfit.runtime.errors import BadInput
from overfit.scans.text_table import BLOCK_BYTES, read_table

POINTS = np.random.default_rng(0).normal(0, 70, (600, 3)).round(3)
NORMALS = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)


def table(columns, *, header="", delimiter=",", end="\n"):
    rows = np.concatenate(columns, axis=1)
    lines = [delimiter.join(f"{value:.6f}" for value in row) for row in rows]
    return (end.join([*([header] if header else []), *lines]) + end).encode()


def counts(first):
    return np.arange(first, first + len(POINTS))[:, None]


@pytest.mark.parametrize(
    "header",
    [
        "x,y,z",
        "X,Y,Z",
        '"X","Y","Z"',
        "X (mm),Y (mm),Z (mm)",
        "x [mm],y [mm],z [mm]",
        "x_mm,y_mm,z_mm",
        "X in mm,Y in mm,Z in mm",
        "pos_x,pos_y,pos_z",
        "position.x,position.y,position.z",
        "Points:0,Points:1,Points:2",
        '"Points_0","Points_1","Points_2"',
        "//X,Y,Z",
        "# x, y, z",
        "X coordinate,Y coordinate,Z coordinate",
    ],
)
def test_headers_that_name_coordinates(header):
    found = read_table(table([POINTS[:, [0, 1, 2]]], header=header), name="a.csv")
    np.testing.assert_allclose(found.points, POINTS)
    assert found.unreadable_rows == 0


@pytest.mark.parametrize(
    "header, unit",
    [
        ("X (mm),Y (mm),Z (mm)", "mm"),
        ("x [cm],y [cm],z [cm]", "cm"),
        ("x_m,y_m,z_m", "m"),
        ("X in inches,Y in inches,Z in inches", "in"),
        ("x (feet),y (feet),z (feet)", "ft"),
        ("x,y,z", None),
    ],
)
def test_units_that_headers_name(header, unit):
    assert read_table(table([POINTS], header=header), name="a.csv").unit == unit


def test_columns_are_taken_by_name_whatever_their_order():
    data = table([NORMALS, counts(1), POINTS[:, ::-1]], header="nx,ny,nz,id,Z (mm),Y (mm),X (mm)")
    found = read_table(data, name="a.csv")
    np.testing.assert_allclose(found.points, POINTS)
    np.testing.assert_allclose(found.normals, NORMALS, atol=1e-6)


@pytest.mark.parametrize("header", ["Normals:0 Normals:1 Normals:2 Points:0 Points:1 Points:2", "//Nx Ny Nz X Y Z"])
def test_headers_of_known_programs(header):
    found = read_table(table([NORMALS, POINTS], header=header, delimiter=" "), name="a.asc")
    np.testing.assert_allclose(found.points, POINTS)
    np.testing.assert_allclose(found.normals, NORMALS, atol=1e-6)


def test_a_spaced_header_with_units():
    found = read_table(table([POINTS], header="X (cm)  Y (cm)  Z (cm)", delimiter="\t"), name="a.txt")
    np.testing.assert_allclose(found.points, POINTS)
    assert found.unit == "cm"


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_that_count_the_rows_are_no_coordinates(first):
    found = read_table(table([counts(first), POINTS, NORMALS]), name="a.csv")
    np.testing.assert_allclose(found.points, POINTS)
    np.testing.assert_allclose(found.normals, NORMALS, atol=1e-6)


@pytest.mark.parametrize("delimiter", [";", " ", "\t", "; "])
@pytest.mark.parametrize("header", [None, "X", "comment"])
def test_decimal_commas(delimiter, header):
    names = {None: "", "X": delimiter.join("XYZ"), "comment": "exported by a scanner at noon"}[header]
    data = table([POINTS], delimiter=delimiter).replace(b".", b",")
    np.testing.assert_allclose(read_table(names.encode() + b"\n" + data, name="a.txt").points, POINTS)


def test_commas_for_decimals_and_columns_are_refused():
    data = table([POINTS]).replace(b".", b",")
    for header in (b"", b"x,y,z\n"):
        with pytest.raises(BadInput, match="commas before decimals"):
            read_table(header + data, name="a.csv")


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(mark):
    data = table([POINTS], header="x,y,z").decode().encode(mark)
    np.testing.assert_allclose(read_table(data, name="a.csv").points, POINTS)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends(end):
    for header in ("", "x,y,z", "made by hand" + end + "x,y,z"):
        found = read_table(table([POINTS], header=header, end=end), name="a.csv")
        np.testing.assert_allclose(found.points, POINTS)


@pytest.mark.parametrize("row, count", [(b"1,2", 3), (b"lost", 3), (b"1,2,?", 3), (b"", 0)])
def test_unreadable_rows_are_counted(row, count):
    lines = table([POINTS]).splitlines()
    lines[5:5] = [row] * 3
    found = read_table(b"\n".join(lines), name="a.csv")
    np.testing.assert_allclose(found.points, POINTS)
    assert found.unreadable_rows == count


@pytest.mark.parametrize("row", [b",,", b"-,-,-", b"NaN,NaN,NaN"])
def test_rows_that_were_not_measured_have_nan(row):
    found = read_table(b"x,y,z\n" + row + b"\n" + table([POINTS]), name="a.csv")
    np.testing.assert_allclose(found.points[1:], POINTS)
    assert np.isnan(found.points[0]).all() and found.unreadable_rows == 0


def test_more_than_a_tenth_of_unreadable_rows_is_refused():
    lines = table([POINTS]).splitlines()
    with pytest.raises(BadInput, match="^a.csv: 100 of 700 rows"):
        read_table(b"\n".join([*lines, *[b"lost"] * 100]), name="a.csv")


@pytest.mark.parametrize("header", ["u,v,w", "lat,lon,height", "x,y,depth"])
def test_headers_that_are_not_understood_are_shown(header):
    with pytest.raises(BadInput, match=f"header without x, y and z .{header}"):
        read_table(table([POINTS], header=header), name="a.csv")


def test_a_header_of_more_columns_than_rows_have_is_refused():
    with pytest.raises(BadInput, match="6 columns in its header and 3 in its first row"):
        read_table(table([POINTS], header="a,b,c,x,y,z"), name="a.csv")


def test_words_in_other_columns_do_no_harm():
    lines = [f"skin,{x},{y},{z},ok" for x, y, z in POINTS]
    data = "\n".join(["label,x,y,z,remark", *lines]).encode()
    np.testing.assert_allclose(read_table(data, name="a.csv").points, POINTS)
    with pytest.raises(BadInput, match="does not begin with x, y and z"):
        read_table("\n".join(lines).encode(), name="a.csv")


def test_blocks_join_without_loss():
    copies = 2 * BLOCK_BYTES // len(table([POINTS]))
    found = read_table(table([POINTS]) * copies, name="a.csv")
    np.testing.assert_allclose(found.points, np.tile(POINTS, (copies, 1)))
