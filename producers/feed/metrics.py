"""What a feed counts, with the name, type and unit of every metric in this one place; nothing of
how it is shown."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Kind = Literal["counter", "gauge"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name (also the attribute of FeedCounters), type, unit and meaning."""

    name: str
    kind: Kind
    unit: str
    meaning: str


def _metric(kind: Kind, unit: str, meaning: str) -> Any:
    return field(default=0, metadata={"kind": kind, "unit": unit, "meaning": meaning})


@dataclass(slots=True)
class FeedCounters:
    """A feed's counters: received = acknowledged + dead_lettered + spooled + lost + in flight;
    `queued` is in flight, counted apart."""

    feed: str
    received: int = _metric("counter", "frames", "pushes and frames that could not be understood")
    acknowledged: int = _metric(
        "counter", "records", "raw records that the broker has acknowledged"
    )
    dead_lettered: int = _metric(
        "counter", "records", "dead letters that the broker has acknowledged"
    )
    spooled: int = _metric("gauge", "records", "records on disk that the broker could not take yet")
    lost: int = _metric(
        "counter", "records", "records lost as the spool was full, each within a gap on record"
    )
    queued: int = _metric(
        "gauge", "records", "records handed to the Kafka client and not acknowledged yet"
    )
    trades: int = _metric("counter", "frames", "trade pushes understood")
    depth: int = _metric("counter", "frames", "depth pushes understood")
    klines: int = _metric("counter", "frames", "kline pushes understood")
    unreadable: int = _metric(
        "counter",
        "frames",
        "frames that became dead letters: not understood, not asked for, or no more asked for",
    )
    repeats: int = _metric(
        "counter", "trades", "trades marked as delivered before their symbol's subscription"
    )
    unknown_sides: int = _metric(
        "counter", "trades", "trades without a side that can be read: they count with direction 0"
    )
    swapped_sides: int = _metric(
        "counter",
        "symbols",
        "symbols, once a connection, the order of whose levels says that list a holds the bids",
    )
    suspect_sides: int = _metric(
        "counter",
        "connections",
        "connections of whose 1,000 one-level books over 99 % were crossed",
    )
    unasked: int = _metric("counter", "frames", "pushes of symbols that were not asked for")
    oversized: int = _metric(
        "counter",
        "messages",
        "messages refused by their announced length, each with its connection",
    )
    refusals: int = _metric("counter", "frames", "error frames of the vendor")
    connections: int = _metric("counter", "connections", "connections made")
    silent: int = _metric(
        "gauge", "symbols", "symbols reported as acked and without data, and still without"
    )
    losses: int = _metric("counter", "connections", "connections lost, not ended in order")
    last_frame: int = _metric("gauge", "us UTC", "receipt of the last frame, 0 before the first")

    calls: int = 0
    """How often the feed had something published; no metric."""
    turned_at: float = 0.0
    """When the feed's thread last began its loop (monotonic seconds), 0 before the first;
    no metric."""

    @property
    def in_flight(self) -> int:
        """Frames received whose record the broker has not acknowledged yet, and that are neither on
        disk nor lost."""
        return self.received - self.acknowledged - self.dead_lettered - self.spooled - self.lost

    def values(self) -> Iterator[tuple[Metric, int]]:
        """Yield every metric with its value."""
        for metric in METRICS:
            yield metric, getattr(self, metric.name)


METRICS = tuple(
    Metric(each.name, **each.metadata) for each in fields(FeedCounters) if each.metadata
)
"""Every metric of a feed, in the order of FeedCounters."""
