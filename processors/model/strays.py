"""Counts and names records of a feed's connection that a newer one has replaced: one that was late
from the network, a redriven letter, or two producers of one feed."""

import logging
import time
from collections import Counter

PERIOD_S = 60.0
"""Seconds between two lines of the log."""

_log = logging.getLogger(__name__)


def is_older(feed: str, connection: str, current: str) -> bool:
    """Return whether a feed's connection was made before its current one: producers end its id by
    its time.

    False where an id says no time, as that of the vendor's REST.
    """
    made, current_made = _made_at(feed, connection), _made_at(feed, current)
    return made is not None and current_made is not None and made < current_made


def is_of_another_producer(feed: str, current: str, received_us: int) -> bool:
    """Return whether a record of an older connection was received after the feed's current one was
    made: two producers run. What one producer received before is late, or redriven."""
    made = _made_at(feed, current)
    return made is not None and received_us > made


def _made_at(feed: str, connection: str) -> int | None:
    name, _, made = connection.rpartition("-")
    return (
        int(made)
        if name == feed and made.isascii() and made.isdigit() and len(made) <= 18
        else None
    )


class Strays:
    """What a worker has read of older connections; what is read by several agents, or again, is
    counted again."""

    def __init__(self) -> None:
        self.records = 0
        self._unnamed: Counter[str] = Counter()
        self._next_s = 0.0

    def count(self, feed: str, connection: str, current: str, received_us: int) -> None:
        """Count one; if it shows two producers, name it in the log: at once, then once a minute at
        most."""
        self.records += 1
        if not is_of_another_producer(feed, current, received_us):
            _log.info(
                "%s: a record of connection %s is late or redriven: it came after those of %s, "
                "and counts once",
                feed,
                connection,
                current,
            )
            return
        self._unnamed[feed] += 1
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + PERIOD_S
        found, self._unnamed = self._unnamed, Counter()
        _log.warning(
            "%s: records of connection %s were received after %s was made: two producers write "
            "this feed, and its trades count twice; end one, or name their feeds apart (records so "
            "far: %s)",
            feed,
            connection,
            current,
            ", ".join(f"{name} {number}" for name, number in sorted(found.items())),
        )


STRAYS = Strays()
"""Those of this process."""
