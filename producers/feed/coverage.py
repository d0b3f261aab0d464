"""Tracks which symbols a feed observes, and emits their control records: begins, ends, gaps, marks.

Times are microseconds of the producer's clock unless their name says otherwise.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping

from producers.feed.marks import MarkedPartition, Marks
from producers.feed.outputs import ControlPublication, Output
from producers.vendor.codes import Channel
from producers.vendor.symbols import Feed
from schemas.control import HELD_BACK_MS, Control, Kind
from schemas.partition import partition_of

LOSS_BEFORE_LAST_ALIVE_MS = 2_000
"""What happened this long before a feed was last alive may be lost with it. It is more than the
agents' feed latency."""

SNAPSHOT_US = 2_000_000
"""For this long after a symbol's first event on a connection, events may be the vendor's answer to
the subscription: the last trades and the last book, minutes or days old."""

ReportOutage = Callable[[str, str, str, int | None, int], None]
"""Called with a time in which a symbol was not observed: symbol, business, feed, from, to (ms UTC).
From None is the feed's last record before this process."""

_NEVER = -(1 << 62)


class FeedCoverage:
    """What one feed observes, on this connection and before."""

    def __init__(
        self,
        feed: Feed,
        source: str,
        partitions: Mapping[str, int],
        mark_period_ms: int,
        report_outage: ReportOutage | None,
    ) -> None:
        self.connection = ""
        self.sequence = 0
        """The number of the connection's last record."""
        self.last_alive_us = 0
        """When a frame or a pong last arrived on the connection."""
        self.observed: dict[tuple[Channel, str], MarkedPartition] = {}
        """What has begun on the connection, with the partition of its records."""
        self.removed: dict[str, int] = {}
        """Symbols that were taken out on the connection, with when (microseconds); something of
        them may still come."""
        self.first_begin_us = 0
        """When something first began on the connection, 0 before."""
        self._freshest: tuple[int, int] | None = None
        """Event time of the last fresh trade or book (microseconds), and when it was received."""
        self._clock_offset_us = 0
        """The vendor's time less the producer's, as fresh events show it."""
        self._greatest_offset_us = _NEVER
        """The greatest event time less receipt of the connection, old events included."""
        self._fresh = False
        """Whether the connection had a fresh event."""
        self._begun_at_us: dict[tuple[Channel, str], int] = {}
        """When each symbol and channel began on the connection."""
        self._first_event_us: dict[tuple[Channel, str], int] = {}
        """When its first event came."""
        self._connected_at_us = 0
        self._newest_event_ms = 0
        """The greatest event time of the feed."""
        self._last_read: deque[int] = deque(maxlen=3)
        """Event times of what was last read of the connection, microseconds."""
        self._feed, self._business, self._source = feed.name, feed.business, source
        self._partitions = partitions
        self._mark_period_us = mark_period_ms * 1000
        self.marks = Marks(self._mark_period_us)
        self._report_outage = report_outage
        self._observed_until_us: dict[tuple[Channel, str], int] = {}
        self._handed_over_us: dict[tuple[Channel, str], int] = {}
        self._from_the_start = set(feed.symbols)

    def connect(self, connection: str, now_us: int) -> None:
        """Go on with a new connection, on which nothing has begun."""
        self.sequence = 0
        self.connection, self.last_alive_us, self._connected_at_us = connection, now_us, now_us
        self.observed, self.removed, self.first_begin_us = {}, {}, 0
        self._begun_at_us, self._first_event_us, self._fresh = {}, {}, False
        self._greatest_offset_us = _NEVER
        self._last_read.clear()
        self.marks = Marks(self._mark_period_us)

    def event(self, key: tuple[Channel, str], ts_event: int, now_us: int) -> None:
        """Note the event time (ms) of a trade or book, and adjust the clock offset.

        An old event proves nothing about the offset: the vendor answers a subscription with the
        last trades and the last book. An event is fresh if it is newer than all before, and either
        of the time of the subscription or not among the symbol's first events. Before a
        connection's first fresh event, the offset can only grow.
        """
        event = ts_event * 1000
        ahead = event - now_us
        first = self._first_event_us.setdefault(key, now_us)
        fresh = ts_event > self._newest_event_ms and (
            event - self._clock_offset_us > self._begun_at_us.get(key, now_us) - SNAPSHOT_US
            or now_us - first > SNAPSHOT_US
        )
        self._last_read.append(event)
        if ts_event > self._newest_event_ms:
            self._newest_event_ms = ts_event
        if ahead > self._greatest_offset_us or (fresh and not self._fresh):
            self._greatest_offset_us = max(self._greatest_offset_us, ahead)
            self._fresh = self._fresh or fresh
            # the greatest offset has the least delay in it; neither clock need be right
            self._clock_offset_us = (
                self._greatest_offset_us
                if self._fresh
                else max(self._clock_offset_us, self._greatest_offset_us)
            )
        if fresh or self._freshest is None or ahead > self._freshest[0] - self._freshest[1]:
            self._freshest = event, now_us

    def observed_until_us(self, drained_at_us: int | None) -> int:
        """Return the time up to which the feed saw everything that happened, in the vendor's time
        or the producer's, whichever is earlier.

        `drained_at_us` is when the socket was last read empty, if known. It may be earlier than
        `last_alive_us`: frames that arrived later may wait unread. What was read of them all the
        same, after a freeze of this process for one, was observed: by the middle one of the last
        three events, as one of them may bear a wrong time.
        """
        alive = self.last_alive_us + min(self._clock_offset_us, 0)
        if drained_at_us is None:
            return alive
        observed = drained_at_us + min(self._clock_offset_us, 0)
        if len(self._last_read) == 3:
            observed = max(observed, sorted(self._last_read)[1] - max(self._clock_offset_us, 0))
        return min(alive, observed)

    def lose(self, drained_at_us: int | None) -> None:
        """Keep until when the lost connection observed each symbol: until the last push, as a pong
        proves nothing of what the vendor holds back; HELD_BACK_MS before the last sign of life, or
        since the symbol's begin, if nothing was pushed since."""
        until = self.observed_until_us(drained_at_us)
        pushed = max(self._newest_event_ms * 1000, until - HELD_BACK_MS * 1000)
        for key in self.observed:
            begun = self._begun_at_us[key] + min(self._clock_offset_us, 0)
            self._observed_until_us[key] = min(until, max(pushed, begun))

    def begin(self, channel: Channel, symbol: str, now_us: int) -> list[Output]:
        """Return the begin of a symbol, and the gap since the feed that it was taken over from has
        last seen it."""
        self.first_begin_us = self.first_begin_us or now_us
        self._begun_at_us[channel, symbol] = now_us
        partition = self.observed[channel, symbol] = self.marks.partition(
            channel.topic, self._partition(channel, symbol), now_us
        )
        partition.active_us = now_us
        known_until, handed_over_us = (
            self._observed_until_us.get((channel, symbol)),
            self._handed_over_us.pop((channel, symbol), None),
        )
        ts_from = None if known_until is None else known_until // 1000
        outputs: list[Output] = [self._record("begin", channel, symbol, now_us, ts_from)]
        missed_from = ts_from
        if handed_over_us is not None:
            missed_from = handed_over_us // 1000
            # the feed before has ended it in order: the agents would take the time since for time
            # that nobody wanted
            outputs.append(
                self._record(
                    "gap",
                    channel,
                    symbol,
                    now_us,
                    missed_from - LOSS_BEFORE_LAST_ALIVE_MS,
                    f"moved to {self._feed}",
                )
            )
        # what a change of the list has brought is owed from its begin on; of what was there from
        # the start the log may know more
        if (
            channel is Channel.TRADE
            and self._report_outage is not None
            and (missed_from is not None or symbol in self._from_the_start)
        ):
            self._report_outage(
                symbol,
                self._business,
                self._feed,
                missed_from,
                (now_us + max(self._clock_offset_us, 0)) // 1000,
            )
        return outputs

    def end(
        self, symbols: Collection[str] | None = None, drained_at_us: int | None = None
    ) -> tuple[list[Output], dict[str, dict[Channel, int]]]:
        """End these symbols, else all; return their ends, and by symbol and channel until when they
        were seen; `drained_at_us` as in `observed_until_us`."""
        self._observed_until_us.update(
            dict.fromkeys(self.observed, self.observed_until_us(drained_at_us))
        )
        known = [
            (channel, symbol)
            for channel, symbol in self._observed_until_us
            if symbols is None or symbol in symbols
        ]
        # when the feed was last alive, not now: what happened after is not known
        outputs: list[Output] = [
            self._record("end", channel, symbol, self._observed_until_us[channel, symbol])
            for channel, symbol in known
        ]
        observed_until_us: dict[str, dict[Channel, int]] = {}
        for (channel, symbol), until in {**self._handed_over_us, **self._observed_until_us}.items():
            if symbols is None or symbol in symbols:
                observed_until_us.setdefault(symbol, {})[channel] = until
        return outputs, observed_until_us

    def change(
        self,
        removed: Collection[str],
        symbols: Collection[str],
        handed_over_us: Mapping[str, Mapping[Channel, int]],
        now_us: int,
    ) -> None:
        """Forget what is removed now, and take over of `symbols` what another feed saw: by symbol
        and channel until when."""
        self.forget(removed)
        self._from_the_start.difference_update(removed)
        self.removed |= dict.fromkeys(removed, now_us)
        for symbol in self.removed.keys() & set(symbols):
            del self.removed[symbol]
        self._handed_over_us.update(
            {
                (channel, symbol): until
                for symbol, observed_until_us in handed_over_us.items()
                for channel, until in observed_until_us.items()
            }
        )

    def forget(self, symbols: Collection[str]) -> None:
        """Know nothing of these symbols any more."""
        for known in (
            self._observed_until_us,
            self._handed_over_us,
            self.observed,
            self._begun_at_us,
            self._first_event_us,
        ):
            for key in [key for key in known if key[1] in symbols]:
                del known[key]

    def due_marks(self) -> list[Output]:
        """Return a mark for each partition that fell silent while the feed lived."""
        if self._freshest is None or not (silent := self.marks.due(self.last_alive_us)):
            return []
        # in the vendor's time, not the producer's: a slow clock, a slow feed and a recording of
        # years ago stay in step
        event, received = self._freshest
        alive_at = event // 1000 + (self.last_alive_us - received) // 1000
        if received < self._connected_at_us:
            # a slow clock that was set right between two connections must not move event time
            # ahead: all that follows would be late
            alive_at = min(alive_at, self.last_alive_us // 1000)
        control = self._control("mark", self.last_alive_us, None, alive_at)
        return [ControlPublication(each.topic, None, each.number, control) for each in silent]

    def _partition(self, channel: Channel, symbol: str) -> int:
        return partition_of(symbol.encode(), self._partitions[channel.topic])

    def _record(
        self,
        kind: Kind,
        channel: Channel,
        symbol: str,
        time_us: int,
        ts_from: int | None = None,
        reason: str = "",
    ) -> ControlPublication:
        # a begin, and what was not seen until it: in the later of the vendor's time and the
        # producer's
        ts = (time_us if kind == "end" else time_us + max(self._clock_offset_us, 0)) // 1000
        return ControlPublication(
            channel.topic, symbol, None, self._control(kind, time_us, ts_from, ts, reason)
        )

    def _control(
        self, kind: Kind, time_us: int, ts_from: int | None, ts: int, reason: str = ""
    ) -> Control:
        return Control(
            kind,
            self._feed,
            self._business,
            self.connection,
            self._source,
            ts,
            time_us,
            ts_from,
            reason,
        )
