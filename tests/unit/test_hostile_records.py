"""Records that decode, and could stop a partition all the same: from the future, or too large for
what follows from them."""

import confluent_kafka as ck
import orjson
import pytest
from raw_message import Message
from unit.raw_records import raw_trade
from unit.test_any_record import Own, _ids

from infra.cli.commands.repair.redrive import _passed_over
from infra.kafka.dead_letters import Letter
from processors.decode.raw_records import (
    MAX_FUTURE_MS,
    MOST_NAMES,
    MOST_TRADE_TYPE,
    Undecodable,
    book_of,
    kline_of,
    trade_of,
)
from processors.decode.reader import CUT_TO, MOST_BYTES, RawReader, letter_of
from processors.engine.outputs import Outputs
from processors.model.records import ControlRecord, Heal, Unreadable
from schemas.control import CUT, Control
from schemas.decimals import NotADecimal, to_units
from schemas.records import RECORDS
from schemas.topics import Topology, load_example, load_schema
from schemas.wire import compile_decoder

NOW = 1_752_826_080_000
SCHEMA = load_schema("raw_trade")
READ = RawReader(Own(SCHEMA), SCHEMA, trade_of)


def control(kind, ts, symbol=b"BTCUSDT", feed="crypto-1", kline=None):
    made = Control(kind, feed, "crypto", "crypto-1-1", "live", ts, NOW * 1000, kline=kline)
    return READ(Message(5, None, symbol, made.headers()))


@pytest.mark.parametrize("kind", ["begin", "end", "gap", "mark"])
def test_a_control_record_of_the_future_is_a_dead_letter(kind):
    assert isinstance(control(kind, NOW + MAX_FUTURE_MS), ControlRecord)
    refused = control(kind, NOW + MAX_FUTURE_MS + 1)
    assert refused.error_class == "Undecodable"
    assert kind in refused.error_text


def test_a_heal_of_a_bar_that_begins_after_its_receipt_is_a_dead_letter():
    figures = dict.fromkeys(("open", "high", "low", "close", "volume", "turnover"), "1")
    now, never = (
        control(
            "heal",
            NOW,
            kline=orjson.dumps({"interval": "1m", "ts_start": start, **figures}).decode(),
        )
        for start in (NOW, NOW + 2 * MAX_FUTURE_MS)
    )
    assert isinstance(now, Heal)
    assert isinstance(never, Unreadable)


@pytest.mark.parametrize("field", ["symbol", "business", "feed", "connection", "source"])
@pytest.mark.parametrize(
    ("name", "record_of"),
    [("raw_trade", trade_of), ("raw_depth", book_of), ("raw_kline", kline_of)],
)
def test_a_name_without_end_is_refused(name, record_of, field):
    with pytest.raises(Undecodable, match="characters"):
        record_of(0, RECORDS[name](**{**load_example(name), field: "x" * (MOST_NAMES + 1)}))
    assert isinstance(control("mark", NOW, None, "f" * MOST_NAMES), Unreadable)


def test_a_trade_type_without_end_is_refused():
    assert trade_of(
        0, raw_trade({**load_example("raw_trade"), "trade_type": "x" * MOST_TRADE_TYPE})
    )
    with pytest.raises(Undecodable, match="trade_type"):
        trade_of(
            0, raw_trade({**load_example("raw_trade"), "trade_type": "x" * (MOST_TRADE_TYPE + 1)})
        )


@pytest.mark.parametrize("text", ["1." + "0" * 99, "0" * 101, "-1." + "0" * 500_000])
def test_a_number_without_end_is_refused(text):
    with pytest.raises(NotADecimal, match="characters"):
        to_units(text)


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"A", b"x" * 999_990, ()),
        (b"k" * 999_990, b"", ()),
        (None, b"", [("h", b"x" * 999_990)]),
        (None, b"", [("control", b"x" * 600_000)]),
        (b"A", b"x", [("h", b"x" * 100_000)] * 9),
        (b"A", b"x", [("h", None)] * 400_000),
    ],
    ids=["value", "key", "headers", "what is quoted", "some headers", "many headers"],
)
def test_the_dead_letter_of_the_largest_record_is_one_that_librdkafka_sends(key, value, headers):
    record = READ(Message(7, value or None, key, headers))
    names = Topology("", ("1m",), ("1m",), None, ())
    topic, partition, made_key, made = Outputs.of(
        names, _ids() | {each.name: 1 for each in names.topics()}
    ).dead_letter("t", 0, record)
    producer = ck.Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    producer.produce(
        topic, made, made_key, partition, headers=list(record.headers)
    )  # raises where it is too large
    producer.purge()
    letter = compile_decoder(load_schema("dead_letter"))(made)
    assert letter["source_offset"] == 7
    assert letter["value"] == value[:CUT_TO]


@pytest.mark.parametrize("headers", [(), (("h", b"1"),), tuple([("h", None)] * 40_000)])
def test_the_letter_of_a_record_that_fits_has_all_of_it(headers):
    counted = 2 + sum(len(name) + len(value or b"") + 20 for name, value in headers)
    value = b"x" * (MOST_BYTES - counted)
    whole = letter_of(7, b"A", value, "E", "text", headers)
    assert whole == Unreadable(7, b"A", value, "E", "text", headers)
    cut = letter_of(7, b"A", value + b"x", "E", "text", headers)
    assert [name for name, _ in cut.headers] == [CUT]


def test_a_letter_that_has_not_all_of_its_record_is_not_redriven():
    whole, cut = (letter_of(7, b"A", b"x" * size, "E", "text", ()) for size in (1000, 1_000_000))
    assert whole.headers == ()
    assert cut.headers == ((CUT, b"1000002"),)
    record = {
        "source_topic": "t",
        "source_partition": 0,
        "source_offset": 7,
        "key": b"A",
        "value": cut.value,
    }
    ways = [
        _passed_over(Letter(0, 0, 0, record, each.headers, False), {"t": 1}, 3)
        for each in (whole, cut)
    ]
    assert ways == [None, "only its beginning is here: the whole record is at offset 7 of t[0]"]
