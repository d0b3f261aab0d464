"""From a computation's rows to records of the derived topics: full topic names, Avro with the registry's ids, dead letters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from processors.records import Unreadable
from schemas.topics import Topology, load_schema
from schemas.wire import DecimalOverflow, Encoder, compile_encoder

DEAD_LETTER = "infoway.dead-letter"

Produced = tuple[str, int, bytes, bytes]
"""(full topic name, partition, key, value)."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Encoders of every derived topic. Records go to the partition of their source: all topics have the same number of them."""

    encoders: Mapping[str, tuple[str, Encoder]]
    """Name in the contract to (full name, encoder)."""

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
            }
        )

    def encode(
        self, name: str, partition: int, key: str, fields: tuple[Any, ...], source_topic: str
    ) -> Produced:
        """Return the record of a row; a number that its schema cannot hold makes it a dead letter instead, never a cut number."""
        topic, encoder = self.encoders[name]
        try:
            return topic, partition, key.encode(), encoder(*fields)
        except DecimalOverflow as error:
            shown = json.dumps([str(field) for field in fields]).encode()
            text = f"a record of {name} does not fit its schema: {error}"
            return self._dead(
                partition,
                key.encode(),
                (source_topic, partition, None, key.encode(), shown, "DecimalOverflow", text),
            )

    def dead_letter(self, topic: str, partition: int, record: Unreadable) -> Produced:
        """Return the dead letter of a raw record that could not be decoded."""
        fields = (
            topic,
            partition,
            record.offset,
            record.key,
            record.value,
            record.error_class,
            record.error_text,
        )
        return self._dead(partition, record.key or topic.encode(), fields)

    def _dead(self, partition: int, key: bytes, fields: tuple[Any, ...]) -> Produced:
        topic, encoder = self.encoders[DEAD_LETTER]
        return topic, partition, key, encoder(*fields, None, None, None, None)
