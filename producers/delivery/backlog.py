"""Keeps what the broker cannot take yet: counted and in order on disk. If the disk is full too,
records are lost, and each loss is reported as a gap.

One publisher uses it under its lock. `next` returns records as `append` took them, in their order.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from producers.delivery.entries import COUNTED, SpoolEntry
from producers.delivery.losses import Losses, gaps_of_holes
from producers.delivery.segments import Segment
from producers.delivery.spool import Spool
from producers.feed.coverage import ReportOutage
from producers.feed.metrics import FeedCounters
from schemas.errors import InfowayError
from schemas.partition import partition_of
from schemas.records import FeedStatusRecord

RESERVE = 16 * 1024 * 1024
"""Bytes beyond the limit for begins, ends, gaps and reports, which must not be lost."""
HELD = 100_000
"""How many of these are held in memory while the disk takes nothing."""
_DROPPABLE = frozenset(("raw", "rest", "mark"))

_log = logging.getLogger(__name__)


class BacklogFull(InfowayError):
    """There is no room left for records that must not be lost."""

    def __init__(self, spool: Spool, reason: str) -> None:
        super().__init__(
            f"the spool {spool.folder} takes nothing ({reason}) and the broker is away: make "
            "room, or name another by INFOWAY_SPOOL"
        )
        self.reason = reason


class Backlog:
    """Takes records through a spool, and counts them for their feeds."""

    def __init__(
        self,
        spool: Spool,
        source: str,
        report: Callable[[FeedStatusRecord], SpoolEntry],
        partitions: Mapping[str, int],
        published: Callable[[Collection[str], int], Mapping[tuple[str, int, str], int]],
    ) -> None:
        """`source` is the feeds' source; `report` makes an entry of a feed's status.

        `partitions` has the number of partitions by full topic name. `published` returns what
        topics got since a time (ms UTC): the greatest sequence by topic, partition and connection.
        An earlier process may have died after a delivery and before its deletion here.
        """
        self.earlier = FeedCounters("earlier")
        """Counts what an earlier process left."""
        self.whole = True
        """After `close`: whether every record is delivered, on disk, or within a reported gap."""
        self._spool = spool
        self._partitions = partitions
        self._counters: dict[str, FeedCounters] = {}
        self._losses = Losses(source, report, self._spooled)
        self._held: deque[SpoolEntry] = deque()
        self._broken = ""
        self._whole = False
        self._left = 0
        topics: set[str] = set()
        oldest = 0
        for _, entry in spool.unread():
            self._left += 1
            self.earlier.received += entry.kind in COUNTED
            if entry.kind == "raw":
                topics.add(entry.topic)
                oldest = min(oldest or entry.received_ms, entry.received_ms)
        self.earlier.spooled = self.earlier.received
        self._published = published(topics, oldest) if topics else {}
        if self._left:
            _log.warning(
                "%d records of an earlier run wait in %s and go out first; %d were torn",
                self._left,
                spool.folder,
                spool.torn,
            )
        for hole, gaps in [*gaps_of_holes(spool, partitions, source)]:
            spool.fill(hole, gaps)
            self._left += len(gaps)

    @property
    def report_outage(self) -> ReportOutage | None:
        """Called with each loss of a trade."""
        return self._losses.report_outage

    @report_outage.setter
    def report_outage(self, report: ReportOutage | None) -> None:
        self._losses.report_outage = report

    @property
    def memory(self) -> Path:
        """Path of the file that has the feeds' gaps that wait to be healed."""
        return self._spool.beside("healing")

    @property
    def empty(self) -> bool:
        """Whether nothing waits, and no loss waits to be reported."""
        return self._spool.empty and not self._unrecorded

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self._spool.size

    def waiting(self) -> Iterator[SpoolEntry]:
        """Yield what waits on disk, oldest first, and leave it there."""
        for _, entry in self._spool.unread():
            yield entry

    @property
    def left(self) -> int:
        """Records on disk that the broker has not acknowledged."""
        return self._spool.left

    def keep(self, entries: Sequence[SpoolEntry]) -> list[Segment]:
        """Copy entries that are in flight to disk, while nothing waits there.

        Returns the segments of as many as the disk takes.
        """
        segments: list[Segment] = []
        for entry in entries:
            if self._spool.size >= self._spool.limit or not self._spooled(entry):
                break
            segments.append(self._spool.newest)
        self._spool.mark_read()
        return segments

    def mark_whole(self, whole: bool) -> bool:
        """Note on disk whether a kill at this moment would lose nothing; return what is noted."""
        whole = whole and not self._unrecorded and not self._spool.leads
        try:
            self._spool.mark_whole(whole)
        except OSError as error:
            # without the mark the next start reports a gap where there may be none
            _log.warning("the spool %s cannot be marked as whole (%s)", self._spool.folder, error)
            return False
        self._whole = whole
        return whole

    def append(
        self, entry: SpoolEntry, counters: FeedCounters, event_ms: int | None = None
    ) -> None:
        """Take a record at the end, or count it as lost; `event_ms` is when it happened, by the
        vendor. Raises BacklogFull where it must not be dropped."""
        self._counters[counters.feed] = counters
        if self._unrecorded and self._spool.size < self._spool.limit * 3 // 4:
            self._put_on_record()
        keeps = entry.kind == "other"
        bound = self._spool.limit + (0 if entry.kind in _DROPPABLE else RESERVE)
        # nothing overtakes what is held; after a loss all that follows is lost too, until its gap
        # is written, since the gap has to precede what comes after it
        waits = self._held if keeps else self._unrecorded
        if not waits and self._spool.size < bound and self._spooled(entry):
            if entry.kind in COUNTED:
                counters.spooled += 1
            return
        if self._whole:
            self.mark_whole(False)
        if not keeps:
            self._lose(entry, counters, event_ms)
        elif len(self._held) < HELD:
            self._held.append(entry)
        else:
            raise BacklogFull(self._spool, self._broken or "it is full")

    def next(self) -> tuple[Segment, SpoolEntry, FeedCounters] | None:
        """Return the oldest record that waits, its segment for `acknowledge`, and its counters."""
        while True:
            if self._spool.empty and self._unrecorded:
                self._put_on_record()
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

    def give_back(self, segment: Segment, entry: SpoolEntry, counters: FeedCounters) -> None:
        """Take back what `next` returned: it is the next one again."""
        self._spool.give_back(segment, entry)
        self._left += counters is self.earlier
        if entry.kind in COUNTED:
            counters.spooled += 1

    def acknowledge(self, segment: Segment) -> None:
        """Note that the broker has a record of a segment."""
        self._spool.acknowledge(segment)

    def close(self, undelivered: list[tuple[SpoolEntry, FeedCounters, bool]]) -> int:
        """Write undelivered records before all that waits, and end; return how many records wait.

        Each comes with its feed's counters, and whether the spool has it already.
        """
        whole = True
        try:
            self._spool.put_back([entry for entry, _, _ in undelivered])
        except OSError as error:
            lost = sum(not on_disk for _, _, on_disk in undelivered)
            whole = not lost and not self._spool.leads
            if lost:
                _log.error(
                    "the spool %s cannot be written (%s): %d records are lost with this process",
                    self._spool.folder,
                    error,
                    lost,
                )
        for entry, counters, on_disk in undelivered:
            if entry.kind in COUNTED and (whole or on_disk):
                counters.spooled += 1
            elif entry.kind in COUNTED:
                counters.lost += 1
        if self._unrecorded:
            self._put_on_record()
        left = self._spool.left
        self.whole = whole and not self._unrecorded
        self._spool.close(self.whole)
        return left

    @property
    def _unrecorded(self) -> bool:
        return self._losses.pending or bool(self._held)

    def _spooled(self, entry: SpoolEntry) -> bool:
        """Return whether the spool has taken an entry."""
        try:
            self._spool.append(entry)
        except OSError as error:
            if not self._broken:
                _log.error(
                    "the spool %s cannot be written (%s): what comes until it can is lost, and "
                    "told as gaps",
                    self._spool.folder,
                    error,
                )
            self._broken = str(error)
            return False
        self._broken = ""
        return True

    def _lose(self, entry: SpoolEntry, counters: FeedCounters, event_ms: int | None) -> None:
        if entry.kind not in COUNTED:
            return
        counters.lost += 1
        if self._losses.add(entry, event_ms) and not self._broken:
            _log.error(
                "the spool %s is full (%d MiB): records are lost, and told as gaps",
                self._spool.folder,
                self._spool.limit >> 20,
            )

    def _put_on_record(self) -> None:
        """Write what was held, then gaps and reports of losses, as far as the disk takes them."""
        while self._held and self._spooled(self._held[0]):
            self._held.popleft()
        if not self._held:
            self._losses.put_on_record()

    def _is_published(self, entry: SpoolEntry) -> bool:
        if entry.kind != "raw" or not self._published or entry.key is None:
            return False
        place = (
            entry.topic,
            partition_of(entry.key.encode(), self._partitions[entry.topic]),
            entry.connection,
        )
        return entry.sequence <= self._published.get(place, 0)


def _account(entry: SpoolEntry) -> str:
    """Return the name of the counters that have an entry.

    Klines of the healer are counted apart, though they name the feed whose gap they heal.
    """
    return "rest" if entry.kind == "rest" else entry.feed
