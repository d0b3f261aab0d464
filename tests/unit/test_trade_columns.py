"""The kernel reads of a raw trade what Python reads, or leaves it to Python: every record, every
counter."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_message import Message

from processors.decode.messages import Messages
from processors.decode.reader import RawReader
from processors.decode.trade_columns import TradeColumns
from processors.decode.trades import TradeReader
from processors.kernels.avro import trades as decode
from processors.kernels.columns import TradeRun
from processors.model.records import Trade
from processors.model.sessions import Calendars
from schemas.clients.registry import UnknownSchema
from schemas.records import RawTradeRecord
from schemas.topics import load_schema
from schemas.wire import compile_encoder

OURS, OTHER, DENIED = 7, 8, 9
SCHEMA = load_schema("raw_trade")
START = 1_722_902_400_000
CALENDARS = Calendars()
encode, encode_other = compile_encoder(SCHEMA, OURS), compile_encoder(SCHEMA, OTHER)


class Schemas:
    """A registry with our schema, and an older one that lacks a field."""

    def schema(self, schema_id):
        if schema_id == OURS:
            return {**SCHEMA, "doc": "other words"}
        if schema_id == OTHER:
            return {**SCHEMA, "fields": [f for f in SCHEMA["fields"] if f["name"] != "extra"]}
        raise UnknownSchema(f"no schema {schema_id}")


def raw(**changes):
    """A plain raw trade."""
    made = RawTradeRecord(
        "BTCUSDT", START, "61800.30", "0.0120", "741.6036", 1, None, False,
        "crypto", "crypto-1", "crypto-1-1", 5, (START + 40) * 1000, "simulated", None,
    )  # fmt: skip
    return made._replace(**changes)


class Pair:
    """The two ways of one partition."""

    def __init__(self, uses_sessions=True):
        self.counts = TradeReader(CALENDARS, uses_sessions), TradeReader(CALENDARS, uses_sessions)
        self.readers = tuple(RawReader(Schemas(), SCHEMA, each) for each in self.counts)
        self.columns = TradeColumns(self.readers[1], self.counts[1])
        self.offset = 0
        self.plain = 0

    def check(self, values, source="simulated"):
        """Read the values both ways; return which were plain."""
        messages = []
        for value in values:
            self.offset += 1 + len(values) % 2 * (self.offset % 3)
            messages.append(Message(self.offset, value))
        want = [self.readers[0](message) for message in messages]
        have, plain = [], []
        for piece in self.columns.read(Messages.of(messages), source):
            if isinstance(piece, TradeRun):
                assert len(piece) > 0
                plain += [True] * len(piece)
                have += piece.all_trades()
            else:
                plain.append(False)
                have.append(self.readers[1](messages[piece]))
        assert have == want
        for name in ("outside_sessions", "turnover_mismatches", "sessions_assumed"):
            assert getattr(self.counts[0], name) == getattr(self.counts[1], name), name
        for is_plain, record in zip(plain, want, strict=True):
            assert not is_plain or (isinstance(record, Trade) and record.source == source)
        self.plain += sum(plain)
        return plain


def is_plain(**changes):
    [plain] = Pair().check([encode(*raw(**changes))])
    return plain


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"price": "0.000000000000000001", "volume": "0", "turnover": None},
        {"price": "999999999999999999", "volume": "99"},
        {"price": "00012.50", "volume": "0.10"},
        {"business": "common", "price": "-12.5", "turnover": "-0.15"},
        {"business": "common", "price": "-0", "turnover": "-0"},
        {"direction": 0, "repeat": True, "trade_type": "auction", "extra": "{}"},
        {"turnover": "741.60360"},
        {"turnover": "741.6037"},
        {"turnover": "1e3"},
        {"turnover": ""},
        {"ts_event": START + 60_040},
        {"symbol": "Ü" * 300},
    ],
)
def test_a_plain_trade_is_read_by_the_kernel(changes):
    assert is_plain(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"price": ".5"},
        {"price": "5."},
        {"price": "5.5.5"},
        {"price": "5,5"},
        {"price": "+5"},
        {"price": ""},
        {"price": "-"},
        {"price": "1e3"},
        {"price": "٣"},
        {"price": "0"},
        {"price": "-1"},
        {"volume": "-1"},
        {"volume": "-0"},
        {"price": "1000000000000000000"},
        {"price": "0.1234567890123456789"},
        {"price": "1" + "0" * 20},
        {"price": "0" * 21},
        {"price": "999999999999999999", "volume": "100"},
        {"direction": 3},
        {"direction": -1},
        {"trade_type": "ü"},
        {"trade_type": "x" * 200_001},
        {"extra": "ü"},
        {"symbol": "x" * 401},
        {"business": "x" * 601},
        {"source": "live"},
        {"ts_event": 5},
        {"ts_event": START + 60_041},
        {"ts_recv": -1},
        {"ts_recv": 253_402_300_800_000_000},
    ],
)
def test_what_python_might_refuse_or_read_otherwise_is_left_to_python(changes):
    assert not is_plain(**changes)


def test_other_schemas_controls_and_bytes_that_are_none_are_left_to_python():
    value = encode(*raw())
    values = [
        value,
        encode_other(*raw())[:-1],
        b"\0\0\0\0\x09" + value[5:],
        b"",
        b"\1" + value[1:],
        value + b"\0",
        value[:-1],
        value[:4],
        value,
    ]
    pair = Pair()
    assert pair.check(values) == [True] + [False] * 7 + [True]


def test_nothing_is_plain_before_the_source_is_known():
    pair = Pair()
    assert pair.columns.read(Messages.of([Message(1, encode(*raw()))]), None) == [0]


def test_a_batch_is_cut_where_python_reads_and_offsets_may_have_gaps():
    pair = Pair()
    values = [encode(*raw(price=price)) for price in ("1", "2", ".5", "3", ".5", ".5", "4")]
    messages = [Message(10 * number, value) for number, value in enumerate(values)]
    pieces = pair.columns.read(Messages.of(messages), "simulated")
    assert [
        piece if isinstance(piece, int) else (piece.first_offset, piece.last_offset)
        for piece in pieces
    ] == [(0, 10), 2, (30, 30), 4, 5, (60, 60)]


def test_the_type_of_a_trade_is_found_when_it_is_asked_for():
    pair = Pair()
    messages = [Message(7 * n, encode(*raw(trade_type=f"t{n}"))) for n in range(3)]
    [run] = pair.columns.read(Messages.of(messages), "simulated")
    assert [run.trade(index).trade_type for index in range(3)] == ["t0", "t1", "t2"]
    assert run.since(7).trade(1).trade_type == "t2"


numbers = st.one_of(
    st.from_regex(r"-?[0-9]{0,19}(\.[0-9]{0,19})?", fullmatch=True),
    st.sampled_from(["1", "61800.3", "0.001", "1e3", "NaN", "", "0"]),
)
trades = st.builds(
    raw,
    symbol=st.sampled_from(["BTCUSDT", "00700.HK", "AAPL.US", "ÜSDT", "X" * 130, "USDJPY"]),
    ts_event=st.sampled_from(
        [START, START + 1, START + 86_400_000, START + 5 * 86_400_000, 0, 4_102_444_800_000]
    ),
    price=numbers,
    volume=numbers,
    turnover=st.none() | numbers,
    direction=st.sampled_from([0, 1, 2, 3]),
    trade_type=st.none() | st.text(max_size=3),
    repeat=st.booleans(),
    business=st.sampled_from(["crypto", "stock", "common"]),
    connection=st.sampled_from(["c1", "c2", "ü"]),
    sequence=st.integers(0, 1 << 62),
    ts_recv=st.sampled_from([(START + 6 * 86_400_000) * 1000, 4_102_444_800_000_000]),
    source=st.sampled_from(["simulated", "simulated", "simulated", "live"]),
    extra=st.none() | st.text(max_size=3),
)


@given(st.lists(st.lists(trades, max_size=12), max_size=4), st.booleans())
def test_any_trades_are_read_and_counted_as_python_does(batches, uses_sessions):
    pair = Pair(uses_sessions)
    for batch in batches:
        pair.check([encode(*each) for each in batch])


@settings(max_examples=3 * settings().max_examples)
@given(st.integers(0, 1 << 40))
def test_mutilated_bytes_are_read_as_python_does(seed):
    drawn = random.Random(seed)
    pair = Pair()
    values = []
    for _ in range(30):
        value = bytearray(encode(*raw(trade_type="x", extra="{}", price=drawn.choice(["1", "-1"]))))
        for _ in range(drawn.choice([0, 1, 1, 2, 5])):
            at = drawn.randrange(len(value))
            match drawn.randrange(5):
                case 0:
                    value[at] = drawn.randrange(256)
                case 1:
                    value[at] ^= 1 << drawn.randrange(8)
                case 2:
                    del value[at:]
                    value += b"\0" * drawn.randrange(3)
                case 3:
                    value[at:at] = bytes(
                        [drawn.choice([0x80, 0xFF, 0, 0x81])] * drawn.randrange(1, 12)
                    )
                case 4:
                    del value[at]
            value = value or bytearray(b"\0")
        values.append(bytes(value))
    values.append(encode(*raw()))
    assert pair.check(values)[-1]


def test_thousands_of_symbols_and_connections_are_found():
    pair = Pair(uses_sessions=False)
    drawn = random.Random(3)
    for _ in range(3):
        plain = pair.check(
            [
                encode(
                    *raw(
                        symbol=f"S{drawn.randrange(6000)}USDT",
                        connection=f"c{drawn.randrange(100)}",
                    )
                )
                for _ in range(5000)
            ]
        )
    assert all(plain)
    assert len(pair.columns.tables.symbols) > 5000
    assert decode.PLAIN == 0
