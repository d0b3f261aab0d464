"""The vendor's protocol for one feed, without I/O: frames and times in, records to publish and
frames to send out.

A transport, or the player of a recording, calls the methods in the order of events. `now_us` is the
producer's clock in microseconds UTC. A FeedProtocol outlives its connections: it knows what earlier
ones delivered.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from producers.feed.asked import Silence
from producers.feed.coverage import FeedCoverage
from producers.feed.intake import Intake
from producers.feed.metrics import FeedCounters
from producers.feed.outputs import Output
from producers.feed.repeats import Delivered, Repeats
from producers.feed.reports import FeedReports
from producers.feed.settings import FeedSettings
from producers.feed.states import State, check_transition
from producers.feed.subscribing import Subscribing
from producers.vendor.codes import Channel
from producers.vendor.exact_json import UnreadableFrame
from producers.vendor.frames import Ack, ErrorFrame, Unsubscribed, read_frame
from producers.vendor.pushes import PUSHES
from producers.vendor.subscriptions import PATIENCE, Send, channels_of
from producers.vendor.symbols import Feed

SILENCE = 60_000_000
"""Microseconds without a frame or a pong after which a connection counts as dead."""


@dataclass(frozen=True, slots=True)
class Handover:
    """What a feed knows of a symbol that another feed takes over: by channel until when it observed
    it, and its last trades."""

    feed: str
    observed_until_us: Mapping[Channel, int]
    delivered: Delivered


class FeedProtocol:
    """One feed's protocol. `partitions` is the number of partitions of each raw topic, by its name
    in the contract."""

    def __init__(
        self,
        feed: Feed,
        settings: FeedSettings,
        partitions: Mapping[str, int],
        counters: FeedCounters,
        chance: random.Random,
    ) -> None:
        self.feed = feed
        self._state = State.DOWN
        self.reason = ""
        """Why the state is BROKEN or REFUSED."""
        self.wanted_symbols = feed.symbols
        """The symbols to carry. Any thread may set it; the transport applies it."""
        self.handovers: dict[str, Handover] = {}
        """What other feeds know of the wanted symbols that they carried until now."""
        self.released: dict[str, Handover] = {}
        """What this feed knows of the symbols that it carries no more. Any thread may take it."""
        self._settings = settings
        self.counters = counters
        self._repeats = Repeats()
        for symbol in feed.symbols:
            self._repeats.take_up(symbol, settings.delivered_before(symbol))
        self._silence = Silence(settings.silence_ms * 1000, settings.is_open, feed.business)
        self._coverage = FeedCoverage(
            feed, settings.source, partitions, settings.mark_period_ms, settings.report_outage
        )
        self._reports = FeedReports(feed, self._coverage, self._silence)
        self._intake = Intake(
            feed,
            settings,
            counters,
            self._coverage,
            self._repeats,
            self._silence,
            self._reports,
        )
        self._subscribing = Subscribing(
            feed,
            settings,
            counters,
            chance,
            self._coverage,
            self._repeats,
            self._silence,
            self._reports,
            self._enter,
        )
        self._had_json = False
        """Whether the vendor has sent JSON on the connection."""

    @property
    def state(self) -> State:
        """Where the feed is with its connection."""
        return self._state

    @property
    def subscribed(self) -> bool:
        """Whether the vendor has taken every subscription of the connection."""
        return self._subscribing.requests.complete

    @property
    def is_up_to_date(self) -> bool:
        """Whether the wanted symbols are taken up, and the vendor has answered what was asked of
        it; from any thread."""
        # in this order: a change is the feed's once its requests are made
        return self.feed.symbols is self.wanted_symbols and (
            self.state is not State.OPEN or self._subscribing.requests.is_answered
        )

    @property
    def refusal(self) -> ErrorFrame | None:
        """The answer behind REFUSED."""
        return self._subscribing.refusal

    @property
    def pause_us(self) -> int:
        """Microseconds to wait at least before the next connection."""
        return self._subscribing.pause_us

    def waits_for_room(self) -> bool:
        """Return whether too many connections are worth a wait; sets `pause_us`."""
        return self._subscribing.waits_for_room()

    def connected(self, now_us: int) -> list[Output]:
        """Begin a connection: it gets an id, its subscriptions become frames to send."""
        self._subscribing.connect(self.feed, now_us)
        self._had_json = False
        self._coverage.connect(f"{self.feed.name}-{now_us}", now_us)
        self._silence.connect()
        self._intake.connect()
        self._enter(State.OPEN)
        self.counters.connections += 1
        if self._settings.source == "replay" and not self._settings.has_acks:
            begun = [
                output
                for channel in channels_of(())
                for output in self._subscribing.begin(channel, self.feed.symbols, now_us)
            ]
            return [*begun, *self._reports.change("healthy", "replay", now_us)]
        return self._reports.change("connecting", "connected, not subscribed yet", now_us)

    def receive(self, data: bytes, now_us: int) -> list[Output]:
        """Take one message; return what to publish: a record, or a dead letter, and what follows
        from it."""
        self._coverage.last_alive_us = now_us
        self.counters.last_frame = now_us
        latest = now_us // 1000 + self._settings.max_future_ms
        try:
            greeting = self.feed.business == "stock" and not self._had_json
            frame = read_frame(data, latest, greeting=greeting)
        except UnreadableFrame as error:
            outputs = self._intake.dead_letter(data, error, now_us)
        else:
            outputs = []
            if isinstance(frame, PUSHES):
                outputs = self._intake.take(frame, data, now_us)
                self._break_with_one_that_never_lets_go(frame.symbol, now_us)
            elif isinstance(frame, Ack):
                outputs = self._subscribing.take_ack(frame, now_us)
            elif isinstance(frame, ErrorFrame):
                outputs = self._subscribing.take_refusal(frame, now_us)
            elif isinstance(frame, Unsubscribed):
                self._subscribing.requests.answered(frame.trace)
        self._had_json = self._had_json or data[:1] == b"{"
        if self._silence.waiting:
            outputs += self._intake.report_silent(now_us)
        if self._intake.unasked.pending:
            outputs += self._intake.report_unasked(now_us)
        if self._subscribing.requests.unanswered:
            outputs += self._report_unanswered(now_us)
        if now_us >= self._coverage.marks.next_us:
            outputs += self._coverage.due_marks()
        return outputs

    def pong(self, now_us: int) -> list[Output]:
        """Take a WebSocket pong."""
        self._coverage.last_alive_us = now_us
        return (
            self._intake.report_silent(now_us)
            + self._intake.report_unasked(now_us)
            + self._report_unanswered(now_us)
            + self._coverage.due_marks()
        )

    def ping(self, now_us: int) -> list[Output]:
        """Take a WebSocket ping; its pong was sent, and counts in the budget of frames."""
        self._subscribing.requests.answered_ping(now_us)
        return self.pong(now_us)

    def tick(self, now_us: int) -> None:
        """Break a connection on which nothing has arrived for SILENCE."""
        if self.state is State.OPEN and now_us - self._coverage.last_alive_us > SILENCE:
            self._enter(State.BROKEN, f"no sign of life for {SILENCE // 1_000_000} s")

    def frames_to_send(self, now_us: int) -> list[Send]:
        """Return what may be sent now, in this order."""
        return (
            self._subscribing.requests.due(now_us, self._coverage.last_alive_us)
            if self.state is State.OPEN
            else []
        )

    def disconnected(
        self, now_us: int, reason: str, drained_at_us: int | None = None
    ) -> list[Output]:
        """End a connection that was lost, or note that none could be made.

        `drained_at_us` is when the socket was last read empty, if the transport knows it: what came
        after may be lost.
        """
        outputs: list[Output] = []
        coverage = self._coverage
        if self.state is not State.DOWN:
            self.counters.losses += 1
            coverage.lose(drained_at_us)
            self._repeats.reconnect(coverage.observed_until_us(drained_at_us), self._intake.asked)
            if self._reports.down_since_us is not None and coverage.first_begin_us:
                # it had data, though not every answer
                outputs += self._reports.over(coverage.first_begin_us)
        if self.state is not State.REFUSED:
            self._enter(State.DOWN, self.reason)
        reports = self._reports
        if reports.down_since_us is None:
            observed_until_us = coverage.observed_until_us(drained_at_us)
            reports.down_since_us = observed_until_us if coverage.last_alive_us else now_us
        elif reports.state == "down":
            # once for an outage, and once more after a connection that brought nothing
            return outputs
        return [*outputs, *reports.change("down", reason, reports.down_since_us)]

    def ended(
        self, now_us: int, drained_at_us: int | None = None
    ) -> tuple[list[Output], list[Send]]:
        """End the feed in order; return what to publish, and the unsubscriptions that may still be
        sent; `drained_at_us` as in `disconnected`."""
        farewell: list[Send] = []
        if self.state is State.OPEN:
            farewell = self._subscribing.requests.farewell(now_us)
        outputs, observed_until_us = self._coverage.end(drained_at_us=drained_at_us)
        self._leave(observed_until_us)
        self._enter(State.ENDED, self.reason)
        return [*outputs, *self._reports.change("ended", "ended in order", now_us)], farewell

    def apply_wanted_symbols(self, now_us: int) -> list[Output]:
        """Take up the wanted symbols, once the vendor has answered what it was asked before."""
        if self.state is State.OPEN and not self._subscribing.requests.is_answered:
            return []
        symbols = self.wanted_symbols
        handovers = {
            symbol: self.handovers.pop(symbol) for symbol in symbols if symbol in self.handovers
        }
        return self.change_symbols(symbols, handovers, now_us)

    def change_symbols(
        self, symbols: tuple[str, ...], handovers: Mapping[str, Handover], now_us: int
    ) -> list[Output]:
        """Carry these symbols from now on; return the ends of those left out. The others are not
        disturbed.

        What the vendor still sends of a removed symbol is published as long as its answer is waited
        for, but does not begin it again; what comes later is a dead letter.
        `handovers` has what other feeds know of symbols that they carried until now. The time that
        neither feed observed is a gap.
        """
        removed = set(self.feed.symbols).difference(symbols)
        outputs, observed_until_us = self._coverage.end(removed)
        # of those that had not begun too: what still comes of them is the next feed's to know
        self._leave({**{symbol: {} for symbol in removed}, **observed_until_us})
        self._coverage.change(
            removed,
            symbols,
            {symbol: handover.observed_until_us for symbol, handover in handovers.items()},
            now_us,
        )
        for symbol in set(symbols).difference(self.feed.symbols):
            # its new subscription is answered by its last trade, whoever has that
            handover = handovers.get(symbol)
            self._repeats.take_up(
                symbol,
                self._settings.delivered_before(symbol),
                handover.delivered if handover else None,
            )
        if removed:
            # room for what was refused, on the next connection
            self._subscribing.refused.clear()
        feed = replace(self.feed, symbols=symbols)
        self._subscribing.requests.change(feed)
        self.feed = feed
        self._intake.change(feed)
        self._reports.feed = feed
        self._silence.forget(removed)
        self.counters.silent = len(self._silence.silent)
        if state := self._reports.state:
            outputs.append(
                self._reports.status(state, "other symbols", now_us, None, list(symbols))
            )
        return outputs

    def delivered(self, symbol: str) -> Delivered:
        """Return what the feed has delivered of a symbol in its last minute, or its last trade."""
        return self._repeats.of(symbol)

    def _break_with_one_that_never_lets_go(self, symbol: str, now_us: int) -> None:
        # a new connection asks for what is wanted alone; on this one, dead letters would never end
        removed_at_us = self._coverage.removed.get(symbol, now_us)
        if self.state is State.OPEN and now_us - removed_at_us >= PATIENCE:
            self._enter(
                State.BROKEN,
                f"the vendor goes on with {symbol!r}, {PATIENCE // 1_000_000} s after it was "
                "taken out",
            )

    def _report_unanswered(self, now_us: int) -> list[Output]:
        if self.state is not State.OPEN:
            return []
        return self._subscribing.report_unanswered(now_us)

    def _enter(self, state: State, reason: str = "") -> None:
        check_transition(self.feed.name, self._state, state)
        self._state, self.reason = state, reason

    def _leave(self, observed_until_us: Mapping[str, Mapping[Channel, int]]) -> None:
        self.released.update(
            {
                symbol: Handover(self.feed.name, until, self._repeats.of(symbol))
                for symbol, until in observed_until_us.items()
            }
        )
