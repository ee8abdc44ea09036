"""Heads as scanners see them: a person and factors in, a closed mesh in millimetres out."""

from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float

from hyperdiffusion.data.facial_hair import beard_thickness
from hyperdiffusion.data.factors import Factors
from hyperdiffusion.data.glasses import GlassesFitter
from hyperdiffusion.data.hair import hair_displacement
from hyperdiffusion.data.head_surface import HeadSurface, Surface, clip_below
from hyperdiffusion.data.headwear import visor, with_headwear
from hyperdiffusion.data.scalp import Scalp, SmoothNoise, smoothstep
from hyperdiffusion.data.solids import to_arrays, to_manifold
from hyperdiffusion.data.synthetic_heads import HeadModel, Person

# Wavelength in mm of a scanner's noise, and its standard deviation in mm, least and most.
NOISE_WAVELENGTH_MM, NOISE_MM = 5.0, (0.12, 0.35)
# How fast hair gets thinner towards an ear.
EAR_SLOPE = 3.0
# Heights of a bun on the mean head in mm, also of one below headwear; it is behind this depth, and has this radius.
BUN_HEIGHT_MM, LOW_BUN_MM, BUN_FRONT_MM, BUN_MM = (0.0, 98.0), -25.0, -60.0, (22.0, 32.0)
# Centre of a bun above the skull, in its radii; half of the width in mm of the middle of the head's back.
BUN_OUT, MIDDLE_MM = 0.55, 8.0
# Depth of a bun's windings, as a share of its radius, and how many there are around it and along a radius.
WINDINGS, WINDINGS_AROUND, WINDINGS_ALONG = 0.03, 7, 5
# Wave numbers of the noise of scanners are drawn once, by this seed; those of hair have the seeds 0 to 4.
NOISE_SEED = 5


class HeadPopulation:
    """Random heads with hair, beards, glasses, headwear and the traces of a scanner."""

    def __init__(self, model: HeadModel) -> None:
        self.with_ears, self.without_ears = _Template(model, ears=True), _Template(model, ears=False)

    def mesh(self, person: Person, factors: Factors, rng: np.random.Generator) -> trimesh.Trimesh:
        """Return the head as a closed mesh of one component, in millimetres and the canonical frame."""
        template = self.without_ears if factors.ears_covered == "yes" else self.with_ears
        return template.mesh(person, factors, rng)


class _Template:
    """Heads of one topology."""

    def __init__(self, model: HeadModel, *, ears: bool) -> None:
        self.head = HeadSurface(model, ears=ears)
        self.scalp = Scalp(self.head.coordinates, self.head.ear)
        self.noise = SmoothNoise(self.head.coordinates, NOISE_WAVELENGTH_MM, seed=NOISE_SEED)
        self.glasses = GlassesFitter(self.scalp)

    def mesh(self, person: Person, factors: Factors, rng: np.random.Generator) -> trimesh.Trimesh:
        surface = self.head(person)
        vertices = surface.vertices + self._relief(factors, surface, rng)
        if factors.style == "noisy":
            sigma = rng.uniform(*NOISE_MM)
            vertices = vertices + sigma * self.noise(rng)[:, None] * self.head.vertex_normals(vertices)
        parts = self._solids(factors, surface, vertices, rng)
        mesh = clip_below(vertices, self.head.faces, surface.neck_height)
        return _united(mesh, parts) if parts else mesh

    def _relief(self, factors: Factors, surface: Surface, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
        """Return how far in mm hair, headwear and beard move each vertex."""
        lumpy, covered = factors.style == "lumpy", factors.ears_covered == "yes"
        moved = hair_displacement(
            factors.hair,
            surface,
            self.scalp,
            rng,
            covering=covered,
            lumpy=lumpy,
            fringe=factors.headwear == "none",
        )
        wide = covered and factors.hair != "bob"
        moved = with_headwear(moved, factors.headwear, surface, self.scalp, rng, covering=wide)
        beard = beard_thickness(factors.beard, self.scalp, rng, lumpy=lumpy)
        moved += (beard - np.linalg.norm(moved, axis=1)).clip(0)[:, None] * surface.normals
        return moved * smoothstep(1 - EAR_SLOPE * self.scalp.ear)[:, None]

    def _solids(self, factors: Factors, surface: Surface, vertices: np.ndarray, rng: np.random.Generator) -> list[Any]:
        parts = []
        if factors.hair == "bun":
            parts.append(self._bun(vertices, surface.normals, rng, low=factors.headwear != "none"))
        if factors.headwear == "cap":
            parts.append(visor(self.scalp, vertices))
        if factors.glasses != "none":
            parts += self.glasses.solids(factors.glasses, surface, rng)
        return parts

    def _bun(self, vertices: np.ndarray, normals: np.ndarray, rng: np.random.Generator, *, low: bool) -> Any:
        height = LOW_BUN_MM if low else rng.uniform(*BUN_HEIGHT_MM)
        x, y, z = self.scalp.coordinates.T
        back = np.flatnonzero((np.abs(x) < MIDDLE_MM) & (z < BUN_FRONT_MM))
        nearest = back[np.argmin(np.abs(y[back] - height))]
        radius = rng.uniform(*BUN_MM)
        ball = trimesh.creation.icosphere(subdivisions=4)
        around = np.arctan2(ball.vertices[:, 1], ball.vertices[:, 0])
        twist = np.sin(WINDINGS_AROUND * around + WINDINGS_ALONG * ball.vertices[:, 2])
        points = ball.vertices * radius * (1 + WINDINGS * twist[:, None])
        return to_manifold(points + vertices[nearest] + BUN_OUT * radius * normals[nearest], np.asarray(ball.faces))


def _united(mesh: trimesh.Trimesh, parts: list[Any]) -> trimesh.Trimesh:
    """Return the union of a head and solids that overlap it; pieces that do not are left out."""
    import manifold3d

    solid = manifold3d.Manifold(manifold3d.Mesh64(mesh.vertices, mesh.faces.astype(np.uint64)))
    # The parts first: a union of all at once would handle the head's many triangles several times.
    union = solid + manifold3d.Manifold.batch_boolean(parts, manifold3d.OpType.Add)
    points, faces = to_arrays(max(union.decompose(), key=manifold3d.Manifold.volume))
    return trimesh.Trimesh(points, faces, process=False)
