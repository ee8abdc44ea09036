"""Checks the types and array shapes of every annotated function of both packages at run time.

Only the first `CHECKED_CALLS` calls of each test are checked: what follows are loops, whose shapes repeat, and checking
those too would take a quarter of the suite's time.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import config

CHECKED_CALLS = 3000

_calls = 0


def typechecker(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function's arguments and result, and count its calls. An int is a float, as in PEP 484."""
    checked = beartype(function, conf=BeartypeConf(is_pep484_tower=True))

    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        global _calls
        _calls += 1
        if _calls == CHECKED_CALLS:
            config.update("jaxtyping_disable", True)
        return checked(*args, **kwargs)

    return counted


def check_again() -> None:
    """Start to check, before a test and its fixtures."""
    global _calls
    _calls = 0
    config.update("jaxtyping_disable", False)
