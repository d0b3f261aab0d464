"""A producer's health: what its feeds' threads do, and every count of theirs as a metric."""

import time
from collections.abc import Iterator

from infra.ingest.producer_process import Feeding
from infra.runtime.health import Sample

STUCK = 60.0
"""Seconds in which a feed's thread turns at least once: connecting takes 10 at most, a read 0.1, a
record for the spool less."""
UNANSWERED = 10.0
"""Seconds without an acknowledgement after which the broker counts as away; the queue takes far
more."""


class FeedHealth:
    """Of a Feeding that runs."""

    def __init__(self, feeding: Feeding) -> None:
        self._feeding = feeding

    def stuck(self) -> str | None:
        """Name the feeds whose threads have ended or do not turn."""
        if self._feeding.failure is not None:
            return f"ended: {type(self._feeding.failure).__name__}"
        now = time.monotonic()
        still = [
            each.feed
            for each in self._feeding.wanted_counters
            if each.turned_at and now - each.turned_at > STUCK
        ]
        return f"no turn for {STUCK:.0f} s: {', '.join(still)}" if still else None

    def unready(self) -> str | None:
        """Name the feeds that are not subscribed, or say that their records wait for the broker."""
        if why := self.stuck():
            return why
        if away := self._feeding.not_subscribed:
            return f"not subscribed: {', '.join(away)}"
        if (seconds := self._feeding.unanswered_for) > UNANSWERED:
            return f"the broker has acknowledged nothing for {seconds:.0f} s"
        waiting = [each.feed for each in self._feeding.counters if each.spooled]
        return f"records wait on disk for the broker: {', '.join(waiting)}" if waiting else None

    def samples(self) -> Iterator[Sample]:
        """Yield the counts of every feed that there was, of klines of the past (rest) and of an
        earlier process's records (earlier)."""
        for each in self._feeding.counters:
            for metric, value in each.values():
                yield Sample(
                    f"infoway_feed_{metric.name}",
                    metric.kind,
                    f"{metric.meaning} ({metric.unit})",
                    value,
                    {"feed": each.feed},
                )
