"""Beards: the template's coordinates and a level in; the height of a beard over each vertex of the face out."""

import numpy as np
from jaxtyping import Float

from hyperdiffusion.data.scalp import Line, Scalp, rise, smoothstep

# Upper and lower edges of a full beard: below the mouth's corners, cheeks and sideburns; under the chin and the jaw.
UPPER_EDGE: Line = ((0, -58), (18, -60), (27, -62), (40, -53), (55, -44), (64, -32), (70, -24), (82, -16))
LOWER_EDGE: Line = ((0, -125), (30, -121), (48, -108), (60, -90), (67, -66), (72, -42), (75, -20), (82, 4))
# Distance in mm from its edges at which a beard is nearly as thick as it gets.
TAPER_MM = 9.0
# Half axes in mm of the ellipse of the lips, which stay free, and the height of its centre.
LIPS_MM, LIPS_HEIGHT_MM = (27.0, 11.5), -73.0
# Height of the nose's base, above which no moustache grows, and the moustache's half width, in mm.
NOSE_BASE_MM, MOUSTACHE_WIDTH_MM = -54.0, 31.0
# Lower edge of a moustache and the least depth at which one grows, in mm; how its upper edge falls to the sides, in mm
# per mm.
MOUSTACHE_BOTTOM_MM, MOUSTACHE_FRONT_MM, MOUSTACHE_SLOPE = -82.0, 30.0, 0.2
# Heights in mm, least and most: of stubble, of a moustache, and of one in a full beard; of a full beard on the cheeks,
# and how much higher it is on the chin.
STUBBLE_MM, MOUSTACHE_MM, MOUSTACHE_OF_FULL_MM = (0.9, 1.4), (4.5, 7), (4, 6)
CHEEKS_MM, CHIN_MM = (4, 7), (5, 14)
# Relief of a beard as shares of its height: hair, and the lumps and curls that a scanner makes of it.
FUR, LUMPS, CURLS = 0.22, 0.15, 0.05
# Smooth steps as (start, width): a beard is longer on the chin, in degrees towards the middle and in mm downwards; it
# begins at the edge of the lips, in their half axes.
CHIN_DEGREES, CHIN_DOWN_MM, LIPS_EDGE = (-50, 50), (70, 35), (0.95, 0.3)
# Widths in mm of the upper edge of a moustache, and of the others.
MOUSTACHE_TOP_MM, MOUSTACHE_EDGE_MM = 4, 6
# Random hair, of variance 1, is clipped at this value.
MOST = 2
# Stubble's relief is this many times as strong, so that it can be seen.
STUBBLE_RELIEF = 2


def beard_thickness(level: str, scalp: Scalp, rng: np.random.Generator, *, lumpy: bool) -> Float[np.ndarray, " n"]:
    """Return how far in mm a beard stands out from each vertex of the face."""
    if level == "none":
        return np.zeros(len(scalp.height))
    fur = scalp.lumps(rng) * LUMPS + CURLS * scalp.curls(rng) if lumpy else FUR * scalp.fur(rng).clip(-MOST, MOST)
    moustache, beard = _moustache(scalp), _cheeks_and_chin(scalp)
    if level == "stubble":
        return (np.maximum(moustache, beard) * rng.uniform(*STUBBLE_MM) * (1 + STUBBLE_RELIEF * fur)).clip(0)
    if level == "moustache":
        return (moustache * rng.uniform(*MOUSTACHE_MM) * (1 + fur)).clip(0)
    chin = rise(-scalp.azimuth, CHIN_DEGREES) * rise(-scalp.height, CHIN_DOWN_MM)
    full = rng.uniform(*CHEEKS_MM) + chin * rng.uniform(*CHIN_MM)
    return (np.maximum(moustache * rng.uniform(*MOUSTACHE_OF_FULL_MM), beard * full) * (1 + fur)).clip(0)


def _lips(scalp: Scalp) -> np.ndarray:
    """Return 0 on the lips and 1 away from them."""
    x, y, _ = scalp.coordinates.T
    radius = np.hypot(x / LIPS_MM[0], (y - LIPS_HEIGHT_MM) / LIPS_MM[1])
    return rise(radius, LIPS_EDGE)


def _moustache(scalp: Scalp) -> np.ndarray:
    x, y, z = scalp.coordinates.T
    upper = smoothstep((NOSE_BASE_MM - MOUSTACHE_SLOPE * np.abs(x) - y) / MOUSTACHE_TOP_MM + 0.5)
    sides = smoothstep((MOUSTACHE_WIDTH_MM - np.abs(x)) / MOUSTACHE_EDGE_MM)
    lower = smoothstep((y - MOUSTACHE_BOTTOM_MM) / MOUSTACHE_EDGE_MM)
    return upper * sides * lower * _lips(scalp) * (z > MOUSTACHE_FRONT_MM)


def _cheeks_and_chin(scalp: Scalp) -> np.ndarray:
    inside = np.minimum(-scalp.distance_above(UPPER_EDGE), scalp.distance_above(LOWER_EDGE))
    return (1 - np.exp(-inside.clip(0) / TAPER_MM)) * _lips(scalp)
