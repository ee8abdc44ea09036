"""The whole evaluation on sets whose answer is known: real heads, copies, noise, corruption, nothing at all."""

import pickle

import numpy as np
import pytest
import trimesh
from conftest import ellipsoid

from hyperdiffusion.evaluate import Effort, Real, evaluate, evaluate_clouds
from hyperdiffusion.features import features, frechet, kernel
from hyperdiffusion.metrics import clouds
from hyperdiffusion.report import report, table
from hyperdiffusion.validity import pierced, validity
from overfit import BadInput

EFFORT = Effort(points=500, emd_heads=4, emd_points=64)


def head(rng: np.random.Generator) -> trimesh.Trimesh:
    """An ellipsoid of random radii with two bumps for eyes."""
    mesh = ellipsoid(rng.uniform((60, 80, 70), (100, 140, 120)), 4)
    for side in (-1, 1):
        off = np.linalg.norm(mesh.vertices - [side * 30, 30, mesh.vertices[:, 2].max() - 12], axis=1)
        mesh.vertices += 5 * np.exp(-(off / 9) ** 2)[:, None] * [0, 0, 1]
    return mesh


@pytest.fixture(scope="module")
def heads() -> list[trimesh.Trimesh]:
    rng = np.random.default_rng(0)
    return [head(rng) for _ in range(90)]


@pytest.fixture(scope="module")
def real(heads) -> Real:
    return Real.of(heads[:30], heads[30:60], EFFORT)


def moved(mesh: trimesh.Trimesh, noise: float, rng: np.random.Generator) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices + noise * rng.standard_normal(mesh.vertices.shape), mesh.faces, process=False)


def test_real_heads_pass_and_copies_are_found(heads, real):
    fresh = evaluate("fresh", heads[60:], real, EFFORT)
    low, high = fresh.chamfer.one_nna.low, fresh.chamfer.one_nna.high
    assert low < 0.5 < high and fresh.chamfer.coverage.mean > 0.4
    assert fresh.copies.mean < 0.2 and fresh.authentic.mean > 0.2
    copied = evaluate("copied", heads[30:60], real, EFFORT)
    assert copied.copies.mean > 0.9 and copied.authentic.mean < 0.1
    assert copied.nearest == list(range(30))
    assert copied.nearest_mm.mean < fresh.nearest_mm.mean


def test_clouds_are_compared_as_the_meshes_that_they_come_from(heads, real):
    meshes, alone = (evaluate("meshes", heads[60:], real, EFFORT),
                     evaluate_clouds("clouds", clouds(heads[60:], 2, EFFORT.points), real, EFFORT))
    assert alone.chamfer == meshes.chamfer and alone.emd == meshes.emd and alone.spread_mm == meshes.spread_mm
    assert alone.normals is None and alone.copies is None and not alone.validity
    assert "| closed |  |" in table({"clouds": alone})


def test_what_was_looked_at_takes_no_more_memory_than_before():
    """Of thousands of heads, tables that a mesh keeps of its triangles would fill the memory."""
    rng = np.random.default_rng(3)
    held_out, learned, made = ([head(rng) for _ in range(4)] for _ in range(3))
    before = [len(pickle.dumps(meshes)) for meshes in (held_out, learned, made)]
    evaluate("made", made, Real.of(held_out, learned, EFFORT), EFFORT)
    after = [len(pickle.dumps(meshes)) for meshes in (held_out, learned, made)]
    assert np.array(after) == pytest.approx(before, rel=0.01)


def test_noise_on_the_learned_heads_is_told(heads, real):
    """Chamfer of few points hardly sees it; normals and pictures do."""
    rng = np.random.default_rng(1)
    plain, noisy = (evaluate("set", [moved(mesh, noise, rng) for mesh in heads[30:60]], real, EFFORT)
                    for noise in (0.0, 1.0))
    assert noisy.normals.mean < plain.normals.mean - 0.02
    assert noisy.frechet > 2 * plain.frechet and noisy.kernel > plain.kernel
    assert noisy.copies.mean > 0.7


