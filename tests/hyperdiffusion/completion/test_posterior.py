"""Random codes have the posterior's mean and covariance if the model's samples are those of a normal prior."""

import numpy as np

from hyperdiffusion.completion.posterior import CodePosterior
from overfit.geometry.similarity import Similarity


def test_draws_from_a_normal_prior_are_those_of_the_posterior():
    rng = np.random.default_rng(0)
    # Two of four directions are seen.
    jacobian = rng.standard_normal((2, 4))
    information = jacobian.T @ jacobian
    posterior = CodePosterior(Similarity(), np.arange(4.0), information + np.eye(4), information)
    draws = posterior.near(rng.standard_normal((40_000, 4)), rng)
    np.testing.assert_allclose(draws.mean(0), np.arange(4.0), atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), np.linalg.inv(posterior.precision), atol=0.03)
    # What is not seen stays as the model has it.
    unseen = np.linalg.svd(jacobian)[2][2:]
    samples = rng.standard_normal((5, 4))
    np.testing.assert_allclose(
        (posterior.near(samples, rng) - posterior.code) @ unseen.T, samples @ unseen.T, atol=1e-6
    )


def test_standard_deviations_are_those_of_the_covariance():
    rng = np.random.default_rng(1)
    jacobian, by_code = rng.standard_normal((9, 5)), rng.standard_normal((3, 5))
    information = jacobian.T @ jacobian
    posterior = CodePosterior(Similarity(), np.zeros(5), information + np.eye(5), information)
    covariance = by_code @ np.linalg.inv(posterior.precision) @ by_code.T
    np.testing.assert_allclose(posterior.std(by_code), np.sqrt(np.diag(covariance)))
