"""Reads the `data` of a push under the names of its raw schema, or says what is wrong with it.

Numbers stay the vendor's text.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from producers.vendor.codes import INTERVALS, Channel
from producers.vendor.exact_json import (
    BadField,
    Inexact,
    Json,
    TooDeep,
    UnreadableFrame,
    as_json,
    decimal_text,
    optional_text,
    shown,
    whole_number,
    written,
)
from schemas.times import EARLIEST_MS

MAX_SYMBOL = 64
"""Characters of a symbol: it is a key of every state, and is twice in a record."""
_KNOWN = {
    Channel.TRADE: frozenset(("s", "t", "p", "v", "vw", "td", "ty")),
    Channel.DEPTH: frozenset(("s", "t", "a", "b")),
    Channel.KLINE: frozenset(("s", "t", "o", "h", "l", "c", "v", "vw", "pca", "pfr", "ty")),
}
_ENVELOPE = frozenset(("code", "data"))
# possessive: nothing here can match in another way, and remembering places to go back to is most of
# the cost
_PLAIN_NUMBERS = re.compile(
    r"-?[0-9]{1,20}+(?:\.[0-9]{1,18}+)?+(?:,-?[0-9]{1,20}+(?:\.[0-9]{1,18}+)?+)*+", re.ASCII
)
_DECIMAL = re.compile(r"-?[0-9]++(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]{1,3}+)?+", re.ASCII)


class AheadOfReceipt(UnreadableFrame):
    """A time further ahead of the frame's receipt than clocks can differ."""


class TradePush(NamedTuple):
    """What the vendor says of a trade, under the names of the raw schema."""

    symbol: str
    ts_event: int
    price: str
    volume: str
    turnover: str | None
    direction: int
    trade_type: str | None
    extra: str | None
    """JSON object of the fields that the schema does not know, keys sorted."""
    side_unknown: bool = False
    """Whether the side is missing or cannot be read: the direction is 0 then."""


class DepthPush(NamedTuple):
    """What the vendor says of a book, under the names of the raw schema."""

    symbol: str
    ts_event: int
    ask_prices: list[str]
    ask_volumes: list[str]
    bid_prices: list[str]
    bid_volumes: list[str]
    extra: str | None


class KlinePush(NamedTuple):
    """What the vendor says of a kline, under the names of the raw schema."""

    symbol: str
    interval: str
    ts_start: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    turnover: str
    change: str | None
    change_percent: str | None
    extra: str | None


Push = TradePush | DepthPush | KlinePush
PUSHES = (TradePush, DepthPush, KlinePush)
"""The same for `isinstance`, which takes three times as long for a union."""


def read_push(channel: Channel, document: Json, latest: int, exact: bool) -> Push:
    """Return the push of a frame's document; raises UnreadableFrame, and Inexact where `exact` is
    false.

    latest  ms UTC: the greatest time that a record may have
    exact   whether the document comes from `parse_exactly`
    """
    data = document.get("data")
    if type(data) is not dict:
        raise BadField(f"data is {shown(data)}: expected an object")
    symbol = data.get("s")
    if type(symbol) is not str or not 0 < len(symbol) <= MAX_SYMBOL:
        raise BadField(f"s is {shown(symbol)}: expected a symbol of up to {MAX_SYMBOL} characters")
    try:
        return _READERS[channel](symbol, document, data, latest, exact)
    except UnreadableFrame as error:
        error.symbol = symbol
        raise
    except RecursionError:
        deep = TooDeep()
        deep.symbol = symbol
        raise deep from None


# Prices and volumes are parsed here and their numbers thrown away: a frame whose numbers cannot be
# read has to become a dead letter, and the raw record keeps the vendor's text.
def _read_trade(symbol: str, document: Json, data: Json, latest: int, exact: bool) -> TradePush:
    ts_event = _time(data, 1, latest)
    price, _ = decimal_text(data.get("p"), "p")
    volume, units = decimal_text(data.get("v"), "v")
    if units < 0:
        raise BadField(f"v is {volume!r}: a volume cannot be negative")
    # no attribute that may be unknown decides whether there was a trade
    direction, turnover = _direction(data.get("td")), written(data.get("vw"))
    if turnover is not None and _DECIMAL.fullmatch(turnover) is None:
        turnover = None
    unread: tuple[str, ...] = ("td",) if direction is None and "td" in data else ()
    if turnover is None and data.get("vw") is not None:
        unread += ("vw",)
    return TradePush(
        symbol,
        ts_event,
        price,
        volume,
        turnover,
        direction or 0,
        optional_text(data, "ty", exact),
        _extra(document, data, _KNOWN[Channel.TRADE], unread, exact),
        direction is None,
    )


