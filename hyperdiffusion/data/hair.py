"""Hair: the surface of a head and a hair style in; how far each of its vertices moves out.

Hair is a relief: what a scanner sees of it is its outer surface. Heights and azimuths are those of the mean head, to
which the vertices correspond.
"""

import numpy as np
from jaxtyping import Float

from hyperdiffusion.data.head_surface import Surface
from hyperdiffusion.data.scalp import AXIS_DEPTH_MM, Line, Scalp, rise, smoothstep

# Hairlines as (azimuth in degrees, height in mm): forehead, temple, sideburn, round the ear, and nape.
HAIRLINE: Line = (
    (0, 58), (22, 61), (40, 52), (55, 40), (66, 16), (70, -12), (75, -14), (79, 11), (114, 11), (122, -30), (136, -66),
    (180, -76),
)  # fmt: skip
# The same of hair that covers the ears.
COVERING_LINE: Line = ((0, 58), (22, 61), (40, 52), (55, 38), (64, 0), (70, -50), (110, -58), (136, -70), (180, -76))
# Front edges of a bob, without and with a fringe, down to where it hangs beside the face.
BOB_LINE: Line = ((0, 58), (25, 57), (42, 48), (54, 34), (60, 8), (62, -40), (64, -140), (180, -140))
FRINGE_LINE: Line = ((0, 30), (36, 26), (50, 20), (59, 4), (62, -40), (64, -140), (180, -140))
# Distance in mm from the hairline, on the forehead, at which hair is nearly as thick as it gets.
ROOTS_MM = {"cropped": 4.0, "short": 12.0, "curly": 9.0, "bun": 8.0}
# The same on the sides and the nape, where hair is cut, and the azimuths in degrees between which it changes.
CUT_MM, CUT_DEGREES = 5.0, (45.0, 75.0)
# Standard deviation in mm of the lumps that a scanner makes of hair.
LUMPS_MM = {"bald": 0.0, "cropped": 0.8, "short": 2.5, "bob": 3.0, "bun": 1.2, "curly": 3.5}
# Height in mm at which a bob ends, and its standard deviation.
HEM_MM, HEM_STD_MM = -92.0, 9.0
# Hair of a bob follows the skull above the first height in mm and falls below the second.
LEAVES_SKULL_MM = (45.0, 15.0)
# Share of bobs with a fringe.
FRINGE_SHARE = 0.5
# Thickness of a bob in mm, least and most; widths in mm of its front edge and of its hem, which is this uneven in mm.
BOB_MM, BOB_EDGE_MM, HEM_EDGE_MM, HEM_LOCKS_MM = (9.0, 14.0), 8.0, 6.0, 1.0
# Half width of a parting in mm; how far at most from the middle a bob is parted in mm, and how deep as a share of it.
PARTING_MM, BOB_PARTING_MM, BOB_PARTING_DEPTH = 4.0, 25.0, 0.7
# Place of the parting of short hair in mm from the middle, and its depth as a share of the hair's thickness.
SHORT_PARTING_MM, SHORT_PARTING_DEPTH = 30.0, 0.75
# How much thicker short hair is beside its parting than on the other side, as a share.
SWEPT = 0.25
# Thickness of hair in mm, least and most.
CROPPED_MM, BUN_HAIR_MM = (2.0, 3.5), (4.0, 6.0)
# The same on the sides, and how much more there is on top.
SHORT_MM, SHORT_TOP_MM, CURLY_MM, CURLY_TOP_MM = (4, 6), (8, 15), (9, 14), (8, 20)
# Standard deviation in mm of the height of hairlines.
HAIRLINE_STD_MM = 4.0
# Heights in mm of the relief of strands and locks, and of the stubble of cropped hair.
STRANDS_MM, LOCKS_MM, FUR_MM = 0.8, 1.1, 0.5
# Height of curls in mm, how far they stand out of the hair, and how rounded the valleys between them are.
CURLS_MM, CURL_TOPS_MM, CURL_VALLEYS = 4.0, 2.5, 0.05
# Random fields, of variance 1, are clipped at this value; those of curls, from which roots are taken, earlier.
MOST, MOST_OF_CURLS = 2, 1.6
# Height of the curls on lumps, as a share of the lumps' height.
LUMP_CURLS = 0.15
# Least distance in mm by which the hair of a bob stands out.
LEAST_CURTAIN_MM = 2.0
# Heights in mm between which the widest place of the skull is looked for.
WIDEST_MM = (0, 40)
# Smooth steps as (start, width) in mm on the mean head: heights from which short and curly hair are longer.
SHORT_TOP, CURLY_TOP = (20, 60), (-30, 110)
# Where short hair is parted: in front of this depth and above this height; where it is thicker on one side.
SHORT_PARTED_DEPTH, SHORT_PARTED_HEIGHT, SWEPT_DEPTH = (-75, 30), (40, 25), (-60, 60)
# The same of a bob's parting.
BOB_PARTED_DEPTH, BOB_PARTED_HEIGHT = (-80, 30), (60, 30)
# Depths below the eyes at which a bob gets narrower.
TAPERS = (-20, 120)
# Distance in mm from the parting over which hair changes from one side to the other.
SIDES_MM = 20
# How much narrower than the skull a bob is at its hem.
TAPER = 0.12
# Sectors in which the skull's width is measured.
SECTORS = 72


