"""The vendor's side of one connection, without I/O: request texts in, reply frames out, and what is
subscribed; no markets."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

Channel = Literal["trade", "depth", "kline"]
SUBSCRIBE: dict[int, tuple[Channel, int]] = {
    10000: ("trade", 10001),
    10003: ("depth", 10004),
    10006: ("kline", 10007),
}
UNSUBSCRIBE: dict[int, Channel] = {11000: "trade", 11001: "depth", 11002: "kline"}
PUSH: dict[int, Channel] = {10002: "trade", 10005: "depth", 10008: "kline"}
HEARTBEAT, UNSUBSCRIBED = 10010, 11010
SUBSCRIBE_FAIL = "Subscribe fail:"
GREETING = "You have permission to subscribe to all market data"
WINDOW = 60.0
KLINE_TYPES = range(1, 13)
ByScript = Callable[[int, Any, set[str]], str | None]
"""Takes a subscription's or unsubscription's code, trace and symbols; returns what is answered in
place of what is due, or None."""
_KLINE_TYPE_NAMES = frozenset(str(number) for number in KLINE_TYPES)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the vendor allows: frames in any minute on a connection (None: any number), seconds
    without a heartbeat, connections closed for too many frames before the key is banned, and of a
    package REST requests in any second, connections at a time, symbols on one connection and on all
    of them. Over it: 501, 513, a ban, and REST's 501, 512, 505, 516.

    Assumptions of ours, as the vendor gives no number: three closures ban a key, and a connection
    has as many klines (symbol and type, 503) as symbols. Not counted, so only by script: the day's
    limit (502), depth levels (504; no request asks for any).
    """

    frames: int | None = 60
    heartbeat: float = 60.0
    closures: int = 3
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
class ClientSession:
    """One connection of a client, opened at `opened` (seconds, any clock that the caller keeps
    to)."""

    business: str
    opened: float
    limits: Limits = field(default_factory=Limits)
    elsewhere: Callable[[], int] = lambda: 0
    """Counts the symbols on the account's other connections."""
    by_script: ByScript = lambda code, trace, symbols: None
    trades: set[str] = field(default_factory=set)
    with_type: set[str] = field(default_factory=set)
    """Symbols whose trades bear their type (includeTy)."""
    depth: set[str] = field(default_factory=set)
    klines: set[tuple[str, int]] = field(default_factory=set)
    """(symbol, kline type)."""
    closing: bool = False
    """Whether the server closes the connection after the replies."""
    flooded: bool = False
    """Whether too many frames are the reason."""

    def __post_init__(self) -> None:
        self._frames: deque[float] = deque()
        self._heartbeat = self.opened

    def greeting(self) -> list[str]:
        """Return what the server says first: `stock` greets in plain text before any JSON."""
        welcome = _frame(code=200, msg="ws connect success")
        return [GREETING, welcome] if self.business == "stock" else [welcome]

    def receive(self, text: str | bytes, now: float) -> list[str]:
        """Return the replies to one frame. An ack is no validation: any code is acked."""
        if self.limits.frames is not None and self._too_many(now, self.limits.frames):
            self.closing = self.flooded = True
            return [error(501, f"more than {self.limits.frames} frames a minute", None)]
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            return [error(515, "not JSON", None)]
        if not isinstance(request, dict) or "code" not in request:
            return [error(507, "code is missing", None)]
        code, trace, data = request["code"], request.get("trace"), request.get("data")
        if not isinstance(trace, str | int):
            trace = None
        if type(code) is not int:
            return [error(506, "code is no integer", trace)]
        if code == HEARTBEAT:
            self._heartbeat = now
            return []
        if (code in SUBSCRIBE or code in UNSUBSCRIBE) and (
            reply := self.by_script(code, trace, _named(data))
        ):
            return [reply]
        if code in SUBSCRIBE:
            return self._subscribe(code, trace, data)
        if code in UNSUBSCRIBE:
            return self._unsubscribe(code, trace, data)
        return [error(506, f"code {code} is unknown", trace)]

    def _too_many(self, now: float, allowed: int) -> bool:
        self._frames.append(now)
        while self._frames[0] <= now - WINDOW:
            self._frames.popleft()
        return len(self._frames) > allowed

    def overdue(self, now: float) -> list[str]:
        """Return the last word to a client without a heartbeat for too long, nothing to one that is
        alive."""
        if self.closing or now - self._heartbeat <= self.limits.heartbeat:
            return []
        self.closing = True
        return [error(513, "heartbeat timeout", None)]

    def refuse(self) -> list[str]:
        """Return the last word to a client with more connections than its package has."""
        self.closing = True
        return [error(512, f"more than {self.limits.connections} connections", None)]

    def ban(self) -> list[str]:
        """Return the last word to a client whose key was banned meanwhile."""
        self.closing = True
        return [
            error(
                511,
                f"key blacklisted: {self.limits.closures} connections closed for too many frames",
                None,
            )
        ]

    def wants(self, channel: Channel, symbol: str, kline_type: int | None = None) -> bool:
        """Return whether a push goes to this client; without a kline type any interval counts."""
        if channel == "kline":
            return any(
                known == symbol and kline_type in (None, number) for known, number in self.klines
            )
        return symbol in (self.trades if channel == "trade" else self.depth)

    def symbols(self) -> set[str]:
        """Return every symbol of any subscription."""
        return self.trades | self.depth | {symbol for symbol, _ in self.klines}

    def _subscribe(self, code: int, trace: Any, data: Any) -> list[str]:
        channel, _ = SUBSCRIBE[code]
        if not isinstance(data, dict):
            return [error(507, "data is missing", trace)]
        if channel == "kline":
            if not data.get("arr"):
                return [error(507, "arr is missing", trace)]
            pairs = _kline_pairs(data["arr"])
            if pairs is None:
                return [error(506, "arr must list {type: 1 to 12, codes}", trace)]
            if refused := self._over_quota({symbol for symbol, _ in pairs}, trace):
                return refused
            if len(self.klines | pairs) > self.limits.a_connection:
                return [
                    error(
                        503, f"more than {self.limits.a_connection} klines on a connection", trace
                    )
                ]
            self.klines |= pairs
        else:
            symbols = _codes(data.get("codes"))
            if symbols is None:
                return [error(507, "codes are missing", trace)]
            if refused := self._over_quota(symbols, trace):
                return refused
            (self.trades if channel == "trade" else self.depth).update(symbols)
            if channel == "trade" and data.get("includeTy") is True:
                self.with_type |= symbols
        return [ack_of(code, trace)]

    def _over_quota(self, more: set[str], trace: Any) -> list[str]:
        count = len(self.symbols() | more)
        if count > self.limits.a_connection:
            refused = error(
                505, f"more than {self.limits.a_connection} symbols on a connection", trace
            )
        elif count + self.elsewhere() > self.limits.symbols:
            refused = error(516, f"more than {self.limits.symbols} symbols of the account", trace)
        else:
            return []
        # the vendor's page on WebSocket errors: stock has the prefix on these two, crypto and
        # common do not
        return [f"{SUBSCRIBE_FAIL} {refused}" if self.business == "stock" else refused]

    def _unsubscribe(self, code: int, trace: Any, data: Any) -> list[str]:
        channel = UNSUBSCRIBE[code]
        symbols = _codes(data.get("codes")) if isinstance(data, dict) else None
        if symbols is None:
            return [error(507, "codes are missing", trace)]
        if channel == "kline":
            gone = _kline_types(data.get("klineTypes"))
            if gone is None:
                return [
                    error(506, "klineTypes must list types of 1 to 12, joined by commas", trace)
                ]
            self.klines = {
                (symbol, number)
                for symbol, number in self.klines
                if symbol not in symbols or number not in gone
            }
        elif channel == "trade":
            self.trades -= symbols
            self.with_type -= symbols
        else:
            self.depth -= symbols
        return [ack_of(code, trace)]