def _direction(value: Any) -> int | None:
    number = value if type(value) is int else whole_number(value)
    return number if number in (0, 1, 2) else None


def _read_depth(symbol: str, document: Json, data: Json, latest: int, exact: bool) -> DepthPush:
    ts_event = _time(data, 1, latest)
    a, b = data.get("a", False), data.get("b", False)
    ask_prices, ask_volumes = _side(a, "a")
    bid_prices, bid_volumes = _side(b, "b")
    # what the vendor adds to prices and sizes, as counts of orders, stops no book
    kept = tuple(name for name, side in (("a", a), ("b", b)) if side and len(side) > 2)
    for name in kept:
        # not all of it: prices and sizes twice could be more than a record can hold
        data[name] = data[name][2:]
    extra = _extra(document, data, _KNOWN[Channel.DEPTH], kept, exact)
    return DepthPush(symbol, ts_event, ask_prices, ask_volumes, bid_prices, bid_volumes, extra)


def _read_kline(symbol: str, document: Json, data: Json, latest: int, exact: bool) -> KlinePush:
    interval = INTERVALS.get(_whole(data, "ty"))
    if interval is None:
        raise BadField(f"ty is {shown(data['ty'])}: expected a kline type of 1 to 12")
    ts_start = _time(data, 1000, latest)
    return KlinePush(
        symbol=symbol,
        interval=interval,
        ts_start=ts_start,
        open=_decimal(data, "o"),
        high=_decimal(data, "h"),
        low=_decimal(data, "l"),
        close=_decimal(data, "c"),
        volume=_decimal(data, "v"),
        turnover=_decimal(data, "vw"),
        change=optional_text(data, "pca", exact),
        change_percent=optional_text(data, "pfr", exact),
        extra=_extra(document, data, _KNOWN[Channel.KLINE], (), exact),
    )


_READERS: dict[Channel, Callable[[str, Json, Json, int, bool], Push]] = {
    Channel.TRADE: _read_trade,
    Channel.DEPTH: _read_depth,
    Channel.KLINE: _read_kline,
}


def _time(data: Json, milliseconds: int, latest: int) -> int:
    time = _whole(data, "t") * milliseconds
    if time < EARLIEST_MS:
        unit = "milliseconds" if milliseconds == 1 else "seconds"
        raise BadField(
            f"t is {shown(data['t'])}: expected {unit} since 1970, of the year 2000 or later"
        )
    if time > latest:
        raise AheadOfReceipt(
            f"t is {shown(data['t'])}, {time - latest} ms beyond what the time of receipt allows"
        )
    return time


def _whole(data: Json, name: str) -> int:
    value = data.get(name)
    number = whole_number(value)
    if number is None:
        raise BadField(f"{name} is {shown(value)}: expected an integer")
    return number


def _decimal(data: Json, name: str) -> str:
    return decimal_text(data.get(name), name)[0]


def _side(side: Any, name: str) -> tuple[list[str], list[str]]:
    if side is None or side == []:
        return [], []
    if type(side) is not list or len(side) < 2:
        found = "missing" if side is False else shown(side)
        raise BadField(f"{name} is {found}: expected [[prices], [sizes]] or null")
    prices, sizes = ([] if column is None else column for column in side[:2])
    if type(prices) is not list or type(sizes) is not list or len(prices) != len(sizes):
        raise BadField(f"{name} is {shown(side)}: expected as many prices as sizes")
    return _column(prices, name), _column(sizes, name)


def _column(values: list[Any], name: str) -> list[str]:
    try:
        joined = ",".join(values)
    except TypeError:
        return [decimal_text(value, name)[0] for value in values]
    # one match for the whole column: to_units for 40 numbers costs more than the rest of the frame
    if _PLAIN_NUMBERS.fullmatch(joined) and joined.count(",") == len(values) - 1:
        return values
    return [decimal_text(value, name)[0] for value in values]


def _extra(
    document: Json, data: Json, known: frozenset[str], unread: tuple[str, ...], exact: bool
) -> str | None:
    if not unread and data.keys() <= known and document.keys() <= _ENVELOPE:
        return None
    if not exact:
        raise Inexact
    extra = {name: value for name, value in data.items() if name not in known or name in unread}
    names = known | data.keys() | document.keys()
    for name, value in document.items():
        if name not in _ENVELOPE:
            # beside and inside `data`: both are kept
            key = f"frame.{name}" if name in known or name in data else name
            while key != name and (key in names or key in extra):
                key = f"frame.{key}"
            extra[key] = value
    return as_json(extra, "extra")
