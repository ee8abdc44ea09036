"""Encodes a store: rows of parameters in; the coordinates for the diffusion, and every head's codes in them, out.

The codes are kept in a file beside the checkpoint until training ends: a run that is interrupted resumes with the heads
that are not encoded yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int

from hyperdiffusion.diffusion.attribute_table import AttributeTable
from hyperdiffusion.diffusion.coordinates import Coordinates, LatentCoordinates, WeightCoordinates
from hyperdiffusion.diffusion.encode import encode_heads
from hyperdiffusion.diffusion.latent_space import learn_latent_space
from hyperdiffusion.diffusion.prior_space import extend_latent_space
from hyperdiffusion.diffusion.training_config import TrainingConfig, TrainingRun
from overfit.runtime.errors import BadInput
from overfit.runtime.machine import RunContext
from overfit.runtime.tensor_file import open_tensor_file, write_tensor_file
from overfit.runtime.throttle import Throttle
from overfit.store import ParameterRows

# Heads encoded at once; their labels are in memory.
CHUNK = 256
# Stores of fewer heads have no validation heads: a tenth of them would say little.
MIN_HEADS_TO_VALIDATE = 20
# Name of the description in the file of codes.
CODES = "hyperdiffusion codes"


@runtime_checkable
class Codes(Protocol):
    """Codes of heads, in memory or computed from rows on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: torch.Tensor, /) -> torch.Tensor:
        """Return the codes (B, D) of some heads."""


@dataclass(frozen=True)
class EncodedStore:
    """What the denoiser is trained on."""

    coordinates: Coordinates
    """What the codes mean."""
    training: Codes
    """Codes of the training heads."""
    validation: Float[torch.Tensor, "heads D"]
    """Codes of the validation heads."""
    attributes: AttributeTable | None = None
    """What is known of the training heads, and then of the validation heads."""


def train_val_split(count: int, config: TrainingConfig) -> tuple[list[int], list[int]]:
    """Return the indices of a store's training heads, and those of its validation heads."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(config.seed)).tolist()
    held_out = min(round(count * config.val_fraction), config.max_val) if count >= MIN_HEADS_TO_VALIDATE else 0
    return order[held_out:], order[:held_out]


def encode_store(
    rows: ParameterRows,
    path: Path,
    *,
    run: TrainingRun,
    prior: LatentCoordinates | None = None,
    context: RunContext,
) -> EncodedStore:
    """Return the coordinates and codes of a store's heads.

    Args:
        rows: The store's heads.
        path: File that keeps latent codes. Weight coordinates need none: they are computed when they are used.
        run: The training that the codes are for.
        prior: Coordinates that are extended; without them, a latent space is learned from the heads alone.
        context: Device, CPU cores and progress bar.

    Raises:
        BadInput: If the file is damaged or belongs to another training.
    """
    training, validation = train_val_split(len(rows), run.config)
    if run.config.coordinates in ("raw", "scaled"):
        plain = _weight_coordinates(rows, training, run.config)
        return EncodedStore(plain, _RowsOnDisk(rows, training, plain), plain.encode(rows[validation]))
    order = [*training, *validation]
    if path.exists():
        encoding = _Encoding.load(path, rows.space.token_sizes, run)
    else:
        encoding = _start(rows, order, training=len(training), config=run.config, prior=prior, context=context)
        encoding.save(path, run)
    _encode_rest(encoding, rows, order, path=path, run=run, context=context)
    return EncodedStore(encoding.coordinates, encoding.codes[: len(training)], encoding.codes[len(training) :])


def _weight_coordinates(rows: ParameterRows, training: Sequence[int], config: TrainingConfig) -> WeightCoordinates:
    if config.coordinates == "raw":
        return WeightCoordinates.raw(rows.space.token_sizes)
    return WeightCoordinates.scaled(rows[training[: config.latent_space.max_latent_heads]], rows.space.token_sizes)


@dataclass(frozen=True)
class _Encoding:
    """Latent coordinates of a store, and the codes of its heads as far as they are encoded."""

    coordinates: LatentCoordinates
    """What the codes mean."""
    codes: Float[torch.Tensor, "heads D"]
    """The heads' codes; zero for those not encoded yet."""
    encoded: Bool[torch.Tensor, " heads"]
    """Which heads are encoded."""

    def save(self, path: Path, run: TrainingRun) -> None:
        tensors = {name: getattr(self.coordinates, name) for name in LatentCoordinates.TENSORS}
        write_tensor_file(path, tensors | {"codes": self.codes, "encoded": self.encoded}, {CODES: run.to_json()})

    @classmethod
    def load(cls, path: Path, sizes: tuple[int, ...], run: TrainingRun) -> "_Encoding":
        remedy = "delete it to start again"
        with open_tensor_file(path, remedy=remedy) as file:
            description, tensors = file.metadata.get(CODES), file.tensors()
        if description is None:
            raise BadInput(f"{path}: another kind of file; {remedy}")
        run.require_same(path, description["settings"], description["heads"])
        coordinates = LatentCoordinates(sizes, *(tensors[name] for name in LatentCoordinates.TENSORS))
        return cls(coordinates, tensors["codes"], tensors["encoded"])


