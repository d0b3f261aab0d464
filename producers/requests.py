"""What a connection sends and when: heartbeats, subscriptions, pings, within 60 frames a minute; no sockets."""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from producers.codes import HEARTBEAT, KLINE_TYPES, Channel
from producers.symbols import Feed

WINDOW = 60_000_000
"""Microseconds in which the vendor counts frames."""
FRAMES = 60
"""Frames that the vendor allows in a window; one more closes the socket, and repeated closures ban the key."""
RESERVED = 8
"""Frames of a window that only heartbeats may use."""
HEARTBEAT_PERIOD = 30_000_000
"""Microseconds; the vendor closes a socket after 60 s without one."""
PING_PERIOD = 2_000_000
"""Microseconds of silence after which a sign of life is asked for: 30 pings a minute leave room in the budget."""
PATIENCE = 60_000_000
"""Microseconds to wait before a request goes out again that met a quota or a rate limit: the vendor counts by the minute."""

ANSWER = 5_000_000
"""Microseconds in which the vendor answers a request; after that, no answer is waited for."""


@dataclass(frozen=True, slots=True)
class Send:
    """A WebSocket message to send."""

    opcode: Literal["text", "ping"]
    payload: bytes


class FrameBudget:
    """Counts what a connection has sent in the last minute. Pings count too: the vendor does not say that they don't."""

    def __init__(self) -> None:
        self._sent: deque[int] = deque()

    def take(self, now: int, reserved: int = RESERVED) -> bool:
        """Return whether one more frame may go at `now` (microseconds), leaving `reserved` free, and count it if so."""
        while self._sent and self._sent[0] <= now - WINDOW:
            self._sent.popleft()
        if len(self._sent) >= FRAMES - reserved:
            return False
        self._sent.append(now)
        return True


def channels_of(klines: Sequence[str]) -> list[Channel]:
    """Return the channels that a feed subscribes to: trades and depth, and klines where it has intervals."""
    return [channel for channel in Channel if channel is not Channel.KLINE or klines]


@dataclass(frozen=True, slots=True)
class Asked:
    """A subscription that was sent; `whole`: for every symbol that the feed had then."""

    channel: Channel
    symbols: tuple[str, ...]
    whole: bool


