"""What the broker could not take yet: counted and in order on disk, and where even that is full, lost with a gap on record.

Used by one publisher under its lock; a record that is not lost comes out of `next` as it went into `append`.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from producers.counters import FeedCounters
from producers.coverage import Unseen
from producers.partition import partition_of
from producers.spool import Entry, Segment, Spool
from schemas.control import Control

COUNTED = frozenset(("raw", "rest", "dead"))
"""Kinds of entries that stand for something received."""
RESERVE = 16 * 1024 * 1024
"""Bytes beyond the bound for what must not be dropped: begins, ends, gaps, reports."""
HELD = 100_000
"""Such records that are held in memory while the disk takes nothing."""
_LATENCY = 2_000
"""Milliseconds by which a lost trade may be older than its receipt."""
_DROPPABLE = frozenset(("raw", "rest", "mark"))

_log = logging.getLogger(__name__)


class BacklogFull(Exception):
    """Not even what must not be dropped has room any more."""

    def __init__(self, spool: Spool, reason: str) -> None:
        super().__init__(
            f"the spool {spool.folder} takes nothing ({reason}) and the broker is away: make room, or name another by INFOWAY_SPOOL"
        )
        self.reason = reason


@dataclass(slots=True)
class _Loss:
    """What was dropped of a kind and a key in a topic: `first` and `last` receipt in ms UTC."""

    feed: str
    connection: str
    sequence: int
    first: int
    last: int
    count: int = 0


class Backlog:
    """Records on their way through a spool, with the counters of the feeds that they belong to."""

    def __init__(
        self,
        spool: Spool,
        source: str,
        report: Callable[[tuple[object, ...]], Entry],
        partitions: Mapping[str, int],
        published: Callable[[Collection[str], int], Mapping[tuple[str, int, str], int]],
    ) -> None:
        """`source` is that of the feeds; `report` makes an entry of the fields of a feed's status; `partitions` is by full topic name.

        `published` tells what topics have got since a time (ms UTC), by topic, partition and connection the greatest sequence: an
        earlier process may have died between delivery and deletion.
        """
        self.earlier = FeedCounters("earlier")
        """Counts what an earlier process left."""
        self.unseen: Unseen | None = None
        """Told of what is lost."""
        self._spool = spool
        self._source = source
        self._report = report
        self._partitions = partitions
        self._counters: dict[str, FeedCounters] = {}
        self._losses: dict[tuple[str, str | None, str], _Loss] = {}
        self._reports: dict[str, list[tuple[str | None, _Loss]]] = {}
        """Losses whose gaps are on record, by feed: its status is to tell of them."""
        self._held: deque[Entry] = deque()
        self._broken = ""
        self._left = 0
        topics: set[str] = set()
        oldest = 0
        for _, entry in spool.unread():
            self._left += 1
            self.earlier.received += entry.kind in COUNTED
            if entry.kind == "raw":
                topics.add(entry.topic)
                oldest = min(oldest or entry.ts, entry.ts)
        self.earlier.spooled = self.earlier.received
        self._published = published(topics, oldest) if topics else {}
        if self._left:
            _log.warning(
                "%d records of an earlier run wait in %s and go out first; %d were torn",
                self._left,
                spool.folder,
                spool.torn,
            )
        self._own_up()

    @property
    def memory(self) -> Path:
        """The path of a file for the gaps of these feeds that wait to be healed."""
        return self._spool.beside("healing")

    @property
    def empty(self) -> bool:
        """Whether nothing waits, and no loss waits to be told."""
        return self._spool.empty and not self._untold

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self._spool.size

    def append(self, entry: Entry, counters: FeedCounters) -> None:
        """Take a record at the end, or count it as lost. Raises BacklogFull where it must not be dropped."""
        self._counters[counters.feed] = counters
        if self._untold and self._spool.size < self._spool.limit * 3 // 4:
            self._tell()
        keeps = entry.kind == "other"
        bound = self._spool.limit + (0 if entry.kind in _DROPPABLE else RESERVE)
        # nothing overtakes what is held; and once something was lost, so is what follows, until the loss is told
        waits = self._held if keeps else self._untold
        if not waits and self._spool.size < bound and self._spooled(entry):
            if entry.kind in COUNTED:
                counters.spooled += 1
        elif not keeps:
            self._lose(entry, counters)
        elif len(self._held) < HELD:
            self._held.append(entry)
        else:
            raise BacklogFull(self._spool, self._broken or "it is full")

    def next(self) -> tuple[Segment, Entry, FeedCounters] | None:
        """Return the oldest record that waits, with where it is to be acknowledged and counted."""
        while True:
            if self._spool.empty and self._untold:
                self._tell()
            found = self._spool.read()
            if found is None:
                return None
            segment, entry = found
            counters = (
                self.earlier
                if self._left > 0
                else self._counters.get(_account(entry), self.earlier)
            )
            self._left -= self._left > 0
            if entry.kind in COUNTED:
                counters.spooled -= 1
            if not self._is_published(entry):
                return segment, entry, counters
            if entry.kind in COUNTED:
                counters.acknowledged += 1
            self._spool.acknowledge(segment)

    def give_back(self, segment: Segment, entry: Entry, counters: FeedCounters) -> None:
        """Take back what `next` returned."""
        self._spool.give_back(segment, entry)
        self._left += counters is self.earlier
        if entry.kind in COUNTED:
            counters.spooled += 1

    def acknowledge(self, segment: Segment) -> None:
        """Note that the broker has a record of a segment."""
        self._spool.acknowledge(segment)

    def close(self, undelivered: list[tuple[Entry, FeedCounters]]) -> int:
        """Keep what the broker did not take, before all that waits still, and end; return how many records wait."""
        whole = True
        try:
            self._spool.put_back([entry for entry, _ in undelivered])
        except OSError as error:
            whole = False
            _log.error(
                "the spool %s cannot be written (%s): %d records are lost with this process",
                self._spool.folder,
                error,
                len(undelivered),
            )
        for entry, counters in undelivered:
            if entry.kind in COUNTED and whole:
                counters.spooled += 1
            elif entry.kind in COUNTED:
                counters.lost += 1
        if self._untold:
            self._tell()
        left = self._spool.left
        self._spool.close(whole and not self._untold)
        return left

    @property
    def _untold(self) -> bool:
        return bool(self._losses or self._reports or self._held)

    def _spooled(self, entry: Entry) -> bool:
        """Return whether the spool has taken an entry."""
        try:
            self._spool.append(entry)
        except OSError as error:
            if not self._broken:
                _log.error(
                    "the spool %s cannot be written (%s): what comes until it can is lost, and told as gaps",
                    self._spool.folder,
                    error,
                )
            self._broken = str(error)
            return False
        self._broken = ""
        return True

    def _is_published(self, entry: Entry) -> bool:
        if entry.kind != "raw" or not self._published or entry.key is None:
            return False
        place = (
            entry.topic,
            partition_of(entry.key.encode(), self._partitions[entry.topic]),
            entry.connection,
        )
        return entry.sequence <= self._published.get(place, 0)

    def _lose(self, entry: Entry, counters: FeedCounters) -> None:
        if entry.kind not in COUNTED:
            return
        counters.lost += 1
        place = entry.topic, entry.key, entry.kind
        loss = self._losses.get(place)
        if loss is None:
            if not self._losses and not self._broken:
                _log.error(
                    "the spool %s is full (%d MiB): records are lost, and told as gaps",
                    self._spool.folder,
                    self._spool.limit >> 20,
                )
            loss = self._losses[place] = _Loss(entry.feed, "", 0, entry.ts, entry.ts)
        loss.connection, loss.sequence = entry.connection, max(loss.sequence, entry.sequence)
        loss.first, loss.last = min(loss.first, entry.ts), max(loss.last, entry.ts)
        loss.count += 1

    def _tell(self) -> None:
        """Put on record, as far as the disk takes it, what was held and what was lost."""
        while self._held and self._spooled(self._held[0]):
            self._held.popleft()
        while self._losses and not self._held:
            (topic, key, kind), loss = next(iter(self._losses.items()))
            if kind == "raw" and key is not None and not self._tell_gap(topic, key, loss):
                return
            del self._losses[topic, key, kind]
            # of a frame that could not be read, and of a kline of the past, no agent is to know
            self._reports.setdefault(loss.feed, []).append((key if kind == "raw" else None, loss))
        while self._reports and not self._losses:
            feed, found = next(iter(self._reports.items()))
            count, symbols = (
                sum(loss.count for _, loss in found),
                sorted({symbol for symbol, _ in found if symbol is not None}),
            )
            last = max((loss for _, loss in found), key=lambda loss: (loss.last, loss.sequence))
            times = (min(loss.first for _, loss in found), max(loss.last for _, loss in found))
            reason = f"{count} records lost: the broker was away and the spool full"
            if not self._spooled(
                self._report(
                    (
                        feed,
                        last.connection,
                        _business(feed),
                        "degraded",
                        reason,
                        *times,
                        symbols,
                        last.sequence,
                    )
                )
            ):
                return
            del self._reports[feed]

    def _tell_gap(self, topic: str, symbol: str, loss: _Loss) -> bool:
        since = loss.first - _LATENCY
        if not self._spooled(
            self._gap(
                topic,
                symbol,
                loss.feed,
                loss.connection,
                since,
                loss.last,
                f"{loss.count} records lost",
            )
        ):
            return False
        if self.unseen is not None and topic.endswith("raw.trade"):
            self.unseen(symbol, _business(loss.feed), loss.feed, since, loss.last)
        return True

    def _own_up(self) -> None:
        """Of what an earlier process has lost the spool knows no count: a gap for all that a feed has in a partition, from its last life
        in the log to what comes next of it. Where nothing comes, its next begin tells of the loss."""
        if not self._spool.holes:
            return
        found: dict[Segment | None, dict[tuple[str, int, str], Entry]] = {}
        if None in self._spool.holes:
            found[None] = {}
        last = None
        for segment, entry in self._spool.unread():
            if last in self._spool.holes and segment is not last:
                found.setdefault(last, {})
            last = segment
            if (place := self._place(entry)) is not None:
                for nexts in found.values():
                    nexts.setdefault(place, entry)
        for hole, nexts in found.items():
            reason = (
                "a producer died while the broker was away"
                if hole is None
                else "a part of the spool was damaged"
            )
            gaps = [
                self._gap(topic, None, feed, entry.connection, None, entry.ts, reason)._replace(
                    partition=partition
                )
                for (topic, partition, feed), entry in nexts.items()
            ]
            if gaps:
                self._spool.fill(hole, gaps)
                self._left += len(gaps)

    def _place(self, entry: Entry) -> tuple[str, int, str] | None:
        """Return the topic, partition and feed that an entry is a sign of life of."""
        if (
            entry.topic not in self._partitions
            or entry.kind == "rest"
            or ("control", b"heal") in (entry.headers or ())
        ):
            return None
        if entry.key is None:
            return entry.topic, entry.partition, entry.feed
        return (
            entry.topic,
            partition_of(entry.key.encode(), self._partitions[entry.topic]),
            entry.feed,
        )

    def _gap(
        self,
        topic: str,
        symbol: str | None,
        feed: str,
        connection: str,
        ts_from: int | None,
        ts: int,
        reason: str,
    ) -> Entry:
        control = Control(
            "gap", feed, _business(feed), connection, self._source, ts, ts * 1000, ts_from, reason
        )
        return Entry(topic, symbol, None, -1, control.headers(), "other", feed, connection, 0, ts)


def _account(entry: Entry) -> str:
    """Return whose counters an entry stands in: the healer's klines bear the name of the feed whose gap they heal."""
    return "rest" if entry.kind == "rest" else entry.feed


def _business(feed: str) -> str:
    return feed.rpartition("-")[0]
