"""The occupancy network of stage 1: weights and points in, logits out.

In:  weights (..., P), one row a head, and points (..., n, 3) in the field's cube [-1, 1]^3.
Out: logits (..., n); positive is inside, their sigmoid is occupancy and their zero level is the surface.

The network is stateless: a head is a row of numbers, and this module alone knows what they mean.
"""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Field:
    """A ReLU network on a positional encoding, as in HyperDiffusion (Erkoç et al., ICCV 2023, section 3.1)."""

    # Dimensions of a point: 3 for shapes, 4 for shapes in motion.
    coordinates: int = 3
    # sin and cos at so many doublings of the base frequency (NeRF, equation 4); the published number.
    octaves: int = 4
    # Widths of the hidden layers; with 3 coordinates and 4 octaves they make the published 36,737 parameters.
    hidden: tuple[int, ...] = (128, 128, 128)
    # Half the side of the box that the cube is brought into before its points are encoded; the published one is 0.5.
    box: float = 1.0
    # Radians that the lowest octave turns over one unit of that box: see BENCHMARKS.md for what others give.
    frequency: float = math.pi / 2

    @classmethod
    def of(cls, plain: dict) -> "Field":
        """The field that `dataclasses.asdict` made plain, also after a way through JSON."""
        return cls(**{**plain, "hidden": tuple(plain["hidden"])})

    @property
    def widths(self) -> tuple[int, ...]:
        """Entries from the encoded point to the logit, layer by layer."""
        encoded = self.coordinates * (1 + 2 * self.octaves)
        return (encoded, *self.hidden, 1)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensors in their flat order: weight (out, in), bias (out,) of each layer in turn."""
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

    def initial(self, generator: torch.Generator) -> torch.Tensor:
        """Fresh weights (P,): He-uniform matrices (He et al. 2015) for the ReLUs, zero biases."""
        tensors = []
        for shape in self.shapes:
            bound = math.sqrt(6 / shape[1]) if len(shape) == 2 else 0.0
            tensors.append((torch.rand(shape, generator=generator) * 2 - 1).mul(bound).flatten())
        return torch.cat(tensors)

    def tensors(self, weights: torch.Tensor) -> list[torch.Tensor]:
        """Views (..., *shape) of the flat weights (..., P), in flat order."""
        if weights.shape[-1] != self.size:
            raise ValueError(f"the field has {self.size} parameters, the weights have {weights.shape[-1]}")
        pieces = weights.split(self.sizes, dim=-1)
        return [piece.unflatten(-1, shape) for piece, shape in zip(pieces, self.shapes)]

    def encode(self, points: torch.Tensor) -> torch.Tensor:
        """Positional encoding (..., n, d) -> (..., n, d (1 + 2 octaves)): raw coordinates, sines, cosines."""
        points = points * self.box
        octaves = self.frequency * 2.0 ** torch.arange(self.octaves, dtype=points.dtype, device=points.device)
        phases = (points[..., None, :] * octaves[:, None]).flatten(-2)
        return torch.cat([points, phases.sin(), phases.cos()], dim=-1)

    def __call__(self, weights: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Logits (..., n) of every network at its points; leading dimensions broadcast."""
        batch = torch.broadcast_shapes(weights.shape[:-1], points.shape[:-2])
        activations = self.encode(points).expand(*batch, -1, -1).reshape(-1, points.shape[-2], self.widths[0])
        tensors = [tensor.expand(*batch, *shape).reshape(-1, *shape)
                   for tensor, shape in zip(self.tensors(weights), self.shapes)]
        for matrix, bias in zip(tensors[:-2:2], tensors[1:-2:2]):
            # One fused multiply-add a layer over all heads: five times faster in bf16 than multiply, then add.
            activations = torch.baddbmm(bias[:, None], activations, matrix.mT).relu_()
        return torch.baddbmm(tensors[-1][:, None], activations, tensors[-2].mT).reshape(*batch, -1)
