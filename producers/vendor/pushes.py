"""Reads the `data` of a push into the fields of its raw schema, or says what is wrong with it; no codes, no state.

Numbers stay the vendor's text. Where orjson met a JSON number with a point it has made a float of it, which may not be
what was written: `Inexact` then asks for a document parsed with `parse_exactly`.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from producers.codes import INTERVALS, Channel
from schemas.decimals import NotADecimal, to_units

_KNOWN = {
    Channel.TRADE: frozenset(("s", "t", "p", "v", "vw", "td", "ty")),
    Channel.DEPTH: frozenset(("s", "t", "a", "b")),
    Channel.KLINE: frozenset(("s", "t", "o", "h", "l", "c", "v", "vw", "pca", "pfr", "ty")),
}
_ENVELOPE = frozenset(("code", "data"))
# possessive: nothing here can match in another way, and remembering places to go back to is most of the cost
_PLAIN_NUMBERS = re.compile(
    r"-?[0-9]{1,20}+(?:\.[0-9]{1,18}+)?+(?:,-?[0-9]{1,20}+(?:\.[0-9]{1,18}+)?+)*+", re.ASCII
)
_DIGITS_OF_INT64 = 18

Json = dict[str, Any]


class UnreadableFrame(ValueError):
    """A frame that cannot be understood; `symbol` where it could be read."""

    symbol: str | None = None


class BadField(UnreadableFrame):
    """A field that is missing or is not what it has to be."""


class AheadOfReceipt(UnreadableFrame):
    """A time further ahead of the frame's receipt than clocks can differ."""


class TooDeep(UnreadableFrame):
    """JSON nested deeper than it can be shown or kept."""

    def __init__(self) -> None:
        super().__init__("JSON nested too deep")


class Inexact(Exception):
    """A place was met where orjson may have rounded a number."""


class Push(NamedTuple):
    """A trade, book or kline: its fields in the order of the raw schema, as far as the vendor gives them.

    trade  symbol, ts_event, price, volume, turnover, direction, trade_type
    depth  symbol, ts_event, ask_prices, ask_volumes, bid_prices, bid_volumes
    kline  symbol, interval, ts_start, open, high, low, close, volume, turnover, change, change_percent
    extra  JSON object of the fields that the schema does not know, keys sorted
    """

    channel: Channel
    symbol: str
    fields: tuple[Any, ...]
    extra: str | None


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def read_push(channel: Channel, document: Json, latest: int, exact: bool) -> Push:
    """Return the push of a frame's document; raises UnreadableFrame, and Inexact where `exact` is false.

    latest  ms UTC: the greatest time that a record may bear
    exact   whether the document comes from `parse_exactly`
    """
    data = document.get("data")
    if type(data) is not dict:
        raise BadField(f"data is {_shown(data)}: expected an object")
    symbol = data.get("s")
    if type(symbol) is not str or not symbol:
        raise BadField(f"s is {_shown(symbol)}: expected a symbol")
    try:
        fields = _READERS[channel](symbol, data, latest, exact)
        return Push(channel, symbol, fields, _extra(document, data, _KNOWN[channel], exact))
    except UnreadableFrame as error:
        error.symbol = symbol
        raise
    except RecursionError:
        deep = TooDeep()
        deep.symbol = symbol
        raise deep from None


def parse_exactly(data: bytes) -> Json:
    """Return the JSON object of a frame with its numbers as they were written; the bytes have passed orjson.

    Raises RecursionError where it is nested deeper than `json` can read.
    """
    document: Json = json.loads(data, parse_float=_Number, parse_int=_exact_integer)
    return document


def _exact_integer(text: str) -> int | _Number:
    return int(text) if len(text) <= _DIGITS_OF_INT64 and text != "-0" else _Number(text)


def _read_trade(symbol: str, data: Json, latest: int, exact: bool) -> tuple[Any, ...]:
    ts_event = _time(data, 1, latest)
    price, _ = _decimal(data.get("p"), "p")
    volume, units = _decimal(data.get("v"), "v")
    if units < 0:
        raise BadField(f"v is {volume!r}: a volume cannot be negative")
    direction = data.get("td")
    if type(direction) is not int or direction not in (0, 1, 2):
        raise BadField(f"td is {_shown(direction)}: expected 0, 1 or 2")
    return (
        symbol,
        ts_event,
        price,
        volume,
        _optional(data, "vw", exact),
        direction,
        _optional(data, "ty", exact),
    )


def _read_depth(symbol: str, data: Json, latest: int, exact: bool) -> tuple[Any, ...]:
    return symbol, _time(data, 1, latest), *_side(data, "a"), *_side(data, "b")


