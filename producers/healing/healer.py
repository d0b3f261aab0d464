"""Klines of the past for what a feed did not see: asked of the vendor's REST, published as raw klines and as `heal` records.

Trades cannot be had again; the vendor's klines can. A kline is taken once its time is over and has settled.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from producers.answers import Kline, RestError
from producers.counters import FeedCounters
from producers.coverage import LATENCY
from producers.outages import Outage, Outages
from producers.publish import Sink
from producers.records import ControlRecord, Output, Record
from producers.rest import MAX_KLINES, Rest
from schemas.control import KLINE_LENGTHS, Control

RAW_TRADE = "infoway.raw.trade"
RAW_KLINE = "infoway.raw.kline"
MINUTE = KLINE_LENGTHS["1m"]
SETTLED = 5_000
"""Milliseconds after its end at which a kline counts as final."""
LONGEST = 2 * 24 * 60 * MINUTE
"""Agents remember a gap for two days: no outage is followed further back."""
RETRY = 60_000
"""Milliseconds until a first failure is tried again; each further one doubles it, up to LONGEST_RETRY."""
LONGEST_RETRY = 30 * MINUTE

_log = logging.getLogger(__name__)


def final_until(now_ms: int, interval: str) -> int:
    """Return the end of the last kline of an interval that is final by now, in ms UTC."""
    length = KLINE_LENGTHS[interval]
    return (now_ms - SETTLED) // length * length


def pages(
    rest: Rest, business: str, symbol: str, interval: str, start: int, end: int
) -> Iterator[tuple[int, list[Kline]]]:
    """Yield page by page, oldest first, until when (ms UTC) a page reaches and its klines that start in [start, end).

    Raises RestError, and ValueError for an interval that is none of KLINE_LENGTHS.
    """
    if interval not in KLINE_LENGTHS:
        raise ValueError(
            f"klines of {interval}: the vendor takes a time only for {', '.join(KLINE_LENGTHS)}"
        )
    span = MAX_KLINES * KLINE_LENGTHS[interval]
    start -= start % KLINE_LENGTHS[interval]
    while start < end:
        until = min(start + span, end)
        found = {
            kline.ts_start: kline
            for kline in rest.klines(business, symbol, interval, MAX_KLINES, until - 1)
        }
        yield (
            until,
            [
                found[ts]
                for ts in sorted(found)
                if start <= ts < until and ts % KLINE_LENGTHS[interval] == 0
            ],
        )
        start = until


def heals(
    klines: Sequence[Kline], feed: str, business: str, connection: str, now: int
) -> list[Output]:
    """Return the heal records of final klines; `now` is when REST answered, microseconds UTC."""
    return [
        ControlRecord(RAW_TRADE, kline.symbol, None, _heal(kline, feed, business, connection, now))
        for kline in klines
    ]


def raw_klines(
    klines: Sequence[Kline], feed: str, business: str, connection: str, sequence: int, now: int
) -> list[Output]:
    """Return the raw records of klines, numbered from `sequence` on."""
    return [
        Record(
            RAW_KLINE,
            kline.symbol,
            (*_fields(kline), business, feed, connection, sequence + number, now, "rest", None),
        )
        for number, kline in enumerate(klines)
    ]


def publish_klines(
    sink: Sink,
    counters: FeedCounters,
    klines: Sequence[Kline],
    feed: str,
    business: str,
    connection: str,
    now: int,
) -> None:
    """Publish klines and then their heals, counted as received; `now` as in `heals`. Raises PublishError."""
    records = raw_klines(klines, feed, business, connection, counters.received + 1, now)
    counters.received += len(klines)
    counters.klines += len(klines)
    sink.publish([*records, *heals(klines, feed, business, connection, now)], counters)


class Healer:
    """Heals what the feeds report as not seen, in a thread of its own, a symbol at a time, within the package's requests a second."""

    def __init__(
        self,
        rest: Rest,
        sink: Sink,
        last_life: Callable[[str, str], int | None],
        memory: Path | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """`last_life` tells when (ms UTC) a feed, by name, last showed in the log before this process, for a symbol; None: not known.

        What waits is kept in the file `memory`, and taken up from it. Raises OutagesUnreadable.
        """
        self.counters = FeedCounters("rest")
        self.failure: Exception | None = None
        """What ended the healing, where neither the vendor's refusal nor an end in order did."""
        self._rest = rest
        self._sink = sink
        self._last_life = last_life
        self._clock = clock
        self._outages = Outages(memory, MAX_KLINES * MINUTE)
        self._thread = threading.Thread(target=self._run, name="healer", daemon=True)

    def __enter__(self) -> "Healer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._outages.end()
        # a request on its way is not waited for: its klines come again with the next start
        self._thread.join(1.0)

    def unseen(
        self, symbol: str, business: str, feed: str, ts_from: int | None, ts_to: int
    ) -> None:
        """Take note that a feed saw nothing of a symbol in a time (ms UTC); from None is the feed's last life before this process."""
        if ts_from is None:
            ts_from = self._last_life(feed, symbol)
        if ts_from is None or ts_from - LATENCY >= ts_to:
            return
        ts_from = max(ts_from - LATENCY, ts_to - LONGEST)
        self._outages.put(Outage(_whole(ts_to) + SETTLED, ts_from, ts_to, symbol, business, feed))

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
        """Heal what is final of an outage, and put back what is left of it; return whether to go on."""
        now, healed_until = self._clock() // 1000, outage.ts_from
        if self._sink.behind:
            # what waits on disk is older, and the room is the feeds'
            self._outages.put(replace(outage, due=now + RETRY))
            self._outages.done()
            return True
        connection = f"rest-{self._clock()}"
        end = min(_whole(outage.ts_to), final_until(now, "1m"))
        refused = False
        try:
            for until, klines in pages(
                self._rest, outage.business, outage.symbol, "1m", outage.ts_from, end
            ):
                if self._outages.ended:
                    return False
                publish_klines(
                    self._sink,
                    self.counters,
                    klines,
                    outage.feed,
                    outage.business,
                    connection,
                    self._clock(),
                )
                healed_until = until
            if end < outage.ts_to:
                # two outages that became one: its end was not final when its begin was
                self._outages.put(
                    replace(
                        outage,
                        due=_whole(outage.ts_to) + SETTLED,
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
        now = self._clock() // 1000
        if error.refused:
            _log.warning("gaps will not be healed: %s", error)
        if error.refused or (error.retryable and outage.ts_to > now - LONGEST):
            wait = min(RETRY << min(outage.attempts, 10), LONGEST_RETRY)
            self._outages.put(replace(outage, due=now + wait, attempts=outage.attempts + 1))
            return
        start, end = (
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms // 1000))
            for ms in (outage.ts_from, outage.ts_to)
        )
        _log.warning(
            "%s: the gap from %s to %s is not healed: %s; for another try: infoway-streams backfill",
            outage.symbol,
            start,
            end,
            error,
        )


def _whole(ts: int) -> int:
    """Return the end of the minute that ends at or after a time."""
    return -(-ts // MINUTE) * MINUTE


def _fields(kline: Kline) -> tuple[str | int | None, ...]:
    numbers = (kline.open, kline.high, kline.low, kline.close, kline.volume, kline.turnover)
    return (
        kline.symbol,
        kline.interval,
        kline.ts_start,
        *numbers,
        kline.change,
        kline.change_percent,
    )


def _heal(kline: Kline, feed: str, business: str, connection: str, now: int) -> Control:
    names = ("interval", "ts_start", "open", "high", "low", "close", "volume", "turnover")
    text = orjson.dumps({name: getattr(kline, name) for name in names}).decode()
    end = kline.ts_start + KLINE_LENGTHS[kline.interval]
    return Control("heal", feed, business, connection, "rest", end, now, kline=text)
