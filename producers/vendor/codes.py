"""The vendor's numbers: channels with their codes, kline types, and what each error code calls for;
no frames."""

from enum import Enum
from typing import NamedTuple

from schemas.topics import RAW_DEPTH, RAW_KLINE, RAW_TRADE

WELCOME = 200
HEARTBEAT = 10010
HEARTBEAT_REPLY = 10011
"""Listed by the official client; never seen."""
UNSUBSCRIBED = 11010
SUBSCRIBE_FAIL = b"Subscribe fail:"

INTERVALS = {
    1: "1m",
    2: "5m",
    3: "15m",
    4: "30m",
    5: "1h",
    6: "2h",
    7: "4h",
    8: "1d",
    9: "1w",
    10: "1M",
    11: "1Q",
    12: "1Y",
}
KLINE_TYPES = {interval: number for number, interval in INTERVALS.items()}


class Channel(Enum):
    """One of the vendor's three streams: the raw topic it fills and the codes of its frames."""

    TRADE = (RAW_TRADE, 10000, 10001, 10002, 11000)
    DEPTH = (RAW_DEPTH, 10003, 10004, 10005, 11001)
    KLINE = (RAW_KLINE, 10006, 10007, 10008, 11002)

    def __init__(self, topic: str, subscribe: int, ack: int, push: int, unsubscribe: int) -> None:
        self.topic = topic
        self.subscribe = subscribe
        self.ack = ack
        self.push = push
        self.unsubscribe = unsubscribe

    # Enum's own hashes the name, in Python: twice a frame
    __hash__ = object.__hash__


class Verdict(Enum):
    """What an error frame calls for."""

    RECONNECT = "close the connection and make a new one, with backoff"
    ASK_LATER = "keep the connection, send the request again after a while"
    SLOW_DOWN = "keep the connection, send less, and the request again after a while"
    REPORT = "keep the connection, never send the same again"
    WAIT = "after a connection that was lost, wait long for the vendor to notice; else stop"
    STOP = "close the connection and never try again"


class ErrorCode(NamedTuple):
    """A row of the vendor's table of WebSocket errors; `advice` is for the user, where a feed
    stops."""

    meaning: str
    verdict: Verdict
    advice: str = "check the address, the business and the plan of the key"


_CONNECTIONS = "close other connections of this key"

ERRORS = {
    427: ErrorCode("too many connections", Verdict.WAIT, _CONNECTIONS),
    429: ErrorCode("too many frames this minute", Verdict.SLOW_DOWN),
    500: ErrorCode("server error", Verdict.RECONNECT),
    501: ErrorCode("too many frames this minute", Verdict.SLOW_DOWN),
    502: ErrorCode(
        "daily limit",
        Verdict.STOP,
        "the day's limit is used up; try tomorrow or take a larger plan",
    ),
    503: ErrorCode("klines over the connection's quota", Verdict.REPORT),
    504: ErrorCode("depth levels over the connection's quota", Verdict.REPORT),
    505: ErrorCode("symbols over the connection's quota", Verdict.REPORT),
    506: ErrorCode("parameter wrong", Verdict.REPORT),
    507: ErrorCode("parameter missing", Verdict.REPORT),
    508: ErrorCode("key expired", Verdict.STOP, "renew the API key"),
    509: ErrorCode("key invalid", Verdict.STOP, "check the API key"),
    510: ErrorCode("key empty", Verdict.STOP, "set the API key"),
    511: ErrorCode(
        "key blacklisted", Verdict.STOP, "the vendor has blocked this key; ask the vendor"
    ),
    512: ErrorCode("too many connections", Verdict.WAIT, _CONNECTIONS),
    513: ErrorCode("heartbeat timeout", Verdict.RECONNECT),
    514: ErrorCode("wrong URL", Verdict.STOP),
    515: ErrorCode("request is not JSON", Verdict.REPORT),
    516: ErrorCode("the account's symbol quota, often a release race", Verdict.ASK_LATER),
    517: ErrorCode("handshake refused", Verdict.STOP),
    518: ErrorCode("handshake refused", Verdict.STOP),
    519: ErrorCode("handshake refused", Verdict.STOP),
    520: ErrorCode("handshake refused", Verdict.STOP),
    521: ErrorCode("too many connections", Verdict.WAIT, _CONNECTIONS),
}
_UNKNOWN = ErrorCode("unknown", Verdict.RECONNECT)


def is_error(code: int) -> bool:
    """Tell whether a frame's code is an error: the table's, and all of 500 to 599."""
    return code in ERRORS or 500 <= code <= 599


def judge(code: int | None) -> Verdict:
    """Return what an error code calls for; None is a refusal in prose. An unknown 5xx is worth
    another try."""
    if code is None or not is_error(code):
        return Verdict.REPORT
    return ERRORS.get(code, _UNKNOWN).verdict


def advice(code: int | None) -> str:
    """Return what the user can do about an error code that stops a feed."""
    return ERRORS.get(code or 0, _UNKNOWN).advice
