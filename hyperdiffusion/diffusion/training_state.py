"""What a training step changes, and how it is saved and resumed."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hyperdiffusion.diffusion.denoiser import LatentDenoiser, WeightDenoiser
from hyperdiffusion.diffusion.distributed import ProcessGroup, gather_model, gather_moments, load_model, load_moments
from hyperdiffusion.diffusion.training_config import TrainingRun
from overfit.runtime.errors import BadInput
from overfit.runtime.tensor_file import open_tensor_file, with_prefix, write_tensor_file

# Name of the description in the file of a state.
STATE = "hyperdiffusion training state"
# Steps over which a moving average forgets its start, however slow its decay.
EMA_START_STEPS = 10
# Numbers that are saved with the models.
COUNTERS = ("step", "best_step", "best_loss", "rises")


@dataclass
class TrainingState:
    """The models of a training, its optimizer and its counters."""

    denoiser: LatentDenoiser | WeightDenoiser
    """The model that the optimizer changes."""
    optimizer: torch.optim.Optimizer
    """AdamW."""
    ema: LatentDenoiser | WeightDenoiser | None = None
    """Moving average of the denoiser; None if there is none, to save memory."""
    best: LatentDenoiser | WeightDenoiser | None = None
    """The model with the lowest validation loss so far; None without validation heads."""
    best_loss: float = float("inf")
    """Validation loss of `best` relative to the Gaussian baseline."""
    best_step: int = 0
    """The step that `best` is from."""
    rises: int = 0
    """Validations in a row whose loss was well above the best."""
    step: int = 0
    """Optimizer steps done."""

    @property
    def sampled(self) -> LatentDenoiser | WeightDenoiser:
        """The model that is validated and sampled from."""
        return self.denoiser if self.ema is None else self.ema

    @property
    def result(self) -> LatentDenoiser | WeightDenoiser:
        """The model that training ends with."""
        return self.sampled if self.best is None else self.best

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """Move the average towards the denoiser; early steps decay faster, so that the start is forgotten."""
        if self.ema is not None:
            decay = min(decay, self.step / (self.step + EMA_START_STEPS))
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.denoiser.parameters()), 1 - decay)

    def keep_as_best(self, loss: float) -> None:
        """Make the sampled model of this step the best one."""
        assert self.best is not None
        self.best.load_state_dict(self.sampled.state_dict())
        self.best_loss, self.best_step = loss, self.step

    def save(self, path: Path, *, run: TrainingRun, processes: ProcessGroup) -> None:
        """Write the state to a file. All processes must take part."""
        tensors: dict[str, torch.Tensor] = {}
        for name, model in self._models().items():
            tensors |= {f"{name}.{key}": tensor for key, tensor in gather_model(model).items()}
        for name, moments in gather_moments(self.denoiser, self.optimizer).items():
            tensors |= {f"optimizer.{name}.{moment}": tensor for moment, tensor in moments.items()}
        if processes.is_main:
            counters = {name: getattr(self, name) for name in COUNTERS}
            write_tensor_file(path, tensors, {STATE: {**run.to_json(), **counters}})

    def load(self, path: Path, *, run: TrainingRun) -> None:
        """Read the state from a file. Raises BadInput if it belongs to another training."""
        remedy = "delete it to start again"
        with open_tensor_file(path, remedy=remedy) as file:
            description, tensors = file.metadata.get(STATE), file.tensors()
        if description is None:
            raise BadInput(f"{path}: another kind of file; {remedy}")
        run.require_same(path, description["settings"], description["heads"])
        try:
            for name, model in self._models().items():
                load_model(model, with_prefix(tensors, f"{name}."))
        except (KeyError, RuntimeError) as error:
            raise BadInput(f"{path}: of a training that starts otherwise, by another version; {remedy}") from error
        moments: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in with_prefix(tensors, "optimizer.").items():
            parameter, moment = name.rsplit(".", 1)
            moments.setdefault(parameter, {})[moment] = tensor
        load_moments(self.denoiser, self.optimizer, moments)
        for name in COUNTERS:
            setattr(self, name, description[name])

    def _models(self) -> dict[str, torch.nn.Module]:
        models = {"denoiser": self.denoiser, "ema": self.ema, "best": self.best}
        return {name: model for name, model in models.items() if model is not None}


def frozen_copy(model: Any) -> Any:
    """Return a copy of a model that is not trained."""
    return deepcopy(model).requires_grad_(False).eval()
