"""The paper preset has the published settings."""

from overfit import PRESETS
from overfit.paper_fit import LR_FACTOR, MIN_LR, PATIENCE, STOPPING_PATIENCE

PAPER = PRESETS["paper"]


def test_the_paper_preset_has_the_published_settings():
    """Erkoç et al. 2023, section 3.1 and supplement; the plateau's numbers are those of the authors' configuration."""
    field, labels, fit = PAPER.field, PAPER.labels, PAPER.fit
    assert PAPER.alignment.align == "none"
    assert (field.size, field.octaves, field.hidden) == (36737, 4, (128, 128, 128))
    assert (field.box, field.frequency, field.activation) == (0.5, 1.0, "relu")
    assert (labels.uniform_points, labels.near_points, labels.band_points) == (100_000, 100_000, 0)
    assert (labels.near_sigma_share, labels.sign_method) == (0.01, "winding-number")
    assert (labels.face_share, labels.detail_share, labels.gap_mm) == (0.0, 0.0, 0.0)
    assert (fit.lr, fit.points_per_step, fit.lr_schedule, fit.steps) == (1e-2, 2048, "plateau", 5000 * 97)
    assert (fit.softness_mm, fit.distance_weight, PAPER.repair) == (0.0, 0.0, False)
    assert (LR_FACTOR, PATIENCE, MIN_LR, STOPPING_PATIENCE) == (0.8, 10, 1e-5, 50)
