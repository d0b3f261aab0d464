"""What becomes of a message that names a schema of another version, one which the registry denies,
or cannot be asked for."""

import json

import httpx
import pytest
from raw_message import Message
from unit.raw_records import raw_trade

from processors.decode.raw_records import trade_of
from processors.decode.reader import RawReader
from processors.model.records import Unreadable
from schemas.clients.registry import Registry, RegistryError
from schemas.control import Control
from schemas.topics import load_example, load_schema
from schemas.wire import compile_encoder

RAW_TRADE = load_schema("raw_trade")


def message(control=None, value=b"\0\0\0\xff\xffnoise"):
    return Message(7, None if control else value, b"A", control and control.headers())


def reader(answer):
    registry = Registry("http://registry.invalid/apis/ccompat/v7")
    registry._http = httpx.Client(base_url=registry.url, transport=httpx.MockTransport(answer))
    return RawReader(registry, RAW_TRADE, trade_of)


@pytest.mark.parametrize(
    "fields",
    [
        [
            field
            for field in RAW_TRADE["fields"]
            if field["name"] not in ("turnover", "trade_type", "extra")
        ],
        [*RAW_TRADE["fields"], {"name": "venue", "type": ["null", "string"], "default": None}],
    ],
    ids=["without the fields that have a default", "with one more"],
)
def test_a_record_of_another_version_is_read_as_ours_with_our_defaults(fields):
    schema, example = {**RAW_TRADE, "fields": fields}, load_example("raw_trade")
    value = compile_encoder(schema, 5)(*(example.get(field["name"]) for field in fields))
    record = reader(lambda request: httpx.Response(200, json={"schema": json.dumps(schema)}))(
        message(value=value)
    )
    assert record == trade_of(7, raw_trade(example))


def test_an_id_that_the_registry_denies_makes_a_dead_letter():
    record = reader(lambda request: httpx.Response(404, json={"error_code": 40403}))(message())
    assert isinstance(record, Unreadable)
    assert (record.error_class, record.value) == ("UnknownSchema", message().value())
    assert "schemas/ids/65535" in record.error_text


# a bare 404 is that of a gateway before the registry
@pytest.mark.parametrize("status", [500, 503, 401, 404])
def test_a_registry_that_does_not_answer_is_no_reason_for_a_dead_letter(status):
    with pytest.raises(RegistryError):
        reader(lambda request: httpx.Response(status))(message())


KLINE = (
    b'{"interval":"1m","ts_start":60000,"open":"1","high":"1","low":"1","close":"1","volume":"1",'
    b'"turnover":"1"}'
)


def test_a_heal_is_read_with_its_kline_and_one_without_is_a_dead_letter():
    read = reader(lambda request: httpx.Response(404))
    healed, nothing = (
        read(
            message(
                Control(
                    "heal", "stock-1", "stock", "rest-1", "rest", 120_000, 130_000_000, kline=text
                )
            )
        )
        for text in (KLINE.decode(), None)
    )
    assert (healed.interval, healed.ts_start, healed.ts_end, healed.ts_recv) == (
        "1m",
        60_000,
        120_000,
        130_000_000,
    )
    assert isinstance(nothing, Unreadable)
    assert (nothing.error_class, nothing.key, nothing.value) == ("Undecodable", b"A", b"")
