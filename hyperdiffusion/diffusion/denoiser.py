"""Denoisers: noised coordinates (B, D) and timesteps (B,) in, predicted clean coordinates (B, D) out.

Those of heads with attributes take the heads' values (B, n) too; without values, nothing is known of any head.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import nn

from hyperdiffusion.diffusion.attributes import Attributes
from hyperdiffusion.diffusion.condition_tokens import ConditionTokens
from hyperdiffusion.diffusion.conditional_mixture import ConditionalMixture
from hyperdiffusion.diffusion.coordinates import Coordinates, LatentCoordinates, WeightCoordinates
from hyperdiffusion.diffusion.marginal import Marginal, restore_marginal
from hyperdiffusion.diffusion.mixture import GaussianMixture
from hyperdiffusion.diffusion.schedule import Denoise, NoiseSchedule, gaussian_posterior_std
from overfit.runtime.errors import BadInput, require_at_least, require_between
from overfit.runtime.tensor_file import with_prefix

# Lower bound of the relative standard deviations that the correction is divided by: along narrower directions the
# transformer's own error would exceed what it corrects.
MIN_CORRECTED_STD = 0.03
# Longest wavelength of the timestep's embedding, in timesteps over 2 pi (Vaswani et al. 2017).
MAX_WAVELENGTH = 10_000


@dataclass(frozen=True)
class TransformerConfig:
    """Size of the transformer. The published one has width 2880, depth 12 and 16 heads: 1.4 billion parameters."""

    width: int = 128
    """Width of the transformer's tokens."""
    depth: int = 2
    """Number of transformer layers, each attention and feed-forward."""
    attention_heads: int = 4
    """Attention heads of each layer; each is width / attention heads wide."""
    dropout: float = 0.1
    """Dropout in attention and feed-forward layers, against memorising the training heads."""
    adaptive_norm: bool = True
    """Whether the timestep scales the normalised tokens in each layer (Peebles et al. 2022), besides being a token."""

    def __post_init__(self) -> None:
        require_at_least(1, depth=self.depth, attention_heads=self.attention_heads)
        require_at_least(2, width=self.width)
        require_between(0, 1, dropout=self.dropout)
        if self.width % 2 or self.width % self.attention_heads:
            raise BadInput(f"`width={self.width}`: give an even multiple of `attention_heads={self.attention_heads}`")


class TokenTransformer(nn.Module):
    """A transformer encoder over weight tokens and a time token (Peebles et al. 2022; HyperDiffusion, section 3.2).

    Its output is zero until it is trained. Each attribute is one more token, and scales the normalised tokens as the
    timestep does.
    """

    def __init__(self, config: TransformerConfig, sizes: Sequence[int], attributes: Attributes | None = None):
        """Make a transformer for tokens of the given sizes, and for heads with these attributes."""
        # Its import takes longer than a command that needs no transformer.
        from x_transformers import ContinuousTransformerWrapper, Encoder

        super().__init__()
        self.config = config
        width = config.width
        self.embed = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.transformer = ContinuousTransformerWrapper(
            # A learned embedding for each position distinguishes the tokens.
            max_seq_len=len(sizes) + 1 + len(attributes or ()),
            attn_layers=Encoder(
                dim=width,
                depth=config.depth,
                heads=config.attention_heads,
                attn_dim_head=width // config.attention_heads,
                attn_dropout=config.dropout,
                ff_dropout=config.dropout,
                use_adaptive_layernorm=config.adaptive_norm,
                dim_condition=width,
            ),
        )
        self.project = nn.ModuleList(nn.Linear(width, size) for size in sizes)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)
        # Last, so that a seed gives all other parameters the same values with attributes as without.
        self.conditions = None if attributes is None else ConditionTokens(attributes, width)

    def forward(
        self,
        tokens: Sequence[torch.Tensor],
        step: Int[torch.Tensor, " B"],
        values: Float[torch.Tensor, "B n"] | None = None,
    ) -> list[torch.Tensor]:
        """Return one output (B, size) for each of the tokens (B, size)."""
        embedded = [embed(token) for embed, token in zip(self.embed, tokens, strict=True)]
        time = self.time(sinusoidal_embedding(step, self.config.width))
        conditions = [] if self.conditions is None else self.conditions(values)
        condition = sum(conditions, time) if self.config.adaptive_norm else None
        hidden = self.transformer(torch.stack([*embedded, time, *conditions], dim=1), condition=condition)
        return [project(hidden[:, index]) for index, project in enumerate(self.project)]


Mixture = Marginal | ConditionalMixture
TokenMaps = tuple[list[torch.Tensor], list[torch.Tensor]]
TOKEN_MAPS = ("to_token", "from_token")


