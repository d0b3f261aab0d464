"""Reads the answers of the vendor's REST: its envelope, its error codes, its fields, each checked; sends nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from producers.plan import Package
from schemas.decimals import NotADecimal, to_units

Fields = dict[str, Any]

_SHOWN = 200
_LATEST_MS = 253_402_300_799_999
"""The end of the year 9999."""
_MILLISECONDS_FROM = 10**11
"""The vendor does not say the unit of expireTime; as seconds this would be the year 5138."""
_OK, _BAD_REQUEST, _UNAUTHORIZED, _NOT_FOUND, _TOO_MANY, _SERVER_ERROR = (
    200,
    400,
    401,
    404,
    429,
    500,
)
_TOO_FREQUENT, _FIRST_UNKNOWN = 501, 515
_REFUSED = frozenset((401, 403, 509, 514))
_MEANINGS = {
    "request frequency exceed the limit": 501,
    "request frequency for the day": 502,
    "kline quantity exceeds": 503,
    "products quantity exceeds": 505,
    "param error": 506,
    "param lost": 507,
    "all product not exists": 508,
    "the token permission has expired": 509,
    "timestamp limit error": 513,
    "no permission": 514,
}
"""How messages begin that the vendor wraps into ret 500, with the code that they stand for (as infoway-sdk 0.4.1 reads them)."""


class RestError(Exception):
    """No answer of the vendor's REST that can be used, in one line and without the key.

    code       the vendor's `ret`, or the HTTP status where there is none; None without an answer
    refused    whether the key is the reason: never to be retried, the vendor bans keys
    missing    whether there is no such endpoint at this address
    retryable  whether the same request may succeed later
    """

    def __init__(
        self,
        message: str,
        code: int | None = None,
        refused: bool = False,
        missing: bool = False,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.refused = refused
        self.missing = missing
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Kline:
    """A kline of the past: `ts_start` in ms UTC, numbers as the vendor wrote them."""

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


def read_envelope(path: str, status: int, text: str) -> Any:
    """Return the `data` of an answer; raises RestError for anything but success.

    The vendor's status is in `ret`; the gateway before it answers by HTTP status, and for a rate limit by HTTP 200 without `ret`.
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        document = None
    fields: Fields = document if type(document) is dict else {}
    said = one_line(
        _written(fields.get("msg") or fields.get("detail") or fields.get("title") or "", str)
    )
    ret = fields.get("ret")
    if type(ret) is int and ret != _OK:
        raise _failure(path, _meaning(ret, said), f"ret {ret}", said, status)
    if status != _OK:
        raise _failure(path, status, f"HTTP {status}", said, status)
    if type(ret) is int:
        return fields.get("data")
    if "rate limit" in said.lower():
        raise _failure(path, _TOO_MANY, "HTTP 200", said, status)
    raise _odd(path, "ret", ret if fields else text, "an integer in a JSON object")


def read_package(path: str, data: Any) -> Package:
    """Return the package that the `data` of /package/info describes; raises RestError."""
    if type(data) is not dict:
        raise _odd(path, "data", data, "an object")
    requests = _whole(path, data, "apiNumPerSec", 1)
    connections, a_connection, symbols = (
        _whole(path, data, name, 0) for name in ("maxWsConNum", "maxNum", "allWsNum")
    )
    if "expireTime" not in data:
        raise _odd(path, "expireTime", None, "a time or null")
    expires = None if data["expireTime"] is None else _whole(path, data, "expireTime", 1)
    if expires is not None and expires < _MILLISECONDS_FROM:
        expires *= 1000
    if expires is not None and expires > _LATEST_MS:
        raise _odd(path, "expireTime", expires, "a time before the year 10000")
    name = data.get("packageName")
    if name is not None and type(name) is not str:
        raise _odd(path, "packageName", name, "a text")
    return Package(
        one_line(name or "(without a name)"), requests, connections, a_connection, symbols, expires
    )


def read_klines(path: str, symbol: str, interval: str, data: Any) -> list[Kline]:
    """Return the klines of the one symbol that was asked for, oldest first: the vendor sends the newest first. Raises RestError."""
    rows = (
        [row for row in data if type(row) is dict and row.get("s") == symbol]
        if type(data) is list
        else []
    )
    if len(rows) != 1 or type(rows[0].get("respList")) is not list:
        raise _odd(path, "data", data, f"one entry of {symbol} with a respList")
    return sorted(
        (_kline(path, symbol, interval, row) for row in rows[0]["respList"]),
        key=lambda kline: kline.ts_start,
    )


def one_line(text: str) -> str:
    """Return the beginning of a text of the vendor's as one line."""
    return " ".join(text.split())[:_SHOWN]


def _meaning(ret: int, said: str) -> int:
    if ret not in (_BAD_REQUEST, _SERVER_ERROR):
        return ret
    # a missing or unknown key is ret 500 with `apiKey is required` or `Apikey not exists` (the vendor's page on /package/info)
    if "apikey" in said.lower():
        return _UNAUTHORIZED
    return next((code for begin, code in _MEANINGS.items() if said.lower().startswith(begin)), ret)


def _failure(path: str, code: int, source: str, said: str, status: int) -> RestError:
    answer = f"{source} {said}".rstrip()
    if code in _REFUSED or status in _REFUSED:
        return RestError(
            f"the API key was refused ({answer} at {path}): check INFOWAY_API_KEY and the plan of the key",
            code,
            refused=True,
        )
    http = code == status
    retryable = (
        code in (_TOO_MANY, _SERVER_ERROR, _TOO_FREQUENT)
        or code >= _FIRST_UNKNOWN
        or (http and code >= _SERVER_ERROR)
    )
    return RestError(
        f"the vendor's REST answered {answer} to {path}",
        code,
        missing=code == _NOT_FOUND,
        retryable=retryable,
    )


def _kline(path: str, symbol: str, interval: str, row: Any) -> Kline:
    if type(row) is not dict:
        raise _odd(path, "an entry of respList", row, "an object")
    start = row.get("t")
    if type(start) is str and start.isascii() and start.isdigit():
        start = int(start)
    if type(start) is not int or start <= 0:
        raise _odd(path, "t", start, "seconds after 1970")
    numbers = [_decimal(path, row, name) for name in ("o", "h", "l", "c", "v", "vw")]
    changes = [row.get(name) for name in ("pca", "pc")]
    for name, change in zip(("pca", "pc"), changes, strict=True):
        if change is not None and type(change) is not str:
            raise _odd(path, name, change, "a text")
    return Kline(symbol, interval, start * 1000, *numbers, *changes)


def _decimal(path: str, row: Fields, name: str) -> str:
    value = row.get(name)
    text = str(value) if type(value) is int else value
    try:
        if type(text) is str:
            to_units(text)
            return text
    except NotADecimal:
        pass
    raise _odd(path, name, value, "a decimal number as text")


def _whole(path: str, data: Fields, name: str, least: int) -> int:
    value = data.get(name)
    if type(value) is not int or value < least:
        raise _odd(path, name, value, f"an integer from {least}")
    return value


def _odd(path: str, name: str, found: Any, expected: str) -> RestError:
    shown = "missing or null" if found is None else one_line(_written(found, repr))[:80]
    return RestError(f"the vendor's REST answered {path} with {name} {shown}: expected {expected}")


def _written(value: Any, way: Callable[[Any], str]) -> str:
    try:
        return way(value)
    except RecursionError:
        # the parser takes what Python's own printing does not
        return "JSON nested too deep"
