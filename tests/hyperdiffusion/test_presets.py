"""The paper preset of stage 2 is the published method."""

import torch

from hyperdiffusion.diffusion.trainer import STEP_DECAY, STEP_DECAY_EPOCHS
from hyperdiffusion.presets import PRESETS


def test_the_paper_preset_is_the_published_one():
    """Erkoç et al. 2023, section 3.2 and configuration."""
    paper = PRESETS["paper"]
    transformer, schedule = paper.transformer, paper.noise_schedule
    assert (transformer.width, transformer.depth, transformer.attention_heads) == (2880, 12, 16)
    assert transformer.dropout == 0.0
    assert (schedule.timesteps, schedule.noise_schedule) == (500, "linear")
    assert torch.equal(schedule.betas[[0, -1]], torch.tensor([1e-4, 2e-2], dtype=torch.float64))
    assert (paper.coordinates, paper.batch_size, paper.epochs, paper.lr) == ("raw", 32, 6000, 2e-4)
    assert (paper.lr_schedule, STEP_DECAY, STEP_DECAY_EPOCHS, paper.warmup_steps) == ("step", 0.9, 200, 0)
    assert (paper.ema_decay, paper.val_fraction, paper.grad_clip) == (0.0, 0.0, 0.0)
