"""The settings of stage 2, and which heads and settings a training consists of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hyperdiffusion.diffusion.denoiser import TransformerConfig
from hyperdiffusion.diffusion.encode import LatentSpaceConfig
from hyperdiffusion.diffusion.schedule import NoiseSchedule
from overfit.runtime.errors import BadInput, require_at_least, require_between
from overfit.runtime.settings import flatten_settings

# Settings that may change when a training is resumed.
RESUMABLE_CHANGES = ("save_every", "sample_every")


@dataclass(frozen=True)
class TrainingConfig:
    """How stage 2 is trained."""

    coordinates: Literal["latent", "pca", "scaled", "raw"] = "latent"
    """What is diffused: codes in the learned latent space (latent), principal components of the weights (pca), the
    weights divided by one scale (scaled), or the weights themselves, as published (raw)."""
    latent_space: LatentSpaceConfig = LatentSpaceConfig()
    """How the latent space is learned."""
    transformer: TransformerConfig = TransformerConfig()
    """The denoiser's transformer."""
    max_mixture_components: int = 8
    """Upper bound on the Gaussian mixture's components, from which training starts; the validation heads select their
    number, and whether they differ in all coordinates or in the first ones only."""
    independent_components: bool = True
    """Whether training may start from independent components instead, each a mixture of its own, if the validation
    heads prefer them."""
    noise_schedule: NoiseSchedule = NoiseSchedule()
    """The diffusion's noise schedule."""
    timestep_density: Literal["lognormal", "uniform"] = "lognormal"
    """How often each timestep is trained on: where the linear denoiser leaves most to learn, ln sigma being normally
    distributed (lognormal), or all alike, as published (uniform). Validation counts all alike."""
    steps: int = 4000
    """Upper bound on the number of optimizer steps."""
    epochs: int = 0
    """Passes through the training heads; if given, they replace `steps`."""
    batch_size: int = 128
    """Heads in one step, each at a random timestep."""
    val_fraction: float = 0.1
    """Fraction of the store held out for validation; the model with the lowest validation loss is kept. Stores of
    fewer than 20 heads have no validation heads and train to the end."""
    max_val: int = 256
    """Upper bound on the number of validation heads."""
    patience: int = 1000
    """Steps without a lower validation loss after which training ends. It ends earlier if the loss rises: the model
    then memorises the training heads."""
    lr: float = 1e-3
    """AdamW's peak learning rate."""
    lr_schedule: Literal["cosine", "step"] = "cosine"
    """How the learning rate decays: along a cosine to zero, or by 0.9 every 200 epochs, as published (step)."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises to its peak; a short training takes half of its steps at most."""
    weight_decay: float = 0.05
    """AdamW's weight decay."""
    grad_clip: float = 1.0
    """Upper bound on the gradient's norm; 0 disables clipping."""
    ema_decay: float = 0.998
    """Decay of the exponential moving average of the weights, which is sampled from; 0 disables it."""
    seed: int = 0
    """Random seed of the training."""
    save_every: float = 30.0
    """Seconds between two saves of the training state; more if saving would take over 5 % of the time."""
    sample_every: int = 500
    """Steps between two pictures of samples beside the checkpoint; more if drawing would take over 5 % of the time."""

    def __post_init__(self) -> None:
        require_at_least(
            1,
            max_mixture_components=self.max_mixture_components,
            steps=self.steps,
            batch_size=self.batch_size,
            patience=self.patience,
            sample_every=self.sample_every,
        )
        require_at_least(
            0,
            epochs=self.epochs,
            max_val=self.max_val,
            lr=self.lr,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
            grad_clip=self.grad_clip,
            seed=self.seed,
            save_every=self.save_every,
        )
        require_between(0, 0.9, val_fraction=self.val_fraction)
        require_between(0, 1, ema_decay=self.ema_decay)


@dataclass(frozen=True)
class TrainingRun:
    """One training: its settings and its heads. Files of another one are not resumed."""

    config: TrainingConfig
    """The settings."""
    heads: tuple[str, ...]
    """SHA-256 of each head's scan, in the store's order."""
    withdrawn: frozenset[str] = frozenset()
    """SHA-256 of the scans that were removed from the store."""
    attributes: str = ""
    """SHA-256 of the heads' attributes; empty without attributes."""
    prior: str = ""
    """What tells the prior that training starts from from others; empty without a prior."""

    def to_json(self) -> dict[str, Any]:
        """Return settings and heads as they are written into files."""
        named = {"attributes": self.attributes, "prior": self.prior}
        given = {name: digest for name, digest in named.items() if digest}
        return {"settings": asdict(self.config) | given, "heads": list(self.heads)}

    def count_withdrawn(self, heads: Sequence[str]) -> int:
        """Return how many heads of an earlier training were removed from the store since."""
        return len(self.withdrawn & set(heads))

    def require_same(self, path: Path, settings: Mapping[str, Any], heads: Sequence[str]) -> None:
        """Raise BadInput if the settings and heads in a file at `path` are those of another training."""
        if tuple(heads) != self.heads:
            raise BadInput(
                f"{path}: was trained on other heads; give another checkpoint name, or delete it to train again"
            )
        found = flatten_settings(settings)
        if found.get("attributes", "") != self.attributes:
            how = "without" if "attributes" not in found else "with other" if self.attributes else "with"
            raise BadInput(f"{path}: was trained {how} attributes; do as then, or give another checkpoint name")
        if found.get("prior", "") != self.prior:
            how = "without a prior" if "prior" not in found else "with another prior" if self.prior else "with a prior"
            raise BadInput(f"{path}: was trained {how}; do as then, or give another checkpoint name")
        for name, value in flatten_settings(asdict(self.config)).items():
            if name not in RESUMABLE_CHANGES and found.get(name) != value:
                raise BadInput(
                    f"{path}: was trained with `{name}={found.get(name)}`, not {value}; use its settings, "
                    "or give another checkpoint name"
                )
