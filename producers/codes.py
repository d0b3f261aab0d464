"""The vendor's numbers: channels with their codes, kline types, and what each error code calls for; no frames."""

from enum import Enum

WELCOME = 200
HEARTBEAT = 10010
HEARTBEAT_REPLY = 10011
"""Listed by the official client; never seen."""
UNSUBSCRIBED = 11010
SUBSCRIBE_FAIL = b"Subscribe fail:"

INTERVALS = {1: "1m", 2: "5m", 3: "15m", 4: "30m", 5: "1h", 6: "2h", 7: "4h", 8: "1d", 9: "1w", 10: "1M", 11: "1Q", 12: "1Y"}
KLINE_TYPES = {interval: number for number, interval in INTERVALS.items()}


class Channel(Enum):
    """One of the vendor's three streams: the raw topic it fills and the codes of its frames."""

    TRADE = ("infoway.raw.trade", 10000, 10001, 10002, 11000)
    DEPTH = ("infoway.raw.depth", 10003, 10004, 10005, 11001)
    KLINE = ("infoway.raw.kline", 10006, 10007, 10008, 11002)

    def __init__(self, topic: str, subscribe: int, ack: int, push: int, unsubscribe: int) -> None:
        self.topic = topic
        self.subscribe = subscribe
        self.ack = ack
        self.push = push
        self.unsubscribe = unsubscribe


class Verdict(Enum):
    """What an error frame calls for."""

    RECONNECT = "close the connection and make a new one, with backoff"
    ASK_LATER = "keep the connection, send the request again after a while"
    REPORT = "keep the connection, never send the same again"
    STOP = "close the connection and never try again"


_ASK_LATER = {429, 501, 516}
_REPORT = {503, 504, 505, 506, 507, 515}
_STOP = {427, 502, 508, 509, 510, 511, 512, 514, 517, 518, 519, 520, 521}
_ADVICE = {
    427: "close other connections of this key",
    502: "the day's limit is used up; try tomorrow or take a larger plan",
    508: "renew the API key",
    509: "check the API key",
    510: "set the API key",
    511: "the vendor has blocked this key; ask the vendor",
    512: "close other connections of this key",
    521: "close other connections of this key",
}


def is_error(code: int) -> bool:
    """Tell whether a frame's code is an error: 427, 429 and all of 500 to 599."""
    return 500 <= code <= 599 or code in (427, 429)


def judge(code: int | None) -> Verdict:
    """Return what an error code calls for; None is a refusal in prose. An unknown 5xx is worth another try."""
    if code in _STOP:
        return Verdict.STOP
    if code in _ASK_LATER:
        return Verdict.ASK_LATER
    return Verdict.REPORT if code is None or code in _REPORT or not is_error(code) else Verdict.RECONNECT


def advice(code: int | None) -> str:
    """Return what the user can do about an error code that stops a feed."""
    return _ADVICE.get(code or 0, "check the address, the business and the plan of the key")
