"""Records that a stranger may write by our own schemas, with any values: dead-lettered or folded,
and no agent ever ends over them."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_message import Message

from processors.agents.activity.agent import ActivityBars
from processors.agents.bars.agent import Bars
from processors.agents.depth.agent import Imbalance
from processors.agents.reconciliation.agent import Reconciliation
from processors.agents.vwap.agent import Vwap
from processors.decode.raw_records import bar_revision_of, book_of, kline_of
from processors.decode.reader import RawReader
from processors.decode.trades import TradeReader
from processors.engine.outputs import Outputs
from processors.engine.sources import of_one_source
from processors.model.event_time import EventTime
from processors.model.sessions import Calendars
from schemas.control import KINDS
from schemas.decimals import LIMIT, to_units
from schemas.topics import Topology, load_example, load_schema
from schemas.wire import compile_encoder, logical_type

CALENDARS, TIME = Calendars(), EventTime()
INTERVALS = ("1m", "1d")
AGENTS = {
    "raw_trade": (
        TradeReader(CALENDARS),
        [
            Bars(INTERVALS, CALENDARS, TIME),
            Vwap(("1m", "session"), CALENDARS, TIME),
            ActivityBars(("tick-2",), CALENDARS, TIME),
        ],
    ),
    "raw_depth": (book_of, [Imbalance(TIME)]),
    "raw_kline": (kline_of, [Reconciliation(INTERVALS, CALENDARS, TIME)]),
    "bar": (partial(bar_revision_of, interval="1m"), [Reconciliation(INTERVALS, CALENDARS, TIME)]),
}
NUMBERS = [
    "0",
    "1",
    "-1",
    "1e9",
    "NaN",
    "-0",
    "",
    "x",
    "0.000000000000000001",
    "9" * 20,
    "9" * 40,
    "\x1b[31m",
    "1" * 5000,
]
TIMES = [
    -(2**63),
    -1,
    0,
    1,
    1_722_902_400_000,
    1_722_902_400_000_000,
    253_402_300_800_000,
    2**62,
    2**63 - 1,
]


class Own:
    def __init__(self, schema):
        self._schema = schema

    def schema(self, schema_id):
        return self._schema


def odd_value(field):
    avro_type = field["type"]
    nullable = isinstance(avro_type, list)
    inner = avro_type[1] if nullable else avro_type
    physical = inner["type"] if isinstance(inner, dict) else inner
    odd = {
        "string": [
            *NUMBERS,
            "live",
            "rest",
            "replay",
            "crypto",
            "stock",
            "common",
            "1m",
            "1d",
            "7q",
            "BTCUSDT",
            "00700.HK",
            "a\nb",
        ],
        "int": [-(2**31), -1, 0, 1, 2, 2**31 - 1],
        "long": TIMES,
        "boolean": [True, False],
        "bytes": [-LIMIT + 1, -1, 0, 1, 10**18, LIMIT - 1],
        "array": [[], ["1"], ["1", "2"], ["x"], ["9" * 30, "-1"]],
    }[physical]
    return st.sampled_from(odd + [None] * nullable)


def controls():
    text = st.sampled_from(["live", "crypto-1", "crypto", "stock", "x", "", "\x1b]0;x\x07"])
    number = st.sampled_from([*map(str, TIMES), "1" * 400, "1" * 5000, "x", "1.5"])
    kline = (
        '{"interval":"1m","ts_start":%d,"open":"1","high":"1","low":"1","close":"1","volume":"1",'
        '"turnover":"%s"}'
    )
    headers = {
        "control": st.sampled_from([*KINDS, "x"]),
        **dict.fromkeys(("feed", "business", "connection", "source"), text),
    }
    headers |= {"ts": number, "ts_recv": number}
    optional = {
        "ts_from": number,
        "kline": st.sampled_from(
            ["{}", "[" * 9000, kline % (60_000, "1"), kline % (60_000 << 50, "9" * 50)]
        ),
    }
    return st.fixed_dictionaries(headers, optional=optional)


@st.composite
def rows(draw, schema, example):
    """The example, with up to two other values."""
    row = dict(
        zip((field["name"] for field in schema["fields"]), _physical(schema, example), strict=True)
    )
    for field in draw(st.lists(st.sampled_from(schema["fields"]), max_size=2)):
        row[field["name"]] = draw(odd_value(field))
    return tuple(row.values())


def _physical(schema, example):
    for field in schema["fields"]:
        value, logical = example[field["name"]], logical_type(field["type"])
        if value is not None and logical == "decimal":
            value = to_units(value)
        if value is not None and logical == "date":
            value = 19_000
        yield value


@pytest.mark.parametrize("name", AGENTS)
@given(data=st.data())
def test_any_values_are_folded_or_dead_letters(name, data):
    schema, example = load_schema(name), load_example(name)
    record_of, agents = AGENTS[name]
    read, encode = RawReader(Own(schema), schema, record_of), compile_encoder(schema, 1)
    made = data.draw(st.lists(rows(schema, example) | controls(), min_size=1, max_size=6))
    messages = [
        Message(offset, None, b"BTCUSDT", [(key, text.encode()) for key, text in each.items()])
        if isinstance(each, dict)
        else Message(offset, encode(*each), b"BTCUSDT")
        for offset, each in enumerate(made)
    ]
    records = [read(message) for message in messages]
    of_one_source(records, messages, None, 0)
    outputs = Outputs.of(Topology("", INTERVALS, ("1m", "session"), None, ("tick-2",)), _ids())
    for agent in agents:
        state = agent.load(0, {})
        for topic, key, fields in agent.apply(state, records):
            outputs.encode(topic, 0, key, fields, "infoway.raw")
        entries = dict(agent.dirty(state))
        agent.load(0, {key: value for key, value in entries.items() if value is not None})


def _ids():
    return {
        topic.name: 1
        for topic in Topology("", INTERVALS, ("1m", "session"), None, ("tick-2",)).topics()
    }


@pytest.mark.parametrize("name", ["ts", "ts_recv", "ts_from"])
@pytest.mark.parametrize(
    "text", ["1" * 30, "9" * 19, "-" + "1" * 30, "1" * 5000, "253402300800000000"]
)
def test_a_control_record_of_a_time_that_no_state_can_hold_is_a_dead_letter(name, text):
    headers = {
        "control": "begin",
        "feed": "f",
        "business": "crypto",
        "connection": "c",
        "source": "live",
        "ts": "1",
        "ts_recv": "1",
    }
    schema = load_schema("raw_trade")
    message = Message(
        0, None, b"BTCUSDT", [(key, each.encode()) for key, each in {**headers, name: text}.items()]
    )
    assert (
        RawReader(Own(schema), schema, TradeReader(CALENDARS))(message).error_class
        == "UnreadableControl"
    )
