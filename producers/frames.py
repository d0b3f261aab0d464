"""Reads one frame of the vendor's into a value, or says why it cannot be understood; no state, no sending.

Numbers stay the vendor's text. orjson turns a JSON number such as 98.150 into a float, so a frame with one in a place
that matters (or with fields unknown here) is parsed a second time with its numbers kept as they were written.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from producers.codes import HEARTBEAT, INTERVALS, SUBSCRIBE_FAIL, UNSUBSCRIBED, WELCOME, Channel, is_error
from schemas.decimals import NotADecimal, to_units

MAX_FRAME = 512 * 1024
"""Bytes; the vendor's frames have under 3 KB, a Kafka record must stay under 1 MB."""

_KNOWN = {
    Channel.TRADE: frozenset(("s", "t", "p", "v", "vw", "td", "ty")),
    Channel.DEPTH: frozenset(("s", "t", "a", "b")),
    Channel.KLINE: frozenset(("s", "t", "o", "h", "l", "c", "v", "vw", "pca", "pfr", "ty")),
}
_ENVELOPE = frozenset(("code", "data"))
_CHANNEL_OF_PUSH = {channel.push: channel for channel in Channel}
_CHANNEL_OF_ACK = {channel.ack: channel for channel in Channel}
_PLAIN_NUMBERS = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,18})?(?:,-?[0-9]{1,20}(?:\.[0-9]{1,18})?)*", re.ASCII)
_LONGEST_INT64 = 18

Json = dict[str, Any]


class UnreadableFrame(ValueError):
    """A frame that cannot be understood; `symbol` where it could be read."""

    symbol: str | None = None


class NotJson(UnreadableFrame):
    """No JSON object, and no text of the vendor's that is known."""


class TooLong(UnreadableFrame):
    """More bytes than any frame of the vendor's can have."""


class UnknownCode(UnreadableFrame):
    """A JSON object whose `code` says nothing."""


class BadField(UnreadableFrame):
    """A field that is missing or is not what it has to be."""


class AheadOfReceipt(UnreadableFrame):
    """A time further ahead of the frame's receipt than clocks can differ."""


@dataclass(frozen=True, slots=True)
class Push:
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


@dataclass(frozen=True, slots=True)
class Ack:
    """The vendor took a subscription of a channel; it says nothing of the symbols in it."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class Notice:
    """A frame that asks for nothing: a welcome, the ack of an unsubscription."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error frame, or a `Subscribe fail:` text (code None where it is prose); `trace` is that of the request, if said."""

    code: int | None
    text: str
    trace: str | None


Frame = Push | Ack | Notice | Refusal


class _Inexact(Exception):
    """A number met that orjson may have rounded."""


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def read_frame(data: bytes, latest: int, greeting: bool) -> Frame:
    """Return what a frame says; raises UnreadableFrame.

    latest    ms UTC: the greatest time that a record may bear
    greeting  whether plain text may still be the vendor's greeting: on `stock`, before any JSON
    """
    if len(data) > MAX_FRAME:
        raise TooLong(f"{len(data)} bytes: the longest frame taken has {MAX_FRAME}")
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return _read_text(data, greeting, error)
    if type(document) is not dict:
        raise NotJson(f"a JSON {type(document).__name__} where an object is expected")
    code = document.get("code")
    if type(code) is not int:
        raise UnknownCode(f"code is {_shown(code)}: expected an integer")
    channel = _CHANNEL_OF_PUSH.get(code)
    if channel is not None:
        try:
            return _read_push(channel, document, latest, exact=False)
        except _Inexact:
            return _read_push(channel, _parse_exactly(data), latest, exact=True)
    if code in _CHANNEL_OF_ACK:
        return Ack(_CHANNEL_OF_ACK[code])
    if is_error(code):
        return _refusal(code, document)
    if code in (WELCOME, UNSUBSCRIBED, HEARTBEAT):
        return Notice()
    raise UnknownCode(f"code {code} is not known")


def _read_text(data: bytes, greeting: bool, error: orjson.JSONDecodeError) -> Frame:
    text = data.strip()
    if text.startswith(SUBSCRIBE_FAIL):
        rest = text.removeprefix(SUBSCRIBE_FAIL).strip()
        try:
            document = orjson.loads(rest)
        except orjson.JSONDecodeError:
            return Refusal(None, rest.decode(errors="replace"), None)
        if type(document) is dict and type(document.get("code")) is int:
            return _refusal(document["code"], document)
        return Refusal(None, rest.decode(errors="replace"), None)
    if greeting and text and text.isascii() and text[:1] not in b'{["':
        return Notice()
    raise NotJson(f"not JSON: {error.msg} at {error.pos}")


def _refusal(code: int, document: Json) -> Refusal:
    trace = document.get("trace")
    return Refusal(code, str(document.get("msg") or ""), trace if type(trace) is str else None)


def _parse_exactly(data: bytes) -> Json:
    try:
        document: Json = json.loads(data, parse_float=_Number, parse_int=_exact_integer)
    except RecursionError:
        raise NotJson("JSON nested too deep") from None
    return document


def _exact_integer(text: str) -> int | _Number:
    return int(text) if len(text) <= _LONGEST_INT64 and text != "-0" else _Number(text)


