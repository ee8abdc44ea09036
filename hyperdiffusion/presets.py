"""Settings of stage 2 by name: the defaults, and those of the published method for comparison."""

from hyperdiffusion.diffusion.denoiser import TransformerConfig
from hyperdiffusion.diffusion.training_config import TrainingConfig
from overfit.presets import Preset

PRESETS: dict[Preset, TrainingConfig] = {
    "default": TrainingConfig(),
    # HyperDiffusion (Erkoç et al., ICCV 2023), section 3.2 and its configuration: raw weights, 1.4 billion parameters,
    # 6,000 epochs with batches of 32, a learning rate that decays by 0.9 every 200 epochs, no moving average, no
    # validation. The noise schedule is the default: 500 timesteps, linear. Sample with `--sampler ddim --steps 500`.
    "paper": TrainingConfig(
        coordinates="raw",
        transformer=TransformerConfig(width=2880, depth=12, attention_heads=16, dropout=0.0, adaptive_norm=False),
        timestep_density="uniform",
        batch_size=32,
        epochs=6000,
        val_fraction=0.0,
        lr=2e-4,
        lr_schedule="step",
        warmup_steps=0,
        weight_decay=0.01,
        grad_clip=0.0,
        ema_decay=0.0,
    ),
}
