"""Raw scans whose truth is known come back in the canonical frame; what is no head is skipped with its reason."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation
from support import SHARED, ellipsoid

from overfit.fit_metrics import distances
from overfit.geometry.mesh import on_face_front
from overfit.runtime.errors import BadInput
from overfit.scans import coarse_search, registration, scan_alignment, surface_reconstruction
from overfit.scans import prepare as prepare_module
from overfit.scans.formats import Scan
from overfit.scans.prepare import PreparationConfig, load_template, prepare
from overfit.scans.template import Template


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Fewer hypotheses and larger cells than by default, for speed."""
    monkeypatch.setattr(coarse_search, "ROTATIONS", 300)
    monkeypatch.setattr(coarse_search, "SURVIVORS", 100)
    monkeypatch.setattr(registration, "COARSE_CANDIDATES", 4)
    monkeypatch.setattr(registration, "PART_CANDIDATES", 2)
    monkeypatch.setattr(registration, "SCAN_SIZES_MM", (210.0, 265.0))
    monkeypatch.setattr(surface_reconstruction, "CELL_MM", 4.0)


def posed(seed: int, factor: float) -> trimesh.Trimesh:
    """The template as a hand scanner gives it: in some pose and unit, open below, with a hole and flipped triangles."""
    mesh, random = Template.standard().mesh, np.random.default_rng(seed)
    kept = mesh.triangles_center[:, 1] > -110
    kept &= np.linalg.norm(mesh.triangles_center - mesh.vertices[random.integers(len(mesh.vertices))], axis=1) > 12
    faces = mesh.faces[kept]
    flipped = random.random(len(faces)) < 0.01
    faces = np.where(flipped[:, None], faces[:, ::-1], faces)
    vertices = mesh.vertices + random.normal(scale=0.2, size=mesh.vertices.shape)
    vertices = vertices @ Rotation.random(random_state=seed).as_matrix().T + random.normal(scale=300, size=3)
    return trimesh.Trimesh(vertices * factor, faces, process=False)


def prepare_file(path: Path, **options):
    return prepare(Scan(path.name, path), PreparationConfig(**options))


def face_distance(head: trimesh.Trimesh, rotation: np.ndarray | None = None) -> float:
    """Mean distance in mm of the template's face, rotated (3, 3), to a head."""
    truth = Template.standard().mesh
    face = truth.submesh([np.nonzero(on_face_front(truth))[0]], append=True)
    if rotation is not None:
        face.vertices = face.vertices @ rotation.T
    return distances(face, head, rng=np.random.default_rng(0), points=5000)[0].mean()


@pytest.mark.parametrize(
    "name, factor",
    [("mm.ply", 1.0), ("metres über.obj", 1e-3), ("inches.ply", 1 / 25.4), ("feet.stl", 1 / 304.8)],
)
def test_a_mesh_comes_back_to_the_canonical_frame(tmp_path, name, factor):
    posed(0, factor).export(tmp_path / name)
    result = prepare_file(tmp_path / name)
    assert result.report.skipped == ""
    assert result.head.is_watertight and result.head.body_count == 1
    assert face_distance(result.head) < 1.0
    assert result.report.kind == "mesh" and result.report.count == len(result.raw.faces)
    assert result.report.components == 1 and result.report.holes >= 2
    assert result.report.scale == pytest.approx(1 / factor, rel=0.02)
    assert result.report.size == "" and 150 < result.report.width_mm < 200
    assert result.report.scan_mm < 0.5 and result.report.scan_p95_mm < 1.5 and result.report.head_mm < 0.5


def test_a_size_that_no_unit_gives_is_an_adults_and_doubtful(tmp_path):
    posed(0, 0.0137).export(tmp_path / "odd.stl")
    result = prepare_file(tmp_path / "odd.stl")
    adult = scan_alignment.ADULT_WIDTH_MM / np.ptp(Template.standard().cloud.points[:, 0])
    assert result.report.scale == pytest.approx(adult / 0.0137, rel=0.02)
    assert result.report.size == "doubtful"


def test_a_unit_that_a_header_names_is_taken(tmp_path):
    # In inches, the columns would be a face mask.
    points = posed(4, 0.05).sample(12_000)
    np.savetxt(tmp_path / "scan.csv", points, delimiter=",", header="x (cm),y (cm),z (cm)", comments="")
    assert prepare_file(tmp_path / "scan.csv", keep_scale=True).report.scale == 10


def test_double_triangles_do_no_harm(tmp_path):
    mesh = posed(0, 1.0)
    doubled = trimesh.Trimesh(mesh.vertices, np.concatenate([mesh.faces, mesh.faces[:, ::-1]]), process=False)
    doubled.export(tmp_path / "scan.ply")
    result = prepare_file(tmp_path / "scan.ply")
    assert result.report.skipped == "" and face_distance(result.head) < 1.0
    assert "double triangles dropped" in result.report.remarks


def test_a_head_that_is_not_the_scans_surface_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(
        prepare_module, "_extract_head", lambda closed: Template.standard().mesh.copy().apply_scale(0.9)
    )
    posed(0, 1.0).export(tmp_path / "scan.ply")
    result = prepare_file(tmp_path / "scan.ply")
    assert result.head is None and result.report.scan_mm > 1
    assert "scan.ply: cannot be closed: the head lies" in result.report.skipped


