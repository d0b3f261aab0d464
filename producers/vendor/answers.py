"""Reads answers of the vendor's REST: checks envelope, error codes and fields; no I/O."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from producers.vendor.exact_json import (
    BadField,
    UnreadableFrame,
    as_json,
    decimal_text,
    optional_text,
    parse_exactly,
    whole_number,
)
from producers.vendor.plan import Package
from schemas.control import KLINE_LENGTHS
from schemas.errors import Cause, InfowayError
from schemas.times import EARLIEST_MS

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
"""Beginnings of messages that the vendor wraps into ret 500, with the code that each means, as
infoway-sdk 0.4.1 reads them."""


class RestError(InfowayError):
    """The vendor's REST gave no usable answer; the message is one line without the key.

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
        if refused:
            self.cause = Cause.VENDOR
        self.missing = missing
        self.retryable = retryable


class OddAnswer(RestError):
    """An answer that says success, with other content than was asked for; the next may be right."""


@dataclass(frozen=True, slots=True)
class RestKline:
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


@dataclass(frozen=True, slots=True)
class BadKline:
    """An unreadable kline of an answer, with its bytes; or an unreadable answer, with `data` None.
    `ts_start` is None if it could not be read."""

    symbol: str
    interval: str
    ts_start: int | None
    reason: str
    data: bytes | None


def read_envelope(path: str, status: int, text: str) -> Any:
    """Return the `data` of an answer, its numbers as they were written; raises RestError for
    anything but success.

    The vendor's status is in `ret`; the gateway before it answers by HTTP status, and for a rate
    limit by HTTP 200 without `ret`.
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
        try:
            return parse_exactly(text.encode()).get("data")
        except RecursionError:
            raise OddAnswer(
                f"the vendor's REST answered {path} with JSON nested too deep"
            ) from None
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
    # only shown to people
    expires, name = whole_number(data.get("expireTime")), data.get("packageName")
    if expires is not None and 0 < expires < _MILLISECONDS_FROM:
        expires *= 1000
    if expires is not None and not 0 < expires <= _LATEST_MS:
        expires = None
    shown = one_line(name) if type(name) is str else ""
    return Package(
        shown or "(without a name)", requests, connections, a_connection, symbols, expires
    )


def read_klines(
    path: str, symbol: str, interval: str, data: Any, until_ms: int | None = None
) -> list[RestKline | BadKline]:
    """Return the klines of the symbol that was asked for, oldest first, up to a time (UTC).

    The vendor sends the newest first. Unreadable ones are in the list too. An empty or null answer
    has no klines. Raises OddAnswer if the answer is about another symbol.
    """
    if data is None or data == []:
        return []
    entries = (
        [entry for entry in data if type(entry) is dict and entry.get("s") == symbol]
        if type(data) is list
        else []
    )
    lists = [entry.get("respList") for entry in entries]
    if not entries or not all(rows is None or type(rows) is list for rows in lists):
        raise _odd(path, "data", data, f"entries of {symbol} with a respList")
    found = [_kline(symbol, interval, row, until_ms) for rows in lists for row in rows or ()]
    return sorted(found, key=lambda kline: kline.ts_start or 0)


def one_line(text: str) -> str:
    """Return the beginning of a text of the vendor's as one line."""
    return " ".join(text.split())[:_SHOWN]


def _meaning(ret: int, said: str) -> int:
    if ret not in (_BAD_REQUEST, _SERVER_ERROR):
        return ret
    # a missing or unknown key is ret 500 with `apiKey is required` or `Apikey not exists` (the
    # vendor's page on /package/info)
    if "apikey" in said.lower():
        return _UNAUTHORIZED
    return next((code for begin, code in _MEANINGS.items() if said.lower().startswith(begin)), ret)


def _failure(path: str, code: int, source: str, said: str, status: int) -> RestError:
    answer = f"{source} {said}".rstrip()
    if code in _REFUSED or status in _REFUSED:
        return RestError(
            f"the API key was refused ({answer} at {path}): check INFOWAY_API_KEY and the plan "
            "of the key",
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


def _kline(symbol: str, interval: str, row: Any, until_ms: int | None) -> RestKline | BadKline:
    start = None
    try:
        if type(row) is not dict:
            raise BadField(f"an entry of respList is {_shown(row)}: expected an object")
        seconds = whole_number(row.get("t"))
        if seconds is None or seconds * 1000 < EARLIEST_MS:
            raise BadField(
                f"t is {_shown(row.get('t'))}: expected seconds since 1970, of the year 2000 or "
                "later"
            )
        if until_ms is not None and seconds * 1000 > until_ms:
            raise BadField(
                f"t is {_shown(row['t'])}, later than the time that was asked for, "
                f"{until_ms // 1000}"
            )
        start = seconds * 1000
        if start % KLINE_LENGTHS.get(interval, 1):
            raise BadField(f"t is {_shown(row['t'])}, which is no multiple of {interval}")
        numbers = [decimal_text(row.get(name), name)[0] for name in ("o", "h", "l", "c", "v", "vw")]
        return RestKline(symbol, interval, start, *numbers, *_changes(row))
    except UnreadableFrame as error:
        return BadKline(symbol, interval, start, str(error), _bytes_of(row))


def _changes(row: Fields) -> Iterator[str | None]:
    # they are only passed on
    for name in ("pca", "pc"):
        try:
            yield optional_text(row, name, exact=True)
        except UnreadableFrame:
            yield None


def _bytes_of(row: Any) -> bytes:
    try:
        return as_json(row, "the kline").encode()
    except (UnreadableFrame, RecursionError):
        return _written(row, repr).encode(errors="replace")


def _whole(path: str, data: Fields, name: str, least: int) -> int:
    value = data.get(name)
    number = whole_number(value)
    if number is None or number < least:
        raise _odd(path, name, value, f"an integer from {least}")
    return number


def _odd(path: str, name: str, found: Any, expected: str) -> OddAnswer:
    return OddAnswer(
        f"the vendor's REST answered {path} with {name} {_shown(found)}: expected {expected}"
    )


def _shown(found: Any) -> str:
    return "missing or null" if found is None else one_line(_written(found, repr))[:80]


def _written(value: Any, way: Callable[[Any], str]) -> str:
    try:
        return way(value)
    except RecursionError:
        # the parser takes what Python's own printing does not
        return "JSON nested too deep"
