"""Metrics of one set of heads: its meshes and the test and training heads in; fidelity, novelty and validity out.

A generator that copies its training heads is perfect by fidelity alone. So every set is compared with the training
heads too, and the test heads are measured in the same way: no generator can be better.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import trimesh
from jaxtyping import Float
from scipy.spatial import cKDTree

from hyperdiffusion.evaluation.efficientnet_features import efficientnet_features, efficientnet_is_installed
from hyperdiffusion.evaluation.feature_distances import (
    extrapolated_frechet_distance,
    frechet_distance,
    kernel_distance,
    standardised_distances,
)
from hyperdiffusion.evaluation.metrics import (
    POINTS_PER_HEAD,
    Comparison,
    Estimate,
    authenticity,
    chamfer_distances,
    compactness,
    compare_sets,
    copy_rate,
    diversity,
    earth_mover_distances,
    jensen_shannon_divergence,
    knn_coverage,
    nearest_neighbour_accuracy,
    sample_point_clouds,
    standardise,
)
from hyperdiffusion.evaluation.normal_concordance import normal_concordance, snc_distance
from hyperdiffusion.evaluation.normal_map_features import normal_map_features
from hyperdiffusion.evaluation.seen_region import SeenRegion
from hyperdiffusion.evaluation.validity import Validity, check_validity
from overfit.geometry.mesh import largest_component, sample_surface
from overfit.runtime.errors import require_at_least
from overfit.runtime.machine import RunContext
from overfit.runtime.workers import run_tasks_in_order

# Seeds of the points that are sampled on meshes. Every set has its own, so that a head and its copy get other points.
TEST_SEED = 0
TRAINING_SEED = 1
GENERATED_SEED = 2
# Added to a set's seed for the dense clouds.
DENSE_SEED_OFFSET = 1000
# Distances that must tell copies from similar heads are measured from this fraction of a head's points ...
SPARSE_DIVISOR = 4
# ... to this multiple of them.
DENSE_FACTOR = 8
# Fixed points to which the distances of heads are measured for the compactness.
ANCHORS = 256
# A Fréchet distance is extrapolated from halves of both sets, and a covariance needs two heads.
MIN_EXTRAPOLATED_HEADS = 4
# Starting a worker takes as long as checking a few meshes.
MIN_HEADS_PER_WORKER = 8


@dataclass(frozen=True)
class EvaluationConfig:
    """How thoroughly sets of heads are compared."""

    points: int = POINTS_PER_HEAD
    """Points per head for Chamfer distances."""
    emd_heads: int = 32
    """Heads of each set that are compared by EMD, 0 for none. The time grows with the square of this number."""
    emd_points: int = 1024
    """Points per head for EMD. The time grows with the cube: a pair of heads with 2,048 points takes half a second."""
    standardised: bool = True
    """Also compare clouds that are each centred and scaled by themselves, as in published evaluations."""
    efficientnet: bool = True
    """Compare features of EfficientNet too, if it is installed; they take a third of the time."""

    def __post_init__(self) -> None:
        """Raise BadInput for numbers that are too small."""
        require_at_least(SPARSE_DIVISOR, points=self.points)
        require_at_least(0, emd_heads=self.emd_heads)
        require_at_least(1, emd_points=self.emd_points)


@dataclass(frozen=True)
class Novelty:
    """How far the heads of a set are from the training heads, by Chamfer distance."""

    nearest_training_mm: Estimate
    """Distance to the nearest training head: the specificity of a head model."""
    copy_rate: Estimate
    """Share of heads closer to their nearest training head than the closest 1 % of test heads are."""
    authenticity: Estimate
    """Share of heads farther from their nearest training head than that head is from its own nearest one."""
    nearest: list[int]
    """Index of the nearest training head of each head."""
    distances_mm: list[float]
    """Distance to it in millimetres; infinite for a head without a surface."""


@dataclass(frozen=True)
class SetMetrics:
    """All metrics of one set of heads; those that have no meaning for it are None."""

    heads: int
    """Number of heads, those without a surface among them."""
    diversity_mm: float
    """Mean pairwise Chamfer distance in millimetres."""
    compactness: int
    """Principal components that explain 90 % of the set's variance."""
    chamfer: Comparison | None = None
    """Comparison with the test heads by Chamfer distance in millimetres."""
    chamfer_standardised: Comparison | None = None
    """The same of clouds that are each centred and scaled by themselves."""
    emd: Comparison | None = None
    """Comparison with the test heads by EMD in millimetres."""
    jsd: float | None = None
    """Jensen-Shannon divergence from the test heads in bits."""
    normal_consistency: Estimate | None = None
    """Mean cosine of the normals of a test head and its nearest head of the set."""
    frechet_distance: float | None = None
    """Fréchet distance of normal maps from those of the test heads."""
    kernel_distance: float | None = None
    """Kernel distance of normal maps from those of the test heads, x 1000."""
    one_nna_normal_maps: Estimate | None = None
    """Accuracy of a nearest-neighbour classifier by features of normal maps; 0.5 is indistinguishable."""
    knn_coverage_normal_maps: Estimate | None = None
    """Share of the test heads that have a head of the set in their neighbourhood, by features of normal maps."""
    snc_distance: float | None = None
    """Distance of the distributions of Surface Normal Concordance in the set and in the test heads, x 1000."""
    frechet_distance_efficientnet: float | None = None
    """Fréchet distance of EfficientNet's features of normal maps; None also where the network is not installed."""
    novelty: Novelty | None = None
    """Distances from the training heads."""
    validity: tuple[Validity, ...] = ()
    """Validity of each mesh; empty for point clouds."""


