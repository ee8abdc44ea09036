"""The occupancy network of stage 1: weights and points in, logits out.

In:  weights (..., P), one row per head, and points (..., n, d) in the field's cube [-1, 1]^d.
Out: logits (..., n); positive is inside, their sigmoid is the occupancy and their zero level is the surface.

The network is stateless: a head is a row of numbers, and only this module knows what each of them means.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch.nn.functional import silu

from overfit.runtime.errors import BadInput, require_at_least


@dataclass(frozen=True)
class Field:
    """A network on a positional encoding, as in HyperDiffusion (Erkoç et al., ICCV 2023, section 3.1)."""

    coordinates: int = 3
    """Dimensions of a point: 3 for shapes, 4 for shapes in motion."""
    octaves: int = 4
    """Octaves of the positional encoding: sine and cosine at the base frequency and its doublings (NeRF, equation 4).
    The published number is 4."""
    hidden: tuple[int, ...] = (128, 128, 128)
    """Widths of the hidden layers. With 3 coordinates and 4 octaves the default has the published 36,737 parameters."""
    box: float = 1.0
    """Half the side of the box to which the cube is scaled before points are encoded. The published one is 0.5."""
    frequency: float = math.pi / 2
    """Base frequency of the positional encoding, in radians per unit of the box."""
    activation: Literal["silu", "relu"] = "silu"
    """Activation function of the hidden layers. The published one is relu, whose surfaces have facets."""

    def __post_init__(self) -> None:
        require_at_least(1, coordinates=self.coordinates)
        require_at_least(0, octaves=self.octaves)
        for width in self.hidden:
            require_at_least(1, hidden=width)
        for name in ("box", "frequency"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"`{name}={getattr(self, name)}`: give a number above 0")

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Field":
        """Return the field that `dataclasses.asdict` turned into a dict, also after a round trip through JSON.

        One that does not name its activation was made when all were ReLU.
        """
        return cls(**{"activation": "relu", **plain, "hidden": tuple(plain["hidden"])})

    @property
    def widths(self) -> tuple[int, ...]:
        """Features per point from the encoding to the logit, layer by layer."""
        encoded = self.coordinates * (1 + 2 * self.octaves)
        return (encoded, *self.hidden, 1)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensors in their flat order: weight (out, in) and bias (out,) of each layer in turn."""
        layers = zip(self.widths[:-1], self.widths[1:])
        return tuple(shape for fan_in, fan_out in layers for shape in ((fan_out, fan_in), (fan_out,)))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each tensor, in flat order."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(self.sizes)

    def initial(self, generator: torch.Generator) -> Float[torch.Tensor, " P"]:
        """Return fresh weights: He-uniform matrices (He et al. 2015), zero biases."""
        tensors = []
        for shape in self.shapes:
            bound = math.sqrt(6 / shape[1]) if len(shape) == 2 else 0.0
            tensors.append((torch.rand(shape, generator=generator) * 2 - 1).mul(bound).flatten())
        return torch.cat(tensors)

    def tensors(self, weights: Float[torch.Tensor, "*heads P"]) -> list[torch.Tensor]:
        """Return views (*heads, *shape) of flat weights, in flat order.

        Raises ValueError if the weights belong to another field.
        """
        if weights.shape[-1] != self.size:
            raise ValueError(f"the field has {self.size} parameters, the weights have {weights.shape[-1]}")
        pieces = weights.split(self.sizes, dim=-1)
        return [piece.unflatten(-1, shape) for piece, shape in zip(pieces, self.shapes)]

    def encode(self, points: Float[torch.Tensor, "*heads n d"]) -> Float[torch.Tensor, "*heads n encoded"]:
        """Return the positional encoding, d (1 + 2 octaves) wide: raw coordinates, sines, cosines."""
        points = points * self.box
        octaves = self.frequency * 2.0 ** torch.arange(self.octaves, dtype=points.dtype, device=points.device)
        phases = (points[..., None, :] * octaves[:, None]).flatten(-2)
        return torch.cat([points, phases.sin(), phases.cos()], dim=-1)

    def __call__(
        self, weights: Float[torch.Tensor, "*heads P"], points: Float[torch.Tensor, "*batch n d"]
    ) -> Float[torch.Tensor, "*both n"]:
        """Return the logits of every network at its points; leading dimensions broadcast.

        Raises ValueError if weights or points belong to another field.
        """
        if points.shape[-1] != self.coordinates:
            raise ValueError(f"the field has {self.coordinates} coordinates, the points have {points.shape[-1]}")
        batch = torch.broadcast_shapes(weights.shape[:-1], points.shape[:-2])
        activations = self.encode(points).expand(*batch, -1, -1).reshape(-1, points.shape[-2], self.widths[0])
        tensors = [
            tensor.expand(*batch, *shape).reshape(-1, *shape)
            for tensor, shape in zip(self.tensors(weights), self.shapes)
        ]
        for matrix, bias in zip(tensors[:-2:2], tensors[1:-2:2]):
            # One fused multiply-add a layer over all heads: five times faster in bf16 than multiply, then add.
            preactivations = torch.baddbmm(bias[:, None], activations, matrix.mT)
            activations = silu(preactivations) if self.activation == "silu" else preactivations.relu_()
        return torch.baddbmm(tensors[-1][:, None], activations, tensors[-2].mT).reshape(*batch, -1)
