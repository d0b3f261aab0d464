"""Bars of streams without klines: kernels keep them, and the rows are those of the general path."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_message import Message

from processors.agents.reconciliation import waiting
from processors.agents.reconciliation.agent import Reconciliation
from processors.agents.reconciliation.waiting import WaitingFromTheFuture
from processors.decode.bar_columns import BarColumns
from processors.decode.messages import Messages
from processors.decode.raw_records import bar_revision_of
from processors.decode.reader import RawReader
from processors.kernels.waiting.run import BarRun
from processors.model.event_time import EventTime
from processors.model.records import BarRevision, Kline
from processors.model.sessions import Calendars
from schemas.decimals import UNIT
from schemas.records import BarRecord
from schemas.topics import load_schema
from schemas.wire import compile_encoder

MINUTE = 60_000
T = 1_723_161_300_000 // MINUTE * MINUTE
LENGTHS = {"1m": MINUTE, "15m": 15 * MINUTE}
CALENDARS = Calendars()
SCHEMA = load_schema("bar")
encode = compile_encoder(SCHEMA, 7)


class Schemas:
    def schema(self, schema_id):
        return SCHEMA


def record(symbol="A", interval="1m", number=0, revision=1, volume=5, **changes):
    """A record of a bar topic."""
    length = LENGTHS[interval]
    start = T // length * length + number * length
    made = BarRecord(
        symbol, interval, start, start + length, None,
        10 * UNIT, 12 * UNIT, 9 * UNIT, 11 * UNIT, volume * UNIT, 10 * volume * UNIT,
        None, None, None, 3, start, start + 5, revision, True, "close", "complete", "trades",
        "live", (start + length) * 1000, 2, 99,
    )  # fmt: skip
    return made._replace(**changes)


def reader(interval):
    def record_of(offset, made):
        return bar_revision_of(offset, made, interval)

    return RawReader(Schemas(), SCHEMA, record_of)


class Path:
    """The agent, by kernels or by the general path alone, through restarts."""

    def __init__(self, native):
        self.agent = Reconciliation(tuple(LENGTHS), CALENDARS, EventTime(), native)
        self.columns = {each: BarColumns(reader(each), each) for each in LENGTHS}
        self.entries = {}
        self.state = self.agent.load(2, {})

    def take(self, records):
        if self.agent.takes_runs:
            return self.agent.apply(self.state, records)
        return self.agent.apply(
            self.state,
            [
                one
                for each in records
                for one in (each.all_records() if isinstance(each, BarRun) else [each])
            ],
        )

    def commit(self):
        for key, value in self.agent.dirty(self.state):
            self.entries.pop(key, None)
            if value is not None:
                self.entries[key] = value

    def restart(self):
        self.commit()
        self.state = self.agent.load(2, dict(self.entries))


def pieces(columns, interval, offset, records):
    """What the data plane hands out for these records."""
    messages = [Message(offset + at, encode(*each)) for at, each in enumerate(records)]
    read = reader(interval)
    return [
        read(messages[piece]) if isinstance(piece, int) else piece
        for piece in columns.read(Messages.of(messages), "live")
    ]


def kline(offset, symbol, interval, number, volume=5):
    bar = record(symbol, interval, number)
    numbers = (10 * UNIT, 12 * UNIT, 9 * UNIT, 11 * UNIT)
    received = (bar.ts_start + 9) * 1000
    return Kline(
        offset, symbol, interval, bar.ts_start, numbers, volume * UNIT, 10 * volume * UNIT,
        UNIT // 1000, "crypto", "f", "c1", received, "live",
    )  # fmt: skip


BARS = st.builds(
    record,
    symbol=st.sampled_from(["A", "B", "CÉ"]),
    interval=st.just("1m"),
    number=st.one_of(st.integers(0, 90), st.integers(2_900, 3_000)),
    revision=st.integers(1, 3),
    volume=st.integers(4, 6),
    is_closed=st.sampled_from([True, True, True, False]),
    provenance=st.sampled_from(["trades", "trades", "klines"]),
    completeness=st.sampled_from(["complete", "gap"]),
    # the last one is no plain number
    high=st.sampled_from([12 * UNIT, 13 * UNIT, 10**37]),
    close=st.sampled_from([-UNIT, 11 * UNIT]),
)
STEPS = st.one_of(
    st.tuples(st.just("bars"), st.sampled_from(list(LENGTHS)), st.lists(BARS, min_size=1)),
    st.tuples(
        st.just("kline"), st.sampled_from(["A", "B"]), st.sampled_from(list(LENGTHS)),
        st.integers(0, 95),
    ),
    st.sampled_from([("commit",), ("restart",)]),
)  # fmt: skip


def moved(bar, interval):
    """The bar of the same number in another interval."""
    number = (bar.ts_start - T // MINUTE * MINUTE) // MINUTE
    other = record(bar.symbol, interval, number)
    return bar._replace(interval=interval, ts_start=other.ts_start, ts_end=other.ts_end)


@given(st.lists(STEPS, max_size=30))
def test_the_rows_are_those_of_the_general_path(steps):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(waiting, "SLACK_BYTES", 300)
        patched.setattr(waiting, "MOST_BYTES", 900)
        patched.setattr(waiting, "_LEAST_BYTES", 300)
        paths, offset = (Path(native=True), Path(native=False)), 0
        for kind, *rest in steps:
            if kind == "bars":
                interval, records = rest
                records = [moved(each, interval) for each in records]
                found = [
                    path.take(pieces(path.columns[interval], interval, offset, records))
                    for path in paths
                ]
                assert found[0] == found[1]
                offset += len(records)
            elif kind == "kline":
                offset += 1
                found = [path.take([kline(offset, *rest)]) for path in paths]
                assert found[0] == found[1]
            else:
                for path in paths:
                    getattr(path, kind)()
        for symbol in ("A", "B", "CÉ"):
            for interval in LENGTHS:
                one, other = (path.state.stream(symbol, interval) for path in paths)
                assert one.pairs == other.pairs
                # with all of its bars gone, a stream may have forgotten how far it was
                assert not one.pairs or one.closed == other.closed


def test_a_bar_that_waits_takes_about_a_hundred_bytes_and_what_is_gone_is_given_back():
    path, offset = Path(native=True), 0
    names = [f"C{number:04d}USDT" for number in range(200)]
    for number in range(300):
        records = [record(name, "1m", number) for name in names]
        path.take(pieces(path.columns["1m"], "1m", offset, records))
        offset += len(records)
        path.commit()
    kept = sum(map(len, path.entries.values()))
    assert kept < 2.5 * 60 * len(names) * 120
    assert len(path.entries) < 200
    path.restart()
    stream = path.state.stream(names[7], "1m")
    assert [pair.start for pair in stream.pairs.values()] == [
        record(number=number).ts_start for number in range(240, 300)
    ]
    assert stream.closed == record(number=299).ts_end
    assert stream.expired == record(number=239).ts_end


def test_bars_of_a_later_version_are_refused():
    path = Path(native=True)
    path.take([bar_revision_of(1, record(), "1m")])
    path.commit()
    [key] = [key for key in path.entries if key.startswith(b"bars:")]
    path.entries[key] = b"\2" + path.entries[key][1:]
    with pytest.raises(WaitingFromTheFuture, match="has the form 02, this version reads 01"):
        path.restart()


def test_the_general_path_takes_over_what_kernels_kept():
    path = Path(native=True)
    path.take([bar_revision_of(number, record(number=number), "1m") for number in range(5)])
    path.commit()
    general = Reconciliation(tuple(LENGTHS), CALENDARS, EventTime(), native=False)
    state = general.load(2, dict(path.entries))
    assert len(state.stream("A", "1m").pairs) == 5


def test_a_single_bar_is_kept_as_one_of_a_run():
    alone, run = Path(native=True), Path(native=True)
    bar: BarRevision = bar_revision_of(4, record(), "1m")
    alone.take([bar])
    run.take([BarRun.of(run.state.waiting["1m"].tables, bar)])
    pairs = [each.state.stream("A", "1m").pairs for each in (alone, run)]
    assert pairs[0] == pairs[1] and pairs[0][bar.ts_start].bar.figures.volume == 5 * UNIT
    assert replace(bar, offset=5) != bar