class Requests:
    """The requests of one connection, opened at `now` (microseconds): one frame for all symbols of a channel."""

    def __init__(self, feed: Feed, klines: Sequence[str], chance: random.Random, now: int) -> None:
        self._feed = feed
        self._klines = klines
        self._chance = chance
        self._channels = channels_of(klines)
        self._wanted = list(self._channels)
        self._ask_from = now
        self._added: dict[Channel, tuple[str, ...]] = {}
        self._removed: tuple[str, ...] = ()
        self._unasked: list[Channel] = []
        self._asked: dict[str, Asked] = {}
        self._acked: set[Channel] = set()
        self._unanswered: dict[str, int] = {}
        self._next_heartbeat = now + HEARTBEAT_PERIOD
        self._pinged = now
        self._budget = FrameBudget()

    @property
    def complete(self) -> bool:
        """Whether every channel's subscription is acked."""
        return self._acked.issuperset(self._channels)

    @property
    def settled(self) -> bool:
        """Whether no unsubscription is left to send, and what was sent is answered, or has waited long enough."""
        return not self._unasked and not self._unanswered

    def answered(self, trace: str | None) -> None:
        """Note that the vendor has answered a request; without its trace, the oldest."""
        self._unanswered.pop(trace or next(iter(self._unanswered), ""), None)

    def due(self, now: int, life: int) -> list[Send]:
        """Return what may be sent at `now`, heartbeats first; `life` is the connection's last sign of life."""
        frames: list[Send] = []
        if now >= self._next_heartbeat and self._budget.take(now, reserved=0):
            frames.append(self._text(HEARTBEAT, None, now))
            self._next_heartbeat = now + HEARTBEAT_PERIOD
        if self._unanswered:
            self._unanswered = {trace: asked for trace, asked in self._unanswered.items() if now - asked < ANSWER}
        while self._unasked and self._budget.take(now):
            frames.append(self._unsubscribe(self._unasked[0], self._removed, now))
            # only now: from another thread it must not look settled in between
            del self._unasked[0]
        while self._wanted and self._feed.symbols and now >= self._ask_from and self._budget.take(now):
            frames.append(self._subscribe(self._wanted.pop(0), self._feed.symbols, now, whole=True))
        while self._added and now >= self._ask_from and self._budget.take(now):
            channel = next(iter(self._added))
            frames.append(self._subscribe(channel, self._added.pop(channel), now, whole=False))
        if now - max(life, self._pinged) >= PING_PERIOD and self._budget.take(now):
            frames.append(Send("ping", b""))
            self._pinged = now
        return frames

    def farewell(self, now: int) -> list[Send]:
        """Return the unsubscriptions that may be sent at `now`, so that the account's quota is free at once."""
        if not self._feed.symbols:
            return []
        return [self._unsubscribe(channel, self._feed.symbols, now) for channel in self._channels if self._budget.take(now)]

    def change(self, feed: Feed) -> None:
        """Ask for the symbols that the feed has gained and no more for those it has lost; changes not sent yet are merged."""
        before, after = dict.fromkeys(self._feed.symbols), dict.fromkeys(feed.symbols)
        self._feed = feed
        # what is still to be unsubscribed once, and was not taken up again since
        unsent = self._removed if self._unasked else ()
        self._removed = tuple(symbol for symbol in dict.fromkeys((*unsent, *before)) if symbol not in after)
        self._unasked = [channel for channel in self._channels if channel not in self._wanted] if self._removed else []
        added = [symbol for symbol in after if symbol not in before]
        for channel in self._channels:
            symbols = tuple(symbol for symbol in dict.fromkeys((*self._added.pop(channel, ()), *added)) if symbol in after)
            # a whole request that is still to be sent will have them
            if symbols and channel not in self._wanted:
                self._added[channel] = symbols

    def acked(self, channel: Channel, trace: str | None) -> Asked:
        """Note that a subscription was taken, and return it: the request of this trace, else all symbols of the channel given."""
        self.answered(trace)
        taken = self._asked.get(trace or "") or Asked(channel, self._feed.symbols, whole=True)
        if taken.whole:
            self._acked.add(taken.channel)
        return taken

    def ask_later(self, trace: str | None, now: int) -> None:
        """Send the request of a trace once more after a while; where the trace is unknown, what has no ack, else all."""
        asked = self._asked.get(trace or "")
        if asked and not asked.whole:
            symbols = dict.fromkeys((*self._added.get(asked.channel, ()), *asked.symbols))
            self._added[asked.channel] = tuple(symbol for symbol in symbols if symbol in self._feed.symbols)
            self._ask_from = now + PATIENCE
            return
        refused = [asked.channel] if asked else [channel for channel in self._channels if channel not in self._acked] or self._channels
        self._acked.difference_update(refused)
        self._wanted += [channel for channel in refused if channel not in self._wanted]
        self._ask_from = now + PATIENCE

    def _subscribe(self, channel: Channel, symbols: tuple[str, ...], now: int, whole: bool) -> Send:
        codes = ",".join(symbols)
        data: dict[str, Any] = {"codes": codes}
        if channel is Channel.KLINE:
            data = {"arr": [{"type": KLINE_TYPES[interval], "codes": codes} for interval in self._klines]}
        elif channel is Channel.TRADE and self._feed.business == "stock":
            data["includeTy"] = True
        return self._text(channel.subscribe, data, now, Asked(channel, symbols, whole))

    def _unsubscribe(self, channel: Channel, symbols: tuple[str, ...], now: int) -> Send:
        data = {"codes": ",".join(symbols)}
        if channel is Channel.KLINE:
            data["klineTypes"] = ",".join(str(KLINE_TYPES[interval]) for interval in self._klines)
        return self._text(channel.unsubscribe, data, now)

    def _text(self, code: int, data: dict[str, Any] | None, now: int, asks: Asked | None = None) -> Send:
        trace = f"{self._chance.getrandbits(48):012x}"
        if asks is not None:
            self._asked[trace] = asks
        if data is not None:
            # a heartbeat has no answer
            self._unanswered[trace] = now
        return Send("text", orjson.dumps({"code": code, "trace": trace} | ({"data": data} if data else {})))
