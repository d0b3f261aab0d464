"""From a computation's rows to records of the derived topics: full topic names, Avro with the
registry's ids, dead letters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from processors.engine.transactions.transactions import PackedRecords
from processors.kernels.columns import HEADER, EncodedRows
from processors.model.records import DerivedRecord, Unreadable
from schemas.records import DeadLetterRecord
from schemas.topics import DEAD_LETTER, Topology, load_schema
from schemas.wire import DecimalOverflow, Encoder, compile_encoder, header

Produced = tuple[str, int, bytes, bytes]
"""(full topic name, partition, key, value)."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Encoders of every derived topic. Records go to the partition of their source: all topics have
    the same number of them."""

    encoders: Mapping[str, tuple[str, Encoder]]
    """Name in the contract to (full name, encoder)."""
    headers: Mapping[str, bytes] = field(default_factory=dict)
    """The wire format's header of each name in the contract."""

    @classmethod
    def of(cls, topology: Topology, schema_ids: Mapping[str, int]) -> "Outputs":
        """Compile the encoders; `schema_ids` has the id of each full topic name."""
        return cls(
            {
                topology.contract_name(topic.name): (
                    topic.name,
                    compile_encoder(load_schema(topic.schema), schema_ids[topic.name]),
                )
                for topic in topology.derived()
                if topic.schema is not None
            },
            {
                topology.contract_name(topic.name): header(schema_ids[topic.name])
                for topic in topology.derived()
                if topic.schema is not None
            },
        )

    def packed(self, rows: EncodedRows) -> PackedRecords:
        """Return the Kafka records of rows; writes the headers into the rows."""
        headers = np.array([list(self.headers[name]) for name in rows.topics], np.uint8)
        starts = np.zeros(len(rows), np.int64)
        starts[1:] = rows.ends[:-1]
        for at in range(HEADER):
            rows.values[starts + at] = headers[rows.topic, at]
        return PackedRecords(
            [self.encoders[name][0] for name in rows.topics],
            rows.topic.tolist(),
            rows.keys,
            rows.symbol.tolist(),
            rows.ends.tolist(),
            rows.values.tobytes(),
        )

    def encode(
        self, name: str, partition: int, key: str, record: DerivedRecord, source_topic: str
    ) -> Produced:
        """Return the Kafka record of a row; a number that its schema cannot hold makes it a dead
        letter instead, never a cut number."""
        topic, encoder = self.encoders[name]
        try:
            return topic, partition, key.encode(), encoder(*record)
        except DecimalOverflow as error:
            shown = json.dumps([str(value) for value in record]).encode()
            letter = DeadLetterRecord(
                source_topic,
                partition,
                None,
                key.encode(),
                shown,
                "DecimalOverflow",
                f"a record of {name} does not fit its schema: {error}",
            )
            return self._dead(partition, key.encode(), letter)

    def dead_letter(self, topic: str, partition: int, record: Unreadable) -> Produced:
        """Return the dead letter of a raw record that could not be decoded."""
        letter = DeadLetterRecord(
            topic,
            partition,
            record.offset,
            record.key,
            record.value,
            record.error_class,
            record.error_text,
        )
        return self._dead(partition, record.key or topic.encode(), letter)

    def _dead(self, partition: int, key: bytes, letter: DeadLetterRecord) -> Produced:
        topic, encoder = self.encoders[DEAD_LETTER]
        return topic, partition, key, encoder(*letter)
