"""Files as people really have them are read as the head that they hold, or refused by their cause."""

import numpy as np
import pytest
from support import SHARED

from overfit.geometry.point_cloud import PointCloud
from overfit.runtime.errors import BadInput
from overfit.scans.clean import clean
from overfit.scans.formats import Scan, find_raw_scans, load_raw

FOLDER = SHARED / "odd_scans"
# All but a few hold the same head: its extents and its area in mm.
EXTENTS = np.array([267.5, 250.9, 355.1])
AREA = 234_900.0

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="no shared data beside the checkout")


def read(name: str):
    return load_raw(Scan(name, FOLDER / name))


def test_every_file_is_found_and_hidden_ones_are_not():
    names = [scan.name for scan in find_raw_scans(FOLDER)]
    assert len(names) == 29
    assert {f"depth/{one}" for one in ("dA_truedepth_appledouble", "dF_no_intrinsics")} <= set(names)


@pytest.mark.parametrize(
    "name, to_mm, unit, remark",
    [
        ("c01_european_semicolon.csv", 1, None, ""),
        ("c02_european_space.xyz", 1, None, ""),
        ("c07_id_first_no_header.csv", 1, None, ""),
        ("c08b_unit_header.csv", 1, "mm", ""),
        ("c08c_pos_header.csv", 1, None, ""),
        ("c09b_dash_rows.csv", 1, None, "1,800 points without coordinates left out"),
        ("c22_header_nx_zero.csv", 1, None, "normals of length zero estimated anew"),
        ("p18_gaussian_splat_zero_normals.ply", 1000, None, "normals of length zero estimated anew"),
        ("g06_points.glb", 1000, None, ""),
    ],
)
def test_points(name, to_mm, unit, remark):
    raw = read(name)
    assert isinstance(raw.surface, PointCloud)
    np.testing.assert_allclose(np.ptp(raw.surface.points, axis=0) * to_mm, EXTENTS, rtol=0.01)
    assert raw.content.unit == unit and "; ".join(raw.content.remarks) == remark


@pytest.mark.parametrize(
    "name",
    [
        "o04_negative_interleaved.obj",
        "o13_bom.obj",
        "o22_zero_index.obj",
        "p07_mixed_quads.ply",
        "s05_trailing_bytes.stl",
        "h03_double_sided_shared.ply",
        "h10b_soup_jitter_flipped.stl",
    ],
)
def test_meshes_are_cleaned_to_the_surface_of_the_head(name):
    cleaned = clean(read(name).surface).surface
    assert cleaned.area == pytest.approx(AREA, rel=0.03)
    np.testing.assert_allclose(np.ptp(cleaned.bounds, axis=0), EXTENTS, rtol=0.01)
    assert cleaned.is_winding_consistent and cleaned.volume > 0


def test_of_a_thick_mask_the_outer_wall_is_left():
    raw = read("h05_thick_mask.stl").surface
    cleaned = clean(raw)
    # The outer wall is larger than the inner one, which lies 3 mm behind it.
    assert 0.5 < cleaned.surface.area / raw.area < 0.58
    assert cleaned.statistics.remarks == ("the inner wall of a shell left out",)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("g01_draco.glb", "compressed by Draco; export it without compression"),
        ("g02_meshopt.glb", "compressed by meshopt; export it without compression"),
        ("depth/dF_no_intrinsics", "depth images without intrinsics.json"),
    ],
)
def test_what_is_refused_is_refused_by_its_cause(name, reason):
    with pytest.raises(BadInput, match=reason):
        read(name)


@pytest.mark.parametrize(
    "name, remark",
    [
        ("dA_truedepth_appledouble", ""),
        ("dB_png_appledouble", ""),
        ("dC2_png_8bit_scaled", "8-bit depth in steps of 4 mm, too coarse for a face"),
        ("dD_portrait_rotated", "frames turned by 90 degrees, to the shape of their intrinsics"),
        ("dG_rgb_beside", "color_000.png left out: an array of shape (240, 320, 3), not one number a pixel"),
        ("dH_zero_byte", "depth_001.png left out: empty"),
    ],
)
def test_depth_captures(name, remark):
    raw = read(f"depth/{name}")
    assert len(raw.surface.points) > 10_000 and raw.content.unit == "mm"
    assert "; ".join(raw.content.remarks) == remark
