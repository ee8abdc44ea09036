"""Settings by name: our defaults, and the published method's for comparisons."""

from typing import Literal

from .batch import Settings
from .field import Field
from .fit import Fitting
from .occupancy import Sampling

Preset = Literal["default", "paper"]
# 5,000 epochs of (100,000 + 100,000) / 2,048 steps at most; the fit stops long before.
_STEPS = 5000 * 97

PRESETS: dict[Preset, Settings] = {
    "default": Settings(),
    # HyperDiffusion (Erkoç et al., ICCV 2023): a box of [-0.5, 0.5], 100,000 uniform points and as many about the
    # surface with a deviation of a hundredth of the box, hard occupancy, no healing.
    "paper": Settings(
        field=Field(box=0.5, frequency=1.0), healing=False,
        sampling=Sampling(near=100_000, near_share=0.01, wide=0, uniform=100_000, face=0.0, detail=0.0,
                          gap_mm=0.0),
        fitting=Fitting(schedule="plateau", steps=_STEPS, first_steps=_STEPS, points=2048, rate=1e-2, softness_mm=0.0,
                        distance=0.0)),
}
