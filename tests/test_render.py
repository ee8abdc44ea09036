"""Pictures: light falls where it should, and a sheet shows what is in it."""

import numpy as np
from conftest import ellipsoid
from PIL import Image

from hyperdiffusion.render import render, sheet


def test_a_sphere_is_round_and_lit_from_above():
    image = render(ellipsoid((100,) * 3, 4), 65, extent=250.0).astype(int).sum(2)
    drawn = image < 765
    assert drawn.mean() == np.clip(drawn.mean(), 0.49, 0.52)  # pi 100^2 / 250^2
    assert not drawn[0, 0] and drawn[32, 32]
    assert image[14, 32] > image[50, 32] + 100


def test_turning_the_head_shows_its_side():
    nose = ellipsoid((10, 10, 100))
    assert np.ptp(np.nonzero(render(nose, 64, 0, 250.0).sum(2) < 765)[1]) < 10
    left, right = (np.nonzero(render(nose, 64, turn, 250.0, np.array([0.0, 0.0, 100.0])).sum(2) < 765)[1]
                   for turn in (-90, 90))
    # What lies behind the view's middle goes to the right as the face turns left, and the other way.
    assert left.min() > 30 and right.max() < 34


def test_a_sheet_holds_every_mesh_and_view_in_its_row(tmp_path):
    small, large = ellipsoid((40,) * 3), ellipsoid((100,) * 3)
    sheet([("one", [large, small]), ("other", [small])], tmp_path / "sheet.png", size=50, turns=(0, 90))
    picture = np.asarray(Image.open(tmp_path / "sheet.png")).sum(2) < 765
    assert picture.shape == (2 * (50 + 24), 4 * 50)
    drawn = [[picture[top + 24:top + 74, left:left + 50].mean() for left in range(0, 200, 50)] for top in (0, 74)]
    assert drawn[0][0] == drawn[0][1] > 3 * drawn[0][2] > 0
    assert drawn[1][2] == drawn[1][3] == 0
