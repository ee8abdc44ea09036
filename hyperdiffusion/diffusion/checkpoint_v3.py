"""Reads checkpoints of version 3: their tensors and description in, the same under the names of version 4 out."""

from collections.abc import Mapping
from typing import Any

import torch

# Name of the description in a file of version 3.
DESCRIPTION_V3 = "about"

TENSORS = {
    "tokens.mean": "coordinates.mean",
    "tokens.axes": "coordinates.basis",
    "tokens.deviation": "coordinates.std",
    "tokens.share": "coordinates.variance_ratio",
    "tokens.scale": "coordinates.scale",
    "denoiser.mixture.share": "denoiser.mixture.probabilities",
    "denoiser.mixture.middle": "denoiser.mixture.means",
    "denoiser.mixture.variance": "denoiser.mixture.variances",
    "denoiser.mixture.turn": "denoiser.mixture.rotations",
}
NOISE_SCHEDULE = {"noise": "noise_schedule", "first_beta": "beta_start", "last_beta": "beta_end"}
TRANSFORMER = {"heads": "attention_heads"}
LATENT_SPACE = {
    "axes": "latent_dim",
    "axes_steps": "latent_steps",
    "axes_heads": "latent_batch_size",
    "axes_points": "latent_points",
    "axes_rate": "basis_lr",
    "mean_rate": "mean_lr",
    "place_rate": "code_lr",
    "pull": "code_penalty",
    "place_steps": "encode_steps",
    "held_rate": "encode_lr",
    "held_pull": "encode_penalty",
    "axes_from": "max_latent_heads",
}
SETTINGS = {
    "subspace": "latent_space",
    "shape": "transformer",
    "schedule": "noise_schedule",
    "groups": "max_mixture_components",
    "batch": "batch_size",
    "held_out": "val_fraction",
    "judges": "max_val",
    "rate": "lr",
    "fall": "lr_schedule",
    "warmup": "warmup_steps",
    "decay": "weight_decay",
    "clip": "grad_clip",
    "average": "ema_decay",
    "show_every": "sample_every",
}
TRAINING = {"kept_at": "best_step", "groups": "mixture_components", "held_out_loss": "val_loss"}
DESCRIPTION = {"schedule": "noise_schedule", "shape": "transformer"}
# Values of settings.
COORDINATES = {"function": "latent", "weights": "pca"}
LR_SCHEDULES = {"stairs": "step"}


def upgrade(
    tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return tensors and description under the names of version 4. Those of older versions come back as they are."""
    if description.get("version") != 3:
        return dict(tensors), dict(description)
    upgraded = _renamed(description, DESCRIPTION)
    upgraded["version"] = 4
    upgraded["noise_schedule"] = _renamed(upgraded["noise_schedule"], NOISE_SCHEDULE)
    upgraded["transformer"] = _renamed(upgraded["transformer"], TRANSFORMER)
    upgraded["training"] = _renamed(upgraded["training"], TRAINING)
    upgraded["training"]["settings"] = _upgraded_settings(upgraded["training"]["settings"])
    # The kinds are now the names under which descriptions are stored.
    del upgraded["kind"], upgraded["training"]["kind"]
    return _renamed(tensors, TENSORS), upgraded


def _upgraded_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    upgraded = _renamed(settings, SETTINGS)
    upgraded["latent_space"] = _renamed(upgraded["latent_space"], LATENT_SPACE)
    upgraded["transformer"] = _renamed(upgraded["transformer"], TRANSFORMER)
    upgraded["noise_schedule"] = _renamed(upgraded["noise_schedule"], NOISE_SCHEDULE)
    upgraded["coordinates"] = COORDINATES.get(upgraded["coordinates"], upgraded["coordinates"])
    upgraded["lr_schedule"] = LR_SCHEDULES.get(upgraded["lr_schedule"], upgraded["lr_schedule"])
    return upgraded


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}
