"""Settings as they are written into files and shown to people: nested dataclasses as dicts in; a flat dict out."""

from collections.abc import Mapping
from typing import Any


def flatten_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings by the names of the innermost ones, which are unique: they are flags too."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flatten_settings(value) if isinstance(value, Mapping) else {name: value}
    return flat
