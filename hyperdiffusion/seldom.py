"""What is done now and then while long work goes on: how long it took the last time in, whether it is due again out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

# Of the work's time, the most that it takes.
SHARE = 0.05


class Seldom:
    """What keeps a training waiting, and is done so seldom that it takes no more than a share of the time.

    The state of the published model is 17 GB; on a GPU, four samples take as long as a hundred steps.
    """

    def __init__(self):
        self.last, self.took = time.monotonic(), 0.0

    def due(self, every: float = 0.0) -> bool:
        """Whether it is time again: `every` so many seconds, or later where that would be too often."""
        return time.monotonic() - self.last > max(every, self.took / SHARE)

    @contextmanager
    def done(self) -> Iterator[None]:
        """About the doing of it."""
        start = time.monotonic()
        yield
        self.last = time.monotonic()
        self.took = self.last - start
