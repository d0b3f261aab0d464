"""No bytes make the protocol raise; each push ends as a record or a dead letter, and is counted."""

import json
import random
import re

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from producers.feed.metrics import FeedCounters
from producers.feed.outputs import Publication
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.vendor.answers import RestKline, read_envelope, read_klines
from producers.vendor.exact_json import UnreadableFrame
from producers.vendor.frames import read_frame
from producers.vendor.symbols import Feed
from schemas.topics import DEAD_LETTER, FEED_STATUS, load_schema
from schemas.wire import compile_encoder

NOW = 1752826113_000_000
PARTITIONS = {"infoway.raw.trade": 6, "infoway.raw.depth": 6, "infoway.raw.kline": 6}
SCHEMAS = {"infoway.raw.trade": "raw_trade", "infoway.raw.depth": "raw_depth",
    "infoway.raw.kline": "raw_kline",
           DEAD_LETTER: "dead_letter", FEED_STATUS: "feed_status"}  # fmt: skip
ENCODERS = {topic: compile_encoder(load_schema(schema), 1) for topic, schema in SCHEMAS.items()}
VALID = (
    b'{"code":10002,"data":{"s":"00005.HK","t":1752826113000,"p":"98.150","v":"956000","vw":"93831400.000","td":0}}',
    b'{"code":10005,"data":{"s":"00005.HK","t":1752826113000,"a":[["98.15","98.2"],["100","7"]],"b":[["98.1"],["3"]]}}',
    b'{"code":10008,"data":{"s":"X","t":1752826080,"ty":1,"o":"1","h":"2","l":"1","c":"1","v":"1","vw":"1","pca":"0","pfr":"5%"}}',
    b'{"code":10001,"trace":"x","msg":"ok"}',
    b'{"code":516,"trace":"x","msg":"quota"}',
    b'Subscribe fail: {"code":505,"msg":"quota","trace":"x"}',
    b"Subscribe fail: not purchased",
    b'{"code":200,"msg":"ws connect success"}',
)
ODD = st.sampled_from([
    b"NaN", b"-Infinity", b"null", b"true", b"1e999", b"-0", b"1E-400", b"9" * 5000,
    b"0." + b"1" * 400, b"18446744073709551616",
    b'"\\ud800"', b'"\\u0000"', b'"\xed\xa0\x80"', b'"\xff"', b'"\xd9\xa3"', b'"1,2"', b'"1_0"',
    b'" 1"', b"[" * 3000,
    b"[" * 300 + b"]" * 300, b"[" * 1000 + b"]" * 1000, b"[" * 1015 + b"]" * 1015,
    b"{}", b"[]", b"[[],[]]", b"[[null],[null]]", b'[["1"],["1"],["1"]]', b'[["1"],{}]',
    b'[[["1"]],[["1"]]]', b'[[1.5,"2"],["3",4]]',
    b'{"a":{"a":1.10}}', b'"10002"', b"10002.0", b"503", b"10010",
])  # fmt: skip

DEEP = (
    b'{"code":DEEP}',
    b'{"code":505,"msg":DEEP}',
    b'Subscribe fail: {"code":505,"msg":DEEP}',
    b'{"code":10002,"data":DEEP}',
    b'{"code":10002,"data":{"s":DEEP}}',
    b'{"code":10002,"data":{"s":"X","t":DEEP}}',
    b'{"code":10002,"data":{"s":"X","t":1,"p":DEEP}}',
    b'{"code":10002,"data":{"s":"X","t":1,"p":"1","v":"1","td":0,"ty":DEEP}}',
    b'{"code":10002,"data":{"s":"X","t":1,"p":"1","v":"1","td":0,"extra":DEEP}}',
    b'{"code":10002,"data":{"s":"X","t":1,"p":"1","v":"1","td":0},"extra":DEEP}',
    b'{"code":10005,"data":{"s":"X","t":1,"a":DEEP,"b":null}}',
    b'{"code":10008,"data":{"s":"X","t":1,"ty":DEEP}}',
)