def test_a_neck_apart_from_the_face_is_left_out_with_a_remark(tmp_path):
    """As a camera from above leaves it, in whose images the chin hides the throat."""
    mesh = Template.standard().mesh
    centre = mesh.triangles_center
    front = (centre[:, 2] > 0) & (mesh.face_normals[:, 2] > 0)
    height = centre[:, 1] - mesh.bounds[0, 1]
    face, neck = (mesh.submesh([np.nonzero(front & part)[0]], append=True) for part in (height > 60, height < 30))
    neck.apply_translation([0, 0, -60])
    points = np.concatenate([face.sample(18_000), neck.sample(2_000)])
    trimesh.PointCloud(points).export(tmp_path / "face.ply")
    result = prepare_file(tmp_path / "face.ply", unit="mm", keep_scale=True)
    assert result.report.skipped == "" and result.report.scan_p95_mm < 4
    assert "% of it lies apart from the head and is left out" in result.report.remarks


def test_points_come_back_to_the_canonical_frame(tmp_path):
    trimesh.PointCloud(posed(4, 0.1).sample(12_000)).export(tmp_path / "points.ply")
    result = prepare_file(tmp_path / "points.ply")
    assert result.head.is_watertight and result.head.body_count == 1
    assert face_distance(result.head) < 1.2
    assert result.report.kind == "points" and result.report.count == 12_000
    assert result.report.components is None and 0 <= result.report.noise_share < 0.05


def test_small_components_are_removed_as_noise(tmp_path):
    mesh = posed(0, 1.0)
    speck = trimesh.creation.icosphere(1, radius=5.0).apply_translation(mesh.centroid + [0, 0, 400])
    trimesh.util.concatenate([mesh, speck]).export(tmp_path / "scan.ply")
    result = prepare_file(tmp_path / "scan.ply")
    assert result.report.components == 2
    assert result.report.noise_share == pytest.approx(speck.area / (mesh.area + speck.area), rel=0.01)
    assert face_distance(result.head) < 1.0


def test_an_egg_is_skipped_with_what_was_found(tmp_path):
    ellipsoid((75.0, 115.0, 95.0), 4).export(tmp_path / "egg.ply")
    result = prepare_file(tmp_path / "egg.ply")
    assert result.head is None and result.raw is not None
    assert result.report.skipped.startswith("egg.ply: no face in it")
    assert result.report.relief < scan_alignment.MIN_RELIEF and result.report.scale > 0


def test_a_broken_file_is_skipped(tmp_path):
    (tmp_path / "broken.ply").write_bytes(
        b"ply\nformat binary_little_endian 1.0\nelement vertex 1000000000\nproperty float x\nend_header\n1234"
    )
    result = prepare_file(tmp_path / "broken.ply")
    assert result.head is None and result.raw is None
    assert result.report.skipped.startswith("broken.ply: cannot be read")
    # Nothing was found, but a later run knows the file by its bytes.
    assert result.report.relief is None and result.report.count is None and len(result.report.digest) == 64


def damaged(kind: str) -> trimesh.Trimesh:
    mesh = ellipsoid((75.0, 115.0, 95.0))
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


@pytest.mark.parametrize(
    "kind", ["not finite", "one infinite", "flat", "one place", "one far off", "one corner", "huge"]
)
def test_damaged_coordinates_end_in_a_reason(tmp_path, kind):
    damaged(kind).export(tmp_path / "a b.ply")
    # At one size: what is not refused before is no head, and would be searched at every other one.
    config = PreparationConfig("mm", keep_scale=True)
    result = prepare(Scan("below/a b.ply", tmp_path / "a b.ply"), config)
    assert result.head is None
    assert result.report.skipped.startswith("below/a b.ply: ") and "Error" not in result.report.skipped


def test_another_template_gives_its_own_frame(tmp_path):
    # The same head turned by 20 degrees, in centimetres.
    rotation = Rotation.from_euler("x", 20, degrees=True).as_matrix()
    mesh = Template.standard().mesh.copy()
    mesh.vertices = mesh.vertices @ rotation.T / 10
    mesh.export(tmp_path / "template.ply")
    posed(1, 1.0).export(tmp_path / "scan.ply")
    result = prepare_file(tmp_path / "scan.ply", template=tmp_path / "template.ply")
    assert face_distance(result.head, rotation) < 1.0


def test_a_template_that_holds_no_head_is_refused(tmp_path):
    (tmp_path / "template.ply").write_text("no mesh")
    with pytest.raises(BadInput, match="template.ply: cannot be read as a mesh"):
        load_template(tmp_path / "template.ply")


def test_a_scale_that_is_kept_is_not_estimated(tmp_path):
    posed(1, 0.37).export(tmp_path / "scan.ply")
    result = prepare_file(tmp_path / "scan.ply", unit="mm", keep_scale=True)
    assert result.report.scale == 1.0


def test_a_size_of_no_head_is_refused_if_the_scale_is_kept(tmp_path):
    posed(1, 20.0).export(tmp_path / "scan.ply")
    result = prepare_file(tmp_path / "scan.ply", keep_scale=True)
    assert "is no human head in mm, cm, m, in or ft; give its `unit`" in result.report.skipped


def test_an_unexpected_error_is_a_reason(tmp_path, monkeypatch):
    def fail(surface):
        raise IndexError("what nobody\nthought of")

    monkeypatch.setattr(prepare_module, "clean", fail)
    posed(1, 1.0).export(tmp_path / "scan.ply")
    result = prepare_file(tmp_path / "scan.ply")
    assert "scan.ply: cannot be prepared (IndexError: what nobody thought of); " in result.report.skipped


@pytest.mark.parametrize("name", ["menpo_james.obj", "SIMPOP_02.obj"])
def test_real_scans_come_out_upright_and_facing_us(name):
    if not (SHARED / "scans").exists():
        pytest.skip("no shared data beside the checkout")
    head = prepare_file(SHARED / "scans" / name).head
    nose = head.vertices[head.vertices[:, 2].argmax()]
    # The foremost point of a face is its nose: in the middle, below the eyes.
    assert abs(nose[0]) < 12 and -70 < nose[1] < 0 and nose[2] > 60