def _start(
    rows: ParameterRows,
    order: Sequence[int],
    *,
    training: int,
    config: TrainingConfig,
    prior: LatentCoordinates | None,
    context: RunContext,
) -> _Encoding:
    """The coordinates of heads in an order, the training heads first, and the codes that come with them.

    Principal components come from training heads alone. The latent space is learned on heads all over the order, with
    validation heads among them: heads encoded afterwards lie closer to the mean, where no model of the others is right.
    """
    limit = config.latent_space.max_latent_heads
    if config.coordinates == "pca":
        coordinates = LatentCoordinates.from_weights(rows[order[: min(training, limit)]], rows.space.token_sizes)
        return _Encoding(
            coordinates, torch.zeros(len(order), coordinates.size), torch.zeros(len(order), dtype=torch.bool)
        )
    chosen = torch.linspace(0, len(order) - 1, min(len(order), limit)).long()
    learn = learn_latent_space if prior is None else partial(extend_latent_space, prior=prior)
    coordinates, found = learn(
        rows.space,
        rows[[order[index] for index in chosen.tolist()]].to(context.device),
        config=config.latent_space,
        seed=config.seed,
        context=context,
    )
    codes, encoded = torch.zeros(len(order), coordinates.size), torch.zeros(len(order), dtype=torch.bool)
    codes[chosen], encoded[chosen] = found, True
    return _Encoding(coordinates, codes, encoded)


def _encode_rest(
    encoding: _Encoding, rows: ParameterRows, order: Sequence[int], *, path: Path, run: TrainingRun, context: RunContext
) -> None:
    """Encode the heads that are not encoded yet, in place, saving from time to time and at the end."""
    coordinates = encoding.coordinates.to(context.device)
    rest = (~encoding.encoded).nonzero().flatten()
    saving = Throttle()
    with context.progress(len(rest), "encoding heads", "head") as bar:
        for chunk in rest.split(CHUNK) if len(rest) else ():
            parameters = rows[[order[index] for index in chunk.tolist()]].to(context.device)
            encoding.codes[chunk] = _encode(parameters, rows, coordinates, config=run.config, context=context).cpu()
            encoding.encoded[chunk] = True
            bar.update(len(chunk))
            if encoding.encoded.all() or saving.is_due(run.config.save_every):
                with saving.measure():
                    encoding.save(path, run)


def _encode(
    parameters: torch.Tensor,
    rows: ParameterRows,
    coordinates: LatentCoordinates,
    *,
    config: TrainingConfig,
    context: RunContext,
) -> torch.Tensor:
    if config.coordinates == "pca":
        return coordinates.encode(parameters)
    return encode_heads(rows.space, parameters, coordinates=coordinates, config=config.latent_space, context=context)


class _RowsOnDisk:
    """Some heads of a store, read and encoded when they are used."""

    def __init__(self, rows: ParameterRows, heads: Sequence[int], coordinates: WeightCoordinates):
        self.rows = rows
        self.heads = torch.tensor(heads)
        self.coordinates = coordinates

    def __len__(self) -> int:
        return len(self.heads)

    def __getitem__(self, indices: Int[torch.Tensor, " B"]) -> Float[torch.Tensor, "B D"]:
        return self.coordinates.encode(self.rows[self.heads[indices]])
