"""The optimiser of the fits: gradients of many networks in, steps of their weights out.

SOAP (Vyas et al. 2024, arXiv 2409.11321) is Adam in the eigenbasis of Shampoo's preconditioner: the gradient G of each
weight matrix is rotated into the eigenvectors of the running means of G Gᵀ and Gᵀ G, where its entries are less
correlated than where they are. Each network has its own; they are only computed together. Fits need half the steps of
Adam.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float

from overfit.field import Field

# Decay rates of the two moments; fits are short, so that the second one forgets faster than is usual.
BETAS = (0.9, 0.99)
# Decay rate of the means of G Gᵀ and Gᵀ G.
COVARIANCE_BETA = 0.95
# Steps from one update of the eigenvectors to the next.
BASIS_INTERVAL = 10
# Keeps steps finite where all gradients were zero.
EPSILON = 1e-8


@dataclass
class _Basis:
    """Eigenvectors of the running mean of G Gᵀ, or of Gᵀ G, for one matrix of each network."""

    covariance: torch.Tensor
    """The mean (heads, d, d)."""
    vectors: torch.Tensor
    """The eigenvectors (heads, d, d), as columns."""

    @classmethod
    def of(cls, gradient: torch.Tensor) -> "_Basis":
        """The basis of the first gradient (heads, d, n)."""
        covariance = (1 - COVARIANCE_BETA) * gradient @ gradient.mT
        return cls(covariance, torch.linalg.eigh(covariance.cpu())[1].flip(-1).to(gradient.device))

    def observe(self, gradient: torch.Tensor) -> None:
        self.covariance.lerp_(gradient @ gradient.mT, 1 - COVARIANCE_BETA)

    def update(self) -> None:
        """One step of orthogonal iteration."""
        # On CPU: a GPU factorises small matrices one after another.
        product = (self.covariance @ self.vectors).cpu()
        self.vectors = torch.linalg.qr(product)[0].to(self.covariance.device)


class Soap:
    """Moves the weights of several networks, each by its own gradients.

    Usage: after each backward pass, `step(lr)`, which also clears the gradient.
    """

    def __init__(self, field: Field, weights: Float[torch.Tensor, "heads P"]):
        """`weights` is a leaf that requires gradients; its rows are moved in place."""
        self._field, self._weights = field, weights
        self._mean, self._square = torch.zeros_like(weights.data), torch.zeros_like(weights.data)
        self._steps = 0
        # For each tensor the bases of its rows and of its columns, as far as there are several.
        self._bases: list[tuple[_Basis | None, _Basis | None]] = []

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the weights by their gradient."""
        if self._weights.grad is None:
            raise ValueError("the weights have no gradient; call `backward` first")
        gradients = self._field.tensors(self._weights.grad)
        self._observe(gradients)
        gradient = self._rotated(gradients)
        self._steps += 1
        self._mean.lerp_(gradient, 1 - BETAS[0])
        self._square.lerp_(gradient.square(), 1 - BETAS[1])
        # Adam's correction for moments that start at zero (Kingma and Ba 2015, algorithm 1).
        first, second = (1 - beta**self._steps for beta in BETAS)
        step = (self._mean / first) / ((self._square / second).sqrt_() + EPSILON)
        self._weights -= lr * self._rotated(self._field.tensors(step), back=True)
        self._weights.grad = None

    def _observe(self, gradients: list[torch.Tensor]) -> None:
        """Add gradients to the covariances, and update the eigenvectors when it is time to."""
        if not self._bases:
            self._bases = [_bases_of(gradient) for gradient in gradients]
            return
        for gradient, (rows, columns) in zip(gradients, self._bases):
            if rows is not None:
                rows.observe(gradient)
            if columns is not None:
                columns.observe(gradient.mT)
        if self._steps % BASIS_INTERVAL == 0:
            mean = self._rotated(self._field.tensors(self._mean), back=True)
            for basis in (basis for pair in self._bases for basis in pair if basis is not None):
                basis.update()
            # The first moment turns with the eigenvectors; the second, a diagonal, does not.
            self._mean = self._rotated(self._field.tensors(mean))

    def _rotated(self, tensors: list[torch.Tensor], *, back: bool = False) -> torch.Tensor:
        """Tensors in the eigenbases, or back from there, as flat rows (heads, P)."""
        rotated = []
        for tensor, (rows, columns) in zip(tensors, self._bases):
            if rows is not None:
                tensor = (rows.vectors if back else rows.vectors.mT) @ tensor
            if columns is not None:
                tensor = tensor @ (columns.vectors.mT if back else columns.vectors)
            rotated.append(tensor.flatten(1))
        return torch.cat(rotated, dim=1)


def _bases_of(gradient: torch.Tensor) -> tuple[_Basis | None, _Basis | None]:
    """The bases of a gradient's rows and columns (heads, rows, columns); biases (heads, n) have none."""
    if gradient.dim() == 2:
        return None, None
    rows, columns = gradient.shape[1:]
    return (_Basis.of(gradient) if rows > 1 else None), (_Basis.of(gradient.mT) if columns > 1 else None)
