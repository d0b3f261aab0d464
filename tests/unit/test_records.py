"""The named records are the schemas: same names, same order, same types."""

from typing import get_type_hints

import pytest

from schemas.records import RECORDS
from schemas.topics import Topology, load_schema
from schemas.wire import compile_decoder, compile_encoder

PHYSICAL = {
    "int": int,
    "long": int,
    "string": str,
    "bytes": bytes,
    "double": float,
    "boolean": bool,
    "array": list[str],
}


def type_of(avro):
    if isinstance(avro, list):
        return type_of(avro[1]) | None
    if isinstance(avro, dict):
        return int if avro.get("logicalType") == "decimal" else PHYSICAL[avro["type"]]
    return PHYSICAL[avro]


def test_every_schema_of_a_topic_has_a_record():
    assert set(RECORDS) == {topic.schema for topic in Topology(activity=("tick-1",)).topics()} - {
        None
    }


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_has_the_fields_of_its_schema(name):
    fields = load_schema(name)["fields"]
    assert get_type_hints(RECORDS[name]) == {
        field["name"]: type_of(field["type"]) for field in fields
    }
    assert RECORDS[name]._fields == tuple(field["name"] for field in fields)


@pytest.mark.parametrize("name", RECORDS)
def test_an_encoder_takes_a_record(name):
    some = {int: 7, str: "x", bytes: b"x", float: 0.5, bool: True, list[str]: ["x"]}
    fields = load_schema(name)["fields"]
    record = RECORDS[name](*(some.get(type_of(field["type"])) for field in fields))
    value = compile_encoder(load_schema(name), 1)(*record)
    assert compile_decoder(load_schema(name))(value) == record._asdict()