def ack_of(code: int, trace: Any) -> str:
    """Return the ack of a subscription or unsubscription."""
    return _frame(
        code=SUBSCRIBE[code][1] if code in SUBSCRIBE else UNSUBSCRIBED, msg="ok", trace=trace
    )


def error(code: int, text: str, trace: Any) -> str:
    """Return an error frame; without a trace (None) it answers no request."""
    return _frame(code=code, msg=text, trace=trace)


def _named(data: Any) -> set[str]:
    """Return the symbols that a request names, whatever else it has."""
    entries = data.get("arr") if isinstance(data, dict) else None
    named = [data, *(entries if isinstance(entries, list) else ())]
    return {
        symbol
        for each in named
        if isinstance(each, dict)
        for symbol in _codes(each.get("codes")) or ()
    }


def _codes(value: Any) -> set[str] | None:
    symbols = (
        {part.strip() for part in value.split(",") if part.strip()}
        if isinstance(value, str)
        else set()
    )
    return symbols or None


def _kline_pairs(value: Any) -> set[tuple[str, int]] | None:
    if not isinstance(value, list):
        return None
    pairs: set[tuple[str, int]] = set()
    for entry in value:
        symbols = _codes(entry.get("codes")) if isinstance(entry, dict) else None
        if (
            symbols is None
            or type(entry.get("type")) is not int
            or entry["type"] not in KLINE_TYPES
        ):
            return None
        pairs |= {(symbol, entry["type"]) for symbol in symbols}
    return pairs


def _kline_types(value: Any) -> set[int] | None:
    if value is None or value == "":
        return set(KLINE_TYPES)  # without klineTypes every interval of the codes goes
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [""]
    return (
        {int(part) for part in parts} if all(part in _KLINE_TYPE_NAMES for part in parts) else None
    )


def _frame(**fields: Any) -> str:
    return orjson.dumps(
        {name: value for name, value in fields.items() if value is not None}
    ).decode()
