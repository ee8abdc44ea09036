"""A classifier of heads: meshes and heads.csv in; the probability of each level of each factor, and numbers, out.

It sees what a person would: normal maps of the head from four sides, and of the eyes and the mouth, large enough for
the rims of glasses. It is a small convolutional network. How well it does on test heads, and on fits of the heads that
it was trained on, says how far its verdicts on generated heads can be trusted.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import trimesh
from columns import HEAD_FACTORS, HEAD_NUMBERS
from jaxtyping import Float, Int
from torch import nn

from hyperdiffusion.data.factors import LEVELS
from hyperdiffusion.rendering.render import Camera, normal_maps
from overfit import RunContext, run_tasks_in_order

# Factors with their levels; the first one is the absence of a factor.
FACTORS = {name: LEVELS[name] for name in HEAD_FACTORS}
# Attributes that are numbers.
NUMBERS = HEAD_NUMBERS
# Pixels along a side of a normal map.
IMAGE_SIZE = 96
# The head from both sides, the front and the back; the eyes; the mouth.
CAMERAS = (
    *(Camera(yaw=yaw, height_mm=300.0) for yaw in (-45.0, 0.0, 45.0, 180.0)),
    *(Camera(height_mm=130.0, centre=(0.0, y, 0.0)) for y in (0.0, -60.0)),
)
# Where each camera is seen in a mirror: left and right change places.
MIRRORED_CAMERAS = [2, 1, 0, 3, 4, 5]
# Passes through the heads, heads in one step and the peak learning rate.
EPOCHS, BATCH_SIZE, LR = 25, 32, 2e-3
# Weight of the squared errors of numbers beside the cross-entropy of factors.
NUMBERS_WEIGHT = 2.0
# Largest random shift in pixels, so that the network does not learn where single heads lie.
SHIFT = 3
# Share of the steps on blurred normal maps: fits and samples are smoother than scans.
BLURRED_SHARE = 0.5
CHANNELS = (3 * len(CAMERAS), 48, 64, 96, 128)
SIZES = [*map(len, FACTORS.values()), len(NUMBERS)]

Views = Float[torch.Tensor, "heads channels size size"]


@dataclass(frozen=True)
class KnownAttributes:
    """What is known of heads, or found."""

    levels: list[Float[torch.Tensor, "heads levels"]]
    """Probability of each level of each factor."""
    numbers: Float[torch.Tensor, "heads numbers"]
    """The attributes that are numbers."""

    @property
    def chosen(self) -> Int[torch.Tensor, "heads factors"]:
        """The most probable level of each factor."""
        return torch.stack([one.argmax(1) for one in self.levels], dim=1)

    @classmethod
    def read(cls, folder: Path, names: Sequence[str]) -> "KnownAttributes":
        """Return the attributes of the heads with these file names, from a folder's heads.csv."""
        with open(folder / "heads.csv", newline="") as file:
            rows = {row["file"]: row for row in csv.DictReader(file)}
        numbers = torch.tensor([[float(rows[name][column]) for column in NUMBERS] for name in names])
        levels = [
            nn.functional.one_hot(torch.tensor([known.index(rows[name][factor]) for name in names]), len(known)).float()
            for factor, known in FACTORS.items()
        ]
        return cls(levels, numbers)


class HeadClassifier(nn.Module):
    """A convolutional network with one group of outputs a factor, and one output a number."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        """Make an untrained network."""
        super().__init__()
        # The first convolution has a stride of two, the others are followed by pooling: a third of the time.
        layers = [nn.Conv2d(*CHANNELS[:2], 5, stride=2, padding=2), nn.BatchNorm2d(CHANNELS[1]), nn.SiLU()]
        for before, after in zip(CHANNELS[1:], CHANNELS[2:]):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.SiLU(), nn.MaxPool2d(2)]
        cells = (IMAGE_SIZE // 2 ** (len(CHANNELS) - 1)) ** 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(CHANNELS[-1] * cells, sum(SIZES)))
        self.register_buffer("mean", torch.zeros(len(NUMBERS)))
        self.register_buffer("std", torch.ones(len(NUMBERS)))

    @classmethod
    def train_on(cls, views: Views, known: KnownAttributes, *, seed: int = 0) -> "HeadClassifier":
        """Return a network trained on heads whose attributes are known."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = cls()
            model.mean, model.std = known.numbers.mean(0), known.numbers.std(0)
            total = EPOCHS * -(-len(views) // BATCH_SIZE)
            optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.05)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=total)
            for _ in range(EPOCHS):
                for chosen in torch.randperm(len(views)).split(BATCH_SIZE):
                    optimizer.zero_grad()
                    model._loss(_varied(views[chosen]), known, chosen).backward()
                    optimizer.step()
                    schedule.step()
        return model.eval()

    @torch.no_grad()
    def forward(self, views: Views) -> KnownAttributes:
        """Return what the network finds in the views and in their mirror images, on average."""
        parts = [(self.layers(part) + self.layers(_mirrored(part))) / 2 for part in views.split(BATCH_SIZE)]
        *logits, numbers = torch.cat(parts).split(SIZES, 1)
        return KnownAttributes([one.softmax(1) for one in logits], numbers * self.std + self.mean)

    def _loss(self, views: Views, known: KnownAttributes, chosen: torch.Tensor) -> torch.Tensor:
        *logits, numbers = self.layers(views).split(SIZES, 1)
        losses = [nn.functional.cross_entropy(one, truth[chosen]) for one, truth in zip(logits, known.levels)]
        errors = numbers - (known.numbers[chosen] - self.mean) / self.std
        return sum(losses, NUMBERS_WEIGHT * errors.square().mean())


def render_views(meshes: Sequence[trimesh.Trimesh | None], context: RunContext, description: str) -> Views:
    """Return the normal maps that all cameras see of heads; a head without a surface has empty ones."""
    with context.progress(len(meshes), description, "head", leave=False) as bar:
        views = run_tasks_in_order(_views, [(mesh,) for mesh in meshes], context, min_tasks_per_worker=8, bar=bar)
    return torch.from_numpy(np.stack(views))


def _varied(views: Views) -> Views:
    """The views shifted at random, half of them mirrored, and some blurred."""
    views = torch.where(torch.rand(len(views), 1, 1, 1) < 0.5, _mirrored(views), views)
    views = views.roll(torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist(), (2, 3))
    return nn.functional.avg_pool2d(views, 3, 1, 1) if float(torch.rand(())) < BLURRED_SHARE else views


def _mirrored(views: Views) -> Views:
    """What the cameras see of the mirrored heads: normals point the other way along x."""
    images = views.unflatten(1, (len(CAMERAS), 3))[:, MIRRORED_CAMERAS].flip(-1)
    return (images * images.new_tensor([-1.0, 1.0, 1.0])[:, None, None]).flatten(1, 2)


def _views(mesh: trimesh.Trimesh | None) -> Float[np.ndarray, "channels size size"]:
    cameras = [replace(camera, size=IMAGE_SIZE) for camera in CAMERAS]
    return np.concatenate(normal_maps(mesh, cameras), axis=2).transpose(2, 0, 1).astype(np.float32)
