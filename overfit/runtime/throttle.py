"""Rate limits for periodic work, such as saving and pictures, to a share of the run time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

# The largest share of the run time that the work may take.
SHARE = 0.05


class Throttle:
    """Limits work that keeps a run waiting to `SHARE` of its time.

    The state of the published model is 17 GB, and on a GPU four samples take as long as a hundred steps.
    """

    def __init__(self) -> None:
        self._last_end = time.monotonic()
        self._duration = 0.0

    def is_due(self, interval: float = 0.0) -> bool:
        """Return whether `interval` seconds have passed since the last time, or more if the share requires it."""
        return time.monotonic() - self._last_end > max(interval, self._duration / SHARE)

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Time the work inside the block."""
        start = time.monotonic()
        yield
        self._last_end = time.monotonic()
        self._duration = self._last_end - start
