"""The report on a prepared scan: what was found about it and done to it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PreparationReport:
    """What was found about a scan and done to it, as far as it came; a row of prepared.csv."""

    name: str
    """The scan's name."""
    digest: str = ""
    """SHA-256 of its bytes; empty if they could not be read."""
    kind: Literal["mesh", "points"] | None = None
    """What it holds."""
    count: int | None = None
    """How many triangles or points."""
    components: int | None = None
    """Connected components of a mesh."""
    holes: int | None = None
    """Boundary loops of a mesh."""
    noise_share: float | None = None
    """Share of the area or the points that was removed as noise."""
    scale: float | None = None
    """Factor to millimetres, with the size that registration found."""
    rotation_degrees: float | None = None
    """Angle of the rotation to the canonical frame."""
    residual_mm: float | None = None
    """Mean distance of the scan to the template, see Registration."""
    face_mm: float | None = None
    """Mean distance of the template's face to the scan, see Registration."""
    relief: float | None = None
    """Correlation of the face's relief with the template's, see Registration."""
    width_mm: float | None = None
    """Width of the head between the ears' outer edges, as the template has taken its shape."""
    size: Literal["", "doubtful"] = ""
    """Doubtful if no unit gives the scan a head's size, or the width is not a human's."""
    seen_share: float | None = None
    """Share of a head's surface in whose directions the scan shows something, see `seen_share`."""
    other_head: bool = False
    """Whether the scan shows another head too, which is left out."""
    scan_mm: float | None = None
    """Mean distance to the head of what is seen of the scan where the head is."""
    scan_p95_mm: float | None = None
    """95th percentile of that distance."""
    head_mm: float | None = None
    """Mean distance to the scan of the head, where the scan is."""
    remarks: str = ""
    """What was left out, mended or is doubtful, in words."""
    skipped: str = ""
    """Why there is no head; empty if there is one."""

    @property
    def is_doubtful(self) -> bool:
        """Whether somebody should look at the head before it is used."""
        return bool(self.size) or self.other_head

    def in_words(self) -> str:
        """Return what was done, or why there is no head, in one line."""
        if self.skipped:
            return self.skipped.removeprefix(f"{self.name}: ")
        parts = [f"{self.count:,} {'points' if self.kind == 'points' else 'triangles'}"]
        if self.holes:
            parts.append(f"{self.holes} holes closed")
        parts += [self.remarks] if self.remarks else []
        if self.size:
            parts.append(f"size {self.size}: {self.width_mm:.0f} mm between the ears")
        if self.other_head:
            parts.append("another head in it is left out; give each head a file of its own")
        if self.scan_mm is not None:
            parts.append(f"the head lies {self.scan_mm:.2f} mm off the scan")
        return "; ".join(parts)
