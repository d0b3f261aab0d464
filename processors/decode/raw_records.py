"""From a decoded raw record to a Trade, a Book, a Kline or a Heal, refusing what no figure may be
built on; no bytes, no Kafka."""

from collections.abc import Sequence
from functools import lru_cache

import orjson

from processors.model.records import BarRevision, Book, Heal, Kline, Trade
from schemas.control import KLINE_LENGTHS, LATEST_MS, Control
from schemas.decimals import LIMIT, SCALE, UNIT, NotADecimal, to_units
from schemas.records import BarRecord, RawDepthRecord, RawKlineRecord, RawTradeRecord
from schemas.times import EARLIEST_MS, MAX_FUTURE_MS

MOST_NAMES = 1_000
"""Characters of a record's symbol and of what names its origin: those of the producer's have
150."""
MOST_TRADE_TYPE = 200_000
"""Characters of a trade's type, which stands in `infoway.late`: of more a record there could be too
large."""

_KLINE_FIGURES = ("open", "high", "low", "close", "volume", "turnover")
_MOST_TURNOVER = (LIMIT - 1) * UNIT

# prices and sizes repeat: a hit costs 0.1 us, the parsing 1
_units = lru_cache(maxsize=1 << 15)(to_units)


class Undecodable(ValueError):
    """A raw record that no figure may be built on: a field of it is wrong."""

    def __init__(self, symbol: str, field: str, value: object, reason: str) -> None:
        super().__init__(f"{symbol}: {field}={str(value)[:60]!r} {reason}")
        self.symbol = symbol
        self.field = field
        self.value = value


def trade_of(offset: int, raw: RawTradeRecord, max_future_ms: int = MAX_FUTURE_MS) -> Trade:
    """Return the trade of a raw record; raises Undecodable."""
    symbol, event, received, direction = raw.symbol, raw.ts_event, raw.ts_recv, raw.direction
    try:
        price = _units(raw.price)
        volume = _units(raw.volume)
    except NotADecimal as error:
        raise Undecodable(symbol, "price or volume", error.text, error.reason) from error
    if volume < 0:
        raise Undecodable(symbol, "volume", raw.volume, "is negative")
    if price <= 0 and raw.business != "common":
        raise Undecodable(symbol, "price", raw.price, "is not above 0")
    if not -_MOST_TURNOVER < price * volume < _MOST_TURNOVER:
        raise Undecodable(
            symbol,
            "price x volume",
            f"{raw.price} x {raw.volume}",
            "does not fit decimal(38,18)",
        )
    if direction not in (0, 1, 2):
        raise Undecodable(symbol, "direction", direction, "is none of 0, 1, 2")
    _check_names(symbol, raw.business, raw.feed, raw.connection, raw.source)
    if raw.trade_type is not None and len(raw.trade_type) > MOST_TRADE_TYPE:
        raise Undecodable(
            symbol, "trade_type", raw.trade_type, f"has more than {MOST_TRADE_TYPE} characters"
        )
    _check_time(symbol, event, received, max_future_ms)
    return Trade(
        offset,
        symbol,
        event,
        price,
        volume,
        direction,
        raw.trade_type,
        raw.repeat,
        raw.business,
        raw.feed,
        raw.connection,
        received,
        raw.source,
    )


def book_of(offset: int, raw: RawDepthRecord, max_future_ms: int = MAX_FUTURE_MS) -> Book:
    """Return the book of a raw record; raises Undecodable.

    A side may be short, empty, unsorted or padded with zeros: what that means is for the
    computation to say.
    """
    symbol, event, received = raw.symbol, raw.ts_event, raw.ts_recv
    _check_names(symbol, raw.business, raw.feed, raw.connection, raw.source)
    _check_time(symbol, event, received, max_future_ms)
    asks = _side(symbol, "ask", raw.ask_prices, raw.ask_volumes)
    bids = _side(symbol, "bid", raw.bid_prices, raw.bid_volumes)
    return Book(
        offset,
        symbol,
        event,
        asks,
        bids,
        raw.business,
        raw.feed,
        raw.connection,
        received,
        raw.source,
    )


def kline_of(offset: int, raw: RawKlineRecord, max_future_ms: int = MAX_FUTURE_MS) -> Kline:
    """Return the kline of a raw record; raises Undecodable."""
    symbol = raw.symbol
    _check_names(symbol, raw.business, raw.feed, raw.connection, raw.source)
    _check_time(symbol, raw.ts_start, raw.ts_recv, max_future_ms)
    texts = (raw.open, raw.high, raw.low, raw.close, raw.volume, raw.turnover)
    prices, volume, turnover = _kline_figures(symbol, texts)
    return Kline(
        offset,
        symbol,
        raw.interval,
        raw.ts_start,
        prices,
        volume,
        turnover,
        UNIT // 10 ** min(len(raw.turnover.partition(".")[2]), SCALE),
        raw.business,
        raw.feed,
        raw.connection,
        raw.ts_recv,
        raw.source,
    )


