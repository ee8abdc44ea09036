"""Attributes of heads, such as age or glasses: values (heads, n) in, features (heads, F) out, and requests as values.

A value is a number, or for a categorical attribute the index of its level; it is NaN where it is missing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float

from overfit.runtime.errors import BadInput

# How far a requested number may lie outside that of the training heads, relative to their range: the range is known
# from a sample only.
RANGE_MARGIN = 0.05

Request = Mapping[str, float | str]
"""Requested values by the name of the attribute."""


@dataclass(frozen=True)
class Numeric:
    """A number that is known of heads."""

    name: str
    """Name of the column."""
    mean: float
    """Mean over the training heads."""
    std: float
    """Standard deviation over the training heads."""
    low: float
    """Smallest value of a training head."""
    high: float
    """Largest value of a training head."""

    @property
    def size(self) -> int:
        """Number of features."""
        return 1

    def features(self, values: Float[torch.Tensor, " B"]) -> Float[torch.Tensor, "B 1"]:
        """Return standardised values; 0 where missing."""
        return ((values - self.mean) / self.std).nan_to_num(0.0)[:, None]

    def values(self, features: Float[torch.Tensor, "B 1"]) -> Float[torch.Tensor, " B"]:
        """Return the values of features."""
        return self.mean + self.std * features[:, 0]

    def parse(self, text: float | str) -> float:
        """Return a requested value. Raises BadInput if it is no number, or outside the range of the training heads."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        margin = RANGE_MARGIN * (self.high - self.low)
        if not self.low - margin <= value <= self.high + margin:
            raise BadInput(f"{self.name}={text}: give {self.allowed}, the range of the training heads")
        return value

    def format(self, value: float) -> str:
        """Return a value as text, to three digits of the range: of years, all four."""
        digits = 3 - math.ceil(math.log10(self.high - self.low))
        # Adding zero leaves no -0.
        return f"{round(value, digits) + 0.0:.12g}"

    @property
    def allowed(self) -> str:
        """Which values may be requested, as text."""
        return f"a number from {self.format(self.low)} to {self.format(self.high)}"


@dataclass(frozen=True)
class Categorical:
    """One of a few levels that is known of heads."""

    name: str
    """Name of the column."""
    levels: tuple[str, ...]
    """The levels' names; a value is an index into them."""
    frequencies: tuple[float, ...]
    """Fraction of the training heads of each level."""

    @property
    def size(self) -> int:
        """Number of features."""
        return len(self.levels)

    def features(self, values: Float[torch.Tensor, " B"]) -> Float[torch.Tensor, "B levels"]:
        """Return one-hot vectors less the frequencies of the levels; zeros where missing."""
        one_hot = torch.nn.functional.one_hot(values.nan_to_num(0.0).long(), self.size).float()
        return (one_hot - values.new_tensor(self.frequencies)) * ~values.isnan()[:, None]

    def values(self, features: Float[torch.Tensor, "B levels"]) -> Float[torch.Tensor, " B"]:
        """Return the level with the largest feature in each row, in units of one-hot vectors."""
        return (features + features.new_tensor(self.frequencies)).argmax(1).to(features.dtype)

    def parse(self, text: float | str) -> float:
        """Return a requested level. Raises BadInput if there is no such level."""
        if str(text) not in self.levels:
            raise BadInput(f"{self.name}={text}: give {self.allowed}")
        return float(self.levels.index(str(text)))

    def format(self, value: float) -> str:
        """Return a value as text."""
        return self.levels[round(value)]

    @property
    def allowed(self) -> str:
        """Which levels may be requested, as text."""
        return "one of " + ", ".join(self.levels)


Attribute = Numeric | Categorical


@dataclass(frozen=True)
class Attributes:
    """The attributes that a model is conditioned on."""

    columns: tuple[Attribute, ...]
    """One for each column of values."""

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the attributes."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def sizes(self) -> list[int]:
        """Features of each attribute; F in total."""
        return [column.size for column in self.columns]

    def features(self, values: Float[torch.Tensor, "B n"]) -> Float[torch.Tensor, "B F"]:
        """Return standardised numbers and centred one-hot vectors; zeros where values are missing."""
        parts = [column.features(value) for column, value in zip(self.columns, values.unbind(1), strict=True)]
        return torch.cat(parts, dim=1)

    def values(self, features: Float[torch.Tensor, "B F"]) -> Float[torch.Tensor, "B n"]:
        """Return the values that features are closest to."""
        parts = features.split(self.sizes, dim=1)
        return torch.stack([column.values(part) for column, part in zip(self.columns, parts, strict=True)], dim=1)

    def per_feature(self, known: Bool[torch.Tensor, "*B n"]) -> Bool[torch.Tensor, "*B F"]:
        """Return for each feature what is given for its attribute."""
        return known.repeat_interleave(torch.tensor(self.sizes, device=known.device), dim=-1)

    def missing(self, count: int, device: torch.device = torch.device("cpu")) -> Float[torch.Tensor, "count n"]:
        """Return values that are all missing: no condition."""
        return torch.full((count, len(self)), torch.nan, device=device)

    def index(self, name: str) -> int:
        """Return the column of an attribute. Raises BadInput if there is none of this name."""
        if name not in self.names:
            raise BadInput(f"{name}: the model has no attribute of this name; give one of {', '.join(self.names)}")
        return self.names.index(name)

    def parse(self, request: Request) -> Float[torch.Tensor, " n"]:
        """Return requested values, missing where nothing is requested. Raises BadInput for what the model lacks."""
        values = self.missing(1)[0]
        for name, text in request.items():
            index = self.index(name)
            values[index] = self.columns[index].parse(text)
        return values

    def describe(self) -> list[str]:
        """Return one line for each attribute: its name and the values that may be requested."""
        return [f"{column.name}: {column.allowed}" for column in self.columns]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the attributes as they are written into files."""
        return [asdict(column) for column in self.columns]

    @classmethod
    def of(cls, plain: Sequence[Mapping[str, Any]]) -> "Attributes":
        """Return the attributes that `to_json` turned into plain values, also after a way through JSON."""
        return cls(tuple(_column_of(column) for column in plain))


def _column_of(plain: Mapping[str, Any]) -> Attribute:
    if "levels" in plain:
        return Categorical(plain["name"], tuple(plain["levels"]), tuple(plain["frequencies"]))
    return Numeric(**plain)