@st.composite
def mutated(draw):
    frame = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 3))):
        values = [found.span(1) for found in re.finditer(rb':("[^"]*"|[\d.]+|\[\[.*?\]\])', frame)]
        kind = draw(st.sampled_from(["value", "twice", "cut", "insert"]))
        if kind == "value" and values:
            start, end = draw(st.sampled_from(values))
            frame = frame[:start] + draw(ODD) + frame[end:]
        elif kind == "twice" and b"{" in frame:
            name = draw(
                st.sampled_from(
                    [
                        b"s",
                        b"t",
                        b"p",
                        b"v",
                        b"a",
                        b"b",
                        b"td",
                        b"vw",
                        b"ty",
                        b"code",
                        b"data",
                        b"new",
                        b"frame.new",
                    ]
                )
            )
            place = draw(st.sampled_from([found.end() for found in re.finditer(rb"{", frame)]))
            frame = frame[:place] + b'"%s":%s,' % (name, draw(ODD)) + frame[place:]
        else:
            place = draw(st.integers(0, len(frame)))
            frame = (
                frame[:place]
                if kind == "cut"
                else frame[:place] + draw(st.binary(max_size=4)) + frame[place:]
            )
    return frame


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)
DEPTHS = st.builds(
    lambda a, b: json.dumps(
        {"code": 10005, "data": {"s": "X", "t": 1752826113000, "a": a, "b": b}}
    ).encode(),
    JSON,
    JSON,
)
ANY = st.binary(max_size=80) | mutated() | DEPTHS


@settings(max_examples=400)
@given(st.lists(ANY, min_size=1, max_size=5), st.sampled_from(["stock", "crypto"]))
@example([b'{"code":10002,"data":' + b"[" * 100_000], "crypto")
@example(
    [b'{"code":10002,"data":{"s":"\\ud800","t":1752826113000,"p":"1","v":"1","vw":"1","td":0}}'],
    "stock",
)
@example([b'{"code":516,"msg":"\\ud800"}', b"Subscribe fail: \xff"], "stock")
def test_every_push_ends_as_a_record_or_a_dead_letter_that_can_be_encoded(frames, business):
    counters = FeedCounters("f-1")
    core = FeedProtocol(
        Feed("f-1", business, ("X",)), FeedSettings("live"), PARTITIONS, counters, random.Random(1)
    )
    core.connected(NOW)
    for frame in frames:
        before = counters.received
        outputs = core.receive(frame, NOW)
        found = [
            output
            for output in outputs
            if isinstance(output, Publication) and output.topic != FEED_STATUS
        ]
        assert len(found) == counters.received - before <= 1
        if found and found[0].topic == DEAD_LETTER:
            assert found[0].record.value == frame
        for output in outputs:
            (output.key or "").encode()
            if isinstance(output, Publication):
                ENCODERS[output.topic](*output.record)
    assert (
        counters.received
        == counters.trades + counters.depth + counters.klines + counters.unreadable
    )


