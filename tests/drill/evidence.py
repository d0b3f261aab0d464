"""What a drill leaves behind: the topics as consumers see them, the group's offsets, how the
processes ended, and what the vendor sent. The oracle judges nothing else."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import confluent_kafka as ck

from infra.kafka.reader import ValueReader
from schemas.clients.registry import RegistryError
from schemas.control import Control, UnreadableControl, read_control
from schemas.topics import Topology
from schemas.wire import UnreadableValue

RAW = ("infoway.raw.trade", "infoway.raw.depth", "infoway.raw.kline")
DEAD_LETTER, RECONCILIATION = "infoway.dead-letter", "infoway.reconciliation"
Log = dict[int, list[ck.Message]]
"""A topic's records by partition."""
At = tuple[str, int]
"""(full topic name, partition)."""


class VendorTrade(NamedTuple):
    """A trade as the vendor made it; `made_ms` is when, `ts_event` what it says of itself."""

    made_ms: int
    symbol: str
    ts_event: int
    price: str
    volume: str


class Ended(NamedTuple):
    """How a process ended: after how many seconds, its exit code, and its last word."""

    after_s: float
    process: str
    code: int
    words: str
    expected: bool
    """Whether a fault of the schedule ends a process with this code for good."""


class Sample(NamedTuple):
    """A feed's counters at one moment."""

    after_s: float
    feed: str
    counters: dict[str, int]


@dataclass
class Evidence:
    """Everything that the oracle reads. Topics go by their name in the contract."""

    names: Topology
    read: ValueReader
    raw: dict[str, Log]
    committed: dict[str, Log]
    """Derived topics as a read_committed consumer sees them."""
    uncommitted: dict[str, Log]
    states: dict[str, Log]
    """State topics, committed, by agent."""
    offsets: dict[At, int]
    """What the group has committed."""
    stable: dict[At, tuple[int, int]]
    """Stable offset and high watermark."""
    ledger: list[VendorTrade] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    unready: list[str] = field(default_factory=list)
    """What the processes that run at the end wait for, each with its name."""
    stable_after_s: float | None = 0.0
    """Seconds from the end of the load and the faults until no transaction was open."""
    lag_after_s: float | None = 0.0
    """Seconds until the group's lag was 0, None where it never was."""
    clock_ms: int = 0
    """How far the producer's clock may have been wrong."""
    revision_horizon_ms: int = 10_000
    tolerance_ms: int = 200
    """How far before the start of a gap a loss may lie. The agents take a second more, their feed
    latency; nothing takes that long on loopback unless the vendor holds it back."""

    def decoded(self, topic: str, message: ck.Message) -> dict[str, Any] | None:
        """Return a record of a topic, None for what cannot be read."""
        value = message.value()
        try:
            return None if value is None else dict(self.read(value)[1])
        except (UnreadableValue, RegistryError, ValueError, LookupError):
            return None

    def letters(self, found: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return those of dead letters that are of the workers."""
        return [each for each in found if self.read(each[1])[1]["source_partition"] is not None]

    @cached_property
    def rows(self) -> dict[str, list[tuple[ck.Message, dict[str, Any]]]]:
        """Committed records of derived topics, decoded, partition after partition in log order."""
        return {topic: list(self._rows(topic, log)) for topic, log in self.committed.items()}

    @cached_property
    def raw_rows(self) -> dict[str, list[tuple[ck.Message, dict[str, Any]]]]:
        """Raw records that can be read and come from the simulated vendor, as `rows`."""
        return {
            topic: [
                (message, row)
                for message, row in self._rows(topic, log)
                if row.get("source") == "simulated"
            ]
            for topic, log in self.raw.items()
        }

    @cached_property
    def refused(self) -> set[tuple[str, int, int]]:
        """Topic in the contract, partition and offset of each raw record that is dead-lettered."""
        return {
            (
                self.names.contract_name(row["source_topic"]),
                row["source_partition"],
                row["source_offset"],
            )
            for _, row in self.rows[DEAD_LETTER]
        }

    @cached_property
    def accepted(self) -> dict[str, list[tuple[ck.Message, dict[str, Any]]]]:
        """Raw trades that count, by symbol in log order: no repeat, not too late, readable."""
        late = {
            (row["source_partition"], row["source_offset"]) for _, row in self.rows["infoway.late"]
        }
        found: dict[str, list[tuple[ck.Message, dict[str, Any]]]] = defaultdict(list)
        for message, row in self.raw_rows[RAW[0]]:
            at = message.partition(), message.offset()
            if not row["repeat"] and at not in late and (RAW[0], *at) not in self.refused:
                found[row["symbol"]].append((message, row))
        return found

    def controls(self, topic: str) -> Iterator[tuple[ck.Message, Control]]:
        """Yield the control records of a raw topic, partition after partition in log order."""
        for log in self.raw[topic].values():
            for message in log:
                if message.value() is None:
                    try:
                        yield message, read_control(message.headers())
                    except UnreadableControl:
                        continue

    def _rows(self, topic: str, log: Log) -> Iterator[tuple[ck.Message, dict[str, Any]]]:
        for partition in sorted(log):
            for message in log[partition]:
                row = self.decoded(topic, message)
                if row is not None:
                    yield message, row
