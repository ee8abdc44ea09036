"""Metrics that take seconds, for benchmarks of many sets of heads: meshes in, the values of a row out.

They are those of `hyperdiffusion evaluate`, on fewer points, without EMD, EfficientNet and the validity of meshes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float

from hyperdiffusion import chamfer_distances, sample_point_clouds
from hyperdiffusion.evaluation.feature_distances import frechet_distance, standardised_distances
from hyperdiffusion.evaluation.metrics import Estimate, compare_sets, copy_rate, diversity, knn_coverage
from hyperdiffusion.evaluation.metrics import nearest_neighbour_accuracy as accuracy
from hyperdiffusion.evaluation.normal_map_features import normal_map_features
from overfit import RunContext, connected_components

# Points on a head for Chamfer distances.
POINTS = 1024
# Points, the first ones, by which heads are compared with the training heads, which are many.
COPY_POINTS = 256

Heads = Sequence[trimesh.Trimesh | None]


@dataclass(frozen=True)
class QuickReference:
    """Test heads, and training heads if copies are to be counted."""

    clouds: Float[np.ndarray, "test points 3"]
    """Points on the test heads."""
    features: Float[np.ndarray, "test features"]
    """Features of their normal maps."""
    within: Float[np.ndarray, "test test"]
    """Chamfer distances among them."""
    within_maps: Float[np.ndarray, "test test"]
    """Distances of the features among them."""
    training: Float[np.ndarray, "training points 3"] | None
    """Points on the training heads."""
    to_training: Float[np.ndarray, "test training"] | None
    """Chamfer distances of the test heads to them."""
    context: RunContext
    """CPU cores and progress bars."""

    @classmethod
    def of(cls, test: Heads, training: Heads, context: RunContext) -> "QuickReference":
        """Prepare test heads and training heads, of which there may be none."""
        clouds = sample_point_clouds(test, points=POINTS, seed=1)
        features = normal_map_features(test, context=context)
        within = _chamfer(clouds, clouds, context)
        known = sample_point_clouds(training, points=COPY_POINTS, seed=2) if training else None
        to_training = None if known is None else _chamfer(clouds[:, :COPY_POINTS], known, context)
        within_maps = standardised_distances(features, features, test=features)
        return cls(clouds, features, within, within_maps, known, to_training, context)

    def of_test(self) -> dict[str, Any]:
        """Return the metrics of the test heads themselves."""
        values: dict[str, Any] = {"diversity_mm": diversity(self.within), "one_component": 1.0}
        return values | self._copies(self.to_training)

    def metrics(self, heads: Heads) -> dict[str, Any]:
        """Return the metrics of a set of heads; one without a surface is None."""
        clouds = sample_point_clouds(heads, points=POINTS, seed=0)
        within, across = (_chamfer(clouds, to, self.context) for to in (clouds, self.clouds))
        compared = compare_sets(within, across, within_test=self.within)
        features = normal_map_features(heads, context=self.context)
        own, maps = (standardised_distances(features, to, test=self.features) for to in (features, self.features))
        for distances in (own, maps):
            distances[[head is None for head in heads]] = np.inf
        whole = [head is not None and len(connected_components(head)) == 1 for head in heads]
        values = {
            "one_nna_chamfer": asdict(compared.one_nna),
            "coverage_chamfer": asdict(compared.coverage),
            "frechet_distance": frechet_distance(features, self.features),
            "one_nna_normal_maps": asdict(accuracy(own, maps, within_test=self.within_maps)),
            "knn_coverage_normal_maps": asdict(knn_coverage(maps, within_test=self.within_maps)),
            "diversity_mm": diversity(within),
            "one_component": asdict(Estimate.of(np.array(whole, float))),
        }
        copied = clouds[:, :COPY_POINTS]
        to_training = None if self.training is None else _chamfer(copied, self.training, self.context)
        return values | self._copies(to_training)

    def _copies(self, to_training: np.ndarray | None) -> dict[str, Any]:
        if to_training is None or self.to_training is None:
            return {}
        return {"copy_rate": asdict(copy_rate(to_training, self.to_training))}


def _chamfer(first: np.ndarray, second: np.ndarray, context: RunContext) -> np.ndarray:
    return chamfer_distances(first, second, context=context, description="Chamfer")
