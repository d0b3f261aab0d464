"""Counts the dead letters of a worker, and names one of them in the log once in a while."""

import logging
import time

from processors.model.records import SourcesMixed, Unreadable

log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0
"""Seconds between two log lines: a topic may be full of dead letters."""


class DeadLetterCounts:
    """What was dead-lettered since the start."""

    def __init__(self) -> None:
        self.count = 0
        self.strays = 0
        """Those that were of another source than their partition."""
        self._logged_at = 0.0
        self._unlogged = 0

    def add(self, topic: str, partition: int, record: Unreadable) -> None:
        """Count one."""
        self.count += 1
        self.strays += record.error_class == SourcesMixed.__name__
        now = time.monotonic()
        if self._logged_at and now - self._logged_at < LOG_EVERY_S:
            self._unlogged += 1
            return
        log.warning(
            "%s[%d] offset %d is dead-lettered: %s: %.300s (%d others since the last such line)",
            topic,
            partition,
            record.offset,
            record.error_class,
            record.error_text,
            self._unlogged,
        )
        self._logged_at, self._unlogged = now, 0
