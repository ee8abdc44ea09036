"""A classifier of the factors of a head: meshes and heads.csv in; the probability of each level of each factor out.

It sees what a person would: normal maps from the front and both sides. It is a small convolutional network, one output
a level. Its accuracy on test heads says how far its verdicts on generated heads can be trusted.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import nn

from hyperdiffusion.evaluation.normal_map_features import normal_map_views
from overfit import RunContext, run_tasks_in_order

# Factors that are judged, with their levels; the first one is the absence of a factor.
FACTORS = {
    "hair": ("bald", "cropped", "short", "bob", "bun", "curly"),
    "beard": ("none", "stubble", "moustache", "full"),
    "glasses": ("none", "thin", "thick"),
    "headwear": ("none", "cap", "headband"),
}
# Pixels along a side of a normal map.
IMAGE_SIZE = 96
# Passes through the heads, heads in one step and the peak learning rate.
EPOCHS, BATCH_SIZE, LR = 40, 32, 2e-3
# Largest random shift in pixels, so that the network does not learn where single heads lie.
SHIFT = 3
CHANNELS = (32, 64, 96, 128)

Views = Float[torch.Tensor, "heads 9 size size"]


class FactorClassifier(nn.Module):
    """A convolutional network with one group of outputs a factor."""

    def __init__(self) -> None:
        """Make an untrained network."""
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((9, *CHANNELS), CHANNELS):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.SiLU(), nn.MaxPool2d(2)]
        outputs = sum(map(len, FACTORS.values()))
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(CHANNELS[-1] * 36, outputs))

    @classmethod
    def train_on(cls, views: Views, levels: Int[torch.Tensor, "heads factors"], *, seed: int = 0) -> "FactorClassifier":
        """Return a network trained on heads whose levels are known."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = cls()
            total = EPOCHS * -(-len(views) // BATCH_SIZE)
            optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.05)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=total)
            for _ in range(EPOCHS):
                for chosen in torch.randperm(len(views)).split(BATCH_SIZE):
                    shift = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
                    logits = model.layers(views[chosen].roll(shift, (2, 3))).split(list(map(len, FACTORS.values())), 1)
                    losses = [
                        nn.functional.cross_entropy(one, levels[chosen, index]) for index, one in enumerate(logits)
                    ]
                    optimizer.zero_grad()
                    torch.stack(losses).sum().backward()
                    optimizer.step()
                    schedule.step()
        return model.eval()

    @torch.no_grad()
    def forward(self, views: Views) -> list[Float[torch.Tensor, "heads levels"]]:
        """Return the probabilities of the levels of each factor."""
        logits = torch.cat([self.layers(part) for part in views.split(BATCH_SIZE)])
        return [one.softmax(1) for one in logits.split(list(map(len, FACTORS.values())), 1)]


def render_views(meshes: Sequence[trimesh.Trimesh | None], context: RunContext, description: str) -> Views:
    """Return the normal maps of heads from three sides; a head without a surface has empty ones."""
    with context.progress(len(meshes), description, "head", leave=False) as bar:
        views = run_tasks_in_order(_views, [(mesh,) for mesh in meshes], context, min_tasks_per_worker=8, bar=bar)
    return torch.from_numpy(np.stack(views))


def read_levels(folder: Path, names: Sequence[str]) -> Int[torch.Tensor, "heads factors"]:
    """Return the level of each factor of the heads with these file names, from a folder's heads.csv."""
    with open(folder / "heads.csv", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    return torch.tensor([[levels.index(rows[name][factor]) for factor, levels in FACTORS.items()] for name in names])


def _views(mesh: trimesh.Trimesh | None) -> Float[np.ndarray, "9 size size"]:
    views = normal_map_views(mesh, size=IMAGE_SIZE)
    return views.transpose(0, 3, 1, 2).reshape(9, IMAGE_SIZE, IMAGE_SIZE).astype(np.float32)
