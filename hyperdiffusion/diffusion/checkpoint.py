"""A trained generator as one safetensors file: everything that sampling needs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.attributes import Attributes
from hyperdiffusion.diffusion.checkpoint_v3 import DESCRIPTION_V3, upgrade
from hyperdiffusion.diffusion.conditioning import Conditioning
from hyperdiffusion.diffusion.coordinates import Coordinates, LatentCoordinates, WeightCoordinates
from hyperdiffusion.diffusion.denoiser import Denoiser, TransformerConfig, restore_denoiser
from hyperdiffusion.diffusion.schedule import NoiseSchedule
from overfit.neural_head import HeadSpace, NeuralHead
from overfit.runtime.errors import BadInput
from overfit.runtime.tensor_file import open_tensor_file, with_prefix, write_tensor_file

# Name of the description in the file.
CHECKPOINT = "hyperdiffusion checkpoint"
# 4: heads were not warped, and are read as such. 5: warps were splines, which are no longer read. 6: the timestep was
# only a token, see EARLIER_TRANSFORMER. 7: today's.
VERSION = 7
OLDEST_VERSION = 4
FIRST_VERSION_OF_THESE_WARPS = 6
EARLIER_TRANSFORMER = {"adaptive_norm": False}
# What a training did before it had these settings.
EARLIER_TRAINING = {"timestep_density": "uniform", "independent_components": False}
EARLIER_LATENT_SPACE = {"prior_steps": 2_000}
# The basis of latent coordinates: nearly all of a checkpoint. That of the included one is in half precision.
BASIS = "coordinates.basis"
# Prefix of the tensors about attributes.
ATTRIBUTES = "attributes."
# The checkpoint that is installed with the project.
SHIPPED_PACKAGE = "hyperdiffusion.checkpoints"
SHIPPED_FILE = "heads.safetensors"


@dataclass(frozen=True)
class TrainingRecord:
    """How a checkpoint was trained."""

    settings: dict[str, Any]
    """The training's settings by name."""
    heads: list[str]
    """SHA-256 of each head's scan."""
    steps: int
    """Optimizer steps done."""
    best_step: int
    """The step that the model is from; 0 is the mixture that training started from."""
    mixture_components: int
    """Gaussians of that mixture; 0 in weight coordinates, which have none, and of independent components."""
    val_loss: float | None
    """Validation loss relative to the Gaussian baseline; None without validation heads."""
    independent_components: int = 0
    """Independent components that training started from; 0 if it started from a Gaussian mixture."""
    conditional: bool = False
    """Whether heads with attributes started from a Gaussian about the mean that their attributes give."""

    def summary(self) -> str:
        """Return one sentence or two about the result."""
        if self.val_loss is None:
            return f"Trained for {self.steps} steps without validation heads."
        if self.best_step == 0:
            return (
                f"Trained for {self.steps} steps without reducing the validation loss: the model is the {self._start} "
                f"that training starts from, validation loss {self.val_loss:.3f} x Gaussian baseline. More scans help."
            )
        return (
            f"Trained for {self.steps} steps; best step {self.best_step}, validation loss {self.val_loss:.3f} x "
            "Gaussian baseline."
        )

    @property
    def _start(self) -> str:
        if self.conditional:
            return "Gaussian about the mean that the attributes of a head give,"
        if self.independent_components:
            return f"product of {self.independent_components} independent components"
        return "Gaussian" if self.mixture_components == 1 else f"mixture of {self.mixture_components} Gaussians"


