"""From a Kafka message of a source topic to a record of the computation; what cannot be read
becomes Unreadable, never an exception."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import confluent_kafka as ck

from processors.decode.lookup import MOST_SCHEMAS
from processors.decode.raw_records import Undecodable, check_control, heal_of
from processors.model.records import (
    BarRevision,
    Book,
    ControlRecord,
    Kline,
    SourceRecord,
    Trade,
    Unreadable,
)
from schemas.clients.registry import UnknownSchema
from schemas.control import CUT, UnreadableControl, headers_of, read_control
from schemas.foreign.types import UnreadableSchema
from schemas.foreign.versions import decoder_of, is_ours
from schemas.records import record_type
from schemas.wire import Decoder, Schema, UnreadableValue, schema_id_of

MOST_BYTES = 900_000
"""Of a record's key, twice, value and headers: librdkafka sends no record of more than a
million."""
HEADER_BYTES = 20
"""More than Kafka writes for a header beside its name and value: two lengths."""
CUT_TO = 512 * 1024
"""Bytes of a larger record's value that its dead letter keeps."""
Header = tuple[str, str | bytes | None]

RecordOf = Callable[[int, Any], Trade | Book | Kline | BarRevision]
"""From an offset and the named record of the topic's schema; raises Undecodable."""


class Schemas(Protocol):
    """Has the schemas of ids: a SchemaLookup, or a registry that is asked at once."""

    def schema(self, schema_id: int) -> object:
        """Return the schema of an id; raises UnknownSchema."""


class RawReader:
    """Reads the messages of one source topic: Avro by the schema id that each names, control
    records by their headers.

    The schemas of the ids are those that `schemas` has: asked for before the messages are read
    here. A schema that Avro cannot read as the topic's, and an id that the registry denies, make
    their records Unreadable: producers register first.
    """

    def __init__(self, schemas: Schemas, schema: Schema, record_of: RecordOf) -> None:
        """`schema` is what `record_of` knows of the topic; records of other versions have its
        defaults for what they lack."""
        self._schemas = schemas
        self._schema = schema
        self._record_type = record_type(schema)
        self._record_of = record_of
        self._decoders: dict[int, Decoder | UnreadableValue] = {}

    def __call__(self, message: ck.Message) -> SourceRecord:
        """Return the record of a message."""
        offset, key, value = message.offset(), message.key(), message.value()
        assert offset is not None
        try:
            if value is None:
                symbol, control = key.decode() if key else None, read_control(headers_of(message))
                if control.kind == "heal":
                    return heal_of(offset, symbol, control)
                check_control(symbol, control)
                return ControlRecord(offset, symbol, control)
            return self._record_of(offset, self.decoded(value))
        except (
            Undecodable,
            UnknownSchema,
            UnreadableControl,
            UnreadableValue,
            UnicodeDecodeError,
            KeyError,
        ) as error:
            return unreadable(message, error)

    def decoded(self, value: bytes) -> Any:
        """Return the named record of a value. Raises as decoding does."""
        return self._decoder(schema_id_of(value))(value)

    def reads_as_ours(self, value: bytes) -> bool:
        """Return whether the schema that a value names is known, and the topic's but for its docs.
        Raises UnreadableValue."""
        try:
            written = self._schemas.schema(schema_id_of(value))
        except UnknownSchema:
            return False
        return is_ours(written, self._schema)

    def _decoder(self, schema_id: int) -> Decoder:
        found = self._decoders.get(schema_id)
        if found is None:
            if len(self._decoders) > MOST_SCHEMAS:
                self._decoders.clear()
            try:
                found = decoder_of(self._schemas.schema(schema_id), self._schema, self._record_type)
            except UnreadableSchema as error:
                found = error  # of every record that names it: a schema is judged once
            self._decoders[schema_id] = found
        if isinstance(found, UnreadableValue):
            raise found.with_traceback(None)
        return found


def unreadable(message: ck.Message, error: Exception) -> Unreadable:
    """Return what stands for a message that no agent takes, with all that a dead letter keeps of
    it."""
    offset, headers = cast(int, message.offset()), headers_of(message)
    return letter_of(
        offset, message.key(), message.value() or b"", type(error).__name__, str(error), headers
    )


def letter_of(
    offset: int,
    key: bytes | None,
    value: bytes,
    error_class: str,
    text: str,
    headers: Sequence[Header],
) -> Unreadable:
    """Return what a dead letter keeps of a record: all of it, or its beginning if a letter with all
    of it were larger than what librdkafka sends."""
    name = key or b""
    size = len(value) + 2 * len(name) + sum(len(each) + len(said or "") for each, said in headers)
    text = text[:1000]  # it may quote what is as long
    if size + HEADER_BYTES * len(headers) > MOST_BYTES:
        text = (
            f"{text}; only the beginning of it stands here: the whole record is where it was "
            f"read, at offset {offset}"
        )
        key, value, headers = key and name[:1024], value[:CUT_TO], [(CUT, b"%d" % size)]
    return Unreadable(offset, key, value, error_class, text, tuple(headers))
