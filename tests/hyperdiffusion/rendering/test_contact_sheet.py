"""Contact sheets hold every mesh in its place, and every skipped scan with its reason."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import ellipsoid

from hyperdiffusion.rendering.contact_sheet import (
    display_mesh,
    draw_preparation,
    write_contact_sheet,
    write_preparation_sheets,
)
from overfit.geometry.point_cloud import PointCloud
from overfit.scans.prepare import Preparation, PreparationReport


def drawn(path: Path) -> np.ndarray:
    """Return which pixels of a picture are not white."""
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int).sum(2) < 3 * 255


def test_a_contact_sheet_holds_every_mesh_and_view_in_its_row(tmp_path):
    small, large = ellipsoid((40,) * 3), ellipsoid((100,) * 3)
    rows = [("one", [large, small]), ("other", [small])]
    write_contact_sheet(rows, tmp_path / "sheet.png", size=50, yaws=(0, 90))
    picture = drawn(tmp_path / "sheet.png")
    assert picture.shape == (2 * (50 + 24), 4 * 50)
    shares = [[picture[top + 24 : top + 74, left : left + 50].mean() for left in range(0, 200, 50)] for top in (0, 74)]
    assert shares[0][0] == shares[0][1] > 3 * shares[0][2] > 0
    assert shares[1][2] == shares[1][3] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize("scale", [0.001, 1.0])
def test_raw_scans_of_any_unit_are_displayed_at_one_size(scale):
    vertices = scale * (np.asarray(ellipsoid((80, 125, 100), 4).vertices) + 300)
    mesh = display_mesh(PointCloud(vertices, vertices))
    assert len(mesh.faces) == len(vertices)
    assert np.ptp(mesh.vertices, axis=0).max() == pytest.approx(250)
    assert np.abs(mesh.bounds.mean(0)).max() < 1e-6


def preparation(name: str, *, skipped: str = "") -> Preparation:
    head = ellipsoid((80, 120, 100))
    return Preparation(PreparationReport(name, skipped=skipped), raw=head, head=None if skipped else head)


def test_a_preparation_is_drawn_with_its_head_from_two_sides(tmp_path):
    draw_preparation(preparation("a.ply"), tmp_path / "a.png")
    draw_preparation(preparation("b.ply", skipped="b.ply: no face"), tmp_path / "b.png")
    views = [np.split(drawn(tmp_path / name), 3, axis=1) for name in ("a.png", "b.png")]
    assert [[view.any() for view in row] for row in views] == [[True, True, True], [True, False, False]]


def test_preparation_sheets_show_all_scans_and_the_reasons_of_skipped_ones(tmp_path):
    prepared, skipped = preparation("a.ply"), preparation("b.ply", skipped="b.ply: no face; scan it again")
    draw_preparation(prepared, tmp_path / "prepared_view.png")
    draw_preparation(skipped, tmp_path / "skipped_view.png")
    reports = {}
    for index in range(49):
        one, view = (skipped, "skipped_view.png") if index == 1 else (prepared, "prepared_view.png")
        reports[tmp_path / f"{index}.ply"] = one.report
        shutil.copy(tmp_path / view, tmp_path / f"{index}.png")
    sheets = write_preparation_sheets(reports, tmp_path)
    assert [path.name for path in sheets] == ["prepared.png", "prepared_2.png"]
    with Image.open(sheets[0]) as picture:
        assert picture.size == (4 * 3 * 192, 12 * (192 + 20))
        pixels = np.asarray(picture).astype(int)
    # Skin is reddish too, but less.
    red = pixels[..., 0] - pixels[..., 1] > 80
    # The reason stands where the second scan's head would be.
    second = slice(3 * 192 + 192, 2 * 3 * 192)
    assert red[:212, second].sum() > 50 and not red[212:].any() and not red[:, : 3 * 192].any()