def hair_displacement(
    level: str,
    surface: Surface,
    scalp: Scalp,
    rng: np.random.Generator,
    *,
    covering: bool = False,
    lumpy: bool = False,
    fringe: bool = True,
) -> Float[np.ndarray, "n 3"]:
    """Return how far in mm hair moves each vertex of the head.

    Args:
        level: A level of the factor hair.
        surface: The person's head.
        scalp: The template's coordinates.
        rng: Source of lengths and of relief.
        covering: Whether curly hair covers the ears.
        lumpy: Whether the hair is made of lumps instead of strands and locks.
        fringe: Whether there may be a fringe, for which headwear leaves no room.
    """
    shift = float(rng.normal(scale=HAIRLINE_STD_MM))
    texture = _texture(level, scalp, rng, lumpy=lumpy)
    if level == "bald":
        return np.zeros_like(surface.normals)
    if level == "bob":
        return _bob(surface, scalp, rng, texture, fringe=fringe)
    inside = (scalp.distance_above(COVERING_LINE if covering else HAIRLINE) - shift).clip(0)
    roots = np.interp(scalp.azimuth, CUT_DEGREES, (ROOTS_MM[level], CUT_MM))
    thickness = (1 - np.exp(-inside / roots)) * (STYLES[level](scalp, rng) + texture)
    return thickness.clip(0)[:, None] * surface.normals


def _texture(level: str, scalp: Scalp, rng: np.random.Generator, *, lumpy: bool) -> np.ndarray:
    """Return the relief of hair in mm."""
    if lumpy:
        size = LUMPS_MM[level]
        return size * scalp.lumps(rng).clip(-MOST, MOST) + LUMP_CURLS * size * scalp.curls(rng)
    if level == "curly":
        # Tops of curls are round, and the valleys between them sharp.
        curls = scalp.curls(rng).clip(-MOST_OF_CURLS, MOST_OF_CURLS)
        return CURL_TOPS_MM - CURLS_MM * np.sqrt(CURL_VALLEYS + curls**2)
    if level == "cropped":
        return FUR_MM * scalp.fur(rng)
    return STRANDS_MM * scalp.strands(rng).clip(-MOST, MOST) + LOCKS_MM * scalp.locks(rng).clip(-MOST, MOST)


def _cropped(scalp: Scalp, rng: np.random.Generator) -> np.ndarray:
    return np.full(len(scalp.height), rng.uniform(*CROPPED_MM))


