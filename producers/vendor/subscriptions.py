"""What a connection sends and when: heartbeats, subscriptions, pings, within 60 frames a minute; no
sockets."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import orjson

from producers.vendor.codes import HEARTBEAT, KLINE_TYPES, Channel
from producers.vendor.frame_budget import FrameBudget
from producers.vendor.symbols import Feed

HEARTBEAT_PERIOD = 30_000_000
"""Microseconds; the vendor closes a socket after 60 s without one."""
PING_PERIOD = 2_000_000
"""Microseconds of silence after which a ping is sent: 30 pings a minute leave room in
the budget."""
SLOW_PING_PERIOD = 10_000_000
"""The same after the vendor asked for fewer frames: enough for the watchdog."""
PATIENCE = 60_000_000
"""Microseconds to wait before a request goes out again that met a quota or a rate limit: the vendor
counts by the minute."""

REMEMBERED = 256
"""Requests of a connection whose answer, however late, is understood: what is sent in four minutes
at most."""
ANSWER = 5_000_000
"""Microseconds in which the vendor answers a request; after that, no answer is waited for."""


Wanted = TypeVar("Wanted")


@dataclass(frozen=True, slots=True)
class Send:
    """A WebSocket message to send."""

    opcode: Literal["text", "ping"]
    payload: bytes


def channels_of(klines: Sequence[str]) -> list[Channel]:
    """Return the channels that a feed subscribes to: trades and depth, and klines where it has
    intervals."""
    return [channel for channel in Channel if channel is not Channel.KLINE or klines]


@dataclass(frozen=True, slots=True)
class SubscriptionRequest:
    """A subscription that was sent, `whole` for every symbol that the feed had then, or an
    unsubscription."""

    channel: Channel
    symbols: tuple[str, ...]
    whole: bool = False
    unsubscribes: bool = False


RefusedSymbols = dict[Channel, set[str]]
"""Symbols that the vendor has refused for good, by channel."""


class Subscriptions:
    """What one connection asks of the vendor: one frame for all symbols of a channel. Times are
    microseconds."""

    def __init__(
        self,
        feed: Feed,
        klines: Sequence[str],
        chance: random.Random,
        now_us: int,
        refused: RefusedSymbols,
    ) -> None:
        """`refused` is left out, and gets what the vendor refuses on this connection."""
        self.unanswered = 0
        """Requests whose answer has not come in time and that go out again, since someone took note
        of it."""
        self.never_answered = 0
        """How many there were in a row before the first answer of the connection."""
        self._refused = refused
        self._given_up: set[Channel] = set()
        self._slow = False
        self._feed = feed
        self._klines = klines
        self._chance = chance
        self._channels = channels_of(klines)
        self._wanted = dict.fromkeys(self._channels, now_us)
        """Channels that all symbols are still to be asked for on, and from when."""
        self._added: dict[Channel, dict[str, int]] = {channel: {} for channel in self._channels}
        """Symbols that are still to be asked for beside those, and from when."""
        self._slow_until_us = now_us
        self._removed: tuple[str, ...] = ()
        self._unasked: list[Channel] = []
        self._unask_from_us = now_us
        self._asked: dict[str, SubscriptionRequest] = {}
        self._acked: set[Channel] = set()
        self._unsure: set[Channel] = set()
        """Channels with a subscription that was not answered in time: the vendor may still take
        it."""
        self._unanswered: dict[str, int] = {}
        self._next_heartbeat_us = now_us + HEARTBEAT_PERIOD
        self._pinged_at_us = now_us
        self._budget = FrameBudget()

    @property
    def complete(self) -> bool:
        """Whether every channel's subscription is acked."""
        return self._acked.issuperset(self._channels)

    @property
    def decided(self) -> bool:
        """Whether the vendor has taken or refused every channel's subscription."""
        return (self._acked | self._given_up).issuperset(self._channels)

    @property
    def is_answered(self) -> bool:
        """Whether no unsubscription is left to send, and what was sent is answered, or has waited
        long enough."""
        return not self._unasked and not self._unanswered

    def answered(self, trace: str | None) -> None:
        """Note that the vendor has answered a request; without its trace, the oldest."""
        self._unanswered.pop(trace or next(iter(self._unanswered), ""), None)
        self.never_answered = 0

    def answered_ping(self, now_us: int) -> None:
        """Note a pong to the vendor."""
        self._budget.count(now_us)

    def refused(self, trace: str | None, now_us: int) -> None:
        """Note that the vendor refuses a request for good: neither a subscription nor its symbols
        on its channel are asked for again, and an unsubscription counts as not answered."""
        asked = self._asked.get(trace or "")
        if asked is None:
            return
        if asked.unsubscribes:
            # no answer: the symbols may still come, and nobody takes them over before the time for
            # an answer is over
            self._unanswered.setdefault(trace or "", now_us)
            return
        self._refused.setdefault(asked.channel, set()).update(asked.symbols)
        if asked.whole:
            self._given_up.add(asked.channel)

    def due(self, now_us: int, last_alive_us: int) -> list[Send]:
        """Return what may be sent at `now_us`, heartbeats first; `last_alive_us` is when a frame or
        a pong last arrived."""
        frames: list[Send] = []
        if now_us >= self._next_heartbeat_us and self._budget.take(now_us, reserved=0):
            frames.append(self._text(HEARTBEAT, None, now_us))
            self._next_heartbeat_us = now_us + HEARTBEAT_PERIOD
        for trace in [
            trace for trace, asked in self._unanswered.items() if now_us - asked >= ANSWER
        ]:
            # an answer that is lost, or that the vendor never gave: without it nobody knows whether
            # data will come
            del self._unanswered[trace]
            if not self._asked[trace].unsubscribes:
                self._unsure.add(self._asked[trace].channel)
                self.ask_later(trace, now_us)
                self.unanswered += 1
                self.never_answered += not self._acked
        while self._unasked and now_us >= self._unask_from_us and self._budget.take(now_us):
            frames.append(self._unsubscribe(self._unasked[0], self._removed, now_us))
            # only now: from another thread it must not look answered in between
            del self._unasked[0]
        self._slow = self._slow and now_us < self._slow_until_us
        if not self._slow:
            frames += self._subscriptions_due(now_us)
        if now_us - max(last_alive_us, self._pinged_at_us) >= (
            SLOW_PING_PERIOD if self._slow else PING_PERIOD
        ) and self._budget.take(now_us):
            frames.append(Send("ping", b""))
            self._pinged_at_us = now_us
        return frames

    def _subscriptions_due(self, now_us: int) -> Iterator[Send]:
        for channel in _due(self._wanted, now_us) if self._feed.symbols else ():
            symbols = self._allowed(channel)
            if not symbols:
                self._given_up.add(channel)
            elif self._budget.take(now_us):
                yield self._subscribe(channel, symbols, now_us, whole=True)
            else:
                break
            del self._wanted[channel]
            self._added[channel].clear()
        for channel, added in self._added.items():
            if (symbols := _due(added, now_us)) and self._budget.take(now_us):
                yield self._subscribe(channel, symbols, now_us, whole=False)
                for symbol in symbols:
                    del added[symbol]

    def farewell(self, now_us: int) -> list[Send]:
        """Return the unsubscriptions that may be sent at `now_us`: they free the account's quota at
        once."""
        if not self._feed.symbols:
            return []
        return [
            self._unsubscribe(channel, self._feed.symbols, now_us)
            for channel in self._channels
            if self._budget.take(now_us)
        ]

    def change(self, feed: Feed) -> None:
        """Ask for the symbols that the feed has gained and no more for those it has lost; changes
        not sent yet are merged."""
        before, after = dict.fromkeys(self._feed.symbols), dict.fromkeys(feed.symbols)
        self._feed = feed
        # what is still to be unsubscribed once, and was not taken up again since
        unsent = self._removed if self._unasked else ()
        self._removed = tuple(
            symbol for symbol in dict.fromkeys((*unsent, *before)) if symbol not in after
        )
        self._unasked = (
            [
                channel
                for channel in self._channels
                if channel not in self._wanted or channel in self._unsure
            ]
            if self._removed
            else []
        )
        # what is new has met nothing that it would have to wait for; and pushes of an earlier
        # subscription may have begun it already
        new = {symbol: 0 for symbol in after if symbol not in before}
        for channel, added in self._added.items():
            waiting = {symbol: from_us for symbol, from_us in added.items() if symbol in after}
            self._added[channel] = waiting | new

    def acked(self, channel: Channel, trace: str | None) -> SubscriptionRequest:
        """Note that a subscription was taken, and return it: the request of this trace, else all
        symbols of the channel given."""
        self.answered(trace)
        taken = self._asked.get(trace or "")
        if taken is None or taken.unsubscribes:
            taken = SubscriptionRequest(channel, self._allowed(channel), whole=True)
            # an ack that does not name its request answers what was asked of its channel
            for each in [each for each in self._unanswered if self._asked[each] == taken]:
                del self._unanswered[each]
        if taken.whole:
            self._acked.add(taken.channel)
            late = taken.channel in self._wanted and taken in self._asked.values()
            if late and taken.symbols == self._allowed(taken.channel):
                del self._wanted[taken.channel]
        return taken

    def ask_later(self, trace: str | None, now_us: int, slower: bool = False) -> None:
        """Send the request of a trace once more after a while; where the trace is unknown, what has
        no ack, else all.

        `slower`: the vendor says that too many frames come.
        """
        if slower:
            self._slow, self._slow_until_us = True, now_us + PATIENCE
        asked = self._asked.get(trace or "")
        if asked and asked.unsubscribes:
            before = self._removed if self._unasked else ()
            self._removed = tuple(
                each
                for each in dict.fromkeys((*before, *asked.symbols))
                if each not in self._feed.symbols
            )
            if self._removed and asked.channel not in self._unasked:
                self._unasked.append(asked.channel)
            self._unask_from_us = now_us + PATIENCE
            return
        if asked and not asked.whole:
            self._added[asked.channel].update(
                dict.fromkeys(
                    (each for each in asked.symbols if each in self._feed.symbols),
                    now_us + PATIENCE,
                )
            )
            return
        refused = (
            [asked.channel]
            if asked
            else [channel for channel in self._channels if channel not in self._acked]
            or self._channels
        )
        self._acked.difference_update(refused)
        for channel in refused:
            self._wanted[channel] = now_us + PATIENCE

    def _allowed(self, channel: Channel) -> tuple[str, ...]:
        refused = self._refused.get(channel, ())
        return tuple(symbol for symbol in self._feed.symbols if symbol not in refused)

    def _subscribe(
        self, channel: Channel, symbols: tuple[str, ...], now_us: int, whole: bool
    ) -> Send:
        codes = ",".join(symbols)
        data: dict[str, Any] = {"codes": codes}
        if channel is Channel.KLINE:
            data = {
                "arr": [
                    {"type": KLINE_TYPES[interval], "codes": codes} for interval in self._klines
                ]
            }
        elif channel is Channel.TRADE and self._feed.business == "stock":
            data["includeTy"] = True
        return self._text(
            channel.subscribe, data, now_us, SubscriptionRequest(channel, symbols, whole)
        )

    def _unsubscribe(self, channel: Channel, symbols: tuple[str, ...], now_us: int) -> Send:
        data = {"codes": ",".join(symbols)}
        if channel is Channel.KLINE:
            data["klineTypes"] = ",".join(str(KLINE_TYPES[interval]) for interval in self._klines)
        return self._text(
            channel.unsubscribe,
            data,
            now_us,
            SubscriptionRequest(channel, symbols, unsubscribes=True),
        )

    def _text(
        self,
        code: int,
        data: dict[str, Any] | None,
        now_us: int,
        asks: SubscriptionRequest | None = None,
    ) -> Send:
        trace = f"{self._chance.getrandbits(48):012x}"
        if asks is not None:
            self._asked[trace] = asks
            if len(self._asked) > REMEMBERED:
                del self._asked[next(iter(self._asked))]
        if data is not None:
            # a heartbeat has no answer
            self._unanswered[trace] = now_us
        return Send(
            "text", orjson.dumps({"code": code, "trace": trace} | ({"data": data} if data else {}))
        )


def _due(from_us: Mapping[Wanted, int], now_us: int) -> tuple[Wanted, ...]:
    return tuple(key for key, start_us in from_us.items() if now_us >= start_us)
