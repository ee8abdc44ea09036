"""Evaluation: sets of head meshes in; how they compare with heads held out and heads learned from, out.

Quality without novelty is copying: every figure of a generated set stands beside the same of the heads learned from,
and of the held-out ones themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import trimesh
from scipy.spatial import cKDTree
from tqdm import tqdm

from overfit import workers
from overfit.decode import largest_body
from overfit.errors import BadInput
from overfit.occupancy import surface_samples

from .features import features, frechet, kernel
from .metrics import (
    POINTS,
    Comparison,
    Figure,
    authentic,
    chamfer,
    clouds,
    compare,
    components,
    copies,
    divergence,
    earth_movers,
    spread,
    standardised,
)
from .validity import Validity, validity

# Where copies are told from lookalikes, distances are found from a share of a head's points to a multiple of them.
SPARSE, DENSE = 4, 8
# Fixed points from which heads are measured for their compactness.
ANCHORS = 256


@dataclass(frozen=True)
class Effort:
    """How thoroughly sets are compared."""

    # Points on a head for chamfer distances.
    points: int = POINTS
    # Heads of each set whose earth mover's distances are found, and their points; 0 heads leave it out. The time grows
    # with the square of the heads and the cube of the points: a pair of 2,048 points takes half a second.
    emd_heads: int = 32
    emd_points: int = 1024
    # Also compare clouds each by itself about its middle and over its deviation, as published evaluations do.
    standardised: bool = True

    def __post_init__(self):
        for name, least in (("points", SPARSE), ("emd_heads", 0), ("emd_points", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"--{name.replace('_', '-')} {getattr(self, name)}: give {least} or more")


@dataclass(frozen=True)
class Evaluated:
    """All figures of one set; those without a meaning for it are None."""

    count: int
    chamfer: Comparison | None
    # Each cloud by itself about its middle and over its deviation, as the published evaluation has it.
    standardised: Comparison | None
    emd: Comparison | None
    divergence: float | None
    # Mean distance of pairs, mm.
    spread_mm: float
    # Principal components for 90 % of the variance.
    compactness: int
    # Mean cosine of the normals between a held-out head and its nearest of the set.
    normals: Figure | None = None
    frechet: float | None = None
    kernel: float | None = None
    # Mean distance to the nearest head learned from: the classic specificity of a head model. The MMD is its
    # generalisation.
    nearest_mm: Figure | None = None
    copies: Figure | None = None
    authentic: Figure | None = None
    # Of each head; empty for clouds.
    validity: list[Validity] = field(default_factory=list)
    # For each head: index of its nearest head learned from and the distance in millimetres.
    nearest: list[int] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Real:
    """The real heads that sets are compared with, and what is known of them."""

    meshes: list[trimesh.Trimesh]
    clouds: np.ndarray
    within: np.ndarray
    # The same of the clouds standardised.
    standardised_within: np.ndarray | None
    # Earth mover's distances among the first heads, as many as the effort asks for.
    emd_within: np.ndarray
    features: np.ndarray
    learned: list[trimesh.Trimesh]
    # Few and many points of the heads learned from.
    learned_clouds: tuple[np.ndarray, np.ndarray] | None
    learned_within: np.ndarray
    # (held out, learned).
    to_learned: np.ndarray
    anchors: np.ndarray

    @classmethod
    def of(cls, held_out: list[trimesh.Trimesh], learned: list[trimesh.Trimesh], effort: Effort = Effort(),
           cores: int = 1) -> "Real":
        """Of heads held out and heads learned from, of which there may be none."""
        points, others = clouds(held_out, 0, effort.points), _both(learned, 1, effort) if learned else None
        within = _chamfer("held-out heads", points, points, cores)
        empty = np.zeros((len(held_out), 0))
        anchors = np.concatenate(points)[np.random.default_rng(0).permutation(points.shape[0] * points.shape[1])]
        alone = standardised(points)
        by_itself = _chamfer("held-out, standardised", alone, alone, cores) if effort.standardised else None
        few = points[:effort.emd_heads, :effort.emd_points]
        moved = _earth_movers("held-out heads", few, few, cores)
        seen = _seen("held-out heads", held_out, cores)
        return cls(held_out, points, within, by_itself, moved, seen, learned, others,
                   _nearness("heads learned from", others, others, cores) if learned else empty,
                   _nearness("held-out to learned", _both(held_out, 0, effort), others, cores) if learned else empty,
                   anchors[:ANCHORS])

    def row(self, cores: int = 1) -> Evaluated:
        """The held-out heads themselves, as a set: what no generator can be better than."""
        return Evaluated(len(self.meshes), None, None, None, None, spread(self.within), self.compactness(self.clouds),
                         validity=_valid(self.meshes, cores), **_novelty(self.to_learned, self))

    def compactness(self, points: np.ndarray) -> int:
        """Of a set's clouds: components of the distances from fixed points."""
        whole = points[~np.isnan(points).any((1, 2))]
        if len(whole) < 2:
            return 0
        return components(np.array([cKDTree(cloud).query(self.anchors)[0] for cloud in whole]))


def evaluate(name: str, whole: Sequence[trimesh.Trimesh | None], real: Real, effort: Effort = Effort(), cores: int = 1,
             seed: int = 2, is_learned: bool = False) -> Evaluated:
    """A set of heads against the real ones. A mesh that is None is a head that failed: it counts, and against the set.

    What is said of validity is of the whole meshes, all else of the largest body of each. `is_learned` tells that the
    set is of the heads learned from, whose novelty has no meaning.
    """
    meshes = [None if mesh is None or not len(mesh.faces) else largest_body(mesh) for mesh in whole]
    found, across = _compared(name, clouds(meshes, seed, effort.points), real, effort, cores)
    to_learned = np.zeros((len(meshes), 0))
    if len(real.learned) and not is_learned:
        to_learned = _nearness(f"{name} to learned", _both(meshes, seed, effort), real.learned_clouds, cores)
    seen = _seen(name, meshes, cores)
    return replace(found, normals=_normals(meshes, across, real), frechet=frechet(seen, real.features),
                   kernel=kernel(seen, real.features), validity=_valid(whole, cores), **_novelty(to_learned, real))


