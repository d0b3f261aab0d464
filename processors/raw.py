"""From a Kafka message of a source topic to a record of the computation; what cannot be read becomes Unreadable, never an exception."""

from collections.abc import Callable, Mapping
from typing import Any

import confluent_kafka as ck

from processors.decode import Undecodable, heal_of
from processors.records import (
    BarRevision,
    Book,
    ControlRecord,
    Heal,
    Kline,
    Record,
    Trade,
    Unreadable,
)
from processors.sessions import BeyondCalendar
from schemas.control import Control, Headers, UnreadableControl, read_control
from schemas.registry import Registry, UnknownSchema
from schemas.wire import Decoder, Schema, UnreadableValue, compile_decoder, schema_id_of

RecordOf = Callable[[int, dict[str, Any]], Trade | Book | Kline | BarRevision]
HealOf = Callable[[int, str | None, Control], Heal]


class RawReader:
    """Reads the messages of one source topic: Avro by the schema id that each names, control records by their headers.

    A schema id is asked of the registry once; while the registry is away the worker ends (RegistryError) and starts anew,
    since a record that is merely not readable yet is no dead letter. One whose id the registry denies is: producers register first.
    """

    def __init__(
        self, registry: Registry, schema: Schema, record_of: RecordOf, heal_of: HealOf = heal_of
    ) -> None:
        """`schema` is what `record_of` knows of the topic; records of other versions have its defaults for what they lack."""
        self._registry = registry
        self._schema = schema
        self._record_of = record_of
        self._heal_of = heal_of
        self._decoders: dict[int, Decoder] = {}

    def __call__(self, message: ck.Message) -> Record:
        """Return the record of a message."""
        offset, key, value = message.offset(), message.key(), message.value()
        assert offset is not None
        try:
            if value is None:
                symbol, control = key.decode() if key else None, read_control(message.headers())
                return (
                    self._heal_of(offset, symbol, control)
                    if control.kind == "heal"
                    else ControlRecord(offset, symbol, control)
                )
            return self._record_of(offset, self._decoder(schema_id_of(value))(value))
        except (
            BeyondCalendar,
            Undecodable,
            UnknownSchema,
            UnreadableControl,
            UnreadableValue,
            UnicodeDecodeError,
            KeyError,
        ) as error:
            return Unreadable(
                offset,
                key,
                value or b"",
                type(error).__name__,
                str(error),
                _pairs(message.headers()),
            )

    def _decoder(self, schema_id: int) -> Decoder:
        decoder = self._decoders.get(schema_id)
        if decoder is None:
            decoder = self._decoders[schema_id] = compile_decoder(
                self._registry.schema(schema_id), self._schema
            )
        return decoder


def _pairs(headers: Headers | None) -> tuple[tuple[str, str | bytes | None], ...]:
    return tuple(headers.items() if isinstance(headers, Mapping) else headers or ())
