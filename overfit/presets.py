"""Settings of stage 1 by name: our defaults, and those of the published method for comparison."""

from typing import Literal

from overfit.canonical.align import AlignmentConfig
from overfit.field import Field
from overfit.fit import FitConfig
from overfit.fit_batch import OverfitConfig
from overfit.labels import LabelConfig

Preset = Literal["default", "paper"]

# Labelled points of a scan in the published method: this many uniform ones, and as many near the surface.
_PAPER_POINTS = 100_000
# Points in a step of the published method.
_PAPER_BATCH_SIZE = 2048
# Epochs of the published method at most; a fit ends long before.
_PAPER_EPOCHS = 5000
_PAPER_STEPS = _PAPER_EPOCHS * (2 * _PAPER_POINTS // _PAPER_BATCH_SIZE)

# "paper" is HyperDiffusion (Erkoç et al., ICCV 2023), section 3.1 and its supplement: a box of [-0.5, 0.5], near points
# with a standard deviation of a hundredth of the box, hard occupancy, no repair.
PRESETS: dict[Preset, OverfitConfig] = {
    "default": OverfitConfig(),
    "paper": OverfitConfig(
        alignment=AlignmentConfig(align="none"),
        field=Field(box=0.5, frequency=1.0, activation="relu"),
        labels=LabelConfig(
            near_points=_PAPER_POINTS,
            near_sigma_share=0.01,
            band_points=0,
            uniform_points=_PAPER_POINTS,
            face_share=0.0,
            detail_share=0.0,
            gap_mm=0.0,
        ),
        fit=FitConfig(
            lr_schedule="plateau",
            steps=_PAPER_STEPS,
            first_steps=_PAPER_STEPS,
            points_per_step=_PAPER_BATCH_SIZE,
            lr=1e-2,
            softness_mm=0.0,
            distance_weight=0.0,
            mixture_weight=0.0,
        ),
        repair=False,
    ),
}
