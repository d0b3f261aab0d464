"""The records of a topic whose event time is within a period, as files that are written as a
whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import confluent_kafka as ck

from infra.kafka.reader import read_to_end
from schemas.times import MAX_FUTURE_MS
from schemas.topics import Topic, load_schema

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 100_000
"""Records that are decoded at a time."""
TIMES = ("ts_event", "ts_start", "ts_first", "ts_from", "ts_watermark", "ts_recv")
"""What is the event time of a record: the first of these that its schema has."""

TableOf = Callable[[int, Sequence[ck.Message]], "pa.Table"]


@dataclass(frozen=True, slots=True)
class Period:
    """A period of event time, ms UTC; None is without bound."""

    start: int | None
    end: int | None

    @property
    def suffix(self) -> str:
        """What the name of a folder ends with; empty for all times."""
        if self.start is None and self.end is None:
            return ""
        return f"-{_stamp(self.start, 'begin')}-{_stamp(self.end, 'end')}"


def _stamp(ms: int | None, without: str) -> str:
    return (
        without if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    )


def write_period(
    bootstrap: str,
    topic: Topic,
    folder: Path,
    table_of: TableOf,
    period: Period,
    identity: Sequence[str] | None,
) -> int:
    """Write the period's files in place of those that are there, and return how many records they
    have; with `identity` the last record of each.

    A partition has a file; in memory are its rows of the period.
    """
    from infra.kafka import parquet

    since = None if period.start is None else max(0, period.start - 10 * MAX_FUTURE_MS)
    # written after its event time, but for clocks that differ a little
    messages = read_to_end(bootstrap, topic.name, since_ms=since)
    written: set[Path] = set()
    count = 0
    for partition, run in groupby(messages, lambda message: cast(int, message.partition())):
        held: list[Any] = []
        while taken := list(islice(run, ROWS)):
            held.append(
                parquet.within(table_of(partition, taken), time_of(topic), *_bounds(period))
            )
            if identity is not None:
                held = [parquet.last_rows(held, identity)]
        table = parquet.together(held)
        if not len(table):
            continue
        path = folder / f"{partition:05d}.parquet"
        parquet.write(table, path.with_suffix(".part"), {})
        parquet.put(path.with_suffix(".part"), path)
        written.add(path)
        count += len(table)
    for left in {*folder.glob("*.parquet"), *folder.glob("*.csv")}:
        if left.with_suffix(".parquet") not in written:
            left.unlink()
    return count


def time_of(topic: Topic) -> str:
    """Return the field that is the event time of a topic's records."""
    fields = {field["name"] for field in load_schema(cast(str, topic.schema))["fields"]}
    return next(name for name in TIMES if name in fields)


def _bounds(period: Period) -> tuple[datetime | None, datetime | None]:
    start, end = (
        None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
        for ms in (period.start, period.end)
    )
    return start, end