def test_heads_without_a_surface_count_against_the_set(heads, real):
    whole = evaluate("whole", heads[60:], real, EFFORT)
    half = evaluate("half", [*heads[60:75], *[None] * 10, *[trimesh.Trimesh()] * 5], real, EFFORT)
    assert half.count == 30
    assert half.chamfer.one_nna.mean > whole.chamfer.one_nna.mean + 0.1
    assert half.chamfer.coverage.mean < whole.chamfer.coverage.mean
    assert np.mean([one.valid for one in half.validity]) == 0.5
    nothing = evaluate("nothing", [None] * 30, real, EFFORT)
    assert nothing.chamfer.one_nna.mean == 1 and nothing.chamfer.coverage.mean == 0


def test_pictures_order_corruptions(heads):
    """More noise is worse than less, smoothing is seen, and so are lost eyes; other real heads are nearest."""
    rng = np.random.default_rng(2)
    base = features(heads[:30])

    def smooth(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
        return trimesh.smoothing.filter_laplacian(mesh.copy(), iterations=20)

    eyeless = [ellipsoid(np.ptp(mesh.vertices, axis=0) / 2, 4) for mesh in heads[30:60]]
    sets = {"real": heads[30:60], "noise": [moved(mesh, 0.3, rng) for mesh in heads[30:60]],
            "much noise": [moved(mesh, 1.0, rng) for mesh in heads[30:60]],
            "smooth": [smooth(mesh) for mesh in heads[30:60]], "eyeless": eyeless}
    found = {name: features(meshes) for name, meshes in sets.items()}
    for distance in (frechet, kernel):
        seen = {name: distance(one, base) for name, one in found.items()}
        assert seen["real"] < min(seen["noise"], seen["smooth"], seen["eyeless"])
        assert seen["noise"] < seen["much noise"]


@pytest.mark.parametrize("settings, words", [
    (dict(points=0), "--points 0"), (dict(emd_heads=-1), "--emd-heads -1"), (dict(emd_points=0), "--emd-points 0")])
def test_efforts_that_make_no_sense_are_told(settings, words):
    with pytest.raises(BadInput, match=words):
        Effort(**settings)


def test_validity_of_known_shapes():
    good = validity(ellipsoid((75, 110, 90), 3))
    assert good.valid and good.litres == pytest.approx(4 / 3 * np.pi * 0.75 * 1.10 * 0.90, rel=0.03)
    assert good.height_mm == pytest.approx(220, abs=3)
    small = validity(ellipsoid((20, 30, 25), 3))
    assert small.closed and not small.human
    two = trimesh.util.concatenate([ellipsoid((75, 110, 90)), ellipsoid((5, 5, 5)).apply_translation((200, 0, 0))])
    assert validity(two).bodies == 2
    opened = ellipsoid((75, 110, 90))
    opened.update_faces(np.arange(len(opened.faces)) > 5)
    assert not validity(opened).closed
    assert not validity(None).valid


def test_a_mesh_that_cuts_itself_is_told():
    shape = ellipsoid((75, 110, 90), 3)
    assert pierced(shape) == 0
    other = ellipsoid((75, 110, 90), 3).apply_translation((31.7, 12.3, 5.1))
    assert pierced(trimesh.util.concatenate([shape, other])) > 50
    apart = ellipsoid((75, 110, 90), 3).apply_translation((151, 0, 0))
    assert pierced(trimesh.util.concatenate([shape, apart])) == 0


def test_the_report_is_one_page_with_its_pictures(heads, tmp_path):
    table = report([*heads[60:70], None], heads[:12], heads[30:50], tmp_path, EFFORT)
    assert "| 1-NNA |" in table and "| held out | learned from | generated |" in table
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 10 and "<svg" in page and "src='http" not in page
    assert (tmp_path / "report.md").read_text().startswith(table)
    assert '"one_nna"' in (tmp_path / "report.json").read_text()
