"""A schema evolves on a real registry: old and new consumers read old and new records, and what
would break one is refused."""

import datetime
import io
import json
from decimal import Decimal

import fastavro
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from evolution import breaks

from schemas.clients.registry import Registry, RegistryError
from schemas.topics import load_schema
from schemas.wire import compile_encoder

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}
FIRST = load_schema("vwap")
SECOND = {
    **FIRST,
    "fields": [*FIRST["fields"], {"name": "spread", "type": ["null", DECIMAL], "default": None}],
}
FIELDS = (
    "BTCUSDT",
    "1m",
    1000,
    0,
    None,
    15 * 10**17,
    2 * 10**18,
    3 * 10**18,
    2,
    None,
    "complete",
    "live",
    1_000_000,
    0,
    5,
)


@pytest.fixture
def registry(stack):
    registry = Registry(stack.registry_url)
    yield registry
    registry.close()


def test_old_and_new_consumers_read_old_and_new_records(registry, stack, namespace):
    topic = f"{namespace}infoway.vwap.1m"
    ids = [registry.register(f"{topic}-value", schema) for schema in (FIRST, SECOND)]
    assert ids[0] != ids[1]
    records = [
        compile_encoder(FIRST, ids[0])(*FIELDS),
        compile_encoder(SECOND, ids[1])(*FIELDS, 5 * 10**16),
    ]
    client, context = (
        SchemaRegistryClient({"url": stack.registry_url, "timeout": 10}),
        SerializationContext(topic, MessageField.VALUE),
    )
    seen = []
    for reader in (FIRST, SECOND):
        deserialize = AvroDeserializer(client, json.dumps(reader))
        for writer, record in zip((FIRST, SECOND), records, strict=True):
            read = deserialize(record, context)
            assert read == fastavro.schemaless_reader(io.BytesIO(record[5:]), writer, reader)
            assert (read["symbol"], read["vwap"], read["ts_event"]) == (
                "BTCUSDT",
                Decimal("1.5"),
                datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=datetime.UTC),
            )
            seen.append(read.get("spread", "absent"))
    assert seen == ["absent", "absent", None, Decimal("0.05")]


def retyped(name, avro_type):
    return [
        {**field, "type": avro_type} if field["name"] == name else field
        for field in FIRST["fields"]
    ]


@pytest.mark.parametrize(
    "fields",
    [
        FIRST["fields"][1:],
        [*FIRST["fields"], {"name": "spread", "type": DECIMAL}],
        retyped("volume", "double"),
    ],
    ids=["a field removed", "a field added without a default", "a type"],
)
def test_the_registry_refuses_what_would_break_a_reader(registry, namespace, fields):
    subject = f"{namespace}infoway.vwap.1m-value"
    registry.register(subject, FIRST)
    registry.register(subject, SECOND)
    with pytest.raises(RegistryError, match="incompatible"):
        registry.register(subject, {**FIRST, "fields": fields})


def test_the_registry_looks_at_every_version_not_the_last_alone(registry, namespace):
    subject = f"{namespace}infoway.vwap.1m-value"
    for schema in (SECOND, FIRST):
        registry.register(subject, schema)
    # fine beside the last version, which has no spread; not beside the first
    with pytest.raises(RegistryError, match="incompatible"):
        registry.register(
            subject,
            {
                **FIRST,
                "fields": [
                    *FIRST["fields"],
                    {"name": "spread", "type": ["null", "long"], "default": None},
                ],
            },
        )


@pytest.mark.parametrize(
    ("name", "avro_type", "change"),
    [
        ("volume", {**DECIMAL, "scale": 9}, "decimal(38,18) became decimal(38,9)"),
        (
            "ts_event",
            {"type": "long", "logicalType": "timestamp-micros"},
            "timestamp-millis (long) became timestamp-micros (long)",
        ),
    ],
)
def test_a_unit_is_not_seen_by_the_registry_so_the_history_of_the_schemas_must(
    registry, namespace, name, avro_type, change
):
    today = {**FIRST, "fields": retyped(name, avro_type)}
    subject = f"{namespace}infoway.vwap.1m-value"
    registry.register(subject, FIRST)
    assert registry.register(subject, today)
    assert breaks(FIRST, today, "v1") == [
        f"field {name}: {change}: records of v1 would be read wrong"
    ]


def test_a_namespace_is_not_seen_by_the_registry_so_the_history_of_the_schemas_must(
    registry, namespace
):
    today, subject = {**FIRST, "namespace": "other"}, f"{namespace}infoway.vwap.1m-value"
    registry.register(subject, FIRST)
    assert registry.register(subject, today)
    assert (
        "record infoway.streams.Vwap is now other.Vwap: today's readers cannot read records of v1"
        in breaks(FIRST, today, "v1")
    )
