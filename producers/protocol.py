"""The vendor's protocol for one feed, without I/O: bytes and times in, records to publish and frames to send out.

A transport, or a recording in a socket's place, calls the methods in the order of events. `now` is always the
producer's clock in microseconds UTC. A FeedProtocol outlives its connections: it knows what the one before delivered.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from producers.codes import KLINE_TYPES, SUBSCRIBE_FAIL, Channel, Verdict, judge
from producers.counters import FeedCounters
from producers.frames import MAX_FRAME, Ack, Refusal, read_frame
from producers.marks import Marks, Place
from producers.partition import partition_of
from producers.pushes import Push, UnreadableFrame
from producers.records import DEAD_LETTER, FEED_STATUS, ControlRecord, Output, Record
from producers.repeats import Repeats
from producers.requests import PATIENCE, Requests, Send, channels_of
from producers.silence import IsOpen, Silence, always_open
from producers.symbols import Feed
from schemas.control import Control, Kind

SILENCE = 60_000_000
"""Microseconds without any sign of life after which a connection counts as dead."""


Unseen = Callable[[str, str, str, int | None, int], None]
"""Told of a symbol's time without a feed: symbol, business, feed, from (None: the feed's first begin), to (ms UTC)."""


class State(Enum):
    """Where a feed stands with its connection."""

    DOWN = "no connection"
    OPEN = "connected"
    BROKEN = "connected, but a new connection is needed"
    REFUSED = "the vendor's answer forbids another try"
    ENDED = "ended in order"


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """How a feed is read.

    source          live, simulated or replay; a replay without acks begins its symbols with the connection
    klines          intervals of the vendor's klines to subscribe; none: no klines
    mark_period_ms  silence of a partition after which a mark says that its feed lives
    max_future_ms   how far ahead of its receipt a time may lie
    has_acks        whether a replay has the vendor's acks among its frames: then its symbols begin with them, as on a live feed
    silence_ms      time without data after an ack, its market open, after which a symbol is reported
    is_open         whether a symbol's market is open at a time (microseconds)
    unseen          told of what this feed did not see, if anyone wants to know
    """

    source: str
    klines: tuple[str, ...] = ("1m",)
    mark_period_ms: int = 1000
    max_future_ms: int = 60_000
    has_acks: bool = False
    silence_ms: int = 300_000
    is_open: IsOpen = always_open
    unseen: Unseen | None = None

    def __post_init__(self) -> None:
        unknown = [interval for interval in self.klines if interval not in KLINE_TYPES]
        if unknown:
            raise ValueError(f"kline intervals {', '.join(unknown)} are not the vendor's: choose from {', '.join(KLINE_TYPES)}")


@dataclass(slots=True)
class _Connection:
    """One WebSocket connection: its id, last sign of life (microseconds), and the symbols begun on it with their places."""

    id: str
    life: int
    requests: Requests
    marks: Marks
    begun: dict[tuple[Channel, str], Place] = field(default_factory=dict)
    sequence: int = 0
    had_json: bool = False
    removed: set[str] = field(default_factory=set)


class FeedProtocol:
    """One feed's protocol. `partitions` is the number of partitions of each raw topic, by its name in the contract."""

    def __init__(
        self, feed: Feed, settings: FeedSettings, partitions: Mapping[str, int], counters: FeedCounters, chance: random.Random
    ) -> None:
        self.feed = feed
        self.state = State.DOWN
        self.reason = ""
        """Why the state is BROKEN or REFUSED."""
        self.refusal: Refusal | None = None
        """The answer behind REFUSED."""
        self.wanted_symbols = feed.symbols
        """May be set from any thread; the transport takes it up."""
        self._settings = settings
        self._partitions = partitions
        self.counters = counters
        self._chance = chance
        self._repeats = Repeats()
        self._silence = Silence(settings.silence_ms * 1000, settings.is_open)
        self._known_until: dict[tuple[Channel, str], int] = {}
        self._reported = ("", "")
        self._down_since: int | None = None
        self._event_clock: tuple[int, int] | None = None
        """Event time of the last trade or book (milliseconds), and when it was received (microseconds)."""
        self._connection = self._new_connection("", 0)

    @property
    def subscribed(self) -> bool:
        """Whether the vendor has taken every subscription of the connection."""
        return self._connection.requests.complete

    def connected(self, now: int) -> list[Output]:
        """Begin a connection: it gets an id, its subscriptions become frames to send."""
        self._connection = self._new_connection(f"{self.feed.name}-{now}", now)
        self._silence.connect()
        self.state = State.OPEN
        self.reason = ""
        self.counters.connections += 1
        if self._settings.source == "replay" and not self._settings.has_acks:
            begun = [output for channel in channels_of(()) for output in self._begin(channel, self.feed.symbols, now)]
            return [*begun, *self._report("healthy", "replay", now)]
        return self._report("connecting", "connected, not subscribed yet", now)

    def receive(self, data: bytes, now: int) -> list[Output]:
        """Take one message; return what to publish: a record, or a dead letter, and what follows from it."""
        self._connection.life = now
        self.counters.last_frame = now
        latest = now // 1000 + self._settings.max_future_ms
        try:
            frame = read_frame(data, latest, greeting=self.feed.business == "stock" and not self._connection.had_json)
        except UnreadableFrame as error:
            outputs = self._dead_letter(data, error, now)
        else:
            outputs = []
            if isinstance(frame, Push):
                outputs = self._take_push(frame, now)
            elif isinstance(frame, Ack):
                outputs = self._take_ack(frame, now)
            elif isinstance(frame, Refusal):
                outputs = self._take_refusal(frame, now)
        self._connection.had_json = self._connection.had_json or data[:1] == b"{"
        outputs += self._silent(now)
        outputs += self._marks()
        return outputs

    def pong(self, now: int) -> list[Output]:
        """Take a WebSocket pong, a sign of life."""
        self._connection.life = now
        return self._silent(now) + self._marks()

    def tick(self, now: int) -> None:
        """Let time pass; breaks a connection that has been without a sign of life for too long."""
        if self.state is State.OPEN and now - self._connection.life > SILENCE:
            self.state = State.BROKEN
            self.reason = f"no sign of life for {SILENCE // 1_000_000} s"

    def frames_to_send(self, now: int) -> list[Send]:
        """Return what may be sent now, in this order."""
        return self._connection.requests.due(now, self._connection.life) if self.state is State.OPEN else []

    def disconnected(self, now: int, reason: str) -> list[Output]:
        """End a connection that was lost, or note that none could be made."""
        if self.state is not State.DOWN:
            self.counters.losses += 1
            self._known_until.update(dict.fromkeys(self._connection.begun, self._connection.life))
            self._repeats.reconnect(self._connection.life)
        if self.state is not State.REFUSED:
            self.state = State.DOWN
        if self._down_since is not None:
            return []
        self._down_since = self._connection.life or now
        return self._report("down", reason, self._down_since)

    def ended(self, now: int) -> tuple[list[Output], list[Send]]:
        """End the feed in order; return what to publish, and the unsubscriptions that may still be sent."""
        farewell: list[Send] = []
        if self.state is State.OPEN:
            farewell = self._connection.requests.farewell(now)
        self._known_until.update(dict.fromkeys(self._connection.begun, self._connection.life))
        # at the last sign of life, not at `now`: what came after it is not known
        outputs = [self._control("end", channel, symbol, life) for (channel, symbol), life in self._known_until.items()]
        self.state = State.ENDED
        return [*outputs, *self._report("ended", "ended in order", now)], farewell

    def change_symbols(self, symbols: tuple[str, ...]) -> list[Output]:
        """Carry these symbols from now on; return the ends of those left out. The others are not disturbed.

        What the vendor still sends of a removed symbol is published, but does not begin it again.
        """
        connection = self._connection
        removed = set(self.feed.symbols).difference(symbols)
        self.feed = replace(self.feed, symbols=symbols)
        until = {**self._known_until, **dict.fromkeys(connection.begun, connection.life)} if self.state is State.OPEN else self._known_until
        outputs: list[Output] = [self._control("end", *place, life) for place, life in until.items() if place[1] in removed]
        for known in (self._known_until, connection.begun):
            for place in [place for place in known if place[1] in removed]:
                del known[place]
        connection.removed = (connection.removed | removed).difference(symbols)
        connection.requests.change(self.feed)
        self._silence.forget(removed)
        self.counters.silent = len(self._silence.silent)
        return outputs

    def _new_connection(self, name: str, now: int) -> _Connection:
        requests = Requests(self.feed, self._settings.klines, self._chance, now)
        return _Connection(name, now, requests, Marks(self._settings.mark_period_ms * 1000))

    def _take_push(self, push: Push, now: int) -> list[Output]:
        outputs: list[Output] = []
        counters, connection, feed = self.counters, self._connection, self.feed
        channel, symbol, fields, extra = push
        counters.received += 1
        connection.sequence += 1
        envelope = (feed.business, feed.name, connection.id, connection.sequence, now, self._settings.source, extra)
        if self._silence.heard(symbol):
            counters.silent = len(self._silence.silent)
            outputs.append(self._status("healthy", "data after a silence", now, None, [symbol]))
        place = connection.begun.get((channel, symbol))
        if symbol in connection.removed:
            pass
        elif place is None:
            # its ack is still to come, or it was never asked for: data says more than either
            outputs.append(self._begin_symbol(channel, symbol, now))
        else:
            place.active = now
        if channel is Channel.KLINE:
            counters.klines += 1
        elif channel is Channel.DEPTH:
            counters.depth += 1
            self._event_clock = (fields[1], now)
        else:
            counters.trades += 1
            _, ts_event, price, volume, _, direction, _ = fields
            self._event_clock = (ts_event, now)
            repeat = self._repeats.seen(symbol, (ts_event, price, volume, direction), now)
            counters.repeats += repeat
            fields = (*fields, repeat)
        outputs.append(Record(channel.topic, symbol, fields + envelope))
        return outputs

    def _take_ack(self, ack: Ack, now: int) -> list[Output]:
        taken = self._connection.requests.acked(ack.channel, ack.trace)
        symbols = [symbol for symbol in taken.symbols if symbol not in self._connection.removed]
        outputs = self._begin(taken.channel, symbols, now)
        if self._settings.source != "replay":
            self._silence.acked(symbols, now)
        if self._connection.requests.complete:
            if self._down_since is not None:
                outputs += self._report("down", "over", self._down_since, until=now)
                self._down_since = None
            outputs += self._report("healthy", "subscribed", now)
        return outputs

    def _take_refusal(self, refusal: Refusal, now: int) -> list[Output]:
        self.counters.refusals += 1
        reason = f"the vendor says {refusal.code or SUBSCRIBE_FAIL.decode()} {refusal.text}".rstrip()
        verdict = judge(refusal.code)
        if verdict is Verdict.REPORT:
            return self._report("degraded", reason, now)
        if verdict is Verdict.ASK_LATER:
            self._connection.requests.ask_later(refusal.trace, now)
            return self._report("degraded", f"{reason}; asked again in {PATIENCE // 1_000_000} s", now)
        self.reason = reason
        if verdict is Verdict.RECONNECT:
            self.state = State.BROKEN
            return []
        self.state = State.REFUSED
        self.refusal = refusal
        return self._report("down", reason, now)

    def _begin(self, channel: Channel, symbols: Iterable[str], now: int) -> list[Output]:
        return [self._begin_symbol(channel, symbol, now) for symbol in symbols if (channel, symbol) not in self._connection.begun]

    def _begin_symbol(self, channel: Channel, symbol: str, now: int) -> ControlRecord:
        partition = partition_of(symbol.encode(), self._partitions[channel.topic])
        place = self._connection.begun[channel, symbol] = self._connection.marks.place(channel.topic, partition, now)
        place.active = now
        known_until = self._known_until.get((channel, symbol))
        ts_from = None if known_until is None else known_until // 1000
        if channel is Channel.TRADE and self._settings.unseen is not None:
            self._settings.unseen(symbol, self.feed.business, self.feed.name, ts_from, now // 1000)
        return self._control("begin", channel, symbol, now, ts_from)

    def _silent(self, now: int) -> list[Output]:
        found = self._silence.due(now)
        if not found:
            return []
        self.counters.silent = len(self._silence.silent)
        reason = f"acked, but no data for {self._settings.silence_ms / 1000:g} s of market hours: check the symbol and its business"
        return [self._status("degraded", reason, now, None, found)]

    def _marks(self) -> list[Output]:
        if self._event_clock is None or not (places := self._connection.marks.due(self._connection.life)):
            return []
        # in the vendor's time, not the producer's: a slow clock, a slow feed and a recording of years ago stay in step
        event, received = self._event_clock
        alive_at = event + (self._connection.life - received) // 1000
        return [
            ControlRecord(place.topic, None, place.partition, self._control_value("mark", self._connection.life, None, alive_at))
            for place in places
        ]

    def _control(self, kind: Kind, channel: Channel, symbol: str, time: int, ts_from: int | None = None) -> ControlRecord:
        return ControlRecord(channel.topic, symbol, None, self._control_value(kind, time, ts_from))

    def _control_value(self, kind: Kind, time: int, ts_from: int | None, ts: int | None = None) -> Control:
        feed, at = self.feed, time // 1000 if ts is None else ts
        return Control(kind, feed.name, feed.business, self._connection.id, self._settings.source, at, time, ts_from)

    def _dead_letter(self, data: bytes, error: UnreadableFrame, now: int) -> list[Output]:
        self.counters.received += 1
        self.counters.unreadable += 1
        origin = (self.feed.name, self._connection.id, now, self._settings.source)
        fields = ("", None, None, None, data[:MAX_FRAME], type(error).__name__, str(error), *origin)
        return [Record(DEAD_LETTER, error.symbol or self.feed.name, fields)]

    def _report(self, state: str, reason: str, since: int, until: int | None = None) -> list[Output]:
        if until is None and self._reported == (state, reason):
            return []
        self._reported = (state, reason)
        symbols = [symbol for symbol in self.feed.symbols if state != "healthy" or symbol not in self._silence.silent]
        return [self._status(state, reason, since, until, symbols)]

    def _status(self, state: str, reason: str, since: int, until: int | None, symbols: list[str]) -> Record:
        feed, connection = self.feed, self._connection
        times = (since // 1000, None if until is None else until // 1000)
        return Record(
            FEED_STATUS, feed.name, (feed.name, connection.id, feed.business, state, reason, *times, symbols, connection.sequence)
        )
