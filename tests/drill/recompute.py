"""What the derived topics must hold, computed from the raw log by the pure computations alone: no
engine, no broker, no kernels, a record at a time or in batches with the state written out and read
back."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import confluent_kafka as ck
from evidence import DEAD_LETTER, RAW, Evidence, Log

from processors.agents.activity.agent import ActivityBars
from processors.agents.bars.agent import Bars
from processors.agents.depth.agent import Imbalance
from processors.agents.vwap.agent import Vwap
from processors.agents.vwap.slots import SYMBOL_KEY
from processors.decode.raw_records import book_of, kline_of
from processors.decode.reader import RawReader, unreadable
from processors.decode.trades import TradeReader
from processors.engine.journal import Journal
from processors.model.event_time import EventTime
from processors.model.records import SourcesMixed, Unreadable, source_of
from processors.model.sessions import Calendars
from schemas.clients.registry import Registry, UnknownSchema
from schemas.topics import load_schema
from schemas.wire import compile_encoder

SOURCE = "simulated"
Produced = tuple[str, bytes, bytes]
"""Topic in the contract, key and value."""
APPLIED = b"\0applied:"
ENGINE_KEYS = (APPLIED, b"\0log:", b"\0failed:", b"\0skipped:")
"""What the engine's own keys in a state topic begin with."""


class _Settled:
    """The registry's answers as workers take them: what it has denied for long enough is unknown,
    whatever its address."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def schema(self, schema_id: int) -> object:
        try:
            return self._registry.schema(schema_id)
        except UnknownSchema:
            text = f"the schema registry knows no schema of id {schema_id}"
            raise UnknownSchema(text) from None


@dataclass
class Recomputation:
    """The agents of a namespace and what they make of its raw log; reconciliation, which joins
    topics as they come, is left out."""

    evidence: Evidence
    registry: Registry
    ids: dict[str, int]
    """Schema ids of the derived topics, by full name."""
    records: dict[tuple[str, int], list[Any]] = field(default_factory=dict)
    """Decoded raw records, strays replaced by what stands for them, by topic and partition."""

    def __post_init__(self) -> None:
        names, calendars = self.evidence.names, Calendars()
        event_time = EventTime(revision_horizon_ms=self.evidence.revision_horizon_ms)
        self.agents = {
            "vwap": (Vwap(names.windows, calendars, event_time, native=False), RAW[0]),
            "bars": (Bars(names.intervals, calendars, event_time, None), RAW[0]),
            "activity": (ActivityBars(names.activity, calendars, event_time, None), RAW[0]),
            "imbalance": (Imbalance(event_time, native=False), RAW[1]),
        }
        self.encoders = {
            names.contract_name(topic.name): compile_encoder(
                load_schema(topic.schema), self.ids[topic.name]
            )
            for topic in names.derived()
            if topic.schema is not None
        }
        readers = {RAW[0]: TradeReader(calendars), RAW[1]: book_of, RAW[2]: kline_of}
        for topic, log in self.evidence.raw.items():
            schema = load_schema(topic.split(".", 1)[1].replace(".", "_"))
            read = RawReader(_Settled(self.registry), schema, readers[topic])
            for partition, messages in log.items():
                self.records[topic, partition] = [_own(read(m), m) for m in messages]

    def rows(self, agent: str, partition: int, batch: int, seed: int = 0) -> Iterator[list[Any]]:
        """Yield the rows of an agent batch by batch; with a seed the state is written out and read
        back after every fourth batch or so."""
        computation, topic = self.agents[agent]
        chance = random.Random(seed)
        records, entries = self.records[topic, partition], {}
        state = computation.load(partition, {})
        for start in range(0, len(records), batch):
            yield computation.apply(state, records[start : start + batch])
            for key, value in computation.dirty(state):
                entries[key] = value
            if seed and chance.random() < 0.25:
                live = {key: value for key, value in entries.items() if value is not None}
                state = computation.load(partition, live)

    def from_state(
        self, agent: str, partition: int, entries: dict[bytes, bytes], start: int, count: int
    ) -> list[Any]:
        """Return the rows of `count` records from `start` on, from the state that a state topic
        holds."""
        computation, topic = self.agents[agent]
        own = {k: v for k, v in entries.items() if not k.startswith(ENGINE_KEYS)}
        own = Journal.restored(own).pairs()
        records = self.records[topic, partition]
        state = computation.load(partition, own)
        return list(computation.apply(state, records[start : start + count]))

    def in_kernels(self) -> int:
        """Return how many symbols the workers' last states of `vwap` have in kernels."""
        found = 0
        for log in self.evidence.states["vwap"].values():
            entries = {message.key(): message.value() for message in log}
            own = {
                key: value
                for key, value in entries.items()
                if value is not None and not key.startswith(ENGINE_KEYS)
            }
            found += sum(key.startswith(SYMBOL_KEY) for key in Journal.restored(own).pairs())
        return found

    def encoded(self, row: Any) -> Produced:
        """Return a row as it stands in its topic."""
        name, key, fields = row
        return name, key.encode(), self.encoders[name](*fields)

    def dead_letters(self, topic: str, partition: int) -> Iterator[Produced]:
        """Yield the dead letters of a raw partition."""
        full = self.evidence.names.name(topic)
        for record in self.records[topic, partition]:
            if isinstance(record, Unreadable):
                fields = (full, partition, record.offset, record.key, record.value)
                errors = (record.error_class, record.error_text)
                value = self.encoders[DEAD_LETTER](*fields, *errors, None, None, None, None)
                yield DEAD_LETTER, record.key or full.encode(), value


def by_topic(log: dict[str, Log], topic: str, partition: int) -> list[tuple[bytes, bytes]]:
    """Return keys and values of a partition."""
    return [(m.key(), m.value()) for m in log[topic].get(partition, ())]


def _own(record: Any, message: ck.Message) -> Any:
    source = source_of(record)
    if source in (None, SOURCE):
        return record
    return unreadable(message, SourcesMixed(SOURCE, source, message.partition(), record.offset))


settle = partial(sorted, key=lambda pair: (pair[0] or b"", pair[1] or b""))
"""Sorts keys and values, for a topic that several agents write side by side."""
