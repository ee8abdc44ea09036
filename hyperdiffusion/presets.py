"""Settings of stage 2 by name: our defaults, and the published method's for comparisons."""

from overfit.presets import Preset

from .learner import Training
from .transformer import Shape

PRESETS: dict[Preset, Training] = {
    "default": Training(),
    # HyperDiffusion (Erkoç et al., ICCV 2023), section 3.2 and its configuration: raw weights, 1.4 billion parameters,
    # 6,000 epochs of batches of 32, a rate that falls to nine tenths every 200, no moving average, no held-out heads.
    # The schedule is the default one: 500 steps, linear. Sample from it by `--sampler ddim --steps 500`.
    "paper": Training("raw", shape=Shape(width=2880, depth=12, heads=16, dropout=0.0), epochs=6000, held_out=0.0,
                      rate=2e-4, fall="stairs", warmup=0, decay=0.01, clip=0.0, average=0.0),
}
