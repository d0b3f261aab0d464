"""Decides by acknowledgements alone whether the broker answers, and logs when that changes."""

import logging
import time
from collections.abc import Callable

SILENCE = 2.0
"""Seconds without an acknowledgement, with records under way, after which the broker is away."""
PERIOD = 60.0
"""Seconds between two lines while it stays away."""

_log = logging.getLogger(__name__)


class BrokerWatch:
    """Used by one publisher under its lock."""

    def __init__(self) -> None:
        self.moved_at = time.monotonic()
        """When nothing was under way, or the broker has acknowledged something."""
        self.away = False
        self._since: float | None = None
        """Since when it is away in the log's lines."""
        self._said_at = 0.0

    def unanswered_for(self, under_way: int) -> float:
        """Return the seconds in which records were under way and the broker has acknowledged
        none."""
        return time.monotonic() - self.moved_at if under_way else 0.0

    def look(self, under_way: int) -> bool:
        """Return whether the broker is away."""
        now = time.monotonic()
        if not under_way:
            self.moved_at = now
        self.away = now - self.moved_at > SILENCE
        return self.away

    def report(self, waiting: Callable[[], str]) -> None:
        """Log what has changed, and once a minute what is `waiting`."""
        now = time.monotonic()
        if self.away:
            if self._since is None:
                self._since, self._said_at = self.moved_at, now - PERIOD
            if now - self._said_at >= PERIOD:
                self._said_at = now
                _log.warning("the broker is away for %.0f s: %s", now - self._since, waiting())
        elif self._since is not None:
            _log.warning("the broker is back after %.0f s: %s", now - self._since, waiting())
            self._since = None
