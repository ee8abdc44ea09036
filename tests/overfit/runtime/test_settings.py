"""Nested settings become one dict, so that they can be compared and named one by one."""

from dataclasses import asdict

from hyperdiffusion import TrainingConfig
from overfit import OverfitConfig
from overfit.runtime.settings import flatten_settings


def test_nested_settings_are_found_by_their_own_names():
    assert flatten_settings({"a": 1, "b": {"c": [2, 3], "d": {"e": None}}}) == {"a": 1, "c": [2, 3], "e": None}


def test_the_names_of_our_settings_are_unique():
    def count(settings: dict) -> int:
        return sum(count(value) if isinstance(value, dict) else 1 for value in settings.values())

    for config in (OverfitConfig(), TrainingConfig()):
        assert len(flatten_settings(asdict(config))) == count(asdict(config))
