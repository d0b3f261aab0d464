"""Counts and names heals and gaps that reach a bar which was published and has left the state."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

log = logging.getLogger(__name__)

SILENCE_S = 60.0
"""At most one line in the log in so many seconds."""


class ForgottenBars:
    """What reached them since the start; a record that is read again is counted again."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.heals = 0
        self.gaps = 0
        self._now_s = now_s
        self._logged_at_s: float | None = None
        self._unnamed = 0

    def heal(self, symbol: str, interval: str, ts_start: int, offset: int) -> None:
        """Count a kline that would have changed this bar."""
        self.heals += 1
        self._name("the kline of a heal", symbol, interval, ts_start, offset)

    def gap(self, symbol: str, interval: str, ts_start: int, offset: int) -> None:
        """Count a bar whose time a control record has declared unobserved."""
        self.gaps += 1
        self._name("a gap", symbol, interval, ts_start, offset)

    def _name(self, what: str, symbol: str, interval: str, ts_start: int, offset: int) -> None:
        now_s = self._now_s()
        if self._logged_at_s is not None and now_s - self._logged_at_s < SILENCE_S:
            self._unnamed += 1
            return
        started = datetime.fromtimestamp(ts_start / 1000, UTC)
        text = (
            "%s at offset %d reaches the %s bar of %s from %s, which was published and is no "
            "longer in state: it stays as published"
        )
        log.warning(
            text + " (%d more since the last such line)",
            what,
            offset,
            interval,
            symbol,
            started,
            self._unnamed,
        )
        self._logged_at_s, self._unnamed = now_s, 0
