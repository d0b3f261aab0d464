"""Heals what feeds did not observe: publishes the vendor's klines of that time.

Trades cannot be had again; klines can. A kline is final some seconds after its end.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from producers.delivery.sink import Sink
from producers.feed.coverage import LOSS_BEFORE_LAST_ALIVE_MS
from producers.feed.metrics import FeedCounters
from producers.healing.outages import Outage, Outages
from producers.healing.past_klines import (
    FINAL_AFTER_MS,
    Page,
    final_until,
    named,
    pages,
    publish_klines,
    shown,
)
from producers.vendor.answers import BadKline, RestError
from producers.vendor.rest import MAX_KLINES, Rest
from schemas.control import KLINE_LENGTHS

MINUTE_MS = KLINE_LENGTHS["1m"]
LONGEST_OUTAGE_MS = 2 * 24 * 60 * MINUTE_MS
"""Agents remember a gap for two days: no outage is followed further back."""
RETRY_MS = 60_000
"""Milliseconds until a first failure is tried again; each further one doubles it, up to
LONGEST_RETRY_MS."""
LONGEST_RETRY_MS = 30 * MINUTE_MS

_log = logging.getLogger(__name__)


class Healer:
    """Heals the outages that feeds report, one symbol at a time, in a thread of its own and within
    the package's requests a second."""

    def __init__(
        self,
        rest: Rest,
        sink: Sink,
        last_life: Callable[[str, str], int | None],
        memory: Path | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """`last_life` returns when (ms UTC) a feed, by name, last wrote to the log before this
        process, for a symbol; None: not known.

        What waits is kept in the file `memory`, and taken up from it. Raises OutagesUnreadable.
        """
        self.counters = FeedCounters("rest")
        self.failure: Exception | None = None
        """What ended the healing, where neither the vendor's refusal nor an end in order did."""
        self._rest = rest
        self._sink = sink
        self._last_life = last_life
        self._clock = clock
        self._outages = Outages(memory, MAX_KLINES * MINUTE_MS)
        self._thread = threading.Thread(target=self._run, name="healer", daemon=True)

    def __enter__(self) -> "Healer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._outages.end()
        # a request on its way is not waited for: its klines come again with the next start
        self._thread.join(1.0)

    def report_outage(
        self, symbol: str, business: str, feed: str, ts_from: int | None, ts_to: int
    ) -> None:
        """Take note that a feed saw nothing of a symbol in a time (ms UTC); from None is the feed's
        last life before this process."""
        if ts_from is None:
            ts_from = self._last_life(feed, symbol)
        if ts_from is None or ts_from - LOSS_BEFORE_LAST_ALIVE_MS >= ts_to:
            return
        ts_from = max(ts_from - LOSS_BEFORE_LAST_ALIVE_MS, ts_to - LONGEST_OUTAGE_MS)
        self._outages.put(
            Outage(_whole(ts_to) + FINAL_AFTER_MS, ts_from, ts_to, symbol, business, feed)
        )

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - handed to the main thread, which ends with it
            self.failure = error

    def _work(self) -> None:
        try:
            self._rest.package_info()  # from here on its requests a second are kept to
        except RestError as error:
            if not error.retryable:
                _log.warning("gaps will not be healed: %s", error)
                return
        while (outage := self._outages.next(lambda: self._clock() // 1000)) is not None:
            if not self._healed(outage):
                return

    def _healed(self, outage: Outage) -> bool:
        """Heal what is final of an outage, and put back what is left of it; return whether to go
        on."""
        now_ms, healed_until = self._clock() // 1000, outage.ts_from
        if self._sink.behind:
            # what waits on disk is older, and the room is the feeds'
            self._outages.put(replace(outage, due=now_ms + RETRY_MS))
            self._outages.done()
            return True
        connection = f"rest-{self._clock()}"
        end = min(_whole(outage.ts_to), final_until(now_ms, "1m"))
        refused = False
        try:
            for until, page in pages(
                self._rest, outage.business, outage.symbol, "1m", outage.ts_from, end
            ):
                if self._outages.ended:
                    return False
                publish_klines(
                    self._sink,
                    self.counters,
                    page,
                    outage.feed,
                    outage.business,
                    connection,
                    self._clock(),
                )
                _name_bad(outage.symbol, page, healed_until, until)
                healed_until = until
            if end < outage.ts_to:
                # two outages that became one: its end was not final when its begin was
                self._outages.put(
                    replace(
                        outage,
                        due=_whole(outage.ts_to) + FINAL_AFTER_MS,
                        ts_from=max(outage.ts_from, end),
                        attempts=0,
                    )
                )
        except RestError as error:
            refused = error.refused
            self._postpone(replace(outage, ts_from=healed_until), error)
        self._outages.done()
        return not refused

    def _postpone(self, outage: Outage, error: RestError) -> None:
        now_ms = self._clock() // 1000
        if error.refused:
            _log.warning("gaps will not be healed: %s", error)
        if error.refused or (error.retryable and outage.ts_to > now_ms - LONGEST_OUTAGE_MS):
            wait = min(RETRY_MS << min(outage.attempts, 10), LONGEST_RETRY_MS)
            self._outages.put(replace(outage, due=now_ms + wait, attempts=outage.attempts + 1))
            return
        start, end = shown(outage.ts_from), shown(outage.ts_to)
        _log.warning(
            "%s: the gap from %s to %s is not healed: %s; for another try: infoway-streams "
            "backfill",
            outage.symbol,
            start,
            end,
            error,
        )


def _name_bad(symbol: str, page: Page, ts_from: int, ts_to: int) -> None:
    bad = [each for each in page if isinstance(each, BadKline)]
    if bad:
        what, start, end = named(bad), shown(ts_from), shown(ts_to)
        _log.warning(
            "%s: of the gap from %s to %s is not healed: %s; for another try: infoway-streams "
            "backfill",
            symbol,
            start,
            end,
            what,
        )


def _whole(ts: int) -> int:
    """Return the end of the minute that ends at or after a time."""
    return -(-ts // MINUTE_MS) * MINUTE_MS
