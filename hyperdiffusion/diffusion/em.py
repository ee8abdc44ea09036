"""Expectation-maximisation: samples (n, d) in; a mixture of Gaussians of maximum likelihood out."""

import warnings
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture


def fit_gaussians(
    samples: Float[np.ndarray, "n d"],
    count: int,
    *,
    added_variance: float,
    means: Float[np.ndarray, "count d"] | None = None,
) -> "GaussianMixture":
    """Return scikit-learn's mixture of `count` Gaussians; what does not converge is good enough to be compared.

    Args:
        samples: What is to be described.
        count: Number of Gaussians.
        added_variance: Added to their variances, so that none shrinks to a single sample.
        means: Where they start; by default at the centres of k-means.
    """
    # Its import takes longer than a command that trains nothing.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(count, reg_covar=added_variance, means_init=means, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(samples)
