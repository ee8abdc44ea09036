"""The one similarity transform of a store: millimetres in, the field's cube [-1, 1]^3 out, and back."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cube:
    """An axis-aligned cube in millimetres. All heads of a store share it, so that they keep their relative size."""

    centre: tuple[float, float, float]
    # Half the side, in millimetres: the length of one unit of the field.
    half: float

    @classmethod
    def of(cls, plain: dict) -> "Cube":
        """The cube that `dataclasses.asdict` made plain, also after a way through JSON."""
        return cls(tuple(plain["centre"]), plain["half"])

    @classmethod
    def around(cls, bounds: np.ndarray, margin: float) -> "Cube":
        """The smallest cube about all boxes (n, 2, 3) in millimetres, its half side made larger by `margin`."""
        low, high = bounds[:, 0].min(0), bounds[:, 1].max(0)
        return cls(tuple(((low + high) / 2).tolist()), float((high - low).max() / 2 * (1 + margin)))

    def to_field(self, millimetres: np.ndarray) -> np.ndarray:
        """Points (..., 3) in millimetres -> the same in the field's cube."""
        return (millimetres - np.asarray(self.centre)) / self.half

    def to_millimetres(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) in the field's cube -> the same in millimetres."""
        return points * self.half + np.asarray(self.centre)

    def contains(self, bounds: np.ndarray) -> bool:
        """Whether a box (2, 3) in millimetres lies in the cube."""
        return bool(np.abs(self.to_field(bounds)).max() <= 1)
