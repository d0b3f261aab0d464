"""The vendor's protocol for one feed, without I/O: bytes and times in, records to publish and frames to send out.

A transport, or a recording in a socket's place, calls the methods in the order of events. `now` is always the
producer's clock in microseconds UTC. A FeedProtocol outlives its connections: it knows what the one before delivered.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from producers.codes import SUBSCRIBE_FAIL, Channel, Verdict, judge
from producers.counters import FeedCounters
from producers.coverage import Coverage
from producers.frames import MAX_FRAME, Ack, Refusal, Unsubscribed, read_frame
from producers.pushes import Push, UnreadableFrame
from producers.records import DEAD_LETTER, FEED_STATUS, Output, Record
from producers.repeats import Delivered, Repeats
from producers.requests import PATIENCE, Refused, Requests, Send, channels_of
from producers.settings import FeedSettings
from producers.silence import Silence
from producers.symbols import Feed

SILENCE = 60_000_000
"""Microseconds without any sign of life after which a connection counts as dead."""


WAITS = 5
"""How often in a row a feed waits where the vendor counts too many connections, before that is taken for the truth."""
UNANSWERED = 2
"""Subscriptions without an answer after which a connection on which none was taken counts as broken."""


class State(Enum):
    """Where a feed stands with its connection."""

    DOWN = "no connection"
    OPEN = "connected"
    BROKEN = "connected, but a new connection is needed"
    REFUSED = "the vendor's answer forbids another try"
    ENDED = "ended in order"


@dataclass(slots=True)
class _Connection:
    """One WebSocket connection: its requests, and the pushes counted on it."""

    requests: Requests
    sequence: int = 0
    had_json: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """What a feed knows of a symbol that it carries no more: by channel until when (microseconds) it saw it, and its last trades."""

    feed: str
    seen: Mapping[Channel, int]
    delivered: Delivered


class FeedProtocol:
    """One feed's protocol. `partitions` is the number of partitions of each raw topic, by its name in the contract."""

    def __init__(
        self,
        feed: Feed,
        settings: FeedSettings,
        partitions: Mapping[str, int],
        counters: FeedCounters,
        chance: random.Random,
    ) -> None:
        self.feed = feed
        self.state = State.DOWN
        self.reason = ""
        """Why the state is BROKEN or REFUSED."""
        self.refusal: Refusal | None = None
        """The answer behind REFUSED."""
        self.pause = 0
        """Microseconds to wait at least before the next connection."""
        self.wanted_symbols = feed.symbols
        """May be set from any thread; the transport takes it up."""
        self.wanted_of: dict[str, Left] = {}
        """Of wanted symbols that another feed carried until now, what that one knows; as `wanted_symbols`."""
        self.left: dict[str, Left] = {}
        """Of symbols that the feed carries no more, what it knows; may be taken out from any thread."""
        self._settings = settings
        self.counters = counters
        self._chance = chance
        self._repeats = Repeats()
        self._silence = Silence(settings.silence_ms * 1000, settings.is_open, feed.business)
        self._coverage = Coverage(
            feed, settings.source, partitions, settings.mark_period_ms, settings.unseen
        )
        self._reported = ("", "")
        self._down_since: int | None = None
        self._was_subscribed = False
        self._refused: Refused = {}
        """What the vendor has refused for good: it is not asked for on later connections."""
        self._waits = 0
        self._connection = self._new_connection(0)

    @property
    def subscribed(self) -> bool:
        """Whether the vendor has taken every subscription of the connection."""
        return self._connection.requests.complete

    @property
    def settled(self) -> bool:
        """Whether the wanted symbols are taken up, and the vendor has answered what was asked of it; from any thread."""
        # in this order: a change is the feed's once its requests are made
        return self.feed.symbols is self.wanted_symbols and (
            self.state is not State.OPEN or self._connection.requests.settled
        )

    def connected(self, now: int) -> list[Output]:
        """Begin a connection: it gets an id, its subscriptions become frames to send."""
        self._connection = self._new_connection(now)
        self._coverage.connect(f"{self.feed.name}-{now}", now)
        self._silence.connect()
        self.state = State.OPEN
        self.reason = ""
        self.pause = 0
        self.counters.connections += 1
        if self._settings.source == "replay" and not self._settings.has_acks:
            begun = [
                output
                for channel in channels_of(())
                for output in self._begin(channel, self.feed.symbols, now)
            ]
            return [*begun, *self._report("healthy", "replay", now)]
        return self._report("connecting", "connected, not subscribed yet", now)

    def receive(self, data: bytes, now: int) -> list[Output]:
        """Take one message; return what to publish: a record, or a dead letter, and what follows from it."""
        self._coverage.life = now
        self.counters.last_frame = now
        latest = now // 1000 + self._settings.max_future_ms
        try:
            frame = read_frame(
                data,
                latest,
                greeting=self.feed.business == "stock" and not self._connection.had_json,
            )
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
            elif isinstance(frame, Unsubscribed):
                self._connection.requests.answered(frame.trace)
        self._connection.had_json = self._connection.had_json or data[:1] == b"{"
        outputs += self._silent(now)
        if self._connection.requests.unanswered:
            outputs += self._unanswered(now)
        outputs += self._coverage.marks()
        return outputs

    def pong(self, now: int) -> list[Output]:
        """Take a WebSocket pong, a sign of life."""
        self._coverage.life = now
        return self._silent(now) + self._unanswered(now) + self._coverage.marks()

    def ping(self, now: int) -> list[Output]:
        """Take a WebSocket ping, a sign of life, which was answered by a pong: one more frame that was sent."""
        self._connection.requests.answered_ping(now)
        return self.pong(now)

    def tick(self, now: int) -> None:
        """Let time pass; breaks a connection that has been without a sign of life for too long."""
        if self.state is State.OPEN and now - self._coverage.life > SILENCE:
            self.state = State.BROKEN
            self.reason = f"no sign of life for {SILENCE // 1_000_000} s"

    def frames_to_send(self, now: int) -> list[Send]:
        """Return what may be sent now, in this order."""
        return (
            self._connection.requests.due(now, self._coverage.life)
            if self.state is State.OPEN
            else []
        )

    def disconnected(self, now: int, reason: str, read: int | None = None) -> list[Output]:
        """End a connection that was lost, or note that none could be made.

        `read` is when nothing that had come was left to be read, where the transport knows it: what came after may be lost.
        """
        outputs: list[Output] = []
        coverage = self._coverage
        if self.state is not State.DOWN:
            self.counters.losses += 1
            coverage.lose(read)
            self._repeats.reconnect(coverage.seen(read))
            if self._down_since is not None and coverage.began:
                # it had data, though not every answer
                outputs += self._over(coverage.began)
        if self.state is not State.REFUSED:
            self.state = State.DOWN
        if self._down_since is None:
            self._down_since = coverage.seen(read) if coverage.life else now
            return [*outputs, *self._report("down", reason, self._down_since)]
        # once for an outage, and once more after a connection that brought nothing
        return [
            *outputs,
            *(
                self._report("down", reason, self._down_since)
                if self._reported[0] != "down"
                else ()
            ),
        ]

    def ended(self, now: int, read: int | None = None) -> tuple[list[Output], list[Send]]:
        """End the feed in order; return what to publish, and the unsubscriptions that may still be sent; `read` as in `disconnected`."""
        farewell: list[Send] = []
        if self.state is State.OPEN:
            farewell = self._connection.requests.farewell(now)
        outputs, seen = self._coverage.end(read=read)
        self._leave(seen)
        self.state = State.ENDED
        return [*outputs, *self._report("ended", "ended in order", now)], farewell

    def waits_for_room(self) -> bool:
        """Return whether too many connections are worth a wait: most likely one is ours, not yet known to be lost; sets `pause`."""
        if not self._was_subscribed or self._waits == WAITS:
            return False
        self._waits += 1
        self.pause = PATIENCE
        return True

    def take_up(self, now: int) -> list[Output]:
        """Take up the wanted symbols, once the vendor has answered what it was asked before."""
        if self.state is State.OPEN and not self._connection.requests.settled:
            return []
        symbols = self.wanted_symbols
        taken = {
            symbol: self.wanted_of.pop(symbol) for symbol in symbols if symbol in self.wanted_of
        }
        return self.change_symbols(symbols, taken, now)

    def change_symbols(
        self, symbols: tuple[str, ...], taken: Mapping[str, Left], now: int
    ) -> list[Output]:
        """Carry these symbols from now on; return the ends of those left out. The others are not disturbed.

        What the vendor still sends of a removed symbol is published, but does not begin it again. `taken` is what the feed knows
        that has carried a symbol until now: what neither of them sees is a gap.
        """
        removed = set(self.feed.symbols).difference(symbols)
        outputs, seen = self._coverage.end(removed)
        self._leave(seen)
        self._coverage.change(
            removed, symbols, {symbol: left.seen for symbol, left in taken.items()}
        )
        for symbol, left in taken.items():
            self._repeats.take_over(symbol, left.delivered)
        if removed:
            # room for what was refused, on the next connection
            self._refused.clear()
        feed = replace(self.feed, symbols=symbols)
        self._connection.requests.change(feed)
        self.feed = feed
        self._silence.forget(removed)
        self.counters.silent = len(self._silence.silent)
        if state := self._reported[0]:
            outputs.append(self._status(state, "other symbols", now, None, list(symbols)))
        return outputs

    def _leave(self, seen: Mapping[str, Mapping[Channel, int]]) -> None:
        self.left.update(
            {
                symbol: Left(self.feed.name, until, self._repeats.of(symbol))
                for symbol, until in seen.items()
            }
        )

    def _new_connection(self, now: int) -> _Connection:
        return _Connection(
            Requests(self.feed, self._settings.klines, self._chance, now, self._refused)
        )

    def _take_push(self, push: Push, now: int) -> list[Output]:
        outputs: list[Output] = []
        counters, connection, coverage, feed = (
            self.counters,
            self._connection,
            self._coverage,
            self.feed,
        )
        channel, symbol, fields, extra = push
        counters.received += 1
        connection.sequence += 1
        envelope = (
            feed.business,
            feed.name,
            coverage.connection,
            connection.sequence,
            now,
            self._settings.source,
            extra,
        )
        if self._silence.heard(symbol):
            counters.silent = len(self._silence.silent)
            outputs.append(self._status("healthy", "data after a silence", now, None, [symbol]))
        place = coverage.begun.get((channel, symbol))
        if symbol in coverage.removed:
            pass
        elif place is None:
            # its ack is still to come, or it was never asked for: data says more than either
            outputs += coverage.begin(channel, symbol, now)
        else:
            place.active = now
        if channel is Channel.KLINE:
            counters.klines += 1
        elif channel is Channel.DEPTH:
            counters.depth += 1
            coverage.event(fields[1], now)
        else:
            counters.trades += 1
            _, ts_event, price, volume, _, direction, _ = fields
            coverage.event(ts_event, now)
            repeat = self._repeats.seen(symbol, (ts_event, price, volume, direction), now)
            counters.repeats += repeat
            fields = (*fields, repeat)
        outputs.append(Record(channel.topic, symbol, fields + envelope))
        return outputs

    def _take_ack(self, ack: Ack, now: int) -> list[Output]:
        taken = self._connection.requests.acked(ack.channel, ack.trace)
        symbols = [symbol for symbol in taken.symbols if symbol not in self._coverage.removed]
        outputs = self._begin(taken.channel, symbols, now)
        if self._settings.source != "replay":
            self._silence.acked(symbols, now)
        return [*outputs, *self._decided(now)]

    def _decided(self, now: int) -> list[Output]:
        """Return what to report once the vendor has taken or refused every subscription."""
        requests = self._connection.requests
        if not requests.decided:
            return []
        outputs = self._over(now)
        if not requests.complete:
            return outputs
        self._was_subscribed, self._waits = True, 0
        return [*outputs, *self._report("healthy", "subscribed", now)]

    def _over(self, until: int) -> list[Output]:
        if self._down_since is None:
            return []
        outputs = self._report("down", "over", self._down_since, until=until)
        self._down_since = None
        return outputs

    def _take_refusal(self, refusal: Refusal, now: int) -> list[Output]:
        self.counters.refusals += 1
        self._connection.requests.answered(refusal.trace)
        reason = (
            f"the vendor says {refusal.code or SUBSCRIBE_FAIL.decode()} {refusal.text}".rstrip()
        )
        verdict = judge(refusal.code)
        requests = self._connection.requests
        if verdict is Verdict.REPORT:
            requests.refused(refusal.trace)
            # before the report: what was refused for good stays the last that is said
            return [*self._decided(now), *self._report("degraded", reason, now)]
        if verdict in (Verdict.ASK_LATER, Verdict.SLOW_DOWN):
            requests.ask_later(refusal.trace, now, slower=verdict is Verdict.SLOW_DOWN)
            return self._report(
                "degraded", f"{reason}; asked again in {PATIENCE // 1_000_000} s", now
            )
        self.reason = reason
        if verdict is Verdict.RECONNECT or (verdict is Verdict.WAIT and self.waits_for_room()):
            self.state = State.BROKEN
            return []
        self.state = State.REFUSED
        self.refusal = refusal
        return self._report("down", reason, now)

    def _begin(self, channel: Channel, symbols: Iterable[str], now: int) -> list[Output]:
        coverage = self._coverage
        return [
            output
            for symbol in symbols
            if (channel, symbol) not in coverage.begun
            for output in coverage.begin(channel, symbol, now)
        ]

    def _silent(self, now: int) -> list[Output]:
        found = self._silence.due(now)
        if not found:
            return []
        self.counters.silent = len(self._silence.silent)
        reason = f"acked, but no data for {self._settings.silence_ms / 1000:g} s of market hours: check the symbol and its business"
        return [self._status("degraded", reason, now, None, found)]

    def _unanswered(self, now: int) -> list[Output]:
        requests = self._connection.requests
        if not requests.unanswered or self.state is not State.OPEN:
            return []
        count, requests.unanswered = requests.unanswered, 0
        if requests.never_answered >= UNANSWERED:
            self.state, self.reason = State.BROKEN, "the vendor has answered no subscription"
        reason = f"no answer to {count} of our requests; asked again in {PATIENCE // 1_000_000} s"
        return self._report("degraded", reason, now)

    def _dead_letter(self, data: bytes, error: UnreadableFrame, now: int) -> list[Output]:
        self.counters.received += 1
        self.counters.unreadable += 1
        origin = (self.feed.name, self._coverage.connection, now, self._settings.source)
        fields = ("", None, None, None, data[:MAX_FRAME], type(error).__name__, str(error), *origin)
        return [Record(DEAD_LETTER, error.symbol or self.feed.name, fields)]

    def _report(
        self, state: str, reason: str, since: int, until: int | None = None
    ) -> list[Output]:
        if until is None and self._reported == (state, reason):
            return []
        self._reported = (state, reason)
        symbols = [
            symbol
            for symbol in self.feed.symbols
            if state != "healthy" or symbol not in self._silence.silent
        ]
        return [self._status(state, reason, since, until, symbols)]

    def _status(
        self, state: str, reason: str, since: int, until: int | None, symbols: list[str]
    ) -> Record:
        feed, connection = self.feed, self._coverage.connection
        times = (since // 1000, None if until is None else until // 1000)
        sequence = self._connection.sequence
        return Record(
            FEED_STATUS,
            feed.name,
            (feed.name, connection, feed.business, state, reason, *times, symbols, sequence),
        )
