"""The head model and the population of heads, which take seconds to load, and a person."""

from dataclasses import replace

import numpy as np
import pytest

from hyperdiffusion.data.head_surface import MEAN_PHENOTYPE
from hyperdiffusion.data.population import HeadPopulation
from hyperdiffusion.data.synthetic_heads import HeadModel, Person


@pytest.fixture(scope="session")
def model() -> HeadModel:
    pytest.importorskip("anny")
    pytest.importorskip("manifold3d")
    return HeadModel()


@pytest.fixture(scope="session")
def population(model) -> HeadPopulation:
    return HeadPopulation(model)


@pytest.fixture(scope="session")
def person(model) -> Person:
    """A man of middle age, without an expression."""
    drawn = model.person(np.random.default_rng(7), expressions=0)
    return replace(drawn, phenotype=MEAN_PHENOTYPE | {"gender": 0.2})
