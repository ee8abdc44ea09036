"""What a model knows of attributes: wanted values (n,) or codes (B, D) in; the values (B, n) of B heads out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.attribute_classifier import AttributeClassifier, KnownHeads, train_classifier
from hyperdiffusion.diffusion.attributes import Attributes
from hyperdiffusion.diffusion.ridge import ridge
from hyperdiffusion.diffusion.schedule import NoiseSchedule
from overfit.runtime.tensor_file import with_prefix

# Training heads that are closest to a request; from one of them a sample takes what is not requested.
CLOSEST_HEADS = 16
# How much another level counts, relative to a number that is a standard deviation away.
LEVEL_WEIGHT = 10.0
# Added to the seed of a sample, so that its attributes do not depend on its noise.
STREAM = 1
# Prefix of the classifier's tensors.
CLASSIFIER = "classifier."


@dataclass(frozen=True)
class Conditioning:
    """The attributes of a model, and those of its training heads."""

    attributes: Attributes
    """What heads may be conditioned on."""
    values: Float[torch.Tensor, "heads n"]
    """Values of the store's heads in its order; NaN where missing."""
    probe: Float[torch.Tensor, "D F"]
    """Linear map from codes to features, by which the attributes of a head are measured."""
    classifier: AttributeClassifier
    """Classifier of noised codes, for guidance."""

    @classmethod
    def fit(
        cls,
        attributes: Attributes,
        values: Float[torch.Tensor, "heads n"],
        *,
        training: KnownHeads,
        validation: KnownHeads,
        schedule: NoiseSchedule,
        seed: int,
    ) -> "Conditioning":
        """Return what is learned of training heads, whose codes are on the device; `values` are of all heads."""
        classifier = train_classifier(attributes, training, validation=validation, schedule=schedule, seed=seed)
        probe = _fit_probe(attributes, training).to(training.codes.device)
        return cls(attributes, values.to(training.codes.device), probe, classifier)

    @classmethod
    def restore(cls, attributes: Attributes, tensors: Mapping[str, torch.Tensor]) -> "Conditioning":
        """Return the conditioning with the given `tensors`. Raises KeyError or RuntimeError if they are another's."""
        probe = tensors["probe"]
        classifier = AttributeClassifier(attributes, len(probe)).to(probe.device)
        classifier.load_state_dict(with_prefix(tensors, CLASSIFIER))
        return cls(attributes, tensors["values"], probe, classifier.requires_grad_(False).eval())

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors by name."""
        state = {CLASSIFIER + name: tensor for name, tensor in self.classifier.state_dict().items()}
        return {"values": self.values, "probe": self.probe, **state}

    def measure(self, codes: Float[torch.Tensor, "B D"]) -> Float[torch.Tensor, "B n"]:
        """Return the attributes of heads as linear regression on their codes finds them."""
        return self.attributes.values(codes @ self.probe)

    def complete(
        self, wanted: Float[torch.Tensor, " n"], seeds: Sequence[tuple[int, ...]]
    ) -> Float[torch.Tensor, "B n"]:
        """Return the wanted values for each of B samples, and for what is not wanted the values of a training head.

        The head is drawn by the sample's seed from those whose wanted attributes are closest, or from all if nothing is
        wanted. So all attributes of a sample go together, and those that are not wanted vary as in the population.
        """
        candidates = self._closest(wanted)
        chosen = [int(np.random.default_rng((*seed, STREAM)).choice(candidates)) for seed in seeds]
        return torch.where(wanted.isnan(), self.values[chosen], wanted)

    def best_known(self, seed: tuple[int, ...]) -> Float[torch.Tensor, "1 n"]:
        """Return the values of a training head, drawn from those of which most is known."""
        missing = self.values.isnan().sum(1)
        candidates = (missing == missing.min()).nonzero().flatten().cpu().numpy()
        return self.values[[int(np.random.default_rng((*seed, STREAM)).choice(candidates))]]

    def _closest(self, wanted: torch.Tensor) -> np.ndarray:
        """Indices of the training heads whose wanted attributes are closest; ties are all in."""
        is_wanted = ~wanted.isnan()
        if not is_wanted.any():
            return np.arange(len(self.values))
        offset = self.attributes.features(self.values) - self.attributes.features(wanted[None])
        parts = offset.square().split(self.attributes.sizes, dim=1)
        weights = [LEVEL_WEIGHT if size > 1 else 1.0 for size in self.attributes.sizes]
        distances = [weight * part.sum(1) for weight, part in zip(weights, parts, strict=True)]
        distance = torch.stack(distances, dim=1)[:, is_wanted].sum(1)
        unknown = self.values[:, is_wanted].isnan().any(1) | self.values.isnan().all(1)
        distance = distance.masked_fill(unknown, torch.inf)
        known = int((~unknown).sum())
        if not known:
            # Those of which anything is known, at random.
            return (~self.values.isnan().all(1)).nonzero().flatten().cpu().numpy()
        limit = distance.sort().values[min(CLOSEST_HEADS, known) - 1]
        return (distance <= limit).nonzero().flatten().cpu().numpy()


def _fit_probe(attributes: Attributes, heads: KnownHeads) -> Float[torch.Tensor, "D F"]:
    """The regression of each attribute on the heads of which it is known."""
    codes, values = heads.codes.cpu(), heads.values.cpu()
    parts = []
    for column, value in zip(attributes.columns, values.unbind(1), strict=True):
        known = ~value.isnan()
        parts.append(ridge(codes[known], column.features(value[known])).coefficients)
    return torch.cat(parts, dim=1)