@settings(max_examples=400)
@given(ANY, st.booleans())
def test_reading_raises_nothing_but_unreadable_frame(data, greeting):
    try:
        read_frame(data, NOW // 1000 + 60_000, greeting)
    except UnreadableFrame as error:
        assert str(error).encode()


@pytest.mark.parametrize("depth", [300, 985, 1000, 1015])
@pytest.mark.parametrize("frame", DEEP)
def test_json_however_deep_ends_as_a_dead_letter_or_a_refusal(frame, depth):
    counters = FeedCounters("f-1")
    core = FeedProtocol(
        Feed("f-1", "crypto", ("X",)), FeedSettings("live"), PARTITIONS, counters, random.Random(1)
    )
    core.connected(NOW)
    outputs = core.receive(frame.replace(b"DEEP", b"[" * depth + b"]" * depth), NOW)
    (record,) = [output for output in outputs if isinstance(output, Publication)]
    assert record.topic == DEAD_LETTER or (record.topic == FEED_STATUS and counters.refusals == 1)
    ENCODERS[record.topic](*record.record)


def test_a_dead_letter_of_json_too_deep_bears_the_symbol_where_it_was_read():
    core = FeedProtocol(
        Feed("f-1", "crypto", ("X",)),
        FeedSettings("live"),
        PARTITIONS,
        FeedCounters("f-1"),
        random.Random(1),
    )
    core.connected(NOW)
    (letter,) = core.receive(
        b'{"code":10002,"data":{"s":"X","t":1752826113000,"p":%s}}' % (b"[" * 1000 + b"]" * 1000),
        NOW,
    )
    assert (letter.key, (letter.record.error_class, letter.record.error_text)) == (
        "X",
        ("TooDeep", "JSON nested too deep"),
    )


NAMES = st.sampled_from(
    ["new", "ts", "td", "vw", "ty", "frame.ts", "frame.td", "frame.frame.ts", "s", "p", ""]
)
NUMBERS = st.sampled_from(
    ["-0", "1.10", "1e3", "12345678901234567890123", "0.1234567890123456789", "5"]
)
FIELDS = st.dictionaries(
    NAMES,
    st.one_of(NUMBERS, st.sampled_from(["null", "true", '"x"', '""', '[1.10,{"a":2.50}]', "{}"])),
    max_size=6,
)
TRADE = {"s": '"X"', "t": "1752826113000", "p": '"98.150"', "v": '"1"', "td": "1"}


def as_text(fields):
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items()) + "}"


@settings(max_examples=400)
@given(FIELDS, FIELDS)
def test_whatever_the_vendor_adds_is_kept_and_the_trade_counts(inside, beside):
    data = {
        **inside,
        **{name: value for name, value in TRADE.items() if name != "td" or "td" not in inside},
    }
    frame = as_text({"code": "10002", **beside, "data": as_text(data)}).encode()
    push = read_frame(frame, NOW // 1000, False)
    assert (push.symbol, push.ts_event, push.price, push.volume) == (
        "X",
        1752826113000,
        "98.150",
        "1",
    )
    kept = json.loads(push.extra or "{}", parse_int=str, parse_float=str)
    values = {
        name: json.loads(value, parse_int=str, parse_float=str) for name, value in data.items()
    }
    for name, value in values.items():
        known = {"vw": push.turnover, "ty": push.trade_type}
        if name not in ("s", "t", "p", "v", "td"):
            assert (
                (name in kept and kept[name] == value)
                or value is None
                or known.get(name) is not None
            )
    assert push.side_unknown == (values["td"] not in ("1", "-0"))
    assert not push.side_unknown or kept["td"] == values["td"]
    outer = [json.loads(value, parse_int=str, parse_float=str) for value in beside.values()]
    from_beside = [value for name, value in kept.items() if name not in data]
    assert sorted(map(repr, from_beside)) == sorted(map(repr, outer))


BAR = {
    "t": "1752826080",
    "o": "98.10",
    "h": "98.20",
    "l": "98.05",
    "c": "98.150",
    "v": "956000",
    "vw": "93831400.000",
    "pc": "1%",
    "pca": "0.05",
}


@settings(max_examples=400)
@given(
    st.lists(
        JSON
        | st.dictionaries(st.sampled_from([*BAR]), JSON, max_size=9).map(
            lambda change: {**BAR, **change}
        ),
        max_size=6,
    )
)
def test_no_element_of_an_answer_poisons_the_others(odd):
    text = json.dumps(
        {"ret": 200, "data": [{"s": "X", "respList": [*odd, {**BAR, "t": "1752826140"}]}]}
    )
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return  # NaN is no JSON
    klines = read_klines("/path", "X", "1m", read_envelope("/path", 200, text))
    assert len(klines) == len(odd) + 1
    assert any(isinstance(each, RestKline) and each.ts_start == 1752826140000 for each in klines)
    for each in klines:
        assert isinstance(each, RestKline) or (each.reason.isprintable() and each.data is not None)


def test_valid_frames_of_the_fuzz_are_read():
    for frame in VALID:
        read_frame(frame, NOW // 1000 + 60_000, False)
