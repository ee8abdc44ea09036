"""A trained generator as one file: all that sampling needs, in safetensors, with its description as JSON inside."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from overfit.cube import Cube
from overfit.errors import BadInput
from overfit.field import Field
from overfit.files import save_tensors

from .diffusion import Schedule
from .tokens import Coordinates, Plain, Tokens
from .transformer import Denoiser, PlainDenoiser, Shape, restored

KIND, VERSION = "hyperdiffusion checkpoint", 3
# Settings that may change between a training and the one that goes on with it.
FREE = ("save_every", "show_every")


@dataclass(frozen=True)
class Checkpoint:
    """A trained denoiser and how to read what it makes."""

    # How the sampled weights are decoded.
    field: Field
    cube: Cube
    # The coordinates of the diffusion and its schedule.
    tokens: Coordinates
    schedule: Schedule
    # The moving average of the trained denoisers.
    denoiser: Denoiser | PlainDenoiser
    # Settings and figures of the training, for people to read.
    training: dict

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        about = {"kind": KIND, "version": VERSION, "field": asdict(self.field), "cube": asdict(self.cube),
                 "schedule": asdict(self.schedule), "shape": asdict(self.denoiser.shape),
                 "sizes": self.tokens.sizes, "training": self.training}
        tensors = {f"tokens.{name}": getattr(self.tokens, name) for name in self.tokens.TENSORS}
        tensors |= {f"denoiser.{name}": tensor for name, tensor in self.denoiser.state_dict().items()}
        write_tensors(path, tensors, about)

    @classmethod
    def load(cls, path: Path, device: torch.device = torch.device("cpu")) -> "Checkpoint":
        """Raises BadInput where the file is missing, damaged, of another kind or of a newer version."""
        tensors, about = read_tensors(path, KIND, "make one with `hyperdiffusion train`")
        if about["version"] > VERSION:
            raise BadInput(f"{path}: made by a newer version; update hyperdiffusion")
        if about["version"] < VERSION:
            raise BadInput(f"{path}: made by an older version; train it again from its store")
        try:
            kind = Tokens if "tokens.axes" in tensors else Plain
            tokens = kind(tuple(about["sizes"]), *(tensors[f"tokens.{name}"].to(device) for name in kind.TENSORS))
            schedule = Schedule(**about["schedule"])
            denoiser = restored(Shape(**about["shape"]), schedule, tokens,
                                {name.removeprefix("denoiser."): tensor for name, tensor in tensors.items()
                                 if name.startswith("denoiser.")})
            return cls(Field.of(about["field"]), Cube.of(about["cube"]), tokens, schedule,
                       denoiser.eval().to(device), about["training"])
        except (KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise BadInput(f"{path}: a damaged checkpoint ({reason}); train it again, or copy it again") from error


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], about: dict) -> None:
    """Tensors and their description as one safetensors file, whole or not at all."""
    save_tensors(path, tensors, {"about": json.dumps(about)})


def read_tensors(path: Path, kind: str, remedy: str) -> tuple[dict[str, torch.Tensor], dict]:
    """What `write_tensors` wrote. Raises BadInput where the file is missing, damaged or of another kind."""
    if not path.is_file():
        raise BadInput(f"{path}: no such checkpoint; {remedy}")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            if not isinstance(about, dict) or about.get("kind") != kind:
                raise BadInput(f"{path}: no {kind} but another kind of file; {remedy}")
            return {name: file.get_tensor(name) for name in file.keys()}, about
    except (SafetensorError, ValueError, OSError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: not a whole safetensors file ({error}); {remedy}, or copy it again") from error


def same_run(path: Path, theirs: dict, ours: dict) -> None:
    """Raises BadInput where a file of a training, by its description, belongs to other heads or other settings."""
    if theirs.get("heads") != ours["heads"]:
        raise BadInput(f"{path}: was trained on other heads; give another checkpoint name, or delete it to train anew")
    for name, value in ours["settings"].items():
        if name not in FREE and theirs["settings"].get(name) != value:
            raise BadInput(f"{path}: was trained with {name} {theirs['settings'].get(name)}, not {value}; "
                           "use its settings, or give another checkpoint name")
