"""Asks REST for klines of the past, page by page, and publishes them as raw klines and heals."""

import time
from collections.abc import Iterator, Sequence

import orjson

from producers.delivery.sink import Sink
from producers.feed.metrics import FeedCounters
from producers.feed.outputs import ControlPublication, Output, Publication
from producers.vendor.answers import BadKline, OddAnswer, RestError, RestKline
from producers.vendor.frames import MAX_FRAME
from producers.vendor.rest import MAX_KLINES, Rest
from schemas.control import KLINE_LENGTHS, Control
from schemas.records import DeadLetterRecord, RawKlineRecord
from schemas.topics import DEAD_LETTER, RAW_KLINE, RAW_TRADE

FINAL_AFTER_MS = 5_000
"""Milliseconds after its end at which a kline counts as final."""
_BEYOND_THE_PLAN = 513
"""The vendor's code for a time that the plan's history does not have; it has later ones."""


def final_until(now_ms: int, interval: str) -> int:
    """Return the end of the last kline of an interval that is final by now, in ms UTC."""
    length = KLINE_LENGTHS[interval]
    return (now_ms - FINAL_AFTER_MS) // length * length


Page = list[RestKline | BadKline]


def pages(
    rest: Rest, business: str, symbol: str, interval: str, start: int, end: int
) -> Iterator[tuple[int, Page]]:
    """Yield page by page, oldest first, until when (ms UTC) a page reaches and its klines that
    start in [start, end).

    A page that cannot be read is one BadKline without data: those behind it are asked for all the
    same. Raises RestError, and ValueError for an interval that is none of KLINE_LENGTHS.
    """
    if interval not in KLINE_LENGTHS:
        raise ValueError(
            f"klines of {interval}: the vendor takes a time only for {', '.join(KLINE_LENGTHS)}"
        )
    span = MAX_KLINES * KLINE_LENGTHS[interval]
    start -= start % KLINE_LENGTHS[interval]
    while start < end:
        until = min(start + span, end)
        try:
            found = rest.klines(business, symbol, interval, MAX_KLINES, until - 1)
        except RestError as error:
            if not isinstance(error, OddAnswer) and error.code != _BEYOND_THE_PLAN:
                raise
            yield until, [BadKline(symbol, interval, start, str(error), None)]
        else:
            yield until, _of_page(found, start, until)
        start = until


def _of_page(found: Page, start: int, until: int) -> Page:
    """Return the klines of a page in their order, behind those without a time; what is before it
    came with the page before."""
    within = [each for each in found if each.ts_start is None or start <= each.ts_start < until]
    klines = {each.ts_start: each for each in within if isinstance(each, RestKline)}
    return [
        *(each for each in within if isinstance(each, BadKline)),
        *(klines[ts] for ts in sorted(klines)),
    ]


def heals(
    klines: Sequence[RestKline], feed: str, business: str, connection: str, now_us: int
) -> list[Output]:
    """Return the heal records of final klines; `now_us` is when REST answered, microseconds UTC."""
    return [
        ControlPublication(
            RAW_TRADE, kline.symbol, None, _heal(kline, feed, business, connection, now_us)
        )
        for kline in klines
    ]


def raw_klines(
    klines: Sequence[RestKline],
    feed: str,
    business: str,
    connection: str,
    sequence: int,
    now_us: int,
) -> list[Output]:
    """Return the raw records of klines, numbered from `sequence` on."""
    return [
        Publication(
            RAW_KLINE,
            kline.symbol,
            RawKlineRecord(
                symbol=kline.symbol,
                interval=kline.interval,
                ts_start=kline.ts_start,
                open=kline.open,
                high=kline.high,
                low=kline.low,
                close=kline.close,
                volume=kline.volume,
                turnover=kline.turnover,
                change=kline.change,
                change_percent=kline.change_percent,
                business=business,
                feed=feed,
                connection=connection,
                sequence=sequence + number,
                ts_recv=now_us,
                source="rest",
                extra=None,
            ),
        )
        for number, kline in enumerate(klines)
    ]


def publish_klines(
    sink: Sink,
    counters: FeedCounters,
    page: Page,
    feed: str,
    business: str,
    connection: str,
    now_us: int,
) -> None:
    """Publish klines and then their heals, unreadable ones as dead letters, counted as received;
    `now_us` as in `heals`.

    Raises PublishError.
    """
    klines = [each for each in page if isinstance(each, RestKline)]
    letters: list[Output] = [
        Publication(
            DEAD_LETTER,
            bad.symbol,
            DeadLetterRecord(
                source_topic="",
                source_partition=None,
                source_offset=None,
                key=None,
                value=bad.data[:MAX_FRAME],
                error_class="BadKline",
                error_text=bad.reason,
                feed=feed,
                connection=connection,
                ts_recv=now_us,
                source="rest",
            ),
        )
        for bad in page
        if isinstance(bad, BadKline) and bad.data is not None
    ]
    records = raw_klines(klines, feed, business, connection, counters.received + 1, now_us)
    counters.received += len(klines) + len(letters)
    counters.klines += len(klines)
    counters.unreadable += len(letters)
    sink.publish([*records, *heals(klines, feed, business, connection, now_us), *letters], counters)


def named(bad: Sequence[BadKline]) -> str:
    """Return in one line which klines cannot be read, and why the first of them."""
    first = bad[0]
    if first.data is None:
        return f"a page of klines ({first.reason})"
    when = "without a time" if first.ts_start is None else f"of {shown(first.ts_start)}"
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"the {first.interval} kline {when} ({first.reason}){more}"


def shown(ms: int) -> str:
    """Return a time in ms UTC as text."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms // 1000))


def _heal(kline: RestKline, feed: str, business: str, connection: str, now_us: int) -> Control:
    names = ("interval", "ts_start", "open", "high", "low", "close", "volume", "turnover")
    text = orjson.dumps({name: getattr(kline, name) for name in names}).decode()
    end = kline.ts_start + KLINE_LENGTHS[kline.interval]
    return Control("heal", feed, business, connection, "rest", end, now_us, kline=text)