class MixtureDenoiser(nn.Module):
    """The optimal denoiser of a mixture of Gaussians in latent coordinates. It has nothing to train."""

    transformer_config: TransformerConfig | None = None
    alpha_bar: torch.Tensor

    def __init__(self, schedule: NoiseSchedule, mixture: Mixture):
        """Make the denoiser of a mixture."""
        super().__init__()
        self.register_buffer("alpha_bar", schedule.alpha_bar.float(), persistent=False)
        self.mixture = mixture

    def forward(
        self,
        noised: Float[torch.Tensor, "B D"],
        step: Int[torch.Tensor, " B"],
        values: Float[torch.Tensor, "B n"] | None = None,
    ) -> Float[torch.Tensor, "B D"]:
        """Return the predicted clean coordinates."""
        return self._predict(self.mixture, noised, step, values)

    def with_spread(self, factor: float) -> Denoise:
        """Return a denoiser whose mixture has all standard deviations multiplied by a factor."""
        return partial(self._predict, self.mixture.with_spread(factor))

    def _predict(
        self, mixture: Mixture, noised: torch.Tensor, step: torch.Tensor, values: torch.Tensor | None = None
    ) -> torch.Tensor:
        return _posterior(mixture, noised, self.alpha_bar[step][:, None], values)[0]


class LatentDenoiser(MixtureDenoiser):
    """The denoiser of latent coordinates: a Gaussian mixture and a transformer.

    It predicts the posterior mean under the mixture, corrected by the transformer in units of that mean's standard
    deviation: the preconditioning of Karras et al. 2022 (table 1), per coordinate. The correction is zero where
    training starts, so that samples start as those of the mixture.
    """

    relative_std: torch.Tensor

    def __init__(
        self,
        config: TransformerConfig,
        schedule: NoiseSchedule,
        coordinates: LatentCoordinates,
        mixture: Mixture | None = None,
        *,
        token_maps: TokenMaps | None = None,
    ):
        """Make an untrained denoiser.

        Args:
            config: Size of the transformer.
            schedule: The diffusion's noise schedule.
            coordinates: What is denoised.
            mixture: What it corrects; by default the Gaussian `default_mixture`.
            token_maps: Those of the coordinates, if they are known. They follow from the coordinates only up to the
                signs of eigenvectors and to directions of almost no variance, which differ between libraries: they are
                stored with the transformer that was trained on them.
        """
        super().__init__(schedule, default_mixture(coordinates) if mixture is None else mixture)
        self.transformer_config = config
        to_token, from_token = token_maps or coordinates.token_maps
        for index, (token_map, back) in enumerate(zip(to_token, from_token, strict=True)):
            self.register_buffer(f"to_token_{index}", token_map)
            self.register_buffer(f"from_token_{index}", back)
        self.register_buffer("relative_std", coordinates.relative_std, persistent=False)
        self.attributes = self.mixture.attributes if isinstance(self.mixture, ConditionalMixture) else None
        self.transformer = TokenTransformer(config, [token_map.shape[1] for token_map in to_token], self.attributes)

    def _predict(
        self, mixture: Mixture, noised: torch.Tensor, step: torch.Tensor, values: torch.Tensor | None = None
    ) -> torch.Tensor:
        alpha_bar = self.alpha_bar[step][:, None]
        if self.attributes is not None and values is None:
            values = self.attributes.missing(len(noised), noised.device)
        mean, within_variance = _posterior(mixture, noised, alpha_bar, values)
        return mean + gaussian_posterior_std(alpha_bar, within_variance) * self.correction(noised, step, values)

    def correction(
        self,
        noised: Float[torch.Tensor, "B D"],
        step: Int[torch.Tensor, " B"],
        values: Float[torch.Tensor, "B n"] | None = None,
    ) -> Float[torch.Tensor, "B D"]:
        """Return the transformer's correction in units of the posterior's standard deviation."""
        indices = range(len(self.transformer.embed))
        tokens = self.transformer([noised @ getattr(self, f"to_token_{index}") for index in indices], step, values)
        moved = [token @ getattr(self, f"from_token_{index}") for index, token in zip(indices, tokens, strict=True)]
        return torch.stack(moved).sum(0) / self.relative_std.clamp(min=MIN_CORRECTED_STD * self.relative_std.max())


