"""Units of length: the largest extent of a head in a file's unit in, the unit out."""

from typing import Literal

Unit = Literal["auto", "mm", "cm", "m", "in", "ft"]
MM_PER_UNIT: dict[Unit, float] = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "in": 25.4, "ft": 304.8}
# In words, for messages.
UNITS = "mm, cm, m, in or ft"

# Range in mm of the largest extent of a face mask, a head, or a head with shoulders.
HEAD_EXTENT_MM = (90.0, 900.0)
# The usual range. Most heads in inches are smaller if they are taken for centimetres, most in feet are larger if they
# are taken for metres.
USUAL_EXTENT_MM = (125.0, 600.0)
# Range of a scan that holds a head: up to a whole body, or a tripod with a head on it.
SCAN_EXTENT_MM = (90.0, 2300.0)


def unit_of_head(extent: float) -> Unit | None:
    """Return the unit in which a human head has this largest extent, or None if there is none.

    Where a metric unit and one of inches and feet are both possible, it is the metric one.
    """
    return next((unit for unit in _likely_first(extent) if fits_head(extent, unit)), None)


def fits_head(extent: float, unit: Unit) -> bool:
    """Return whether a human head may have this largest extent in a unit."""
    return _lies_in(extent, unit, HEAD_EXTENT_MM)


def likely_units(extent: float) -> list[list[Unit]]:
    """Return the units that a scan of this largest extent may have: those that give it a head's, then the others."""
    usual = [unit for unit in MM_PER_UNIT if _lies_in(extent, unit, USUAL_EXTENT_MM)]
    others = [unit for unit in MM_PER_UNIT if unit not in usual and _lies_in(extent, unit, SCAN_EXTENT_MM)]
    return [units for units in (usual, others) if units]


def _likely_first(extent: float) -> list[Unit]:
    return [unit for units in likely_units(extent) for unit in units]


def _lies_in(extent: float, unit: Unit, bounds: tuple[float, float]) -> bool:
    low, high = bounds
    return low <= extent * MM_PER_UNIT[unit] < high
