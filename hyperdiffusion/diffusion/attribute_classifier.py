"""Attributes of noised heads: codes x_t (B, D) and timesteps (B,) in, log p(c | x_t) of values (B, n) out.

Classifier guidance (Dhariwal and Nichol 2021) needs its gradient. The classifier is small and trained after the
denoiser, on codes noised by the same schedule.
"""

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import nn

from hyperdiffusion.diffusion.attributes import Attribute, Attributes, Numeric
from hyperdiffusion.diffusion.denoiser import sinusoidal_embedding
from hyperdiffusion.diffusion.schedule import NoiseSchedule

WIDTH = 128
# Against memorising the training heads, beside early stopping.
DROPOUT = 0.2
WEIGHT_DECAY = 0.1
LR = 2e-3
BATCH_SIZE = 256
STEPS = 1500
# Steps between two validations, and noise draws for each validation head.
VALIDATE_EVERY = 100
VALIDATION_DRAWS = 16
# Smallest standard deviation of a standardised number: a classifier that is surer has memorised.
MIN_LOG_STD = math.log(0.1)


class AttributeClassifier(nn.Module):
    """A residual network with one Gaussian for each numeric attribute and one softmax for each categorical one."""

    def __init__(self, attributes: Attributes, size: int):
        """Make an untrained classifier of codes of `size` coordinates."""
        super().__init__()
        self.attributes = attributes
        self.outputs = [_outputs(column) for column in attributes.columns]
        self.embed = nn.Linear(size, WIDTH)
        self.time = nn.Linear(WIDTH, WIDTH)
        self.hidden = nn.Sequential(nn.SiLU(), nn.Dropout(DROPOUT), nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.project = nn.Linear(WIDTH, sum(self.outputs))

    def forward(self, noised: Float[torch.Tensor, "B D"], step: Int[torch.Tensor, " B"]) -> Float[torch.Tensor, "B O"]:
        """Return the outputs of all attributes."""
        embedded = self.embed(noised) + self.time(sinusoidal_embedding(step, WIDTH))
        return self.project(embedded + self.hidden(embedded))

    def log_probability(
        self, noised: Float[torch.Tensor, "B D"], step: Int[torch.Tensor, " B"], values: Float[torch.Tensor, "B n"]
    ) -> Float[torch.Tensor, " B"]:
        """Return the log probability, or density, of the values that are not missing."""
        parts = self(noised, step).split(self.outputs, dim=1)
        columns = zip(self.attributes.columns, parts, values.unbind(1), strict=True)
        return torch.stack([_log_probability(*column) for column in columns]).sum(0)


@dataclass(frozen=True)
class KnownHeads:
    """Heads with their attributes."""

    codes: Float[torch.Tensor, "heads D"]
    """Clean codes."""
    values: Float[torch.Tensor, "heads n"]
    """Values of their attributes; NaN where missing."""

    def __len__(self) -> int:
        return len(self.codes)


def train_classifier(
    attributes: Attributes, heads: KnownHeads, *, validation: KnownHeads, schedule: NoiseSchedule, seed: int
) -> AttributeClassifier:
    """Return a classifier of noised heads; with validation heads, the best of its training on them."""
    device = heads.codes.device
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = AttributeClassifier(attributes, heads.codes.shape[1]).to(device)
        optimizer = torch.optim.AdamW(classifier.parameters(), LR, weight_decay=WEIGHT_DECAY)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        best, best_loss = classifier, math.inf
        # Validation heads of which nothing is known would make the first validation the best.
        validates = not validation.values.isnan().all()
        for done in range(1, STEPS + 1):
            chosen = torch.randint(len(heads), (BATCH_SIZE,), device=device)
            loss = _loss(classifier, KnownHeads(heads.codes[chosen], heads.values[chosen]), schedule)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
            if validates and done % VALIDATE_EVERY == 0:
                validation_loss = _validate(classifier, validation, schedule)
                if validation_loss < best_loss:
                    best, best_loss = deepcopy(classifier), validation_loss
    return best.requires_grad_(False).eval()


@torch.no_grad()
def _validate(classifier: AttributeClassifier, heads: KnownHeads, schedule: NoiseSchedule) -> float:
    classifier.eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loss = sum(float(_loss(classifier, heads, schedule)) for _ in range(VALIDATION_DRAWS))
    classifier.train()
    return loss


def _loss(classifier: AttributeClassifier, heads: KnownHeads, schedule: NoiseSchedule) -> torch.Tensor:
    """Mean negative log probability of the known values at random timesteps."""
    step = torch.randint(schedule.timesteps, (len(heads),), device=heads.codes.device)
    noised = schedule.add_noise(heads.codes, torch.randn_like(heads.codes), step)
    return -classifier.log_probability(noised, step, heads.values).mean()


def _outputs(column: Attribute) -> int:
    # Mean and log standard deviation, or logits.
    return 2 if isinstance(column, Numeric) else column.size


def _log_probability(column: Attribute, outputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Log probability (B,) of one attribute's values; 0 where missing."""
    if isinstance(column, Numeric):
        log_std = outputs[:, 1].clamp(min=MIN_LOG_STD)
        offset = (column.features(values)[:, 0] - outputs[:, 0]) / log_std.exp()
        known = -offset.square() / 2 - log_std
    else:
        level = values.nan_to_num(0.0).long()[:, None]
        known = outputs.log_softmax(1).gather(1, level)[:, 0]
    return torch.where(values.isnan(), 0.0, known)
