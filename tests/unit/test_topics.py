"""The contract as data: every topic has a schema, an owner and an example that is true to it."""

import datetime
import io
import json
from decimal import Decimal
from fractions import Fraction

import fastavro
import pytest

from schemas.control import Control, UnreadableControl, read_control
from schemas.decimals import to_units
from schemas.topics import Topology, contract, load_example, load_schema
from schemas.wire import compile_decoder, compile_encoder, logical_type, to_json

TOPICS = Topology().topics()
NAMES = sorted({topic.schema for topic in contract() if topic.schema})
TICKS = {"timestamp-millis": "milliseconds", "timestamp-micros": "microseconds"}
EPOCH = datetime.date(1970, 1, 1)


def physical(avro_type, shown):
    logical = logical_type(avro_type)
    if shown is None:
        return None
    if logical == "decimal":
        return to_units(shown)
    if logical == "date":
        return (datetime.date.fromisoformat(shown) - EPOCH).days
    plain = avro_type[1] if isinstance(avro_type, list) else avro_type
    return bytes.fromhex(shown) if plain == "bytes" else shown


def logical(avro_type, shown):
    kind = logical_type(avro_type)
    if shown is None:
        return None
    if kind == "decimal":
        return Decimal(shown)
    if kind == "date":
        return datetime.date.fromisoformat(shown)
    if kind is not None:
        return datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(
            **{TICKS[kind]: shown}
        )
    return physical(avro_type, shown)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_goes_through_the_codec_unchanged(name):
    schema, example = load_schema(name), load_example(name)
    assert list(example) == [field["name"] for field in schema["fields"]]
    fields = [physical(field["type"], example[field["name"]]) for field in schema["fields"]]
    assert to_json(schema, compile_decoder(schema)(compile_encoder(schema, 1)(*fields))) == example


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_what_any_avro_library_reads_and_writes(name):
    schema, example = load_schema(name), load_example(name)
    record = {
        field["name"]: logical(field["type"], example[field["name"]]) for field in schema["fields"]
    }
    value = compile_encoder(schema, 1)(
        *(physical(field["type"], example[field["name"]]) for field in schema["fields"])
    )
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, record)
    assert stream.getvalue() == value[5:]
    assert fastavro.schemaless_reader(io.BytesIO(value[5:]), schema) == record


def test_the_examples_figures_are_right():
    bar, depth = load_example("bar"), load_example("depth_imbalance")
    assert to_units(bar["vwap"]) == round(
        Fraction(bar["turnover"]) / Fraction(bar["volume"]) * 10**18
    )
    assert Fraction(depth["mid"]) == (Fraction(depth["best_bid"]) + Fraction(depth["best_ask"])) / 2
    raw = load_example("raw_trade")
    assert Fraction(raw["price"]) * Fraction(raw["volume"]) == Fraction(raw["turnover"])


def test_names_follow_from_the_settings():
    names = {topic.name for topic in Topology("x.", ("1s",), ("30m",)).topics()}
    assert {
        "x.infoway.bars.1s",
        "x.infoway.vwap.30m",
        "x.infoway.raw.trade",
        "x.infoway.state.bars",
    } <= names
    assert "x.infoway.bars.1m" not in names


def test_raw_and_derived_topics_are_never_compacted_and_state_topics_always():
    for topic in TOPICS:
        assert topic.config["cleanup.policy"] == (
            "compact" if topic.name.startswith("infoway.state.") else "delete"
        )
        assert topic.owner
        assert topic.description


@pytest.mark.parametrize("kind", ["begin", "end", "mark", "gap", "heal"])
def test_a_control_record_survives_its_headers(kind):
    control = Control(
        kind, "stock-1", "stock", "c", "live", 5, 5000, 1, "why", json.dumps({"a": "ü"})
    )
    assert read_control(control.headers()) == control
    assert read_control(dict(control.headers())) == control


@pytest.mark.parametrize(
    "headers", [None, [], [("control", b"nonsense")], [("control", b"mark"), ("ts", b"soon")]]
)
def test_headers_that_are_no_control_record_are_refused(headers):
    with pytest.raises(UnreadableControl):
        read_control(headers)
