"""Takes what a feed's connection brings: a push becomes a raw record, an unreadable frame a dead
letter, and what both show of symbols and sides is reported."""

from producers.feed.asked import Silence, Unasked, most_unasked
from producers.feed.coverage import FeedCoverage
from producers.feed.metrics import FeedCounters
from producers.feed.outputs import (
    CHANNEL_OF,
    Output,
    Publication,
    RawRecord,
    depth_record,
    kline_record,
    trade_record,
)
from producers.feed.repeats import Repeats
from producers.feed.reports import FeedReports
from producers.feed.settings import FeedSettings
from producers.feed.sides import Sides
from producers.vendor.exact_json import UnreadableFrame
from producers.vendor.frames import MAX_FRAME
from producers.vendor.pushes import DepthPush, Push, TradePush
from producers.vendor.subscriptions import ANSWER
from producers.vendor.symbols import Feed
from schemas.records import DeadLetterRecord
from schemas.topics import DEAD_LETTER


class NotAskedFor(UnreadableFrame):
    """A push of a symbol that was not asked for, beyond what the vendor may send of such."""


class NoMoreAskedFor(UnreadableFrame):
    """A push of a symbol long after its unsubscription."""

    def __init__(self, symbol: str) -> None:
        super().__init__(
            f"{symbol!r} came {ANSWER // 1_000_000} s or more after it was taken out; another "
            "connection may have brought the same"
        )


class Intake:
    """The pushes of one feed, over all of its connections."""

    def __init__(
        self,
        feed: Feed,
        settings: FeedSettings,
        counters: FeedCounters,
        coverage: FeedCoverage,
        repeats: Repeats,
        silence: Silence,
        reports: FeedReports,
    ) -> None:
        self.asked = frozenset(feed.symbols)
        self.unasked = Unasked()
        self._feed = feed
        self._settings = settings
        self._counters = counters
        self._coverage = coverage
        self._repeats = repeats
        self._silence = silence
        self._reports = reports
        self._sides = Sides(feed.business, settings.swapped_sides)

    def connect(self) -> None:
        """Go on with a new connection."""
        self._sides = Sides(self._feed.business, self._settings.swapped_sides)
        self.unasked.connect()

    def change(self, feed: Feed) -> None:
        """Take the feed's other symbols for asked."""
        self._feed = feed
        self.asked = frozenset(feed.symbols)
        self.unasked.asked(feed.symbols)

    def take(self, push: Push, data: bytes, now_us: int) -> list[Output]:
        """Take a push; return its record, or a dead letter if it may not be taken, and what follows
        from it. `data` is its frame."""
        symbol, unasked = push.symbol, self.unasked
        if symbol in self.asked:
            return self._take_push(push, now_us)
        if (removed_at_us := self._coverage.removed.get(symbol)) is not None:
            # what is still on its way after an unsubscription is no fault
            if now_us - removed_at_us < ANSWER:
                return self._take_push(push, now_us)
            # another connection may carry it by now: as a record it would count twice
            return self.dead_letter(data, NoMoreAskedFor(symbol), now_us)
        self._counters.unasked += 1
        asked = len(self.asked)
        if not unasked.takes(symbol, asked):
            reason = (
                f"{symbol!r} was not asked for, nor were {most_unasked(asked)} other "
                "symbols of this connection"
            )
            return self.dead_letter(data, NotAskedFor(reason), now_us)
        outputs: list[Output] = []
        if unasked.forgotten:
            outputs, _ = self._coverage.end(unasked.forgotten)
            for each in (self._coverage, self._repeats, self._silence):
                each.forget(unasked.forgotten)
            unasked.forgotten = []
        return outputs + self._take_push(push, now_us)

    def report_unasked(self, now_us: int) -> list[Output]:
        """Return what is to be reported of symbols that were not asked for."""
        due = self.unasked.due(now_us)
        if due is None:
            return []
        named, count, refused = due
        beyond = (
            f"; {refused} frames of more than {most_unasked(len(self.asked))} such symbols are "
            "dead letters"
            if refused
            else ""
        )
        reason = (
            f"data of {count} symbols that were not asked for{beyond}: check how the "
            "vendor spells the symbols"
        )
        return [
            self._reports.status(
                "degraded" if refused else self._reports.state, reason, now_us, None, named
            )
        ]

    def _take_push(self, push: Push, now_us: int) -> list[Output]:
        outputs: list[Output] = []
        counters, coverage, feed = self._counters, self._coverage, self._feed
        channel, symbol = CHANNEL_OF[type(push)], push.symbol
        key = channel, symbol
        counters.received += 1
        coverage.sequence += 1
        if self._silence.heard(symbol):
            counters.silent = len(self._silence.silent)
            outputs.append(
                self._reports.status("healthy", "data after a silence", now_us, None, [symbol])
            )
        partition = coverage.observed.get(key)
        if symbol in coverage.removed:
            pass
        elif partition is None:
            # its ack is still to come, or it was never asked for: data says more than either
            outputs += coverage.begin(channel, symbol, now_us)
        else:
            partition.active_us = now_us
        envelope = (
            feed.business,
            feed.name,
            coverage.connection,
            coverage.sequence,
            now_us,
            self._settings.source,
        )
        record: RawRecord
        if isinstance(push, TradePush):
            counters.trades += 1
            counters.unknown_sides += push.side_unknown
            coverage.event(key, push.ts_event, now_us)
            repeat = self._repeats.is_repeat(
                symbol, (push.ts_event, push.price, push.volume, push.direction), now_us
            )
            counters.repeats += repeat
            record = trade_record(push, repeat, envelope)
        elif isinstance(push, DepthPush):
            counters.depth += 1
            coverage.event(key, push.ts_event, now_us)
            outputs += self._look_at_sides(push, now_us)
            record = depth_record(push, envelope)
        else:
            counters.klines += 1
            record = kline_record(push, envelope)
        outputs.append(Publication(channel.topic, symbol, record))
        return outputs

    def _look_at_sides(self, push: DepthPush, now_us: int) -> list[Output]:
        was_suspect = self._sides.is_suspect
        reason = self._sides.look(push)
        if not reason:
            return []
        suspect = self._sides.is_suspect and not was_suspect
        self._counters.suspect_sides += suspect
        self._counters.swapped_sides += not suspect
        symbols = list(self._feed.symbols) if suspect else [push.symbol]
        return [self._reports.status("degraded", reason, now_us, None, symbols)]

    def report_silent(self, now_us: int) -> list[Output]:
        """Return what is to be reported of symbols that have become silent."""
        found = self._silence.due(now_us)
        if not found:
            return []
        self._counters.silent = len(self._silence.silent)
        reason = (
            f"acked, but no data for {self._settings.silence_ms / 1000:g} s of market "
            "hours: check the symbol and its business"
        )
        return [self._reports.status("degraded", reason, now_us, None, found)]

    def dead_letter(self, data: bytes, error: UnreadableFrame, now_us: int) -> list[Output]:
        """Return a frame that cannot be understood as a dead letter."""
        self._counters.received += 1
        self._counters.unreadable += 1
        letter = DeadLetterRecord(
            source_topic="",
            source_partition=None,
            source_offset=None,
            key=None,
            value=data[:MAX_FRAME],
            error_class=type(error).__name__,
            error_text=str(error),
            feed=self._feed.name,
            connection=self._coverage.connection,
            ts_recv=now_us,
            source=self._settings.source,
        )
        # a symbol that nobody asked for is no key: there is no end of them
        key = error.symbol if error.symbol in self.asked else self._feed.name
        return [Publication(DEAD_LETTER, key, letter)]