@dataclass(frozen=True)
class Checkpoint:
    """A trained denoiser, and how its samples become heads."""

    space: HeadSpace
    """How a row of sampled parameters is read."""
    coordinates: Coordinates
    """What is diffused."""
    schedule: NoiseSchedule
    """The diffusion's noise schedule."""
    denoiser: Denoiser
    """The trained denoiser, in evaluation mode."""
    training: TrainingRecord
    """How it was trained."""
    conditioning: Conditioning | None = None
    """What is known of attributes; None if the model has none."""

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.coordinates.mean.device

    @property
    def digest(self) -> str:
        """What tells it from other models: the SHA-256 of its mean head and its training."""
        parts = (self.coordinates.mean.cpu().numpy().tobytes(), repr(self.training).encode())
        return sha256(b"".join(parts)).hexdigest()

    def head(self, parameters: Float[torch.Tensor, " S"]) -> NeuralHead:
        """Return the head of a row of sampled parameters."""
        return self.space.head(parameters)

    def require_conditioning(self, name: str = "the model") -> Conditioning:
        """Return what is known of attributes. Raises BadInput about the model of this name if it has none."""
        if self.conditioning is None:
            raise BadInput(
                f"{name}: has no attributes; train one with `hyperdiffusion train STORE CHECKPOINT --attributes CSV`"
            )
        return self.conditioning

    def require_latent(self, name: str = "the model") -> LatentCoordinates:
        """Return the coordinates. Raises BadInput about the model of this name if it is none of warped heads."""
        if not isinstance(self.coordinates, LatentCoordinates) or not self.space.warps.control_points:
            raise BadInput(
                f"{name}: has no latent space of warped heads; give the included model, or one that was trained with "
                "`coordinates=latent` on a store of `align=warp`"
            )
        return self.coordinates

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        config = self.denoiser.transformer_config
        description = {
            "version": VERSION,
            **asdict(self.space),
            "noise_schedule": asdict(self.schedule),
            "transformer": None if config is None else asdict(config),
            "sizes": self.coordinates.sizes,
            "training": asdict(self.training),
        }
        tensors = {f"coordinates.{name}": getattr(self.coordinates, name) for name in self.coordinates.TENSORS}
        tensors |= {f"denoiser.{name}": tensor for name, tensor in self.denoiser.state_dict().items()}
        if self.conditioning:
            description["attributes"] = self.conditioning.attributes.to_json()
            tensors |= {ATTRIBUTES + name: tensor for name, tensor in self.conditioning.tensors.items()}
        write_tensor_file(path, tensors, {CHECKPOINT: description})

    @classmethod
    def load(cls, path: Path | str, device: torch.device = torch.device("cpu")) -> "Checkpoint":
        """Read a checkpoint. Raises BadInput if it is missing, damaged, another kind of file or of another version."""
        path = Path(path)
        tensors, description = _read(path)
        try:
            return cls._from(tensors, description, device)
        except (KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise BadInput(f"{path}: a damaged checkpoint ({reason}); train it again, or copy it again") from error

    @classmethod
    def shipped(cls, device: torch.device = torch.device("cpu")) -> "Checkpoint":
        """Read the checkpoint that is installed with the project. Raises BadInput if there is none."""
        try:
            file = resources.files(SHIPPED_PACKAGE) / SHIPPED_FILE
        except ModuleNotFoundError as error:
            raise _nothing_shipped() from error
        if not file.is_file():
            raise _nothing_shipped()
        with resources.as_file(file) as path:
            return cls.load(path, device)

    @classmethod
    def _from(
        cls, tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any], device: torch.device
    ) -> "Checkpoint":
        kind = LatentCoordinates if BASIS in tensors else WeightCoordinates
        parts = [tensors[f"coordinates.{name}"].float().to(device) for name in kind.TENSORS]
        coordinates = kind(tuple(description["sizes"]), *parts)
        schedule = NoiseSchedule(**description["noise_schedule"])
        config = description["transformer"] and TransformerConfig(**EARLIER_TRANSFORMER | description["transformer"])
        attributes = Attributes.of(description["attributes"]) if "attributes" in description else None
        state = with_prefix(tensors, "denoiser.")
        denoiser = restore_denoiser(config, coordinates, schedule=schedule, state=state, attributes=attributes)
        known = {name: tensor.to(device) for name, tensor in with_prefix(tensors, ATTRIBUTES).items()}
        return cls(
            HeadSpace.of(description),
            coordinates,
            schedule,
            denoiser.eval().to(device),
            TrainingRecord(**description["training"] | {"settings": _complete(description["training"]["settings"])}),
            None if attributes is None else Conditioning.restore(attributes, known),
        )


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and description of a checkpoint under the names of this version."""
    remedy = "make a checkpoint with `hyperdiffusion train STORE CHECKPOINT`"
    if (path / "store.json").exists():
        raise BadInput(f"{path}: a store, not a checkpoint; {remedy}")
    with open_tensor_file(path, remedy=remedy) as file:
        metadata, tensors = file.metadata, file.tensors()
    if CHECKPOINT in metadata:
        description = metadata[CHECKPOINT]
    elif _is_version_3(metadata):
        tensors, description = upgrade(tensors, metadata[DESCRIPTION_V3])
    else:
        raise BadInput(f"{path}: another kind of file, not a checkpoint; {remedy}")
    version = description.get("version", 0)
    if version > VERSION:
        raise BadInput(f"{path}: a checkpoint of a newer version; update hyperdiffusion-heads")
    if version < OLDEST_VERSION or (
        version < FIRST_VERSION_OF_THESE_WARPS and description.get("warps", {}).get("control_points")
    ):
        raise BadInput(f"{path}: a checkpoint of an older version; train it again from its store")
    return tensors, description


def _complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a training, with those that did not exist yet when it ran."""
    if "transformer" not in settings:
        return dict(settings)
    return _filled(settings, EARLIER_TRAINING) | {
        "transformer": _filled(settings["transformer"], EARLIER_TRANSFORMER),
        "latent_space": _filled(settings.get("latent_space", {}), EARLIER_LATENT_SPACE),
    }


def _filled(settings: Mapping[str, Any], missing: Mapping[str, Any]) -> dict[str, Any]:
    return dict(settings) | {name: value for name, value in missing.items() if name not in settings}


def _is_version_3(metadata: Mapping[str, Any]) -> bool:
    description = metadata.get(DESCRIPTION_V3)
    return isinstance(description, dict) and description.get("kind") == CHECKPOINT


def _nothing_shipped() -> BadInput:
    return BadInput(
        "`checkpoint`: no checkpoint is installed with this package; give one made by `hyperdiffusion train`"
    )
