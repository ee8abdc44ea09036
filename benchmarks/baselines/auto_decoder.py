"""An auto-decoder with a diffusion or a Gaussian on its codes: fits in, new heads out.

One network is shared by all heads; a code shifts its hidden units (Functa, Dupont et al. 2022), and codes and network
are trained together (DeepSDF, Park et al. 2019). The shared network with shifted biases is a field as any other, so
that everything that works on fields works on these heads too. Our latent space
(`hyperdiffusion.diffusion.latent_space`) moves all weights linearly instead, and starts from the fits; here the network
starts from random weights.
"""

import time
from dataclasses import dataclass

import torch
from jaxtyping import Float
from tqdm import tqdm

from baselines import head_space
from baselines.velocity_diffusion import TokenVelocity, cosine_fall, draw_samples, train_denoiser
from hyperdiffusion import LatentCoordinates, TransformerConfig, code_optimizer, code_table
from overfit import FIELD_LOSS, Cube, Field, FieldLabels, Fits, RunContext, autocast, losses

FIELD = Field(hidden=(256, 256, 256, 256))
CODE_SIZE = 128
# Entries of a code in each token of the diffusion.
TOKEN_SIZE = 16
TRANSFORMER = TransformerConfig(width=256, depth=4, attention_heads=8, dropout=0.1)
# Heads, and points of each, in a step of the auto-decoder.
DECODER_HEADS = 16
DECODER_POINTS = 1024
# Codes in a step of the diffusion.
DIFFUSION_BATCH = 32
SAMPLING_BATCH = 64
# Adam's peak learning rates of the network and of the codes.
NETWORK_LR = 1e-3
CODE_LR = 1e-2
BETAS = (0.9, 0.99)
# Weight of the codes' squared norm.
CODE_PENALTY = 1e-4
# Standard deviation of the codes before training.
INITIAL_CODE_STD = 0.1
# Share of the time for the auto-decoder; the diffusion gets the rest.
DECODER_SHARE = 0.8


@dataclass(frozen=True)
class SharedNetwork:
    """A network and how codes shift it."""

    weights: Float[torch.Tensor, " P"]
    """Weights of the shared network."""

    shifts: Float[torch.Tensor, "code units"]
    """What each entry of a code adds to the biases of the hidden units."""

    def weights_of(self, codes: Float[torch.Tensor, "B code"]) -> Float[torch.Tensor, "B P"]:
        """Return the weights of `FIELD` for codes."""
        shift = codes @ self.shifts
        tensors = [tensor.expand(len(shift), -1) for tensor in self.weights.split(FIELD.sizes)]
        for layer, part in enumerate(shift.split(FIELD.hidden, dim=1)):
            bias = 2 * layer + 1
            tensors[bias] = tensors[bias] + part
        return torch.cat(tensors, dim=1)


def auto_decoder_samples(
    fits: Fits, cube: Cube, *, seconds: float, count: int, context: RunContext
) -> dict[str, Float[torch.Tensor, "count P"]]:
    """Return weights of `FIELD` in a cube for new heads, "diffusion" and "gaussian" by what models the codes."""
    network, codes = _train_decoder(fits, cube, seconds * DECODER_SHARE, context)
    coordinates = LatentCoordinates.from_weights(codes, [CODE_SIZE])
    whitened = coordinates.encode(codes)

    def draw(batch: int) -> torch.Tensor:
        return whitened[torch.randint(len(whitened), (batch,))]

    # There are as many coordinates as entries of a code, or as heads if these are fewer.
    sizes = [len(part) for part in torch.arange(coordinates.size).split(TOKEN_SIZE)]
    denoiser = train_denoiser(
        "auto-decoder",
        TokenVelocity(TRANSFORMER, sizes),
        draw,
        batch_size=DIFFUSION_BATCH,
        seconds=seconds * (1 - DECODER_SHARE),
    )
    drawn = {
        "diffusion": draw_samples(denoiser, count, size=coordinates.size, batch_size=SAMPLING_BATCH),
        "gaussian": torch.randn(count, coordinates.size, generator=torch.Generator().manual_seed(0)),
    }
    return {name: network.weights_of(coordinates.decode(latent)) for name, latent in drawn.items()}


def _train_decoder(fits: Fits, cube: Cube, seconds: float, context: RunContext) -> tuple[SharedNetwork, torch.Tensor]:
    """Return the shared network and the codes (heads, code)."""
    start = time.monotonic()
    labels = head_space.labels_of(fits, cube, context=context)
    generator = torch.Generator().manual_seed(0)
    weights = FIELD.initial(generator).requires_grad_()
    shifts = (torch.randn(CODE_SIZE, sum(FIELD.hidden), generator=generator) / CODE_SIZE**0.5).requires_grad_()
    table = code_table(INITIAL_CODE_STD * torch.randn(len(fits.weights), CODE_SIZE, generator=generator))
    network = SharedNetwork(weights, shifts)
    network_optimizer = torch.optim.Adam([weights, shifts], NETWORK_LR, betas=BETAS, fused=True)
    optimizers = [(network_optimizer, NETWORK_LR), (code_optimizer(table, CODE_LR), CODE_LR)]
    with tqdm(desc="auto-decoder: training the decoder", unit="step", mininterval=5) as bar:
        while (progress := (time.monotonic() - start) / seconds) < 1:
            heads = torch.randint(len(labels.points), (DECODER_HEADS,), generator=generator)
            points = torch.randint(labels.points.shape[1], (DECODER_POINTS,), generator=generator)
            codes, loss = _decoder_loss(network, table, labels, heads=heads, points=points)
            for optimizer, peak_lr in optimizers:
                optimizer.param_groups[0]["lr"] = peak_lr * cosine_fall(progress)
                optimizer.zero_grad()
            (loss + CODE_PENALTY * codes.square().sum()).backward()
            for optimizer, _ in optimizers:
                optimizer.step()
            bar.update()
            bar.set_postfix_str(f"loss {loss / DECODER_HEADS:.3f}", refresh=False)
    return SharedNetwork(weights.detach(), shifts.detach()), table.weight.detach()


def _decoder_loss(
    network: SharedNetwork,
    table: torch.nn.Embedding,
    labels: FieldLabels,
    *,
    heads: torch.Tensor,
    points: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the codes (B, code) of some heads and their summed loss at some points."""
    codes = table(heads)
    with autocast(network.weights.device):
        logits = FIELD(network.weights_of(codes), labels.points[heads][:, points])
    return codes, losses(logits.float(), labels.distance[heads][:, points], FIELD_LOSS).sum()
