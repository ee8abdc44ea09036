"""Headwear: the template's coordinates in; how far caps and headbands stand out from the skull, and visors, out."""

from typing import Any

import numpy as np
from jaxtyping import Float

from hyperdiffusion.data.head_surface import Surface
from hyperdiffusion.data.scalp import AXIS_DEPTH_MM, Line, Scalp, rise, smoothstep
from hyperdiffusion.data.solids import plate

# Lower edge of a cap as (azimuth in degrees, height in mm): over the eyebrows, above the ears, low at the back.
CAP_EDGE: Line = ((0, 40), (50, 30), (85, 22), (130, 8), (180, 2))
# Lower and upper edges of a headband, and of one that covers the ears.
BAND_LOWER: Line = ((0, 44), (60, 28), (90, 18), (130, 0), (180, -12))
WIDE_BAND_LOWER: Line = ((0, 40), (50, 24), (62, -20), (75, -56), (105, -58), (130, -40), (180, -40))
# Upper edge of a headband.
BAND_UPPER: Line = ((0, 74), (60, 58), (90, 48), (130, 30), (180, 20))
# How far in mm a cap and a headband stand out, hair below them included.
CAP_MM, BAND_MM = 8.0, 6.5
# Edges of cloth are this wide in mm.
EDGE_MM = 6.0
# Length of a visor in mm, half of its angle in degrees, and its thickness in mm.
VISOR_MM, VISOR_DEGREES, VISOR_THICKNESS_MM = 62.0, 62.0, 4.5
# Seams of a cap's panels are this deep in mm and half as wide in degrees; its top is this far above the skull in mm.
SEAM_MM, SEAM_DEGREES, DOME_MM = 1.0, 2.5, 6.0
# Smooth steps as (start, width) in mm on the mean head: upwards, from where a cap is higher than the skull; downwards
# from the button, from where it has seams.
DOME_HEIGHT, BUTTON_HEIGHT = (60, 60), (-100, 40)
# In mm: how far a visor begins behind the cap's rim and below it, and how far its sides hang below its middle; how it
# slopes down forwards, in mm per mm.
VISOR_INSIDE_MM, VISOR_BELOW_MM, VISOR_DROOP_MM, VISOR_SLOPE = 14, 2, 14, 0.12
# Exponent of a visor's outline: below 1 it is fuller than a cosine.
VISOR_FULLNESS = 0.7
# The rim is measured this far above the cap's edge and this far to both sides of that, in mm, and this much beyond the
# visor in degrees.
RIM_UP_MM, RIM_HALF_MM, RIM_MARGIN_DEGREES = 6, 4, 8
# Spokes and arcs of a visor's grid.
SPOKES, ARCS = 31, 7
# Standard deviation in mm of the height of headwear.
WORN_STD_MM = 3.0
# Distance in mm from headwear at which hair is nearly as thick as without.
PRESSED_MM = 8.0


def with_headwear(
    hair: Float[np.ndarray, "n 3"],
    level: str,
    surface: Surface,
    scalp: Scalp,
    rng: np.random.Generator,
    *,
    covering: bool,
) -> Float[np.ndarray, "n 3"]:
    """Return how far in mm hair and headwear move each vertex, given how far hair does: headwear presses hair flat."""
    if level == "none":
        return hair
    shift = float(rng.normal(scale=WORN_STD_MM))
    if level == "cap":
        inside = scalp.distance_above(CAP_EDGE) - shift
        thickness = _cap_thickness(scalp)
    else:
        lower = scalp.distance_above(WIDE_BAND_LOWER if covering else BAND_LOWER)
        inside = np.minimum(lower - shift, shift - scalp.distance_above(BAND_UPPER))
        thickness = np.full(len(inside), BAND_MM)
    worn = smoothstep(inside / EDGE_MM + 0.5)
    pressed = 1 - np.exp(-(-inside).clip(0) / PRESSED_MM)
    return ((1 - worn) * pressed)[:, None] * hair + (worn * thickness)[:, None] * surface.normals


def _cap_thickness(scalp: Scalp) -> np.ndarray:
    """Return how far in mm a cap stands out from the skull: it has six panels and is higher than the skull."""
    seams = np.exp(-((np.abs((scalp.signed_azimuth + 30) % 60 - 30) / SEAM_DEGREES) ** 2))
    dome = DOME_MM * rise(scalp.height, DOME_HEIGHT)
    return CAP_MM + dome - SEAM_MM * seams * rise(-scalp.height, BUTTON_HEIGHT)


def visor(scalp: Scalp, moved: Float[np.ndarray, "n 3"]) -> Any:
    """Return the solid visor of a cap on a head whose vertices have moved by hair and cap."""
    angles = np.linspace(-VISOR_DEGREES, VISOR_DEGREES, SPOKES)
    radius, height = _rim(scalp, moved, angles)
    share = np.linspace(0, 1, ARCS)[:, None]
    reach = VISOR_MM * np.cos(np.radians(angles * 90 / VISOR_DEGREES)).clip(0) ** VISOR_FULLNESS
    distance = radius - VISOR_INSIDE_MM + share * (reach + VISOR_INSIDE_MM)
    sine, cosine = np.sin(np.radians(angles)), np.cos(np.radians(angles))
    y = height - VISOR_BELOW_MM - VISOR_DROOP_MM * (sine**2) * share - VISOR_SLOPE * (distance - radius)
    top = np.stack([distance * sine, y + 0 * distance, distance * cosine + AXIS_DEPTH_MM], axis=2)
    return plate(top, top - [0, VISOR_THICKNESS_MM, 0])


def _rim(
    scalp: Scalp, moved: Float[np.ndarray, "n 3"], angles: Float[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Return the distance of a cap's rim from the vertical axis, and its height, in mm, at angles in degrees."""
    edge = np.interp(scalp.azimuth, *np.array(CAP_EDGE).T)
    near = np.abs(scalp.height - edge - RIM_UP_MM) < RIM_HALF_MM
    rim = near & (scalp.azimuth < VISOR_DEGREES + RIM_MARGIN_DEGREES)
    axis = np.array([0.0, 0.0, AXIS_DEPTH_MM])
    spokes = (moved[rim] - axis) * [1, 0, 1]
    order = np.argsort(scalp.signed_azimuth[rim])
    azimuth = scalp.signed_azimuth[rim][order]
    radius = np.interp(angles, azimuth, np.linalg.norm(spokes, axis=1)[order])
    return _smooth(radius), _smooth(np.interp(angles, azimuth, moved[rim][order, 1]))


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return means of five neighbours."""
    padded = np.pad(values, 2, mode="edge")
    return np.convolve(padded, np.ones(5) / 5, mode="valid")
