"""The vendor's side of one connection, without I/O: request texts in, reply frames out, and what is subscribed; no markets."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

Channel = Literal["trade", "depth", "kline"]
SUBSCRIBE: dict[int, tuple[Channel, int]] = {10000: ("trade", 10001), 10003: ("depth", 10004), 10006: ("kline", 10007)}
UNSUBSCRIBE: dict[int, Channel] = {11000: "trade", 11001: "depth", 11002: "kline"}
PUSH: dict[int, Channel] = {10002: "trade", 10005: "depth", 10008: "kline"}
HEARTBEAT, UNSUBSCRIBED = 10010, 11010
GREETING = "You have permission to subscribe to all market data"
WINDOW = 60.0
KLINE_TYPES = range(1, 13)
_KLINE_TYPE_NAMES = frozenset(str(number) for number in KLINE_TYPES)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the vendor allows: frames a minute on a connection (None: any number), seconds without a heartbeat, and of a package
    REST requests a second, connections at a time, symbols on one connection and on all of them."""

    frames: int | None = 60
    heartbeat: float = 60.0
    requests: int = 20
    connections: int = 9
    a_connection: int = 600
    symbols: int = 5000


PACKAGES = {
    "free": Limits(requests=1, connections=1, a_connection=10, symbols=10),
    "basic": Limits(requests=2, connections=1, a_connection=200, symbols=200),
    "premium": Limits(requests=10, connections=2, symbols=800),
    "pro": Limits(),
}
"""By the vendor's page on its plans; at most 600 symbols a connection."""


