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


class Requests:
    """The requests of one connection, opened at `now` (microseconds): one frame for all symbols of a channel."""

    def __init__(self, feed: Feed, klines: Sequence[str], chance: random.Random, now: int) -> None:
        self._feed = feed
        self._klines = klines
        self._chance = chance
        self._channels = channels_of(klines)
        self._wanted = list(self._channels)
        self._ask_from = now
        self._asked: dict[str, Channel] = {}
        self._acked: set[Channel] = set()
        self._next_heartbeat = now + HEARTBEAT_PERIOD
        self._pinged = now
        self._budget = FrameBudget()

    @property
    def complete(self) -> bool:
        """Whether every channel's subscription is acked."""
        return self._acked.issuperset(self._channels)

    def due(self, now: int, life: int) -> list[Send]:
        """Return what may be sent at `now`, heartbeats first; `life` is the connection's last sign of life."""
        frames: list[Send] = []
        if now >= self._next_heartbeat and self._budget.take(now, reserved=0):
            frames.append(self._text(HEARTBEAT, None))
            self._next_heartbeat = now + HEARTBEAT_PERIOD
        while self._wanted and now >= self._ask_from and self._budget.take(now):
            frames.append(self._subscribe(self._wanted.pop(0)))
        if now - max(life, self._pinged) >= PING_PERIOD and self._budget.take(now):
            frames.append(Send("ping", b""))
            self._pinged = now
        return frames

    def farewell(self, now: int) -> list[Send]:
        """Return the unsubscriptions that may be sent at `now`, so that the account's quota is free at once."""
        return [self._unsubscribe(channel) for channel in self._channels if self._budget.take(now)]

    def acked(self, channel: Channel, trace: str | None) -> Channel:
        """Note that a subscription was taken, and return its channel: that of the request of this trace, else the one given."""
        taken = self._asked.get(trace or "", channel)
        self._acked.add(taken)
        return taken

    def ask_later(self, trace: str | None, now: int) -> None:
        """Send the request of a trace once more after a while; where the trace is unknown, what has no ack, else all."""
        asked = self._asked.get(trace or "")
        refused = [asked] if asked else [channel for channel in self._channels if channel not in self._acked] or self._channels
        self._acked.difference_update(refused)
        self._wanted += [channel for channel in refused if channel not in self._wanted]
        self._ask_from = now + PATIENCE

    def _subscribe(self, channel: Channel) -> Send:
        codes = ",".join(self._feed.symbols)
        data: dict[str, Any] = {"codes": codes}
        if channel is Channel.KLINE:
            data = {"arr": [{"type": KLINE_TYPES[interval], "codes": codes} for interval in self._klines]}
        elif channel is Channel.TRADE and self._feed.business == "stock":
            data["includeTy"] = True
        return self._text(channel.subscribe, data, channel)

    def _unsubscribe(self, channel: Channel) -> Send:
        data = {"codes": ",".join(self._feed.symbols)}
        if channel is Channel.KLINE:
            data["klineTypes"] = ",".join(str(KLINE_TYPES[interval]) for interval in self._klines)
        return self._text(channel.unsubscribe, data)

    def _text(self, code: int, data: dict[str, Any] | None, asks: Channel | None = None) -> Send:
        trace = f"{self._chance.getrandbits(48):012x}"
        if asks is not None:
            self._asked[trace] = asks
        return Send("text", orjson.dumps({"code": code, "trace": trace} | ({"data": data} if data else {})))
