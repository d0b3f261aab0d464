"""The compiled encoders against fastavro, byte for byte, and what the decoder refuses."""

import datetime
import io
from decimal import Decimal, localcontext

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decimals import LIMIT, to_text
from schemas.topics import load_schema
from schemas.wire import (
    DecimalOverflow,
    UnreadableValue,
    compile_decoder,
    compile_encoder,
    header,
    logical_type,
    schema_id_of,
    to_json,
)

SCHEMAS = (
    "raw_trade", "raw_depth", "raw_kline", "bar", "vwap", "depth_imbalance", "progress",
    "feed_status", "late_trade", "dead_letter",
)  # fmt: skip
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def value_of(avro_type):
    if isinstance(avro_type, list):
        return st.none() | value_of(avro_type[1])
    logical = logical_type(avro_type)
    physical = avro_type["type"] if isinstance(avro_type, dict) else avro_type
    if logical == "decimal":
        return st.integers(-LIMIT + 1, LIMIT - 1) | st.integers(-300, 300)
    if logical == "timestamp-millis":
        return st.integers(0, 4_000_000_000_000)
    if logical == "timestamp-micros":
        return st.integers(0, 4_000_000_000_000_000)
    if logical == "date":
        return st.integers(0, 40_000)
    return {
        "string": st.text(max_size=40),
        "int": st.integers(-(2**31), 2**31 - 1),
        "long": st.integers(-(2**63), 2**63 - 1),
        "boolean": st.booleans(),
        "double": st.floats(allow_nan=False),
        "bytes": st.binary(max_size=200),
        "array": st.lists(st.text(max_size=5), max_size=12),
    }[physical]


def logical_value(avro_type, value):
    """Return a physical value as fastavro's own logical types want it."""
    logical = logical_type(avro_type)
    if value is None or logical is None:
        return value
    if logical == "decimal":
        with localcontext(prec=60):
            return Decimal(value).scaleb(-18)
    if logical == "date":
        return datetime.date(1970, 1, 1) + datetime.timedelta(days=value)
    return (
        EPOCH + datetime.timedelta(milliseconds=value)
        if logical == "timestamp-millis"
        else EPOCH + datetime.timedelta(microseconds=value)
    )


@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data())
def test_an_encoder_writes_what_fastavro_writes_and_the_decoder_reads_it(name, data):
    schema = load_schema(name)
    record = {field["name"]: data.draw(value_of(field["type"])) for field in schema["fields"]}
    stream = io.BytesIO()
    fastavro.schemaless_writer(
        stream,
        fastavro.parse_schema(schema),
        {
            field["name"]: logical_value(field["type"], record[field["name"]])
            for field in schema["fields"]
        },
    )
    value = compile_encoder(schema, 77)(*record.values())
    assert value == header(77) + stream.getvalue()
    assert schema_id_of(value) == 77
    assert compile_decoder(schema)(value) == record


def test_a_number_that_38_digits_cannot_hold_is_never_cut():
    encode = compile_encoder(
        {
            "name": "One",
            "fields": [{"name": "x", "type": load_schema("vwap")["fields"][6]["type"]}],
        },
        1,
    )
    assert encode(LIMIT - 1)
    for units in (LIMIT, -LIMIT):
        with pytest.raises(DecimalOverflow, match="does not fit"):
            encode(units)


@pytest.mark.parametrize(
    "value", [b"", b"\0\0\0", b"\1\0\0\0\1x", b"\0\0\0\0\1", b"\0\0\0\0\1\xff\xff\xff", None]
)
def test_bytes_that_are_no_record_are_refused(value):
    decode = compile_decoder(load_schema("raw_trade"))
    with pytest.raises(UnreadableValue):
        schema_id_of(value or b"\0")
        decode(value)


def test_bytes_left_over_are_refused():
    schema = load_schema("progress")
    with pytest.raises(UnreadableValue, match="17 bytes, of which the schema takes 16"):
        compile_decoder(schema)(compile_encoder(schema, 1)(3, "stock-1", 5, 7) + b"x")


def test_json_shows_decimals_as_strings_and_times_as_integers():
    schema = load_schema("vwap")
    fields = (
        "BTCUSDT",
        "session",
        1000,
        0,
        19_000,
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
    shown = to_json(schema, compile_decoder(schema)(compile_encoder(schema, 1)(*fields)))
    assert shown["vwap"] == to_text(15 * 10**17) == "1.5"
    assert (shown["ts_event"], shown["trade_date"], shown["stdev"]) == (1000, "2022-01-08", None)
