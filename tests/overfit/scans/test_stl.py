"""Binary STL files hold the triangles that they were built from, whatever follows them."""

import numpy as np
import pytest
import trimesh
from support import ellipsoid

from overfit.scans.stl import parse_stl

MESH = ellipsoid((70.0, 110.0, 90.0))
DATA = trimesh.exchange.stl.export_stl(MESH)


@pytest.mark.parametrize("data", [DATA, DATA + b"trailer", b"solid head".ljust(80) + DATA[80:]])
def test_triangles(data):
    np.testing.assert_allclose(parse_stl(data), MESH.triangles, atol=1e-4)


def test_text_is_left_to_others():
    assert parse_stl(trimesh.exchange.stl.export_stl_ascii(MESH).encode()) is None


@pytest.mark.parametrize("data", [b"", DATA[:60], DATA[:-1]])
def test_files_that_end_early_are_refused(data):
    with pytest.raises(ValueError):
        parse_stl(data)
