"""The time that a feed goes by: the wall clock's at the start of a connection, and steady from
there on."""

import time
from collections.abc import Callable

Microseconds = Callable[[], int]
"""Returns microseconds."""


def wall_clock() -> int:
    """Return microseconds UTC."""
    return time.time_ns() // 1000


def steady_clock() -> int:
    """Return microseconds since some moment; nobody can set this clock."""
    return time.monotonic_ns() // 1000


class FeedTime:
    """Microseconds UTC that neither stand still nor jump while a connection lasts, whatever is done
    to the wall clock.

    Heartbeats, pings, the budget of frames and the watchdog go by it, and so do the times of
    receipt. NTP slews both clocks alike, so they do not drift apart; a step of the wall clock, or a
    machine that was suspended, shows only from the next connection on. Until then times of receipt,
    and what is measured from them, are wrong by the step: a clock that was slow at the connection
    and was then set right keeps the feed slow, and what the vendor dates too far ahead of it
    becomes a dead letter. Mend the clock first, then start the producer.
    """

    def __init__(self, wall: Microseconds, steady: Microseconds) -> None:
        self._wall = wall
        self._steady = steady
        self._latest_us = 0
        self._offset_us = 0
        self.set()

    def set(self) -> None:
        """Go by the wall clock again, but not back behind what was said before: for a new
        connection."""
        self._offset_us = max(self._wall(), self._latest_us) - self._steady()

    def __call__(self) -> int:
        """Return the time."""
        self._latest_us = self._steady() + self._offset_us
        return self._latest_us
