"""Point-cloud diffusion: scans in, clouds of 2,048 points of new heads out.

In the manner of DPC (Luo and Hu 2021) and PVD (Zhou et al. 2021): points are noised and know no order. The network is
small enough for a processor: a few latent tokens read from all points, think, and write back to them (set transformer,
Lee et al. 2019; recurrent interface networks, Jabri et al. 2023).
"""

import numpy as np
import torch
import trimesh
from rival_diffusion import samples, trained
from torch import nn

from hyperdiffusion.metrics import POINTS
from hyperdiffusion.transformer import sinusoids
from overfit.occupancy import surface_points

# Points of each scan that clouds are drawn from, and clouds in a step.
POOL, BATCH = 16_384, 8
WIDTH, LATENTS, BLOCKS, HEADS = 96, 64, 3, 4


class SetTransformer(nn.Module):
    """Velocities of noised points, whatever their order."""

    def __init__(self):
        from x_transformers import CrossAttender, Encoder

        super().__init__()
        size = {"dim": WIDTH, "heads": HEADS, "attn_dim_head": WIDTH // HEADS}
        self.latents = nn.Parameter(torch.randn(LATENTS, WIDTH) * 0.02)
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.embed = nn.Sequential(nn.Linear(3, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.read = nn.ModuleList(CrossAttender(depth=1, **size) for _ in range(BLOCKS))
        self.think = nn.ModuleList(Encoder(depth=2, **size) for _ in range(BLOCKS))
        self.write = nn.ModuleList(CrossAttender(depth=1, **size) for _ in range(BLOCKS))
        self.project = nn.Linear(WIDTH, 3)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, noised: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Noised points (B, 3 n) at steps (B,) -> their velocities (B, 3 n)."""
        time = self.time(sinusoids(step, WIDTH))[:, None]
        points = self.embed(noised.unflatten(1, (-1, 3))) + time
        latents = self.latents + time
        for read, think, write in zip(self.read, self.think, self.write):
            latents = think(read(latents, context=points))
            points = write(points, context=latents)
        return self.project(points).flatten(1)


def points(meshes: list[trimesh.Trimesh], seconds: float, count: int) -> torch.Tensor:
    """Clouds (count, POINTS, 3) in millimetres, learned from meshes for so many seconds."""
    pools = torch.from_numpy(np.stack([surface_points(mesh, POOL, np.random.default_rng(index))
                                       for index, mesh in enumerate(meshes)])).float()
    mean = pools.mean((0, 1))
    scale = (pools - mean).square().mean().sqrt()

    def draw(batch: int) -> torch.Tensor:
        heads, chosen = torch.randint(len(pools), (batch, 1)), torch.randint(POOL, (batch, POINTS))
        return ((pools[heads, chosen] - mean) / scale).flatten(1)

    made = samples(trained("points", SetTransformer(), draw, BATCH, seconds), count, 3 * POINTS)
    return made.unflatten(1, (-1, 3)) * scale + mean