class WeightDenoiser(nn.Module):
    """The published denoiser: a transformer that predicts the clean weights themselves."""

    def __init__(self, config: TransformerConfig, coordinates: WeightCoordinates):
        """Make an untrained denoiser, which predicts zeros."""
        super().__init__()
        self.transformer_config = config
        self.sizes = coordinates.sizes
        self.transformer = TokenTransformer(config, self.sizes)

    def forward(self, noised: Float[torch.Tensor, "B P"], step: Int[torch.Tensor, " B"]) -> Float[torch.Tensor, "B P"]:
        """Return the predicted clean coordinates."""
        return torch.cat(self.transformer(noised.split(self.sizes, dim=1), step), dim=1)

    def with_spread(self, factor: float) -> Denoise:
        """Return this denoiser: it has no mixture to scale."""
        return self


Denoiser = MixtureDenoiser | WeightDenoiser


def _posterior(
    mixture: Mixture,
    noised: torch.Tensor,
    alpha_bar: torch.Tensor,
    values: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean (B, D) of x_0 given x_t, and the variance (D,) or (B, D) inside the components."""
    if not isinstance(mixture, ConditionalMixture):
        return mixture(noised, alpha_bar), mixture.within_variance
    if values is None:
        values = mixture.attributes.missing(len(noised), noised.device)
    return mixture(noised, alpha_bar, values), mixture.within_variance(values)


def default_mixture(coordinates: LatentCoordinates) -> GaussianMixture:
    """Return one Gaussian, halfway (by ratio) between the variances of the store's heads and of unseen heads.

    With less variance samples look alike, with more they lose eyes and ears.
    """
    return GaussianMixture.single(coordinates.variance_ratio.sqrt())


def make_denoiser(
    config: TransformerConfig,
    coordinates: Coordinates,
    *,
    schedule: NoiseSchedule,
    mixture: Mixture | None = None,
) -> LatentDenoiser | WeightDenoiser:
    """Return an untrained denoiser for the coordinates; weight coordinates have no mixture."""
    if isinstance(coordinates, WeightCoordinates):
        return WeightDenoiser(config, coordinates)
    return LatentDenoiser(config, schedule, coordinates, mixture)


def restore_denoiser(
    config: TransformerConfig | None,
    coordinates: Coordinates,
    *,
    schedule: NoiseSchedule,
    state: Mapping[str, torch.Tensor],
    attributes: Attributes | None = None,
) -> Denoiser:
    """Return the denoiser with a `state_dict`, of heads with or without attributes.

    A transformer whose output is zero, as it was before training, is left out: it takes most of the time and changes
    nothing. Raises KeyError, TypeError or RuntimeError if the state belongs to another denoiser.
    """
    if isinstance(coordinates, WeightCoordinates):
        # On the meta device, so that a billion parameters are not drawn only to be replaced.
        with torch.device("meta"):
            published = WeightDenoiser(_required(config), coordinates)
        published.load_state_dict(state, assign=True)
        return published
    mixture = _restore_mixture(state, attributes)
    if not any(tensor.any() for name, tensor in state.items() if name.startswith("transformer.project.")):
        return MixtureDenoiser(schedule, mixture)
    token_maps = _restore_token_maps(state, len(coordinates.sizes))
    denoiser = LatentDenoiser(_required(config), schedule, coordinates, mixture, token_maps=token_maps)
    missing, unexpected = denoiser.load_state_dict(state, strict=False)
    # Earlier versions did not store the token maps.
    if unexpected or any("_token_" not in name for name in missing):
        raise RuntimeError(f"the transformer has missing or unknown parts: {[*missing, *unexpected][:3]}")
    return denoiser


def _restore_token_maps(state: Mapping[str, torch.Tensor], tokens: int) -> TokenMaps | None:
    """The token maps of a state; None if an earlier version wrote it, without any."""
    if "to_token_0" not in state:
        return None
    to_token, from_token = ([state[f"{name}_{index}"].float() for index in range(tokens)] for name in TOKEN_MAPS)
    return to_token, from_token


def _restore_mixture(state: Mapping[str, torch.Tensor], attributes: Attributes | None) -> Mixture:
    state = with_prefix(state, "mixture.")
    return restore_marginal(state) if attributes is None else ConditionalMixture.restore(attributes, state)


def _required(config: TransformerConfig | None) -> TransformerConfig:
    if config is None:
        raise TypeError("the transformer's size is missing")
    return config


def sinusoidal_embedding(step: Int[torch.Tensor, " B"], width: int) -> Float[torch.Tensor, "B width"]:
    """Return sines and cosines of falling frequency for timesteps (Vaswani et al. 2017, section 3.5)."""
    frequencies = torch.exp(-math.log(MAX_WAVELENGTH) * torch.arange(width // 2, device=step.device) / (width // 2))
    phases = step[:, None] * frequencies
    return torch.cat([phases.sin(), phases.cos()], dim=-1)