def _read_push(channel: Channel, document: Json, latest: int, exact: bool) -> Push:
    data = document.get("data")
    if type(data) is not dict:
        raise BadField(f"data is {_shown(data)}: expected an object")
    symbol = data.get("s")
    if type(symbol) is not str or not symbol:
        raise BadField(f"s is {_shown(symbol)}: expected a symbol")
    try:
        fields = _READERS[channel](symbol, data, latest)
        extra = _extra(document, data, _KNOWN[channel], exact)
    except UnreadableFrame as error:
        error.symbol = symbol
        raise
    return Push(channel, symbol, fields, extra)


def _read_trade(symbol: str, data: Json, latest: int) -> tuple[Any, ...]:
    ts_event = _time(data, 1, latest)
    price, _ = _number(data, "p")
    volume, units = _number(data, "v")
    if units < 0:
        raise BadField(f"v is {volume!r}: a volume cannot be negative")
    direction = data.get("td")
    if type(direction) is not int or direction not in (0, 1, 2):
        raise BadField(f"td is {_shown(direction)}: expected 0, 1 or 2")
    return symbol, ts_event, price, volume, _optional(data, "vw"), direction, _optional(data, "ty")


def _read_depth(symbol: str, data: Json, latest: int) -> tuple[Any, ...]:
    ts_event = _time(data, 1, latest)
    return symbol, ts_event, *_side(data, "a"), *_side(data, "b")


def _read_kline(symbol: str, data: Json, latest: int) -> tuple[Any, ...]:
    interval = INTERVALS.get(_whole(data, "ty"))
    if interval is None:
        raise BadField(f"ty is {_shown(data['ty'])}: expected a kline type of 1 to 12")
    ts_start = _time(data, 1000, latest)
    numbers = [_number(data, name)[0] for name in ("o", "h", "l", "c", "v", "vw")]
    return symbol, interval, ts_start, *numbers, _optional(data, "pca"), _optional(data, "pfr")


_READERS: dict[Channel, Callable[[str, Json, int], tuple[Any, ...]]] = {
    Channel.TRADE: _read_trade,
    Channel.DEPTH: _read_depth,
    Channel.KLINE: _read_kline,
}


def _time(data: Json, milliseconds: int, latest: int) -> int:
    time = _whole(data, "t") * milliseconds
    if time <= 0:
        raise BadField(f"t is {_shown(data['t'])}: expected a time after 1970")
    if time > latest:
        raise AheadOfReceipt(f"t is {_shown(data['t'])}, {time - latest} ms beyond what the time of receipt allows")
    return time


def _whole(data: Json, name: str) -> int:
    value = data.get(name)
    if type(value) is int:
        return value
    # REST writes the same times as strings
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= _LONGEST_INT64:
        return int(value)
    raise BadField(f"{name} is {_shown(value)}: expected an integer")


def _number(data: Json, name: str) -> tuple[str, int]:
    return _decimal(data.get(name), name)


def _decimal(value: Any, name: str) -> tuple[str, int]:
    text = _written(value)
    if text is None:
        raise BadField(f"{name} is {_shown(value)}: expected a decimal number")
    try:
        return text, to_units(text)
    except NotADecimal as error:
        raise BadField(f"{name}: {error}") from error


def _side(data: Json, name: str) -> tuple[list[str], list[str]]:
    if name not in data:
        raise BadField(f"{name} is missing: expected [[prices], [sizes]] or null")
    side = data[name] or [None, None]
    if type(side) is not list or len(side) != 2:
        raise BadField(f"{name} is {_shown(side)}: expected [[prices], [sizes]]")
    prices, sizes = (column if column is not None else [] for column in side)
    if type(prices) is not list or type(sizes) is not list or len(prices) != len(sizes):
        raise BadField(f"{name} is {_shown(side)}: expected as many prices as sizes")
    return _column(prices, name), _column(sizes, name)


def _column(values: list[Any], name: str) -> list[str]:
    try:
        joined = ",".join(values)
    except TypeError:
        return [_decimal(value, name)[0] for value in values]
    # one match for the column: a regular expression a level would cost more than the whole frame
    if values and not (_PLAIN_NUMBERS.fullmatch(joined) and joined.count(",") == len(values) - 1):
        return [_decimal(value, name)[0] for value in values]
    return values


def _optional(data: Json, name: str) -> str | None:
    value = data.get(name)
    return value if value is None or type(value) is str else _written(value) or _json(value)


def _written(value: Any) -> str | None:
    """Return a string or a JSON number as the vendor wrote it; None for what is neither."""
    if type(value) is str:
        return value
    if type(value) is float:
        raise _Inexact
    return str(value) if type(value) in (int, _Number) else None


def _extra(document: Json, data: Json, known: frozenset[str], exact: bool) -> str | None:
    if data.keys() <= known and document.keys() <= _ENVELOPE:
        return None
    if not exact:
        raise _Inexact
    inner = {name: value for name, value in data.items() if name not in known}
    outer = {name: value for name, value in document.items() if name not in _ENVELOPE}
    twice = inner.keys() & outer.keys()
    if twice:
        raise BadField(f"unknown fields both beside and in data: {', '.join(sorted(twice))}")
    return _json({**outer, **inner})


def _json(value: Any) -> str:
    try:
        text = orjson.dumps(value, default=_as_written, option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS)
    except orjson.JSONEncodeError as error:
        raise BadField(f"a field that cannot be kept as JSON: {error}") from error
    return text.decode()


def _as_written(number: _Number) -> orjson.Fragment:
    return orjson.Fragment(str(number))


def _shown(value: Any) -> str:
    return "missing or null" if value is None else repr(value)[:60]