def _short(scalp: Scalp, rng: np.random.Generator) -> np.ndarray:
    """Short hair is longer on top, and parted on one side."""
    top = rise(scalp.height, SHORT_TOP)
    thickness = rng.uniform(*SHORT_MM) + top * rng.uniform(*SHORT_TOP_MM)
    side = rng.choice([-1, 1])
    x, _, z = scalp.coordinates.T
    # The parting runs from the hairline to the crown.
    distance = np.abs(side * x - SHORT_PARTING_MM)
    parted = rise(z, SHORT_PARTED_DEPTH)
    parting = np.exp(-((distance / PARTING_MM) ** 2)) * parted * rise(scalp.height, SHORT_PARTED_HEIGHT)
    swept = 1 + SWEPT * np.tanh((SHORT_PARTING_MM - side * x) / SIDES_MM) * rise(z, SWEPT_DEPTH)
    return thickness * swept * (1 - SHORT_PARTING_DEPTH * parting)


def _curly(scalp: Scalp, rng: np.random.Generator) -> np.ndarray:
    top = rise(scalp.height, CURLY_TOP)
    return rng.uniform(*CURLY_MM) + top * rng.uniform(*CURLY_TOP_MM)


def _bun(scalp: Scalp, rng: np.random.Generator) -> np.ndarray:
    """Hair that is drawn back tightly; the bun itself is a solid."""
    return np.full(len(scalp.height), rng.uniform(*BUN_HAIR_MM))


STYLES = {"cropped": _cropped, "short": _short, "curly": _curly, "bun": _bun}


def _bob(surface: Surface, scalp: Scalp, rng: np.random.Generator, texture: np.ndarray, *, fringe: bool) -> np.ndarray:
    """Hair that covers the skull and hangs from its widest place to the jaw."""
    line = FRINGE_LINE if rng.uniform() < FRINGE_SHARE and fringe else BOB_LINE
    hem = rng.normal(HEM_MM, HEM_STD_MM) + HEM_LOCKS_MM * scalp.locks(rng)
    mask = scalp.above(line, width=BOB_EDGE_MM) * smoothstep((scalp.height - hem) / HEM_EDGE_MM + 0.5)
    thickness = rng.uniform(*BOB_MM) + texture
    parted = rng.uniform(-BOB_PARTING_MM, BOB_PARTING_MM)
    if line is BOB_LINE:
        thickness *= 1 - BOB_PARTING_DEPTH * _bob_parting(scalp, parted)
    on_skull = thickness[:, None] * surface.normals
    falling = smoothstep((LEAVES_SKULL_MM[0] - scalp.height) / (LEAVES_SKULL_MM[0] - LEAVES_SKULL_MM[1]))
    hanging = _curtain(surface, scalp, thickness)
    return mask[:, None] * ((1 - falling)[:, None] * on_skull + falling[:, None] * hanging)


def _bob_parting(scalp: Scalp, place: float) -> np.ndarray:
    """Return 1 where hair is parted, on the crown at a distance in mm from the middle, and 0 away from it."""
    crown = rise(scalp.height, BOB_PARTED_HEIGHT) * rise(scalp.coordinates[:, 2], BOB_PARTED_DEPTH)
    return np.exp(-(((scalp.coordinates[:, 0] - place) / PARTING_MM) ** 2)) * crown


def _curtain(surface: Surface, scalp: Scalp, thickness: np.ndarray) -> np.ndarray:
    """Return the horizontal way of each vertex to a wall that hangs from the skull's widest place in its direction."""
    axis = np.array([0.0, 0.0, AXIS_DEPTH_MM])
    outwards = (surface.vertices - axis) * [1, 0, 1]
    radius = np.linalg.norm(outwards, axis=1).clip(1.0)
    widest = (scalp.height > WIDEST_MM[0]) & (scalp.height < WIDEST_MM[1])
    sector = ((scalp.signed_azimuth + 180) / 360 * SECTORS).astype(int) % SECTORS
    width = np.zeros(SECTORS)
    np.maximum.at(width, sector[widest], radius[widest])
    width = (np.roll(width, 1) + width + np.roll(width, -1)) / 3
    centres = (np.arange(SECTORS) + 0.5) / SECTORS * 360 - 180
    goal = np.interp(scalp.signed_azimuth, centres, width, period=360)
    narrowing = 1 - TAPER * rise(-scalp.height, TAPERS)
    length = (goal * narrowing + thickness - radius).clip(LEAST_CURTAIN_MM)
    return length[:, None] * outwards / radius[:, None]
