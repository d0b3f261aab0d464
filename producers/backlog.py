"""What the broker could not take yet: counted and in order on disk, and where even that is full, lost with a gap on record.

Used by one publisher under its lock; a record that is not lost comes out of `next` as it went into `append`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from producers.counters import FeedCounters
from producers.partition import partition_of
from producers.spool import Entry, Segment, Spool
from schemas.control import Control

COUNTED = frozenset(("raw", "rest", "dead"))
"""Kinds of entries that stand for something received."""
RESERVE = 16 * 1024 * 1024
"""Bytes beyond the bound for what must not be dropped: begins, ends, gaps, reports."""
_LATENCY = 2_000
"""Milliseconds by which a lost trade may be older than its receipt."""
_DROPPABLE = frozenset(("raw", "rest", "mark"))

_log = logging.getLogger(__name__)


class BacklogFull(OSError):
    """Not even a record that must not be dropped has room in the spool."""


@dataclass(slots=True)
class _Loss:
    """What was dropped of a symbol in a topic: `first` and `last` receipt in ms UTC."""

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
        published: Mapping[tuple[str, int, str], int],
    ) -> None:
        """`source` is that of the feeds; `report` makes an entry of the fields of a feed's status; `partitions` is by full topic name.

        `published` is what the topics have already, where an earlier process may have died between delivery and deletion: by
        topic, partition and connection the greatest sequence.
        """
        self.earlier = FeedCounters("earlier")
        """Counts what an earlier process left."""
        self.unseen: Callable[[str, str, str, int | None, int], None] | None = None
        """Told of what is lost: symbol, business, feed, from, to (ms UTC)."""
        self._spool = spool
        self._source = source
        self._report = report
        self._partitions = partitions
        self._published = published
        self._counters: dict[str, FeedCounters] = {}
        self._losses: dict[tuple[str, str], _Loss] = {}
        self._broken = ""
        self._left = 0
        firsts: dict[tuple[str, str], Entry] = {}
        for entry in spool.unread():
            self._left += 1
            self.earlier.received += entry.kind in COUNTED
            if entry.kind == "raw" and entry.key is not None:
                firsts.setdefault((entry.topic, entry.key), entry)
        self.earlier.spooled = self.earlier.received
        if self._left:
            _log.warning("%d records of an earlier run wait in %s and go out first", self._left, spool.folder)
        if spool.unclean and firsts:
            self._own_up(list(firsts.values()))

    @property
    def empty(self) -> bool:
        """Whether nothing waits, and no loss waits to be told."""
        return self._spool.empty and not self._losses

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self._spool.size

    def append(self, entry: Entry, counters: FeedCounters) -> None:
        """Take a record at the end, or count it as lost. Raises BacklogFull where it must not be dropped."""
        if self._losses and self._spool.size < self._spool.limit * 3 // 4:
            self._tell()
        self._counters[entry.feed] = counters
        if entry.kind in _DROPPABLE and (self._losses or self._spool.size >= self._spool.limit):
            self._lose(entry, counters)
            return
        try:
            if self._spool.size >= self._spool.limit + RESERVE:
                raise BacklogFull(28, "no room in its reserve")
            self._spool.append(entry)
        except OSError as error:
            if not self._broken:
                _log.error(
                    "the spool %s cannot be written (%s): what comes until it can is lost, and told as gaps", self._spool.folder, error
                )
            self._broken = str(error)
            if entry.kind not in _DROPPABLE and entry.kind != "dead":
                raise BacklogFull(28, f"the spool {self._spool.folder}: {error.strerror or error}") from error
            self._lose(entry, counters)
            return
        self._broken = ""
        if entry.kind in COUNTED:
            counters.spooled += 1

    def next(self) -> tuple[Segment, Entry, FeedCounters] | None:
        """Return the oldest record that waits, with where it is to be acknowledged and counted."""
        while True:
            if self._spool.empty and self._losses:
                self._tell()
            found = self._spool.read()
            if found is None:
                return None
            segment, entry = found
            counters = self.earlier if self._left > 0 else self._counters.get(entry.feed, self.earlier)
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
        """Keep what the broker did not take, before all else that waits, and end; return how many records wait."""
        if undelivered:
            self._spool.put_first([entry for entry, _ in undelivered])
            for entry, counters in undelivered:
                counters.spooled += entry.kind in COUNTED
        if self._losses:
            self._tell()
        left = self._spool.left
        self._spool.close()
        return left

    def _is_published(self, entry: Entry) -> bool:
        if entry.kind != "raw" or not self._published or entry.key is None:
            return False
        place = (entry.topic, partition_of(entry.key.encode(), self._partitions[entry.topic]), entry.connection)
        return entry.sequence <= self._published.get(place, 0)

    def _lose(self, entry: Entry, counters: FeedCounters) -> None:
        if entry.kind in COUNTED:
            counters.lost += 1
        if entry.kind == "raw" and entry.key is not None:
            loss = self._losses.get((entry.topic, entry.key))
            if loss is None:
                if not self._losses:
                    _log.error(
                        "the spool %s is full (%d MiB): records are lost, and told as gaps", self._spool.folder, self._spool.limit >> 20
                    )
                loss = self._losses[entry.topic, entry.key] = _Loss(entry.feed, "", 0, entry.ts, entry.ts)
            loss.connection, loss.sequence, loss.last = entry.connection, entry.sequence, max(loss.last, entry.ts)
            loss.count += 1

    def _tell(self) -> None:
        """Put the gaps on record, in their place in the order."""
        losses, self._losses = self._losses, {}
        feeds: dict[str, list[tuple[str, _Loss]]] = {}
        for (topic, symbol), loss in losses.items():
            business, since = loss.feed.rpartition("-")[0], loss.first - _LATENCY
            control = Control(
                "gap", loss.feed, business, loss.connection, self._source, loss.last, loss.last * 1000, since, f"{loss.count} records lost"
            )
            self._spool.append(Entry(topic, symbol, None, -1, control.headers(), "other", loss.feed))
            feeds.setdefault(loss.feed, []).append((symbol, loss))
            if self.unseen is not None and topic.endswith("raw.trade"):
                self.unseen(symbol, business, loss.feed, since, loss.last)
        for feed, found in feeds.items():
            count, symbols = sum(loss.count for _, loss in found), sorted({symbol for symbol, _ in found})
            last = max((loss for _, loss in found), key=lambda loss: loss.sequence)
            times = (min(loss.first for _, loss in found), max(loss.last for _, loss in found))
            reason = f"{count} records lost: the broker was away and the spool full"
            fields = (feed, last.connection, feed.rpartition("-")[0], "degraded", reason, *times, symbols, last.sequence)
            self._spool.append(self._report(fields))

    def _own_up(self, firsts: list[Entry]) -> None:
        """What an earlier process had in memory is lost: a gap from each symbol's last life in the log to what comes first here."""
        gaps = []
        for entry in firsts:
            control = Control(
                "gap", entry.feed, entry.feed.rpartition("-")[0], entry.connection, self._source, entry.ts, entry.ts * 1000,
                None, "a producer died while the broker was away",
            )  # fmt: skip
            gaps.append(Entry(entry.topic, entry.key, None, -1, control.headers(), "other", entry.feed))
        self._spool.put_first(gaps, unread=True)
        self._left += len(gaps)
