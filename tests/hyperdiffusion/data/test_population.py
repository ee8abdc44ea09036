"""Heads of the population: closed solids, and what each factor does to them."""

from dataclasses import replace

import igl
import numpy as np
import pytest
import trimesh

from hyperdiffusion.data.factors import LEVELS, Factors
from hyperdiffusion.data.solids import to_arrays, to_manifold

# All levels of all factors.
HEADS = (
    Factors(hair="bald", beard="full", glasses="thin", headwear="headband", ears_covered="yes"),
    Factors(hair="cropped", beard="moustache", style="noisy"),
    Factors(hair="short", glasses="thick", headwear="cap", style="lumpy"),
    Factors(hair="bob", beard="stubble", ears_covered="yes", style="noisy"),
    Factors(hair="bun", glasses="thin", headwear="headband"),
    Factors(hair="curly", beard="full", headwear="cap", ears_covered="yes", style="lumpy"),
)


@pytest.fixture(scope="module")
def make(population, person):
    """A head of one person, whose other randomness is always the same."""

    def make(factors: Factors = Factors(), actions: dict[str, float] | None = None, seed: int = 0) -> trimesh.Trimesh:
        shown = replace(person, actions=actions or {})
        return population.mesh(shown, factors, np.random.default_rng(seed))

    return make


@pytest.fixture(scope="module")
def bald(make) -> trimesh.Trimesh:
    return make()


@pytest.fixture(scope="module")
def surface(population, person):
    return population.with_ears.head(person)


def added(mesh: trimesh.Trimesh, to: trimesh.Trimesh) -> trimesh.Trimesh:
    """What a head has more than another."""
    solid = to_manifold(mesh.vertices, mesh.faces) - to_manifold(to.vertices, to.faces)
    return trimesh.Trimesh(*to_arrays(solid), process=False)


def volume_where(mesh: trimesh.Trimesh, *planes: tuple[tuple[float, float, float], float]) -> float:
    """Volume in cm³ of the part of a mesh beyond planes, each a normal and an offset in mm."""
    solid = to_manifold(mesh.vertices, mesh.faces)
    for normal, offset in planes:
        solid = solid.trim_by_plane(normal, offset)
    return solid.volume() / 1000


def test_heads_of_all_levels_are_watertight_single_components_of_human_size(make):
    assert all({getattr(factors, name) for factors in HEADS} == set(levels) for name, levels in LEVELS.items())
    for seed, factors in enumerate(HEADS):
        mesh = make(factors, seed=seed)
        assert mesh.is_watertight and mesh.is_winding_consistent and mesh.body_count == 1, factors
        assert 3e6 < mesh.volume < 9e6, factors
        # No part is far from the head: a visor reaches 6 cm, a bun as much.
        assert (np.ptp(mesh.bounds, axis=0) < 380).all(), factors
        # The neck ends in a plane.
        cut = (mesh.triangles_center[:, 1] < mesh.bounds[0][1] + 1e-3) & (mesh.face_normals[:, 1] < -0.999)
        assert 2000 < mesh.area_faces[cut].sum() < 40_000, factors


def test_a_bald_head_without_anything_is_the_plain_one(model, person, bald):
    plain = model.mesh(person)
    distance = np.sqrt(igl.point_mesh_squared_distance(plain.vertices[::20], bald.vertices, bald.faces)[0])
    assert np.median(distance) < 0.2 and np.quantile(distance, 0.95) < 0.6
    assert bald.volume == pytest.approx(plain.volume, rel=0.01)


def test_glasses_add_rims_in_front_of_the_eyes(make, bald, surface):
    frame = added(make(Factors(glasses="thick")), to=bald)
    for eye in surface.eyes:
        forwards, outwards = ((0.0, 0.0, 1.0), eye[2]), ((np.sign(eye[0]), 0.0, 0.0), 0.0)
        # A ring of 13 cm, of 5.5 by 4.5 mm.
        assert volume_where(frame, forwards, outwards) > 2
    # Temples reach behind the ears.
    assert frame.bounds[0][2] < -60


def test_a_bob_covers_the_ears(make, population, surface):
    bob = make(Factors(hair="bob", ears_covered="yes"))
    ears = surface.vertices[population.with_ears.scalp.ear > 0.9]
    assert ears[:, 0].max() > 60 and ears[:, 0].min() < -60
    outside = igl.signed_distance(ears[::5], np.asarray(bob.vertices), np.asarray(bob.faces))[0]
    # Tips of ears that stand out would be pressed by the hair.
    assert np.mean(outside < 0) > 0.8 and outside.max() < 8


def test_a_cap_raises_the_top_and_has_a_visor(make, bald):
    cap = make(Factors(headwear="cap"))
    assert 8 < cap.bounds[1][1] - bald.bounds[1][1] < 25
    assert cap.bounds[1][2] - bald.bounds[1][2] > 20


def test_a_full_beard_adds_volume_below_the_lips(make, bald):
    beard = added(make(Factors(beard="full")), to=bald)
    assert volume_where(beard, ((0.0, -1.0, 0.0), 85.0), ((0.0, 0.0, 1.0), 0.0)) > 20
    # Nothing at the eyes.
    assert volume_where(beard, ((0.0, 1.0, 0.0), -10.0), ((0.0, 0.0, 1.0), 20.0)) < 0.1


def test_hair_adds_volume_on_the_skull_and_leaves_the_face_free(make, bald):
    hair = added(make(Factors(hair="curly")), to=bald)
    assert hair.volume / 1000 > 300
    assert volume_where(hair, ((0.0, -1.0, 0.0), 0.0), ((0.0, 0.0, 1.0), 50.0)) < 0.1


def test_an_open_mouth_is_a_cavity(make, bald, population, person):
    shown = replace(person, actions={"jawOpen": 0.8, "mouthLowerDownLeft": 0.2, "mouthLowerDownRight": 0.2})
    open_surface = population.with_ears.head(shown)
    lips = (population.with_ears.head.cavity > 0) & (population.with_ears.head.cavity < 0.1)
    middle = open_surface.vertices[lips].mean(0)
    depth = {}
    for name, mesh in (("open", make(actions=dict(shown.actions))), ("closed", bald)):
        hits, *_ = mesh.ray.intersects_location([[0.0, middle[1], 300.0]], [[0.0, 0.0, -1.0]])
        depth[name] = 300 - hits[:, 2].max()
    assert depth["open"] > depth["closed"] + 12


def test_noise_of_a_scanner_is_fine_and_faint(make, bald):
    noisy = make(Factors(style="noisy"))
    distance = np.sqrt(igl.point_mesh_squared_distance(noisy.vertices[::40], bald.vertices, bald.faces)[0])
    assert 0.05 < distance.mean() < 0.5 and distance.max() < 2


def test_the_same_generator_gives_the_same_head(make):
    first, again = (make(HEADS[1], seed=1) for _ in range(2))
    assert np.array_equal(first.vertices, again.vertices) and np.array_equal(first.faces, again.faces)
    assert not np.array_equal(make(HEADS[1], seed=2).vertices, first.vertices)
