"""Errors for input that cannot be used: one line that names the thing and the remedy."""

from dataclasses import dataclass
from typing import Any


class BadInput(Exception):
    """Input that cannot be used. The command line prints the message as one line and exits with 2.

    The message reads `THING: what is wrong; what to do`. Arguments stand in backticks, as `name` or `name=value`; the
    command line prints them as their flags.
    """


@dataclass(frozen=True)
class Skipped:
    """An input that a command over many could not use and left out."""

    name: str
    """The input's name, such as a scan's file name without its suffix."""
    reason: str
    """What is wrong with it and what to do, in one line."""


def require_at_least(least: float, **arguments: Any) -> None:
    """Raise BadInput for the first argument below `least`, or that is not a number."""
    for name, value in arguments.items():
        if not value >= least:
            raise BadInput(f"`{name}={value}`: give {least} or more")


def require_between(least: float, most: float, **arguments: Any) -> None:
    """Raise BadInput for the first argument outside [least, most]."""
    for name, value in arguments.items():
        if not least <= value <= most:
            raise BadInput(f"`{name}={value}`: give {least} to {most}")