def _read_kline(symbol: str, data: Json, latest: int, exact: bool) -> tuple[Any, ...]:
    interval = INTERVALS.get(_whole(data, "ty"))
    if interval is None:
        raise BadField(f"ty is {_shown(data['ty'])}: expected a kline type of 1 to 12")
    ts_start = _time(data, 1000, latest)
    numbers = [_decimal(data.get(name), name)[0] for name in ("o", "h", "l", "c", "v", "vw")]
    return (
        symbol,
        interval,
        ts_start,
        *numbers,
        _optional(data, "pca", exact),
        _optional(data, "pfr", exact),
    )


_READERS: dict[Channel, Callable[[str, Json, int, bool], tuple[Any, ...]]] = {
    Channel.TRADE: _read_trade,
    Channel.DEPTH: _read_depth,
    Channel.KLINE: _read_kline,
}


def _time(data: Json, milliseconds: int, latest: int) -> int:
    time = _whole(data, "t") * milliseconds
    if time <= 0:
        raise BadField(f"t is {_shown(data['t'])}: expected a time after 1970")
    if time > latest:
        raise AheadOfReceipt(
            f"t is {_shown(data['t'])}, {time - latest} ms beyond what the time of receipt allows"
        )
    return time


def _whole(data: Json, name: str) -> int:
    value = data.get(name)
    if type(value) is int:
        return value
    # REST writes the same times as strings
    if (
        type(value) is str
        and value.isascii()
        and value.isdigit()
        and len(value) <= _DIGITS_OF_INT64
    ):
        return int(value)
    raise BadField(f"{name} is {_shown(value)}: expected an integer")


def _decimal(value: Any, name: str) -> tuple[str, int]:
    text = _written(value)
    if text is None:
        raise BadField(f"{name} is {_shown(value)}: expected a decimal number")
    try:
        return text, to_units(text)
    except NotADecimal as error:
        raise BadField(f"{name}: {error}") from error


def _side(data: Json, name: str) -> tuple[list[str], list[str]]:
    side = data.get(name, False)
    if side is None or side == []:
        return [], []
    if type(side) is not list or len(side) != 2:
        raise BadField(f"{name} is {_shown(side or None)}: expected [[prices], [sizes]] or null")
    prices, sizes = ([] if column is None else column for column in side)
    if type(prices) is not list or type(sizes) is not list or len(prices) != len(sizes):
        raise BadField(f"{name} is {_shown(side)}: expected as many prices as sizes")
    return _column(prices, name), _column(sizes, name)


def _column(values: list[Any], name: str) -> list[str]:
    try:
        joined = ",".join(values)
    except TypeError:
        return [_decimal(value, name)[0] for value in values]
    # one match for the whole column: to_units for 40 numbers costs more than the rest of the frame
    if _PLAIN_NUMBERS.fullmatch(joined) and joined.count(",") == len(values) - 1:
        return values
    return [_decimal(value, name)[0] for value in values]


def _optional(data: Json, name: str, exact: bool) -> str | None:
    value = data.get(name)
    if value is None or type(value) is str:
        return value
    written = _written(value)
    if written is not None:
        return written
    if not exact:
        raise Inexact
    return _json(value, name)


def _written(value: Any) -> str | None:
    """Return a string or a JSON number as the vendor wrote it; None for what is neither."""
    if type(value) is str:
        return value
    if type(value) is float:
        raise Inexact
    return str(value) if type(value) in (int, _Number) else None


def _extra(document: Json, data: Json, known: frozenset[str], exact: bool) -> str | None:
    if data.keys() <= known and document.keys() <= _ENVELOPE:
        return None
    if not exact:
        raise Inexact
    inner = {name: value for name, value in data.items() if name not in known}
    outer = {name: value for name, value in document.items() if name not in _ENVELOPE}
    twice = inner.keys() & outer.keys()
    if twice:
        raise BadField(f"unknown fields both beside and in data: {', '.join(sorted(twice))}")
    return _json({**outer, **inner}, "extra")


def _json(value: Any, name: str) -> str:
    try:
        text = orjson.dumps(
            value,
            default=_as_written,
            option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS,
        )
    except orjson.JSONEncodeError as error:
        raise BadField(f"{name} cannot be kept as JSON: {error}") from error
    return text.decode()


def _as_written(number: _Number) -> orjson.Fragment:
    return orjson.Fragment(str(number))


def _shown(value: Any) -> str:
    return "missing or null" if value is None else repr(value)[:60]
