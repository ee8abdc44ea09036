"""What features say about each other, against the conditional distributions of a known Gaussian."""

import pytest
import torch

from hyperdiffusion.diffusion.feature_prior import FeaturePrior

COVARIANCE = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.3], [0.0, 0.3, 1.0]])


@pytest.fixture(scope="module")
def prior() -> FeaturePrior:
    """From heads of which a quarter lack each feature."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40_000, 3, generator=generator) @ torch.linalg.cholesky(COVARIANCE).T
    return FeaturePrior.fit(features, torch.rand(features.shape, generator=generator) > 0.25)


def test_the_covariance_is_found_although_features_are_missing(prior):
    torch.testing.assert_close(prior.scale @ prior.scale.T, COVARIANCE, atol=0.03, rtol=0)


def test_missing_features_have_their_conditional_mean_and_covariance(prior):
    known = torch.tensor([True, False, True])
    seen, other = COVARIANCE[known][:, known], COVARIANCE[1, known]
    features = torch.tensor([[1.2, 0.0, -0.5]])
    completed = prior.complete(features, known[None])
    assert torch.equal(completed[:, known], features[:, known])
    expected = other @ torch.linalg.solve(seen, features[0, known])
    assert float(completed[0, 1]) == pytest.approx(float(expected), abs=0.03)
    left = torch.zeros(3, 3, dtype=torch.float64)
    left[1, 1] = 1 - other @ torch.linalg.solve(seen, other)
    torch.testing.assert_close(prior.covariance_given(known), left, atol=0.03, rtol=0)


def test_more_evidence_counts_by_its_precision(prior):
    """A measurement of the second feature with a variance of 0.5."""
    precision = torch.zeros(1, 3, 3, dtype=torch.float64)
    precision[0, 1, 1] = 2.0
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    information = torch.tensor([[0.0, 2.0 * 0.9, 0.0]], dtype=torch.float64)
    found = prior.complete(torch.zeros(1, 3), nothing, precision=precision, information=information)
    torch.testing.assert_close(found[0], COVARIANCE[1] * 0.9 / 1.5, atol=0.03, rtol=0)


def test_a_single_head_is_no_evidence_of_a_correlation():
    features = torch.tensor([[2.0, 2.0], [-1.0, 0.0], [0.0, 1.5]])
    known = torch.tensor([[True, True], [True, False], [False, True]])
    covariance = FeaturePrior.fit(features, known)
    found = covariance.scale @ covariance.scale.T
    assert float(found[0, 1] / (found[0, 0] * found[1, 1]).sqrt()) < 0.2
