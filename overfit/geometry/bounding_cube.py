"""The one similarity transform of a store: millimetres in, the field's cube [-1, 1]^3 out, and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Cube:
    """An axis-aligned cube in millimetres. All heads of a store share it, so that they keep their relative size."""

    centre: tuple[float, float, float]
    """The middle, in millimetres."""
    half: float
    """Half the side, in millimetres: the length of one unit of the field."""

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Cube":
        """Return the cube that `dataclasses.asdict` turned into a dictionary, also after a way through JSON."""
        x, y, z = plain["centre"]
        return cls((x, y, z), plain["half"])

    @classmethod
    def around(cls, bounds: Float[np.ndarray, "boxes 2 3"], margin: float) -> "Cube":
        """Return the smallest cube around all boxes in millimetres, enlarged by the share `margin` of its side."""
        low, high = bounds[:, 0].min(0), bounds[:, 1].max(0)
        x, y, z = ((low + high) / 2).tolist()
        return cls((x, y, z), float((high - low).max() / 2 * (1 + margin)))

    def to_field(self, millimetres: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Return points in the field's cube from points in millimetres."""
        return (millimetres - np.asarray(self.centre)) / self.half

    def to_millimetres(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Return points in millimetres from points in the field's cube."""
        return points * self.half + np.asarray(self.centre)

    def grid(self, nodes: int, *, reach: float = 1.0) -> Float[np.ndarray, "n 3"]:
        """Return the nodes of a regular grid over the cube in millimetres, the last axis fastest.

        Args:
            nodes: Nodes along each side.
            reach: Half the side of the grid in units of half the cube's side.
        """
        axis = np.linspace(-reach, reach, nodes)
        return self.to_millimetres(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3))

    def contains(self, bounds: Float[np.ndarray, "2 3"]) -> bool:
        """Return whether a box in millimetres lies in the cube."""
        return bool(np.abs(self.to_field(bounds)).max() <= 1)