@dataclass
class Session:
    """One connection of a client, opened at `opened` (seconds, any clock that the caller keeps to)."""

    business: str
    opened: float
    limits: Limits = field(default_factory=Limits)
    elsewhere: Callable[[], int] = lambda: 0
    """Counts the symbols on the account's other connections."""
    trades: set[str] = field(default_factory=set)
    with_type: set[str] = field(default_factory=set)
    """Symbols whose trades bear their type (includeTy)."""
    depth: set[str] = field(default_factory=set)
    klines: set[tuple[str, int]] = field(default_factory=set)
    """(symbol, kline type)."""
    closing: bool = False
    """Whether the server closes the connection after the replies."""

    def __post_init__(self) -> None:
        self._frames: deque[float] = deque()
        self._heartbeat = self.opened

    def greeting(self) -> list[str]:
        """Return what the server says first: `stock` greets in plain text before any JSON."""
        welcome = _frame(code=200, msg="ws connect success")
        return [GREETING, welcome] if self.business == "stock" else [welcome]

    def receive(self, text: str | bytes, now: float) -> list[str]:
        """Return the replies to one frame. An ack is no validation: any code is acked."""
        self._frames.append(now)
        while self._frames[0] <= now - WINDOW:
            self._frames.popleft()
        if self.limits.frames is not None and len(self._frames) > self.limits.frames:
            self.closing = True
            return [_error(501, f"more than {self.limits.frames} frames a minute", None)]
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            return [_error(515, "not JSON", None)]
        if not isinstance(request, dict) or "code" not in request:
            return [_error(507, "code is missing", None)]
        code, trace, data = request["code"], request.get("trace"), request.get("data")
        if type(code) is not int:
            return [_error(506, "code is no integer", trace)]
        if code == HEARTBEAT:
            self._heartbeat = now
            return []
        if code in SUBSCRIBE:
            return self._subscribe(code, trace, data)
        if code in UNSUBSCRIBE:
            return self._unsubscribe(UNSUBSCRIBE[code], trace, data)
        return [_error(506, f"code {code} is unknown", trace)]

    def overdue(self, now: float) -> list[str]:
        """Return the last word to a client without a heartbeat for too long, nothing to one that is alive."""
        if now - self._heartbeat <= self.limits.heartbeat:
            return []
        self.closing = True
        return [_error(513, "heartbeat timeout", None)]

    def refuse(self) -> list[str]:
        """Return the last word to a client with more connections than its package has."""
        self.closing = True
        return [_error(512, f"more than {self.limits.connections} connections", None)]

    def wants(self, channel: Channel, symbol: str, kline_type: int | None = None) -> bool:
        """Return whether a push goes to this client; without a kline type any interval counts."""
        if channel == "kline":
            return any(known == symbol and kline_type in (None, number) for known, number in self.klines)
        return symbol in (self.trades if channel == "trade" else self.depth)

    def symbols(self) -> set[str]:
        """Return every symbol of any subscription."""
        return self.trades | self.depth | {symbol for symbol, _ in self.klines}

    def _subscribe(self, code: int, trace: Any, data: Any) -> list[str]:
        channel, ack = SUBSCRIBE[code]
        if not isinstance(data, dict):
            return [_error(507, "data is missing", trace)]
        if channel == "kline":
            if not data.get("arr"):
                return [_error(507, "arr is missing", trace)]
            pairs = _kline_pairs(data["arr"])
            if pairs is None:
                return [_error(506, "arr must list {type: 1 to 12, codes}", trace)]
            if refused := self._over_quota({symbol for symbol, _ in pairs}, trace):
                return refused
            if len(self.klines | pairs) > self.limits.a_connection:
                return [_error(503, f"more than {self.limits.a_connection} klines on a connection", trace)]
            self.klines |= pairs
        else:
            symbols = _codes(data.get("codes"))
            if symbols is None:
                return [_error(507, "codes are missing", trace)]
            if refused := self._over_quota(symbols, trace):
                return refused
            (self.trades if channel == "trade" else self.depth).update(symbols)
            if channel == "trade" and data.get("includeTy") is True:
                self.with_type |= symbols
        return [_frame(code=ack, msg="ok", trace=trace)]

    def _over_quota(self, more: set[str], trace: Any) -> list[str]:
        count = len(self.symbols() | more)
        if count > self.limits.a_connection:
            return [_error(505, f"more than {self.limits.a_connection} symbols on a connection", trace)]
        if count + self.elsewhere() > self.limits.symbols:
            return [_error(516, f"more than {self.limits.symbols} symbols of the account", trace)]
        return []

    def _unsubscribe(self, channel: Channel, trace: Any, data: Any) -> list[str]:
        symbols = _codes(data.get("codes")) if isinstance(data, dict) else None
        if symbols is None:
            return [_error(507, "codes are missing", trace)]
        if channel == "kline":
            gone = _kline_types(data.get("klineTypes"))
            if gone is None:
                return [_error(506, "klineTypes must list types of 1 to 12, joined by commas", trace)]
            self.klines = {(symbol, number) for symbol, number in self.klines if symbol not in symbols or number not in gone}
        elif channel == "trade":
            self.trades -= symbols
            self.with_type -= symbols
        else:
            self.depth -= symbols
        return [_frame(code=UNSUBSCRIBED, msg="ok", trace=trace)]


def _codes(value: Any) -> set[str] | None:
    symbols = {part.strip() for part in value.split(",") if part.strip()} if isinstance(value, str) else set()
    return symbols or None


def _kline_pairs(value: Any) -> set[tuple[str, int]] | None:
    if not isinstance(value, list):
        return None
    pairs: set[tuple[str, int]] = set()
    for entry in value:
        symbols = _codes(entry.get("codes")) if isinstance(entry, dict) else None
        if symbols is None or type(entry.get("type")) is not int or entry["type"] not in KLINE_TYPES:
            return None
        pairs |= {(symbol, entry["type"]) for symbol in symbols}
    return pairs


def _kline_types(value: Any) -> set[int] | None:
    if value is None or value == "":
        return set(KLINE_TYPES)  # without klineTypes every interval of the codes goes
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [""]
    return {int(part) for part in parts} if all(part in _KLINE_TYPE_NAMES for part in parts) else None


def _frame(**fields: Any) -> str:
    return orjson.dumps({name: value for name, value in fields.items() if value is not None}).decode()


def _error(code: int, text: str, trace: Any) -> str:
    return _frame(code=code, msg=text, trace=trace)