def evaluate_clouds(name: str, points: np.ndarray, real: Real, effort: Effort = Effort(), cores: int = 1) -> Evaluated:
    """Point clouds (heads, n, 3) in millimetres that know no surface against the real heads, of n points too.

    What needs a surface is None, and so is novelty: between so few points copies look like other heads.
    """
    return _compared(name, points, real, effort, cores)[0]


def _compared(name: str, points: np.ndarray, real: Real, effort: Effort, cores: int) -> tuple[Evaluated, np.ndarray]:
    """What clouds alone tell of a set (heads, n, 3), and its distances (heads, held-out) to the real heads."""
    within = _chamfer(name, points, points, cores)
    across = _chamfer(f"{name} to held-out", points, real.clouds, cores)
    by_itself = None
    if effort.standardised:
        alone, real_alone = standardised(points), standardised(real.clouds)
        by_itself = compare(_chamfer(f"{name}, standardised", alone, alone, cores),
                            _chamfer(f"{name} to held-out, standardised", alone, real_alone, cores),
                            real.standardised_within)
    return Evaluated(len(points), compare(within, across, real.within), by_itself,
                     _emd(name, points, real, effort, cores), divergence(points, real.clouds), spread_mm=spread(within),
                     compactness=real.compactness(points)), across


def _chamfer(what: str, first: np.ndarray, second: np.ndarray, cores: int,
             dense: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    with tqdm(total=_pairs(first, second), desc=f"chamfer, {what}", unit="pair", leave=False) as bar:
        return chamfer(first, second, cores, bar.update, dense)


def _both(meshes: Sequence[trimesh.Trimesh | None], seed: int, effort: Effort) -> tuple[np.ndarray, np.ndarray]:
    """Few and many points of each mesh."""
    sparse, dense = max(1, effort.points // SPARSE), DENSE * effort.points
    return clouds(meshes, seed, sparse), clouds(meshes, seed + 1000, dense).astype(np.float32)


def _nearness(what: str, first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], cores: int,
              ) -> np.ndarray:
    """(n, m) chamfer distances of the few points of each head to the many of the others."""
    return _chamfer(what, first[0], second[0], cores, (first[1], second[1]))


def _emd(name: str, points: np.ndarray, real: Real, effort: Effort, cores: int) -> Comparison | None:
    heads = min(effort.emd_heads, len(points), len(real.clouds))
    if heads < 2:
        return None
    ours, theirs = (one[:heads, :effort.emd_points] for one in (points, real.clouds))
    return compare(_earth_movers(name, ours, ours, cores), _earth_movers(f"{name} to held-out", ours, theirs, cores),
                   real.emd_within[:heads, :heads])


def _earth_movers(what: str, first: np.ndarray, second: np.ndarray, cores: int) -> np.ndarray:
    with tqdm(total=_pairs(first, second), desc=f"earth mover's, {what}", unit="pair", leave=False) as bar:
        return earth_movers(first, second, cores, bar.update)


def _pairs(first: np.ndarray, second: np.ndarray) -> int:
    """Distances to find: a set against itself needs half of them."""
    return len(first) * (len(first) - 1) // 2 if first is second else len(first) * len(second)


def _seen(what: str, meshes: Sequence[trimesh.Trimesh | None], cores: int) -> np.ndarray:
    with tqdm(total=len(meshes), desc=f"looking at {what}", unit="head", leave=False) as bar:
        return features(meshes, cores, bar.update)


def _novelty(to_learned: np.ndarray, real: Real) -> dict:
    """Each head's nearest learned head, the share of copies and that of authentic heads, by (n, learned) distances."""
    if not to_learned.size:
        return {}
    nearest = to_learned.min(1)
    return {"nearest_mm": Figure.of(nearest), "copies": copies(to_learned, real.to_learned),
            "authentic": authentic(to_learned, real.learned_within), "nearest": to_learned.argmin(1).tolist(),
            "distances": nearest.tolist()}


def _normals(meshes: Sequence[trimesh.Trimesh | None], across: np.ndarray, real: Real) -> Figure | None:
    """Mean cosine, both ways, between the normals of each held-out head and of the one of the set nearest to it."""
    if not np.isfinite(across).any():
        return None
    found = []
    for index, nearest in enumerate(across.argmin(0)):
        rng = np.random.default_rng(index)
        (ours, our), (theirs, their) = (surface_samples(mesh.copy(include_visual=False), POINTS, rng)
                                        for mesh in (meshes[nearest], real.meshes[index]))
        there, back = cKDTree(theirs).query(ours)[1], cKDTree(ours).query(theirs)[1]
        found.append(((our * their[there]).sum(1).mean() + (their * our[back]).sum(1).mean()) / 2)
    return Figure.of(np.array(found))


def _valid(meshes: Sequence[trimesh.Trimesh | None], cores: int) -> list[Validity]:
    return workers.gathered(_look, [(mesh,) for mesh in meshes], workers=min(cores, len(meshes) // 8))


def _look(mesh: trimesh.Trimesh | None, progress) -> Validity:
    # Of a copy, as in `clouds`.
    return validity(None if mesh is None else mesh.copy(include_visual=False))
