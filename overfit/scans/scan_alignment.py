"""Aligns a scan: points in its own frame and unit in, the transform to the canonical frame in millimetres out."""

from dataclasses import dataclass

import numpy as np

from overfit.geometry.point_cloud import PointCloud, largest_extent
from overfit.geometry.similarity import Similarity
from overfit.runtime.errors import BadInput
from overfit.scans.registration import Registration, is_large, register
from overfit.scans.template import Template
from overfit.scans.units import MM_PER_UNIT, UNITS, Unit, likely_units

# Smallest correlation of the face's relief: heads have 0.55 to 0.9, a skull 0.4, an egg 0.3, a teapot 0.25.
MIN_RELIEF = 0.45
# Largest mean distance of the face to the template in mm, beyond what faces differ by.
MAX_FACE_MM = 6.0
# Largest mean distance of the scan to the template in mm: hair and clothes are farther off than a face.
MAX_RESIDUAL_MM = 8.0

# Mean width in mm between the outer edges of an adult's ears, which decides the size of a scan in an unknown unit. Of
# all measures of the head it varies least: by 2.8 % (16 heads of a model of adults).
ADULT_WIDTH_MM = 187.0
# A scan whose estimated size differs by a larger factor from the one that its unit gives may have another unit.
MAX_SIZE_RATIO = 1.3
# A scan whose estimated size differs by less from the one that a unit gives has that unit: infants are small.
MAX_UNIT_RATIO = 1.5
# A scan that is not larger (mm) is a head or none: its parts are not searched.
MIN_EXTENT_OF_PARTS_MM = 300.0
# Radius in mm of a ball about a head that holds no part of another one's face.
ONE_HEAD_RADIUS_MM = 200.0
# A scan with a smaller share of its points outside of that ball shows one head: two people take equal parts.
MIN_SHARE_OF_ANOTHER = 0.25
# Range in mm of the width between the outer edges of the ears: infants to large adults.
HEAD_WIDTH_MM = (120.0, 240.0)


@dataclass(frozen=True)
class Alignment:
    """How a scan is brought to the canonical frame."""

    similarity: Similarity
    """From the scan's frame and unit to the canonical frame in millimetres."""
    registration: Registration
    """How well it lies on the template then."""
    unit: Unit | None
    """The unit that gives the scan this size, or None if no unit does."""

    @property
    def size_is_doubtful(self) -> bool:
        """Whether no unit gives the scan this size, it is none of a human head, or another one would fit far better."""
        low, high = HEAD_WIDTH_MM
        is_human = low < self.registration.width_mm < high
        return self.unit is None or not is_human or _ratio(1.0, self.registration.size_ratio) > MAX_SIZE_RATIO

    @property
    def rotation_degrees(self) -> float:
        """Angle of the rotation."""
        cosine = (np.trace(self.similarity.rotation) - 1) / 2
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def align_scan(sample: PointCloud, template: Template, *, unit: Unit, keep_scale: bool) -> Alignment:
    """Return how a scan comes to the canonical frame.

    It keeps the size that its unit gives, if that is a head's; of several units, that in which it lies closest to the
    template. Otherwise its size is estimated, and a unit that comes close to it decides.

    Args:
        sample: Points of the scan.
        template: The head that it is registered on.
        unit: The scan's unit; auto finds it.
        keep_scale: Whether the size that a unit gives is kept, whatever it is.

    Raises BadInput if the size is to be kept, and no unit gives the scan that of a head.
    """
    extent = largest_extent(sample.points)
    groups = likely_units(extent) if unit == "auto" else [[unit]]
    if not groups and keep_scale:
        raise BadInput(f"an extent of {extent:.4g} is no human head in {UNITS}; give its `unit`")
    tried: dict[tuple[Unit, bool], Alignment] = {}
    for in_parts, units in ((in_parts, units) for in_parts in (False, True) for units in groups):
        if in_parts:
            units = [unit for unit in units if _has_parts(extent * MM_PER_UNIT[unit], template)]
        for unit in units:
            scale = MM_PER_UNIT[unit]
            tried[unit, in_parts] = _align_at_scale(sample, template, scale, unit=unit, in_parts=in_parts)
        sound = [tried[unit, in_parts] for unit in units if not _is_doubtful(tried[unit, in_parts])]
        if sound:
            return min(sound, key=_cost)
    if keep_scale:
        return min(tried.values(), key=_cost)
    free = register(sample, template, estimate_scale=True)
    scale = free.similarity.scale * ADULT_WIDTH_MM / free.width_mm
    nearest = min(MM_PER_UNIT, key=lambda unit: _ratio(MM_PER_UNIT[unit], scale))
    if _ratio(MM_PER_UNIT[nearest], scale) < MAX_UNIT_RATIO:
        exact = tried.get((nearest, False)) or _align_at_scale(sample, template, MM_PER_UNIT[nearest], unit=nearest)
        if not misalignment(exact.registration):
            return exact
    return _align_at_scale(sample, template, scale, unit=None)


def shows_another_head(sample: PointCloud, alignment: Alignment, template: Template) -> bool:
    """Return whether a scan shows a second face away from the head that it was aligned by."""
    aligned = alignment.similarity.transform_cloud(sample)
    centre = template.mesh.bounds.mean(0)
    rest = aligned[np.linalg.norm(aligned.points - centre, axis=1) > ONE_HEAD_RADIUS_MM]
    if len(rest.points) < MIN_SHARE_OF_ANOTHER * len(aligned.points):
        return False
    return not misalignment(register(rest, template, estimate_scale=False, in_parts=True))


def _align_at_scale(
    sample: PointCloud, template: Template, scale: float, *, unit: Unit | None, in_parts: bool = False
) -> Alignment:
    to_mm = Similarity(scale)
    registration = register(to_mm.transform_cloud(sample), template, estimate_scale=False, in_parts=in_parts)
    return Alignment(to_mm.then(registration.similarity), registration, unit)


def _has_parts(extent_mm: float, template: Template) -> bool:
    """Return whether parts of a scan may be a head that are not searched with the whole."""
    return extent_mm > MIN_EXTENT_OF_PARTS_MM and not is_large(extent_mm, template)


def _cost(alignment: Alignment) -> float:
    return alignment.registration.cost


def _is_doubtful(alignment: Alignment) -> bool:
    """Return whether a scan is not aligned, or would lie closer to the template at another size."""
    ratio = _ratio(1.0, alignment.registration.size_ratio)
    return bool(misalignment(alignment.registration)) or ratio > MAX_SIZE_RATIO


def _ratio(one: float, other: float) -> float:
    """Return the larger of two sizes as a multiple of the smaller."""
    return max(one / other, other / one)


def misalignment(registration: Registration) -> str:
    """Return why a registration is not to be trusted, or an empty string if it is."""
    if registration.relief < MIN_RELIEF:
        return (
            f"no face in it (relief {registration.relief:.2f}, a face has {MIN_RELIEF} or more); scan the face too, or "
            "give the `unit` of a scan that shows more than a head"
        )
    if registration.face_mm > MAX_FACE_MM or registration.residual_mm > MAX_RESIDUAL_MM:
        return (
            f"cannot be aligned: {registration.face_mm:.1f} mm off the template on the face, "
            f"{registration.residual_mm:.1f} mm in all; remove what is no head"
        )
    return ""
