"""Reports what was lost on the way to the broker: as gaps of symbols, and in the feed's status."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from producers.delivery.entries import SpoolEntry, business_of, gap_entry
from producers.delivery.segments import Segment
from producers.delivery.spool import Spool
from producers.feed.coverage import LOSS_BEFORE_LAST_ALIVE_MS, ReportOutage
from schemas.control import HELD_BACK_MS
from schemas.partition import partition_of
from schemas.records import FeedStatusRecord
from schemas.topics import RAW_TRADE


@dataclass(slots=True)
class _Loss:
    """What was dropped of a kind and key in a topic, from receipt `first_ms` to `last_ms` (UTC).

    It happened since `since_ms`, by the vendor.
    """

    feed: str
    connection: str
    sequence: int
    first_ms: int
    last_ms: int
    since_ms: int
    count: int = 0


class Losses:
    """What this process has lost and not reported yet."""

    def __init__(
        self,
        source: str,
        report: Callable[[FeedStatusRecord], SpoolEntry],
        spooled: Callable[[SpoolEntry], bool],
    ) -> None:
        """`report` makes an entry of a feed's status; `spooled` puts an entry on disk and returns
        whether that worked."""
        self.report_outage: ReportOutage | None = None
        """Called with what is lost."""
        self._source = source
        self._report = report
        self._spooled = spooled
        self._losses: dict[tuple[str, str | None, str], _Loss] = {}
        self._reports: dict[str, list[tuple[str | None, _Loss]]] = {}
        """Losses whose gaps are on record, by feed: its status has to report them."""

    @property
    def pending(self) -> bool:
        """Whether a loss is still to be reported."""
        return bool(self._losses or self._reports)

    def add(self, entry: SpoolEntry, event_ms: int | None) -> bool:
        """Count an entry as lost; return whether all losses before it have their gaps.

        `event_ms` is when it happened, by the vendor.
        """
        # it may be older than its receipt, much so if the vendor held it back
        since_ms = entry.received_ms - LOSS_BEFORE_LAST_ALIVE_MS
        if event_ms is not None:
            since_ms = min(since_ms, max(event_ms, entry.received_ms - HELD_BACK_MS))
        place = entry.topic, entry.key, entry.kind
        loss, is_first = self._losses.get(place), not self._losses
        if loss is None:
            loss = self._losses[place] = _Loss(
                entry.feed, "", 0, entry.received_ms, entry.received_ms, since_ms
            )
        loss.connection, loss.sequence = entry.connection, max(loss.sequence, entry.sequence)
        loss.first_ms, loss.last_ms = (
            min(loss.first_ms, entry.received_ms),
            max(loss.last_ms, entry.received_ms),
        )
        loss.since_ms = min(loss.since_ms, since_ms)
        loss.count += 1
        return is_first

    def put_on_record(self) -> None:
        """Write gaps and reports, as far as the disk takes them."""
        while self._losses:
            (topic, key, kind), loss = next(iter(self._losses.items()))
            if kind == "raw" and key is not None and not self._put_gap(topic, key, loss):
                return
            del self._losses[topic, key, kind]
            # agents need no gap for a lost dead letter or a lost kline of the past
            self._reports.setdefault(loss.feed, []).append((key if kind == "raw" else None, loss))
        while self._reports:
            feed, found = next(iter(self._reports.items()))
            last = max((loss for _, loss in found), key=lambda loss: (loss.last_ms, loss.sequence))
            count = sum(loss.count for _, loss in found)
            status = FeedStatusRecord(
                feed=feed,
                connection=last.connection,
                business=business_of(feed),
                state="degraded",
                reason=f"{count} records lost: the broker was away and the spool full",
                ts_from=min(loss.first_ms for _, loss in found),
                ts_to=max(loss.last_ms for _, loss in found),
                symbols=sorted({symbol for symbol, _ in found if symbol is not None}),
                last_sequence=last.sequence,
            )
            if not self._spooled(self._report(status)):
                return
            del self._reports[feed]

    def _put_gap(self, topic: str, symbol: str, loss: _Loss) -> bool:
        if not self._spooled(
            gap_entry(
                topic,
                symbol,
                loss.feed,
                loss.connection,
                self._source,
                loss.since_ms,
                loss.last_ms,
                f"{loss.count} records lost",
            )
        ):
            return False
        if self.report_outage is not None and topic.endswith(RAW_TRADE):
            self.report_outage(
                symbol, business_of(loss.feed), loss.feed, loss.since_ms, loss.last_ms
            )
        return True


def gaps_of_holes(
    spool: Spool, partitions: Mapping[str, int], source: str
) -> Iterator[tuple[Segment | None, list[SpoolEntry]]]:
    """Yield the gaps of each hole that an earlier process has left in the spool.

    How much it lost is not known. A gap covers all that a feed has in a partition, from its last
    record in the log to the next one of it in the spool. If there is none, the feed's next begin
    shows the loss.
    """
    if not spool.holes:
        return
    found: dict[Segment | None, dict[tuple[str, int, str], SpoolEntry]] = {}
    if None in spool.holes:
        found[None] = {}
    last = None
    for segment, entry in spool.unread():
        if last in spool.holes and segment is not last:
            found.setdefault(last, {})
        last = segment
        if (place := _place(entry, partitions)) is not None:
            for nexts in found.values():
                nexts.setdefault(place, entry)
    for hole, nexts in found.items():
        reason = (
            "a producer died while the broker was away"
            if hole is None
            else "a part of the spool was damaged"
        )
        gaps = [
            gap_entry(
                topic, None, feed, entry.connection, source, None, entry.received_ms, reason
            )._replace(partition=partition)
            for (topic, partition, feed), entry in nexts.items()
        ]
        if gaps:
            yield hole, gaps


def _place(entry: SpoolEntry, partitions: Mapping[str, int]) -> tuple[str, int, str] | None:
    """Return the topic, partition and feed that an entry shows to be alive."""
    if (
        entry.topic not in partitions
        or entry.kind == "rest"
        or ("control", b"heal") in (entry.headers or ())
    ):
        return None
    if entry.key is None:
        return entry.topic, entry.partition, entry.feed
    return (
        entry.topic,
        partition_of(entry.key.encode(), partitions[entry.topic]),
        entry.feed,
    )