@dataclass(frozen=True)
class NestedClouds:
    """Few and many points on the same heads, for distances from the few to the many."""

    sparse: Float[np.ndarray, "heads few 3"]
    """The points that distances are measured from."""
    dense: Float[np.ndarray, "heads many 3"]
    """The points that distances are measured to."""

    @classmethod
    def of(cls, meshes: Sequence[trimesh.Trimesh | None], *, points: int, seed: int) -> "NestedClouds":
        """Sample both clouds of each mesh."""
        dense_seed = seed + DENSE_SEED_OFFSET
        return cls(
            sample_point_clouds(meshes, points=max(1, points // SPARSE_DIVISOR), seed=seed),
            sample_point_clouds(meshes, points=DENSE_FACTOR * points, seed=dense_seed).astype(np.float32),
        )

    def distances(self, other: "NestedClouds", *, context: RunContext, description: str) -> Float[np.ndarray, "n m"]:
        """Return the Chamfer distances to the heads of another set."""
        return chamfer_distances(
            self.sparse,
            other.sparse,
            context=context,
            dense=(self.dense, other.dense),
            description=f"Chamfer, {description}",
        )


@dataclass(frozen=True)
class TrainingHeads:
    """The training heads and what is computed from them once, for the novelty of every set."""

    meshes: list[trimesh.Trimesh]
    """The heads."""
    clouds: NestedClouds
    """Points on them."""
    within: Float[np.ndarray, "training training"]
    """Chamfer distances among them."""
    from_test: Float[np.ndarray, "test training"]
    """Chamfer distances from the test heads to them."""

    def novelty(self, to_training: Float[np.ndarray, "n training"]) -> Novelty:
        """Return the novelty of a set by its Chamfer distances to the training heads."""
        nearest = to_training.min(1)
        return Novelty(
            nearest_training_mm=Estimate.of(nearest),
            copy_rate=copy_rate(to_training, self.from_test),
            authenticity=authenticity(to_training, self.within),
            nearest=to_training.argmin(1).tolist(),
            distances_mm=nearest.tolist(),
        )


@dataclass(frozen=True)
class ReferenceHeads:
    """The real heads that sets are compared with, and what is computed from them once."""

    test: list[trimesh.Trimesh]
    """The test heads, held out from everything."""
    config: EvaluationConfig
    """How thoroughly sets are compared with them."""
    clouds: Float[np.ndarray, "test points 3"]
    """Points on the test heads."""
    within: Float[np.ndarray, "test test"]
    """Chamfer distances among the test heads."""
    within_standardised: Float[np.ndarray, "test test"] | None
    """The same of standardised clouds, if they are to be compared."""
    within_emd: Float[np.ndarray, "emd emd"]
    """EMD among the first `config.emd_heads` test heads."""
    features: Float[np.ndarray, "test features"]
    """Features of the test heads' normal maps."""
    concordance: list[Float[np.ndarray, " _"]]
    """Surface Normal Concordance at points on each test head's face."""
    efficientnet: Float[np.ndarray, "test 1280"] | None
    """EfficientNet's features of the test heads' normal maps, if the network is installed."""
    anchors: Float[np.ndarray, "anchors 3"]
    """Fixed points for the compactness."""
    training: TrainingHeads | None
    """The training heads, if they are known."""
    region: SeenRegion | None = None
    """Where all sets are compared: only parts of the test heads that were seen are true. None is everywhere."""

    @classmethod
    def of(
        cls,
        test: list[trimesh.Trimesh],
        training: list[trimesh.Trimesh],
        *,
        config: EvaluationConfig = EvaluationConfig(),
        context: RunContext = RunContext(),
    ) -> "ReferenceHeads":
        """Prepare test heads and training heads, of which there may be none, for comparisons.

        Raises BadInput if nearly all of the test heads is invented.
        """
        region, whole = SeenRegion.of(test), test
        if region is not None:
            test, training = ([region.part(mesh) for mesh in heads] for heads in (test, training))
        clouds = sample_point_clouds(test, points=config.points, seed=TEST_SEED)
        emd_clouds = clouds[: config.emd_heads, : config.emd_points]
        return cls(
            test=whole,
            config=config,
            clouds=clouds,
            within=chamfer_distances(clouds, clouds, context=context, description="Chamfer, test"),
            within_standardised=_within_standardised(clouds, context=context) if config.standardised else None,
            within_emd=earth_mover_distances(emd_clouds, emd_clouds, context=context, description="EMD, test"),
            features=normal_map_features(test, context=context, description="normal maps, test"),
            concordance=normal_concordance(test, context=context, description="SNC, test"),
            efficientnet=_efficientnet(test, config, name="test", context=context),
            anchors=_anchors(clouds),
            training=_training_heads(training, test, config=config, context=context) if training else None,
            region=region,
        )

    def compared(self, mesh: trimesh.Trimesh) -> trimesh.Trimesh:
        """Return the part of a head that is compared."""
        return mesh if self.region is None else self.region.part(mesh)

    def metrics(self, *, context: RunContext = RunContext()) -> SetMetrics:
        """Return the metrics of the test heads themselves: what no generator can be better than."""
        training = self.training
        return SetMetrics(
            heads=len(self.test),
            diversity_mm=diversity(self.within),
            compactness=self.compactness(self.clouds),
            novelty=None if training is None else training.novelty(training.from_test),
            validity=_validity(self.test, context=context, description="validity, test"),
        )

    def compactness(self, clouds: Float[np.ndarray, "n points 3"]) -> int:
        """Return the compactness of a set by the distances of fixed points from its clouds."""
        present = clouds[~np.isnan(clouds).any((1, 2))]
        if len(present) < 2:
            return 0
        return compactness(np.array([cKDTree(cloud).query(self.anchors)[0] for cloud in present]))


def evaluate_meshes(
    meshes: Sequence[trimesh.Trimesh | None],
    reference: ReferenceHeads,
    *,
    name: str = "generated",
    seed: int = GENERATED_SEED,
    measure_novelty: bool = True,
    context: RunContext = RunContext(),
) -> SetMetrics:
    """Return the metrics of a set of heads. Failed heads count, and against the set.

    Validity is that of the whole meshes, everything else that of the largest component of each; where test heads have
    invented parts, only of what is compared of it.

    Args:
        meshes: The heads in millimetres, None for each that failed.
        reference: The real heads.
        name: What progress bars call the set.
        seed: Seed of the points that are sampled on the meshes.
        measure_novelty: Compare the set with the training heads, if these are known. For the training heads
            themselves this has no meaning.
        context: CPU cores and progress bars.
    """
    heads = [
        None if mesh is None or not len(mesh.faces) else reference.compared(largest_component(mesh)) for mesh in meshes
    ]
    clouds = sample_point_clouds(heads, points=reference.config.points, seed=seed)
    across = chamfer_distances(clouds, reference.clouds, context=context, description=f"Chamfer, {name} to test")
    novelty = None
    if reference.training is not None and measure_novelty:
        nested = NestedClouds.of(heads, points=reference.config.points, seed=seed)
        novelty = reference.training.novelty(
            nested.distances(reference.training.clouds, context=context, description=f"{name} to training")
        )
    metrics = replace(
        _compare_clouds(clouds, across, reference, name=name, context=context),
        normal_consistency=_normal_consistency(heads, across, [reference.compared(mesh) for mesh in reference.test]),
        novelty=novelty,
        validity=_validity(meshes, context=context, description=f"validity, {name}"),
    )
    return _with_normal_maps(metrics, heads, reference, name=name, context=context)


def evaluate_point_clouds(
    clouds: Float[np.ndarray, "n points 3"],
    reference: ReferenceHeads,
    *,
    name: str = "generated",
    context: RunContext = RunContext(),
) -> SetMetrics:
    """Return the metrics of a set of point clouds in millimetres, each of `reference.config.points` points.

    What needs a surface is None, and so is the novelty: with so few points copies look like other heads.
    """
    across = chamfer_distances(clouds, reference.clouds, context=context, description=f"Chamfer, {name} to test")
    return _compare_clouds(clouds, across, reference, name=name, context=context)


def _compare_clouds(
    clouds: np.ndarray, across: np.ndarray, reference: ReferenceHeads, *, name: str, context: RunContext
) -> SetMetrics:
    """Return the metrics that need points alone, given the Chamfer distances (n, test) to the test heads."""
    within = chamfer_distances(clouds, clouds, context=context, description=f"Chamfer, {name}")
    return SetMetrics(
        heads=len(clouds),
        diversity_mm=diversity(within),
        compactness=reference.compactness(clouds),
        chamfer=compare_sets(within, across, within_test=reference.within),
        chamfer_standardised=_compare_standardised(clouds, reference, name=name, context=context),
        emd=_compare_by_emd(clouds, reference, name=name, context=context),
        jsd=jensen_shannon_divergence(clouds, reference.clouds),
    )


def _compare_standardised(
    clouds: np.ndarray, reference: ReferenceHeads, *, name: str, context: RunContext
) -> Comparison | None:
    if reference.within_standardised is None:
        return None
    own, test = standardise(clouds), standardise(reference.clouds)
    label = f"Chamfer, {name}, standardised"
    within = chamfer_distances(own, own, context=context, description=label)
    across = chamfer_distances(own, test, context=context, description=f"{label}, to test")
    return compare_sets(within, across, within_test=reference.within_standardised)


def _compare_by_emd(
    clouds: np.ndarray, reference: ReferenceHeads, *, name: str, context: RunContext
) -> Comparison | None:
    heads = min(reference.config.emd_heads, len(clouds), len(reference.clouds))
    if heads < 2:
        return None
    own, test = (every[:heads, : reference.config.emd_points] for every in (clouds, reference.clouds))
    within = earth_mover_distances(own, own, context=context, description=f"EMD, {name}")
    across = earth_mover_distances(own, test, context=context, description=f"EMD, {name} to test")
    return compare_sets(within, across, within_test=reference.within_emd[:heads, :heads])


def _with_normal_maps(
    metrics: SetMetrics,
    heads: Sequence[trimesh.Trimesh | None],
    reference: ReferenceHeads,
    *,
    name: str,
    context: RunContext,
) -> SetMetrics:
    """Return the metrics with those by which way surfaces face: of normal maps, and SNC."""
    features = normal_map_features(heads, context=context, description=f"normal maps, {name}")
    within, across = (_feature_distances(heads, features, to, reference) for to in (features, reference.features))
    within_test = standardised_distances(reference.features, reference.features, test=reference.features)
    concordance = normal_concordance(heads, context=context, description=f"SNC, {name}")
    efficientnet = _efficientnet(heads, reference.config, name=name, context=context)
    return replace(
        metrics,
        frechet_distance=frechet_distance(features, reference.features),
        kernel_distance=kernel_distance(features, reference.features),
        one_nna_normal_maps=nearest_neighbour_accuracy(within, across, within_test=within_test),
        knn_coverage_normal_maps=knn_coverage(across, within_test=within_test),
        snc_distance=snc_distance(concordance, reference.concordance),
        frechet_distance_efficientnet=_extrapolated_distance(efficientnet, reference.efficientnet),
    )


def _feature_distances(
    heads: Sequence[trimesh.Trimesh | None], features: np.ndarray, to: np.ndarray, reference: ReferenceHeads
) -> np.ndarray:
    """Return distances (heads, to), infinite from a head without a surface, as in `chamfer_distances`."""
    distances = standardised_distances(features, to, test=reference.features)
    distances[[head is None for head in heads]] = np.inf
    return distances


def _efficientnet(
    heads: Sequence[trimesh.Trimesh | None], config: EvaluationConfig, *, name: str, context: RunContext
) -> Float[np.ndarray, "heads 1280"] | None:
    if not config.efficientnet or not efficientnet_is_installed():
        return None
    return efficientnet_features(heads, context=context, description=f"EfficientNet, {name}")


def _extrapolated_distance(first: np.ndarray | None, test: np.ndarray | None) -> float | None:
    if first is None or test is None or min(len(first), len(test)) < MIN_EXTRAPOLATED_HEADS:
        return None
    return extrapolated_frechet_distance(first, test)


def _within_standardised(clouds: np.ndarray, *, context: RunContext) -> np.ndarray:
    own = standardise(clouds)
    return chamfer_distances(own, own, context=context, description="Chamfer, test, standardised")


def _training_heads(
    training: list[trimesh.Trimesh], test: list[trimesh.Trimesh], *, config: EvaluationConfig, context: RunContext
) -> TrainingHeads:
    clouds = NestedClouds.of(training, points=config.points, seed=TRAINING_SEED)
    test_clouds = NestedClouds.of(test, points=config.points, seed=TEST_SEED)
    return TrainingHeads(
        meshes=training,
        clouds=clouds,
        within=clouds.distances(clouds, context=context, description="training"),
        from_test=test_clouds.distances(clouds, context=context, description="test to training"),
    )


def _anchors(clouds: np.ndarray) -> np.ndarray:
    """Return points (anchors, 3), chosen at random from clouds (heads, points, 3)."""
    heads, points = clouds.shape[:2]
    return np.concatenate(clouds)[np.random.default_rng(0).permutation(heads * points)][:ANCHORS]


def _normal_consistency(
    meshes: Sequence[trimesh.Trimesh | None], across: np.ndarray, test: list[trimesh.Trimesh]
) -> Estimate | None:
    """Return the mean cosine of the normals of each test head and its nearest mesh, by distances (meshes, test)."""
    cosines = []
    for index, nearest in enumerate(across.argmin(0)):
        own = meshes[nearest]
        if own is None or not np.isfinite(across[nearest, index]):
            return None
        cosines.append(_mean_cosine(own, test[index], np.random.default_rng(index)))
    return Estimate.of(np.array(cosines))


def _mean_cosine(first: trimesh.Trimesh, second: trimesh.Trimesh, rng: np.random.Generator) -> float:
    """Return the mean cosine of the normals at points of either mesh and at the nearest points of the other."""
    # Copies, as in `sample_point_clouds`.
    points_1, normals_1 = sample_surface(first.copy(include_visual=False), POINTS_PER_HEAD, rng=rng)
    points_2, normals_2 = sample_surface(second.copy(include_visual=False), POINTS_PER_HEAD, rng=rng)
    forth, back = cKDTree(points_2).query(points_1)[1], cKDTree(points_1).query(points_2)[1]
    return ((normals_1 * normals_2[forth]).sum(1).mean() + (normals_2 * normals_1[back]).sum(1).mean()) / 2


def _validity(
    meshes: Sequence[trimesh.Trimesh | None], *, context: RunContext, description: str
) -> tuple[Validity, ...]:
    tasks = [(mesh,) for mesh in meshes]
    with context.progress(len(tasks), description, "head", leave=False) as bar:
        return tuple(
            run_tasks_in_order(_check_copy, tasks, context, min_tasks_per_worker=MIN_HEADS_PER_WORKER, bar=bar)
        )


def _check_copy(mesh: trimesh.Trimesh | None) -> Validity:
    # A copy, as in `sample_point_clouds`.
    return check_validity(None if mesh is None else mesh.copy(include_visual=False))
