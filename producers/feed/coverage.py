"""Which symbols a feed sees, said in control records: begins, ends, gaps and marks; it reads no frame and sends none."""

from collections.abc import Callable, Collection, Mapping

from producers.codes import Channel
from producers.marks import Marks, Place
from producers.partition import partition_of
from producers.records import ControlRecord, Output
from producers.symbols import Feed
from schemas.control import Control, Kind

LATENCY = 2_000
"""Milliseconds before a feed's last sign of life in which something may have been lost with it: more than the agents' feed latency."""

Unseen = Callable[[str, str, str, int | None, int], None]
"""Told of a symbol's time without a feed: symbol, business, feed, from (None: the feed's first begin), to (ms UTC)."""


class Coverage:
    """What one feed has begun, on this connection and before; times are microseconds of the producer's clock."""

    def __init__(
        self,
        feed: Feed,
        source: str,
        partitions: Mapping[str, int],
        mark_period_ms: int,
        unseen: Unseen | None,
    ) -> None:
        self.connection = ""
        self.life = 0
        """The connection's last sign of life."""
        self.begun: dict[tuple[Channel, str], Place] = {}
        """What has begun on the connection, with its place in the log."""
        self.removed: set[str] = set()
        """Symbols that were taken off the connection, of which something may still come."""
        self.event_clock: tuple[int, int] | None = None
        """Event time of the last trade or book (milliseconds), and when it was received."""
        self.began = 0
        """When something first began on the connection, 0 before."""
        self._ahead = 0
        self._ahead_of = ""
        self._feed, self._business, self._source = feed.name, feed.business, source
        self._partitions = partitions
        self._mark_period = mark_period_ms * 1000
        self._marks = Marks(self._mark_period)
        self._unseen = unseen
        self._known_until: dict[tuple[Channel, str], int] = {}
        self._taken: dict[tuple[Channel, str], int] = {}
        self._of_the_start = set(feed.symbols)

    def connect(self, connection: str, now: int) -> None:
        """Go on with a new connection, on which nothing has begun."""
        self.connection, self.life = connection, now
        self.begun, self.removed, self.began = {}, set(), 0
        self._marks = Marks(self._mark_period)

    def event(self, ts_event: int, now: int) -> None:
        """Take note of the time (milliseconds) of a trade or a book that was received at `now`."""
        self.event_clock = ts_event, now
        ahead = ts_event * 1000 - now
        if ahead > self._ahead or self._ahead_of != self.connection:
            # the least delay tells how the vendor's time goes by the producer's clock: neither is sure to be right
            self._ahead, self._ahead_of = ahead, self.connection

    def seen(self, read: int | None) -> int:
        """Return until when what has happened was seen, in the vendor's time or the producer's, whichever is earlier.

        `read` is when nothing that had come was left to be read, where that is known: life may be of long before.
        """
        return (self.life if read is None else min(self.life, read)) + min(self._ahead, 0)

    def lose(self, read: int | None) -> None:
        """Keep until when the lost connection saw what it had begun; `read` as in `seen`."""
        self._known_until.update(dict.fromkeys(self.begun, self.seen(read)))

    def begin(self, channel: Channel, symbol: str, now: int) -> list[Output]:
        """Return the begin of a symbol, and the gap since the feed that it was taken over from has last seen it."""
        self.began = self.began or now
        place = self.begun[channel, symbol] = self._marks.place(
            channel.topic, self._partition(channel, symbol), now
        )
        place.active = now
        known_until, taken = (
            self._known_until.get((channel, symbol)),
            self._taken.pop((channel, symbol), None),
        )
        ts_from = None if known_until is None else known_until // 1000
        outputs: list[Output] = [self._record("begin", channel, symbol, now, ts_from)]
        missed_from = ts_from
        if taken is not None:
            missed_from = taken // 1000
            # the feed before has ended it in order: the agents would take the time since for time that nobody wanted
            outputs.append(
                self._record(
                    "gap", channel, symbol, now, missed_from - LATENCY, f"moved to {self._feed}"
                )
            )
        # what a change of the list has brought is owed from its begin on; of what was there from the start the log may know more
        if (
            channel is Channel.TRADE
            and self._unseen is not None
            and (missed_from is not None or symbol in self._of_the_start)
        ):
            self._unseen(
                symbol, self._business, self._feed, missed_from, (now + max(self._ahead, 0)) // 1000
            )
        return outputs

    def end(
        self, symbols: Collection[str] | None = None, read: int | None = None
    ) -> tuple[list[Output], dict[str, dict[Channel, int]]]:
        """End these symbols, else all; return their ends, and by symbol and channel until when they were seen; `read` as in `seen`."""
        self.lose(read)
        known = [place for place in self._known_until if symbols is None or place[1] in symbols]
        # at the last sign of life, not at `now`: what came after it is not known
        outputs: list[Output] = [
            self._record("end", *place, self._known_until[place]) for place in known
        ]
        seen: dict[str, dict[Channel, int]] = {}
        for (channel, symbol), until in {**self._taken, **self._known_until}.items():
            if symbols is None or symbol in symbols:
                seen.setdefault(symbol, {})[channel] = until
        return outputs, seen

    def change(
        self,
        removed: Collection[str],
        symbols: Collection[str],
        taken: Mapping[str, Mapping[Channel, int]],
    ) -> None:
        """Forget what was removed, and take over of `symbols` what another feed saw: by symbol and channel until when."""
        for places in (self._known_until, self._taken, self.begun):
            for place in [place for place in places if place[1] in removed]:
                del places[place]
        self._of_the_start.difference_update(removed)
        self.removed = self.removed.union(removed).difference(symbols)
        self._taken.update(
            {
                (channel, symbol): until
                for symbol, seen in taken.items()
                for channel, until in seen.items()
            }
        )

    def marks(self) -> list[Output]:
        """Return a mark for each partition that fell silent while the feed lived."""
        if self.event_clock is None or not (places := self._marks.due(self.life)):
            return []
        # in the vendor's time, not the producer's: a slow clock, a slow feed and a recording of years ago stay in step
        event, received = self.event_clock
        alive_at = event + (self.life - received) // 1000
        return [
            ControlRecord(
                place.topic, None, place.partition, self._control("mark", self.life, None, alive_at)
            )
            for place in places
        ]

    def _partition(self, channel: Channel, symbol: str) -> int:
        return partition_of(symbol.encode(), self._partitions[channel.topic])

    def _record(
        self,
        kind: Kind,
        channel: Channel,
        symbol: str,
        time: int,
        ts_from: int | None = None,
        reason: str = "",
    ) -> ControlRecord:
        # a begin, and what was not seen until it: in the later of the vendor's time and the producer's
        ts = (time if kind == "end" else time + max(self._ahead, 0)) // 1000
        return ControlRecord(
            channel.topic, symbol, None, self._control(kind, time, ts_from, ts, reason)
        )

    def _control(
        self, kind: Kind, time: int, ts_from: int | None, ts: int, reason: str = ""
    ) -> Control:
        return Control(
            kind,
            self._feed,
            self._business,
            self.connection,
            self._source,
            ts,
            time,
            ts_from,
            reason,
        )