def check_control(symbol: str | None, control: Control, max_future_ms: int = MAX_FUTURE_MS) -> None:
    """Raise Undecodable where a control record's time is further ahead of its receipt than any
    trade's may be.

    A mark would drag the watermark there, and every trade from then on would be too late.
    """
    name = symbol or "(no key)"
    if control.ts > control.ts_recv // 1000 + max_future_ms:
        raise Undecodable(
            name,
            f"ts of a {control.kind}",
            control.ts,
            f"is more than {max_future_ms} ms ahead of its receipt at {control.ts_recv // 1000}",
        )
    _check_names(name, control.business, control.feed, control.connection, control.source)


def heal_of(offset: int, symbol: str | None, control: Control) -> Heal:
    """Return the heal of a control record whose `kline` is JSON as Control says; raises
    Undecodable."""
    name = symbol or "(no key)"
    try:
        kline = orjson.loads(control.kline or "")
        interval, start = kline["interval"], kline["ts_start"]
        length = None if symbol is None else KLINE_LENGTHS.get(interval)
        texts = all(type(kline[name]) is str for name in _KLINE_FIGURES)
        sound = (
            length is not None
            and type(start) is int
            and start > 0
            and start % length == 0
            and texts
        )
    except (orjson.JSONDecodeError, KeyError, TypeError):
        sound = False
    if sound and start > control.ts_recv // 1000 + MAX_FUTURE_MS:
        raise Undecodable(
            name, "kline", control.kline, f"begins after its receipt at {control.ts_recv // 1000}"
        )
    _check_names(name, control.business, control.feed, control.connection, control.source)
    if not sound:
        raise Undecodable(
            name,
            "kline",
            control.kline,
            f"is no kline of {', '.join(KLINE_LENGTHS)} with a key: it heals nothing",
        )
    prices, volume, turnover = _kline_figures(name, [kline[figure] for figure in _KLINE_FIGURES])
    opened, high, low, close = prices
    if volume < 0 or not low <= min(opened, close) <= max(opened, close) <= high:
        raise Undecodable(
            name, "kline", control.kline, "has a negative volume, or a price beyond its high or low"
        )
    end = start + KLINE_LENGTHS[interval]
    return Heal(
        offset,
        name,
        interval,
        start,
        end,
        prices,
        volume,
        turnover,
        control.business,
        control.ts_recv,
    )


def bar_revision_of(offset: int, record: BarRecord, interval: str | None = None) -> BarRevision:
    """Return the bar of a record of the interval's topic; raises Undecodable."""
    if interval is not None and record.interval != interval:
        raise Undecodable(
            record.symbol,
            "interval",
            record.interval,
            f"is not that of its topic, {interval}",
        )
    if not 0 <= record.ts_start < record.ts_end < LATEST_MS:
        raise Undecodable(
            record.symbol,
            "ts_start, ts_end",
            f"{record.ts_start}, {record.ts_end}",
            "are no period",
        )
    return BarRevision(
        offset,
        record.symbol,
        record.interval,
        record.ts_start,
        record.ts_end,
        (record.open, record.high, record.low, record.close),
        record.volume,
        record.turnover,
        record.revision,
        record.is_closed and record.provenance == "trades",
        record.completeness,
        record.source,
        record.ts_recv,
    )


def turnover_mismatch(raw: RawTradeRecord, trade: Trade) -> bool:
    """Return whether the vendor's turnover is there and is not price x volume exactly."""
    text = raw.turnover
    if text is None:
        return False
    try:
        turnover: int = to_units(text) * UNIT
    except NotADecimal:
        return True
    return turnover != trade.price * trade.volume


def _kline_figures(symbol: str, texts: Sequence[str]) -> tuple[tuple[int, int, int, int], int, int]:
    try:
        opened, high, low, close, volume, turnover = map(_units, texts)
    except NotADecimal as error:
        raise Undecodable(symbol, "a number of the kline", error.text, error.reason) from error
    return (opened, high, low, close), volume, turnover


def _side(symbol: str, side: str, prices: list[str], sizes: list[str]) -> list[tuple[int, int]]:
    if len(prices) != len(sizes):
        raise Undecodable(symbol, f"{side}_prices", len(prices), f"levels, but {len(sizes)} sizes")
    try:
        return list(zip(map(_units, prices), map(_units, sizes), strict=True))
    except NotADecimal as error:
        raise Undecodable(symbol, f"{side}s", error.text, error.reason) from error


def _check_names(symbol: str, *names: str) -> None:
    # they stand in every state and row: a record of them alone could be larger than any that the
    # broker takes
    if len(symbol) + sum(map(len, names)) > MOST_NAMES:
        raise Undecodable(
            symbol[:60],
            "symbol, business, feed, connection, source",
            symbol,
            f"have more than {MOST_NAMES} characters",
        )


def _check_time(symbol: str, event: int, received: int, max_future_ms: int) -> None:
    if event < EARLIEST_MS:
        raise Undecodable(
            symbol, "ts_event", event, "is no time of the year 2000 or later, in milliseconds"
        )
    if received // 1000 + max_future_ms >= LATEST_MS:
        raise Undecodable(symbol, "ts_recv", received, "is no time before the year 10000")
    if event > received // 1000 + max_future_ms:
        raise Undecodable(
            symbol,
            "ts_event",
            event,
            f"is more than {max_future_ms} ms ahead of its receipt at {received // 1000}",
        )
