"""How a head's surface moves with its latent code: a code and points near its surface in; distances and slopes out.

Near its surface a network's logit is a signed distance. Where a point lies in canonical space depends on the warp, and
both depend linearly on the code, so that the slopes are exact; Gauss-Newton needs a few rounds for the rest.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import silu

from hyperdiffusion.diffusion.checkpoint import Checkpoint
from overfit import FIELD_LOSS, BadInput, HeadSpace, NeuralHead
from overfit.canonical.warp import UNIT_MM, interpolation

# Points whose slopes are computed at once: their products with all directions stay below 100 MB.
POINTS_AT_ONCE = 512
# Fitted distance fields have slopes near 1; far from the surface, where they do not, distances stay bounded.
MIN_SLOPE = 0.3


@dataclass(frozen=True)
class SurfaceSlopes:
    """Where points lie relative to a head's surface, and how that changes with the code."""

    distance: Float[np.ndarray, " n"]
    """Signed distances to the surface in millimetres, negative inside."""
    normal: Float[np.ndarray, "n 3"]
    """Directions in which the distances grow."""
    by_code: Float[np.ndarray, "n D"]
    """Derivatives of the distances by the code."""


class LinearHeads:
    """All heads of a model's latent space: parameters = mean + code @ directions."""

    def __init__(self, checkpoint: Checkpoint):
        """Take a model of warped heads with latent coordinates. Raises BadInput if it is another."""
        coordinates, space = checkpoint.require_latent("`checkpoint`"), checkpoint.space
        if space.field.activation != "silu":
            raise BadInput("`checkpoint`: completion needs smooth networks; give one of `activation=silu`")
        self.space: HeadSpace = space
        self.mean = coordinates.mean.cpu()
        self.directions = coordinates.directions.cpu()
        self._by_layer = space.field.tensors(space.weights(self.directions).contiguous())
        warps = space.warp_parameters(self.directions).double().numpy() * UNIT_MM
        self._displacements = warps[:, : 3 * len(space.warps.control_points)].reshape(len(warps), -1, 3)

    @property
    def size(self) -> int:
        """D, the number of a code's entries."""
        return len(self.directions)

    def parameters(self, codes: Float[np.ndarray, "*heads D"]) -> Float[torch.Tensor, "*heads S"]:
        """Return the parameters of codes."""
        return self.mean + torch.as_tensor(codes, dtype=torch.float32) @ self.directions

    def head(self, code: Float[np.ndarray, " D"]) -> NeuralHead:
        """Return the head of a code."""
        return self.space.head(self.parameters(code))

    def slopes(self, code: Float[np.ndarray, " D"], points: Float[np.ndarray, "n 3"]) -> SurfaceSlopes:
        """Return how points in millimetres lie to a code's surface; close to it, distances are exact."""
        parameters = self.parameters(code)
        warp = self.space.warps.warp(self.space.warp_parameters(parameters))
        assert warp is not None
        cube = self.space.cube
        canonical = warp.inverse(points)
        at = torch.from_numpy(cube.to_field(canonical)).float()
        chunks = [self._field_slopes(self.space.weights(parameters), chunk) for chunk in at.split(POINTS_AT_ONCE)]
        logit, by_point, by_code = (torch.cat(parts).double().numpy() for parts in zip(*chunks))
        # d(distance)/d(canonical) = J d(distance)/d(head space), J[i, o] = d(head space)_o / d(canonical)_i.
        along = -FIELD_LOSS.softness_mm * by_point / cube.half
        gradient = np.linalg.solve(warp.jacobians(canonical), along[..., None])[..., 0]
        slope = np.linalg.norm(gradient, axis=1).clip(MIN_SLOPE)
        normal = gradient / slope[:, None]
        # Where the warp moves space outwards, a fixed point falls behind the surface.
        moved = interpolation(self.space.warps.control_points, canonical)
        by_warp = sum(normal[:, [axis]] * (moved @ self._displacements[..., axis].T) for axis in range(3))
        scale = -FIELD_LOSS.softness_mm / slope
        return SurfaceSlopes(scale * logit, normal, scale[:, None] * by_code - by_warp)

    def _field_slopes(
        self, weights: torch.Tensor, points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits (n,), their gradients by the points (n, 3) and by the code (n, D), in the field's cube."""
        field = self.space.field
        tensors, points = field.tensors(weights), points.clone().requires_grad_()
        activations, preactivations = [field.encode(points)], []
        for matrix, bias in zip(tensors[:-2:2], tensors[1:-2:2]):
            preactivations.append(torch.addmm(bias, activations[-1], matrix.T))
            activations.append(silu(preactivations[-1]))
        logits = torch.addmm(tensors[-1], activations[-1], tensors[-2].T)[:, 0]
        by_point, *errors = torch.autograd.grad(logits.sum(), [points, *preactivations])
        by_code = torch.zeros(len(points), self.size)
        layers = zip(self._by_layer[::2], self._by_layer[1::2], activations, [*errors, torch.ones(len(points), 1)])
        for matrices, biases, activation, error in layers:
            # Each direction changes a layer's matrix and bias; the rest of the network passes that on as backwards.
            change = (activation.detach() @ matrices.flatten(0, 1).T).unflatten(1, biases.shape) + biases
            by_code += (change * error[:, None]).sum(2)
        return logits.detach(), by_point, by_code
