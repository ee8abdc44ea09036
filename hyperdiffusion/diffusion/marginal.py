"""The distribution of heads of which nothing is known: codes (heads, D) in; the one that validation selects out."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.independent_components import IndependentComponents
from hyperdiffusion.diffusion.mixture import GaussianMixture
from hyperdiffusion.diffusion.tied_mixture import TiedMixture

Marginal = GaussianMixture | IndependentComponents | TiedMixture


def select_marginal(
    codes: Float[torch.Tensor, "heads D"],
    *,
    std: Float[torch.Tensor, " D"],
    variance: Float[torch.Tensor, " D"],
    max_components: int,
    independent: bool,
    margin: float,
    loss: Callable[[Marginal], float],
) -> tuple[Marginal, float]:
    """Return a Gaussian mixture or independent components, and the validation loss.

    Args:
        codes: Whitened training heads.
        std: Standard deviation of the weights along each coordinate.
        variance: Variance of unseen heads along each whitened coordinate.
        max_components: Upper bound on the mixture's components.
        independent: Whether independent components may be selected.
        margin: Fraction by which a more special distribution must reduce the validation loss; less may be chance.
        loss: Validation loss of a distribution.
    """
    mixture, mixture_loss = GaussianMixture.select(
        codes, std=std, variance=variance, max_components=max_components, margin=margin, loss=loss
    )
    if independent:
        found, found_loss = IndependentComponents.select(codes, variance=variance, loss=loss)
        if found is not None and found_loss < (1 - margin) * mixture_loss:
            return found, found_loss
    return mixture, mixture_loss


def restore_marginal(state: Mapping[str, torch.Tensor]) -> Marginal:
    """Return the distribution with a `state_dict`. Raises KeyError if the state is another's."""
    kinds: dict[str, type[Marginal]] = {"directions": IndependentComponents, "axes": TiedMixture}
    kind = next((kind for name, kind in kinds.items() if name in state), GaussianMixture)
    return kind(*(state[name] for name in kind.TENSORS))
