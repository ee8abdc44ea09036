"""An auto-decoder and a diffusion on its codes: fits in, new heads out.

One network is shared by all heads; a code shifts its hidden units (Functa, Dupont et al. 2022), with codes and network
trained together (DeepSDF, Park et al. 2019). The shared network with its biases shifted is a field like any other, so
that all that is known of fields holds of these heads too.
"""

import math
import time

import torch
from rival_diffusion import Shape, Tokenised, samples, trained
from tqdm import tqdm

from hyperdiffusion.subspace import LOSS, Pool
from hyperdiffusion.tokens import Tokens
from overfit.field import Field
from overfit.fit import autocast, losses
from overfit.store import Fits

FIELD = Field(hidden=(256, 256, 256, 256))
# Entries of a code, and of each token that the diffusion sees of it.
CODE, TOKEN = 128, 16
SHAPE = Shape(width=256, depth=4, heads=8, dropout=0.1)
HEADS, POINTS, BATCH = 16, 1024, 32
# Peak rates of Adam for the network and the codes, and the pull of codes towards zero.
RATE, CODE_RATE, PULL = 1e-3, 1e-2, 1e-4
# Share of the time that the auto-decoder gets; the diffusion gets the rest.
DECODER = 0.8


def codes(fits: Fits, seconds: float, count: int, cores: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (count, P) of `FIELD` of new heads, by diffusion and by a Gaussian on the codes."""
    shared, shifts, found = _decoder(fits, seconds * DECODER, cores)
    axes = Tokens.of(found, [CODE])
    white = axes.encode(found)

    def draw(batch: int) -> torch.Tensor:
        return white[torch.randint(len(white), (batch,))]

    # As many axes as codes have entries, or heads if these are fewer.
    network = Tokenised(SHAPE, [len(part) for part in torch.arange(axes.size).split(TOKEN)])
    made = samples(trained("codes", network, draw, BATCH, seconds * (1 - DECODER)), count, axes.size, 64)
    normal = torch.randn(count, axes.size, generator=torch.Generator().manual_seed(0))
    return tuple(_rows(shared, axes.decode(drawn) @ shifts) for drawn in (made, normal))


def _decoder(fits: Fits, seconds: float, cores: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The shared weights (P,), the shifts (CODE, hidden units) and the codes (heads, CODE)."""
    start = time.monotonic()
    pool = Pool.of(fits.field, fits.cube, fits.weights, cores)
    random = torch.Generator().manual_seed(0)
    shared = FIELD.initial(random).requires_grad_()
    units = sum(FIELD.hidden)
    shifts = (torch.randn(CODE, units, generator=random) / CODE**0.5).requires_grad_()
    table = torch.nn.Embedding.from_pretrained(0.1 * torch.randn(len(fits.weights), CODE, generator=random),
                                               freeze=False, sparse=True)
    network = torch.optim.Adam([shared, shifts], RATE, betas=(0.9, 0.99), fused=True)
    places = torch.optim.SparseAdam(table.parameters(), CODE_RATE, betas=(0.9, 0.99))
    with tqdm(desc="codes: the auto-decoder", unit="step", mininterval=5) as bar:
        while (spent := (time.monotonic() - start) / seconds) < 1:
            fall = 0.5 + 0.5 * math.cos(math.pi * spent)
            network.param_groups[0]["lr"], places.param_groups[0]["lr"] = RATE * fall, CODE_RATE * fall
            chosen = torch.randint(len(pool.points), (HEADS,), generator=random)
            batch = torch.randint(pool.points.shape[1], (POINTS,), generator=random)
            here = table(chosen)
            with autocast(shared.device):
                logits = FIELD(_rows(shared, here @ shifts), pool.points[chosen][:, batch])
            loss = losses(logits.float(), pool.distance[chosen][:, batch], LOSS).sum()
            for optimiser in (network, places):
                optimiser.zero_grad()
            (loss + PULL * here.square().sum()).backward()
            for optimiser in (network, places):
                optimiser.step()
            bar.update()
            bar.set_postfix_str(f"loss {loss / HEADS:.3f}", refresh=False)
    return shared.detach(), shifts.detach(), table.weight.detach()


def _rows(shared: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Weights (B, P) of the shared network (P,) with its hidden biases moved by (B, hidden units)."""
    tensors = [tensor.expand(len(shift), -1) for tensor in shared.split(FIELD.sizes)]
    for layer, part in enumerate(shift.split(FIELD.hidden, dim=1)):
        tensors[2 * layer + 1] = tensors[2 * layer + 1] + part
    return torch.cat(tensors, dim=1)
