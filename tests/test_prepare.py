"""Raw scans whose truth is known come back in the canonical frame; what is no head is set aside with its reason."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import trimesh
from conftest import ONE_THREAD, SHARED, ellipsoid
from scipy.spatial.transform import Rotation

from overfit import BadInput, Store
from overfit.accuracy import distances
from overfit.occupancy import on_face
from overfit.prepare import Preparation, prepare
from overfit.prepared_folder import prepare_folder
from overfit.registration import Template
from overfit.scans import Scan

QUICK = ["--near", "6000", "--wide", "2000", "--uniform", "2000", "--first-steps", "200", "--steps", "60", "--points",
         "512", "--worst-mm", "20", "--review", "32", "--threads", "1"]


def posed(seed: int, factor: float) -> trimesh.Trimesh:
    """The template as a hand scanner gives it: in some pose and unit, open below, with a hole and flipped triangles."""
    mesh, random = Template.standard().mesh.subdivide(), np.random.default_rng(seed)
    kept = mesh.triangles_center[:, 1] > -110
    kept &= np.linalg.norm(mesh.triangles_center - mesh.vertices[random.integers(len(mesh.vertices))], axis=1) > 12
    faces = mesh.faces[kept]
    flipped = random.random(len(faces)) < 0.01
    faces = np.where(flipped[:, None], faces[:, ::-1], faces)
    vertices = mesh.vertices + random.normal(scale=0.2, size=mesh.vertices.shape)
    vertices = vertices @ Rotation.random(random_state=seed).as_matrix().T + random.normal(scale=300, size=3)
    return trimesh.Trimesh(vertices * factor, faces, process=False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    work = tmp_path_factory.mktemp("prepare")
    (work / "scans").mkdir()
    for seed, (name, factor) in enumerate({"mm.ply": 1.0, "metres über.obj": 1e-3, "odd.stl": 0.37}.items()):
        posed(seed, factor).export(work / "scans" / name)
    trimesh.PointCloud(posed(4, 0.1).sample(20_000)).export(work / "scans" / "points.ply")
    ellipsoid((75.0, 115.0, 95.0), 4).export(work / "scans" / "egg.ply")
    (work / "scans" / "broken.ply").write_bytes(b"ply\nformat binary_little_endian 1.0\nelement vertex 1000000000\n"
                                                b"property float x\nend_header\n1234")
    done = subprocess.run([sys.executable, "-m", "hyperdiffusion", "prepare", work / "scans", work / "out",
                           "--threads", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return work, done


def test_heads_come_back_to_the_canonical_frame(prepared):
    work, done = prepared
    truth = Template.standard().mesh
    face = truth.submesh([np.nonzero(on_face(truth))[0]], append=True)
    assert "4 prepared, 0 kept from before, 2 set aside" in done.stdout
    for name in ("mm", "metres über", "odd", "points"):
        head = trimesh.load_mesh(work / "out" / f"{name}.ply")
        assert head.is_watertight and head.body_count == 1
        assert distances(face, head, np.random.default_rng(0), 5000)[0].mean() < 1.0
    assert (work / "out" / "prepared.png").stat().st_size > 10_000


def test_what_is_no_head_is_set_aside_with_its_reason(prepared):
    work, done = prepared
    assert "set aside: egg.ply: no face in it" in done.stdout
    assert "set aside: broken.ply: cannot be read" in done.stdout
    assert not (work / "out" / "egg.ply").exists()
    rows = (work / "out" / "prepared.csv").read_text().splitlines()
    assert len(rows) == 7 and rows[0].startswith("name,digest,kind")


def test_run_again_it_keeps_what_it_has(prepared):
    work, _ = prepared
    before = (work / "out" / "mm.ply").stat().st_mtime_ns
    (work / "out" / "odd.ply").unlink()
    outcome = prepare_folder(work / "scans", work / "out", machine=ONE_THREAD)
    assert (work / "out" / "mm.ply").stat().st_mtime_ns == before
    assert (work / "out" / "odd.ply").exists() and len(outcome.reports) == 6 and len(outcome.kept) == 5


def damaged(kind: str) -> trimesh.Trimesh:
    mesh = ellipsoid((75.0, 115.0, 95.0), 4)
    vertices, faces = np.array(mesh.vertices), mesh.faces
    if kind == "not finite":
        vertices[::2] = np.nan
    elif kind == "one infinite":
        vertices[7] = np.inf
    elif kind == "flat":
        vertices[:, 2] = 0
    elif kind == "one place":
        vertices[:] = 5
    elif kind == "one far off":
        vertices[7] = 1e25
    elif kind == "one corner":
        faces = np.zeros_like(faces)
    return trimesh.Trimesh(vertices * (1e30 if kind == "huge" else 1), faces, process=False)


@pytest.mark.parametrize("kind", ["not finite", "one infinite", "flat", "one place", "one far off", "one corner",
                                  "huge"])
def test_damaged_coordinates_end_in_a_reason(tmp_path, kind):
    damaged(kind).export(tmp_path / "a b.ply")
    prepared = prepare(Scan("below/a b.ply", tmp_path / "a b.ply"), Preparation())
    assert prepared.head is None
    assert "a b.ply: " in prepared.report.set_aside and "Error" not in prepared.report.set_aside


def test_another_template_gives_its_own_frame(tmp_path):
    """Of the same head turned by 20 degrees, in centimetres."""
    turn = Rotation.from_euler("x", 20, degrees=True).as_matrix()
    mesh = Template.standard().mesh.copy()
    mesh.vertices = mesh.vertices @ turn.T / 10
    mesh.export(tmp_path / "template.ply")
    posed(1, 1.0).export(tmp_path / "scan.ply")
    head = prepare(Scan("scan.ply", tmp_path / "scan.ply"), Preparation(template=tmp_path / "template.ply")).head
    truth = Template.standard().mesh
    face = truth.submesh([np.nonzero(on_face(truth))[0]], append=True)
    face.vertices = face.vertices @ turn.T
    assert distances(face, head, np.random.default_rng(0), 5000)[0].mean() < 1.0


def test_a_missing_template_ends_the_run_before_it_begins(tmp_path):
    posed(1, 1.0).export(tmp_path / "scan.ply")
    with pytest.raises(BadInput, match="nowhere.ply"):
        prepare_folder(tmp_path, tmp_path.parent / "out", Preparation(template=tmp_path / "nowhere.ply"), ONE_THREAD)


def test_what_nobody_thought_of_does_not_end_the_others(tmp_path):
    prepared = prepare(Scan("gone.ply", tmp_path / "gone.ply"), Preparation())
    assert "gone.ply: cannot be prepared (FileNotFoundError" in prepared.report.set_aside


def test_overfit_prepares_by_itself(prepared):
    work, _ = prepared
    shutil.copytree(work / "out", work / "store" / "prepared")
    done = subprocess.run([sys.executable, "-m", "hyperdiffusion", "overfit", work / "scans", work / "store", *QUICK],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0 prepared, 4 kept from before, 2 set aside" in done.stdout and "4 fitted" in done.stdout
    assert {record.name for record in Store(work / "store").read().records} == {
        "mm.ply", "metres über.ply", "odd.ply", "points.ply"}


def test_real_scans_come_out_upright_and_facing_us(tmp_path):
    if not (SHARED / "scans").exists():
        pytest.skip("no shared data beside the checkout")
    (tmp_path / "scans").mkdir()
    for name in ("menpo_james.obj", "SIMPOP_02.obj"):
        (tmp_path / "scans" / name).symlink_to(SHARED / "scans" / name)
    outcome = prepare_folder(tmp_path / "scans", tmp_path / "out", machine=ONE_THREAD)
    assert not outcome.set_aside
    for path in outcome.reports:
        head = trimesh.load_mesh(path)
        nose = head.vertices[head.vertices[:, 2].argmax()]
        # The foremost point of a face is its nose: in the middle, below the eyes.
        assert abs(nose[0]) < 12 and -70 < nose[1] < 0 and nose[2] > 60
