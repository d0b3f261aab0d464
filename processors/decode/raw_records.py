"""From a decoded raw record to a Trade, a Book, a Kline or a Heal, refusing what no figure may be built on; no bytes, no Kafka."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from processors.records import BarRevision, Book, Heal, Kline, Trade
from schemas.control import KLINE_LENGTHS, Control
from schemas.decimals import LIMIT, SCALE, UNIT, NotADecimal, to_units

MAX_FUTURE_MS = 60_000
"""How far ahead of its receipt an event time may lie: more would drag the watermark along."""

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


def trade_of(offset: int, raw: Mapping[str, Any], max_future_ms: int = MAX_FUTURE_MS) -> Trade:
    """Return the trade of a raw record (physical values of `raw_trade.avsc`); raises Undecodable."""
    symbol, event, received, direction = (
        raw["symbol"],
        raw["ts_event"],
        raw["ts_recv"],
        raw["direction"],
    )
    try:
        price = _units(raw["price"])
        volume = _units(raw["volume"])
    except NotADecimal as error:
        raise Undecodable(symbol, "price or volume", error.text, error.reason) from error
    if volume < 0:
        raise Undecodable(symbol, "volume", raw["volume"], "is negative")
    if price <= 0 and raw["business"] != "common":
        raise Undecodable(symbol, "price", raw["price"], "is not above 0")
    if not -_MOST_TURNOVER < price * volume < _MOST_TURNOVER:
        raise Undecodable(
            symbol,
            "price x volume",
            f"{raw['price']} x {raw['volume']}",
            "does not fit decimal(38,18)",
        )
    if direction not in (0, 1, 2):
        raise Undecodable(symbol, "direction", direction, "is none of 0, 1, 2")
    if not 0 < event <= received // 1000 + max_future_ms:
        raise _wrong_time(symbol, event, received, max_future_ms)
    return Trade(
        offset,
        symbol,
        event,
        price,
        volume,
        direction,
        raw["trade_type"],
        raw["repeat"],
        raw["business"],
        raw["feed"],
        raw["connection"],
        received,
        raw["source"],
    )


def book_of(offset: int, raw: Mapping[str, Any], max_future_ms: int = MAX_FUTURE_MS) -> Book:
    """Return the book of a raw record (physical values of `raw_depth.avsc`); raises Undecodable.

    A side may be short, empty, unsorted or padded with zeros: what that means is for the computation to say.
    """
    symbol, event, received = raw["symbol"], raw["ts_event"], raw["ts_recv"]
    if not 0 < event <= received // 1000 + max_future_ms:
        raise _wrong_time(symbol, event, received, max_future_ms)
    asks = _side(symbol, "ask", raw["ask_prices"], raw["ask_volumes"])
    bids = _side(symbol, "bid", raw["bid_prices"], raw["bid_volumes"])
    return Book(
        offset,
        symbol,
        event,
        asks,
        bids,
        raw["business"],
        raw["feed"],
        raw["connection"],
        received,
        raw["source"],
    )


def kline_of(offset: int, raw: Mapping[str, Any]) -> Kline:
    """Return the kline of a raw record (physical values of `raw_kline.avsc`); raises Undecodable."""
    symbol = raw["symbol"]
    prices, volume, turnover = _kline_figures(symbol, raw)
    return Kline(
        offset,
        symbol,
        raw["interval"],
        raw["ts_start"],
        prices,
        volume,
        turnover,
        UNIT // 10 ** min(len(raw["turnover"].partition(".")[2]), SCALE),
        raw["business"],
        raw["feed"],
        raw["connection"],
        raw["ts_recv"],
        raw["source"],
    )


def heal_of(offset: int, symbol: str | None, control: Control) -> Heal:
    """Return the heal of a control record whose `kline` is JSON as Control says; raises Undecodable."""
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
    if not sound:
        raise Undecodable(
            name,
            "kline",
            control.kline,
            f"is no kline of {', '.join(KLINE_LENGTHS)} with a key: it heals nothing",
        )
    prices, volume, turnover = _kline_figures(name, kline)
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


def bar_revision_of(offset: int, record: Mapping[str, Any]) -> BarRevision:
    """Return the bar of a record of ours (physical values of `bar.avsc`)."""
    return BarRevision(
        offset,
        record["symbol"],
        record["interval"],
        record["ts_start"],
        record["ts_end"],
        (record["open"], record["high"], record["low"], record["close"]),
        record["volume"],
        record["turnover"],
        record["revision"],
        record["is_closed"] and record["provenance"] == "trades",
        record["completeness"],
        record["source"],
        record["ts_recv"],
    )


def turnover_mismatch(raw: Mapping[str, Any], trade: Trade) -> bool:
    """Return whether the vendor's turnover is there and is not price x volume exactly."""
    text = raw["turnover"]
    if text is None:
        return False
    try:
        turnover: int = to_units(text) * UNIT
    except NotADecimal:
        return True
    return turnover != trade.price * trade.volume


def _kline_figures(
    symbol: str, kline: Mapping[str, Any]
) -> tuple[tuple[int, int, int, int], int, int]:
    try:
        opened, high, low, close, volume, turnover = (
            _units(kline[name]) for name in _KLINE_FIGURES
        )
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


def _wrong_time(symbol: str, event: int, received: int, max_future_ms: int) -> Undecodable:
    if event <= 0:
        return Undecodable(symbol, "ts_event", event, "is no time after 1970")
    return Undecodable(
        symbol,
        "ts_event",
        event,
        f"is more than {max_future_ms} ms ahead of its receipt at {received // 1000}",
    )
