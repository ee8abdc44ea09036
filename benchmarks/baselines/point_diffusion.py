"""Point-cloud diffusion: scans in, point clouds of new heads out.

In the manner of DPC (Luo and Hu 2021) and PVD (Zhou et al. 2021): unordered points are denoised. The network is small
enough for a CPU: a few latent tokens read from all points, attend to each other and write back to the points (set
transformer, Lee et al. 2019; recurrent interface networks, Jabri et al. 2023).
"""

from collections.abc import Sequence

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import nn

from baselines.velocity_diffusion import draw_samples, train_denoiser
from hyperdiffusion import sinusoidal_embedding
from overfit import sample_points

# Points on each scan from which training clouds are drawn.
POOL_POINTS = 16_384
BATCH_SIZE = 8
WIDTH = 96
LATENT_TOKENS = 64
BLOCKS = 3
ATTENTION_HEADS = 4
# Layers of attention among the latent tokens in each block.
LATENT_DEPTH = 2
INITIAL_LATENT_STD = 0.02


class SetTransformer(nn.Module):
    """Predicts velocities of noised points, whatever their order."""

    def __init__(self) -> None:
        """Make an untrained network, which predicts zeros."""
        from x_transformers import CrossAttender, Encoder

        super().__init__()
        size = {"dim": WIDTH, "heads": ATTENTION_HEADS, "attn_dim_head": WIDTH // ATTENTION_HEADS}
        self.latents = nn.Parameter(torch.randn(LATENT_TOKENS, WIDTH) * INITIAL_LATENT_STD)
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.embed = nn.Sequential(nn.Linear(3, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.read = nn.ModuleList(CrossAttender(depth=1, **size) for _ in range(BLOCKS))
        self.process = nn.ModuleList(Encoder(depth=LATENT_DEPTH, **size) for _ in range(BLOCKS))
        self.write = nn.ModuleList(CrossAttender(depth=1, **size) for _ in range(BLOCKS))
        self.project = nn.Linear(WIDTH, 3)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(
        self, noised: Float[torch.Tensor, "B n3"], step: Int[torch.Tensor, " B"]
    ) -> Float[torch.Tensor, "B n3"]:
        """Return the velocities of flattened points."""
        time = self.time(sinusoidal_embedding(step, WIDTH))[:, None]
        points = self.embed(noised.unflatten(1, (-1, 3))) + time
        latents = self.latents + time
        for read, process, write in zip(self.read, self.process, self.write, strict=True):
            latents = process(read(latents, context=points))
            points = write(points, context=latents)
        return self.project(points).flatten(1)


def point_cloud_samples(
    meshes: Sequence[trimesh.Trimesh], *, points: int, seconds: float, count: int
) -> Float[torch.Tensor, "count points 3"]:
    """Return point clouds of new heads in millimetres, after training on meshes for a given time."""
    pools = torch.from_numpy(
        np.stack([sample_points(mesh, POOL_POINTS, rng=np.random.default_rng(i)) for i, mesh in enumerate(meshes)])
    ).float()
    mean = pools.mean((0, 1))
    scale = (pools - mean).square().mean().sqrt()

    def draw(batch: int) -> torch.Tensor:
        heads, chosen = torch.randint(len(pools), (batch, 1)), torch.randint(POOL_POINTS, (batch, points))
        return ((pools[heads, chosen] - mean) / scale).flatten(1)

    denoiser = train_denoiser("points", SetTransformer(), draw, batch_size=BATCH_SIZE, seconds=seconds)
    return draw_samples(denoiser, count, size=3 * points).unflatten(1, (-1, 3)) * scale + mean
