"""VWAP: each rule by hand, any log against the reference, and the exchanges' own figures."""

import csv
import gzip
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import orjson
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.raw_records import raw_trade

from processors.agents.vwap.agent import Vwap
from processors.agents.vwap.figures import Sums, figures
from processors.agents.vwap.state import WindowsChanged
from processors.agents.vwap.windows import WindowsWrong
from processors.decode.raw_records import trade_of
from processors.model.event_time import EventTime, Feeds
from processors.model.records import ControlRecord, SourcesMixed, Trade, Unreadable
from processors.model.sessions import Calendars
from processors.model.trading_days import Session
from schemas.control import Control
from schemas.decimals import UNIT, to_units
from schemas.topics import load_schema
from schemas.wire import compile_encoder

SECOND, MINUTE, DAY = 1_000, 60_000, 86_400_000
T = 19_676 * DAY + 600 * MINUTE
NAMES = [field["name"] for field in load_schema("vwap")["fields"]]
ENCODE = compile_encoder(load_schema("vwap"), 1)
FIGURES = ("vwap", "volume", "turnover", "trade_count", "stdev")


class Market:
    """Every day from 09:30 to 16:00 UTC."""

    def session_of(self, business, symbol, ts):
        day = ts // DAY
        session = Session(day, day * DAY + 570 * MINUTE, day * DAY + 960 * MINUTE)
        return session if session.start <= ts < session.end else None


class Run:
    """A partition's log as it is written, and the rows that it gave."""

    def __init__(self, *windows, emit_ms=None, **event_time):
        self.windows = windows or ("1m", "5m", "session")
        self.agent = Vwap(self.windows, Market(), EventTime(**event_time), emit_ms)
        self.state = self.agent.load(3, {})
        self.entries = {}
        self.offset = 0

    def feed(self, record):
        self.offset += 1
        rows = {}
        for topic, key, fields in self.agent.apply(self.state, [record]):
            ENCODE(*fields)
            row = dict(zip(NAMES, fields, strict=True))
            assert (topic, key) == (f"infoway.vwap.{row['window']}", row["symbol"])
            rows[row["window"]] = row
        return rows

    def trade(
        self, ts, price=10, volume=1, symbol="A", feed="f", repeat=False, recv=None, source="live"
    ):
        recv_us = T * 1000 + (self.offset if recv is None else recv)
        units = (to_units(str(price)), to_units(str(volume)))
        return self.feed(
            Trade(
                self.offset,
                symbol,
                T + ts,
                *units,
                0,
                None,
                repeat,
                "stock",
                feed,
                "c1",
                recv_us,
                source,
            )
        )

    def control(self, kind, ts, symbol="A", ts_from=None, recv=0):
        since = None if ts_from is None else T + ts_from
        return self.feed(
            ControlRecord(
                self.offset,
                symbol,
                Control(kind, "f", "stock", "c1", "live", T + ts, T * 1000 + recv, since),
            )
        )

    def write(self):
        changes = list(self.agent.dirty(self.state))
        assert len({key for key, _ in changes}) == len(changes)
        for key, value in changes:
            self.entries.pop(key, None)
            if value is not None:
                self.entries[key] = value
        return changes

    def restart(self):
        self.write()
        self.state = self.agent.load(3, self.entries)

    def buckets(self):
        return sorted(key for key in self.entries if key.startswith(b"trades:"))


def test_every_field_of_a_rolling_row():
    run = Run("1m")
    run.trade(0, 10, 3)
    assert run.trade(1000, 12, 1, recv=70)["1m"] == {
        "symbol": "A",
        "window": "1m",
        "ts_event": T + 1000,
        "ts_start": T + 1000 - MINUTE,
        "trade_date": None,
        "vwap": to_units("10.5"),
        "volume": to_units("4"),
        "turnover": to_units("42"),
        "trade_count": 2,
        "stdev": to_units("0.866025403784438647"),  # the root of (3 x 0.25 + 2.25) / 4
        "completeness": "partial",
        "source": "live",
        "ts_recv": T * 1000 + 70,
        "source_partition": 3,
        "source_offset": 1,
    }


def test_every_field_of_a_session_row():
    run = Run("session")
    run.trade(0, 10, 3)
    row = run.trade(1000, 12, 1)["session"]
    assert (row["ts_event"], row["ts_start"], row["trade_date"]) == (
        T + 1000,
        T - 30 * MINUTE - 1,
        19_676,
    )
    assert [row[name] for name in FIGURES] == [
        *map(to_units, ("10.5", "4", "42")),
        2,
        to_units("0.866025403784438647"),
    ]


def test_window_excludes_its_start_and_includes_its_end():
    run = Run("1m")
    run.trade(0, 10)
    run.trade(1, 20)
    assert run.trade(MINUTE, 30)["1m"]["trade_count"] == 2
    assert run.trade(MINUTE, 40)["1m"]["turnover"] == to_units("90")


def test_restored_window_excludes_its_start():
    run = Run("1m", "5m")
    run.trade(0, 10)
    run.trade(MINUTE, 30)
    run.restart()
    rows = run.trade(MINUTE, 40)
    assert (rows["1m"]["trade_count"], rows["5m"]["trade_count"]) == (2, 3)


def test_trade_of_no_volume_counts_and_has_no_vwap():
    row = Run("1m").trade(0, 150, 0)["1m"]
    assert [row[name] for name in FIGURES] == [None, 0, 0, 1, None]


def test_prices_below_zero_are_summed_as_they_are():
    run = Run("1m")
    run.trade(0, -37, 1)
    row = run.trade(0, 1, 3)["1m"]
    assert (row["vwap"], row["turnover"]) == (to_units("-8.5"), to_units("-34"))


def test_late_trade_is_inserted_in_its_place():
    run = Run("1m", "5m")
    run.trade(0, 10)
    run.trade(90_000, 20)
    late = run.trade(40_000, 30)  # inside of both
    assert (late["1m"]["ts_event"], late["1m"]["trade_count"], late["5m"]["trade_count"]) == (
        T + 90_000,
        2,
        3,
    )
    late = run.trade(20_000, 40)  # before the minute
    assert (late["1m"]["trade_count"], late["5m"]["trade_count"]) == (2, 4)
    moved = run.trade(100_001, 50)  # the late trade of 40 s leaves with its second
    assert (moved["1m"]["trade_count"], moved["1m"]["turnover"]) == (2, to_units("70"))
    assert moved["5m"]["turnover"] == to_units("150")


def test_late_trade_before_every_window_changes_nothing_but_gives_its_rows():
    run = Run("1m")
    run.trade(0, 10)
    row = run.trade(-MINUTE, 99, recv=50)["1m"]
    assert (row["ts_event"], row["trade_count"], row["vwap"], row["source_offset"]) == (
        T,
        1,
        to_units("10"),
        1,
    )
    assert row["ts_recv"] == T * 1000 + 50


def test_repeat_and_too_late_trade_give_no_row():
    run = Run(watermark_delay_ms=2 * SECOND, revision_horizon_ms=10 * SECOND)
    run.trade(60 * SECOND)
    assert run.trade(60 * SECOND, repeat=True) == {}
    assert run.trade(48 * SECOND - 1) == {}
    assert set(run.trade(48 * SECOND)) == {"1m", "5m", "session"}
    assert run.trade(60 * SECOND)["5m"]["trade_count"] == 3


def test_trade_outside_of_any_session_gives_rolling_rows_alone():
    run = Run()
    run.trade(0)
    assert set(run.trade(500 * MINUTE)) == {"1m", "5m"}


def test_session_restarts_and_late_trades_still_reach_the_one_before():
    run = Run("5m", "session")
    run.trade(359 * MINUTE, 10)
    first = run.trade(DAY - 30 * MINUTE, 20)["session"]
    assert (first["trade_date"], first["trade_count"], first["ts_start"]) == (
        19_677,
        1,
        T + DAY - 30 * MINUTE - 1,
    )
    run = Run("5m", "session", revision_horizon_ms=DAY)
    run.trade(359 * MINUTE, 10)
    run.trade(DAY - 30 * MINUTE, 20)
    run.restart()
    late = run.trade(358 * MINUTE, 30)
    assert late["5m"]["ts_event"] == T + DAY - 30 * MINUTE
    assert (late["session"]["trade_date"], late["session"]["trade_count"]) == (19_676, 2)
    assert (late["session"]["ts_event"], late["session"]["turnover"]) == (
        T + 359 * MINUTE,
        to_units("40"),
    )
    assert run.trade(DAY, 20)["session"]["trade_count"] == 2


def test_session_whose_sums_are_forgotten_gets_no_wrong_row():
    run = Run("session", revision_horizon_ms=30 * DAY)
    for day in (1, 2, 3, 4):
        assert run.trade(day * DAY)["session"]["trade_count"] == 1
    assert run.trade(DAY) == {}
    assert run.trade(2 * DAY)["session"]["trade_count"] == 2


def test_symbols_have_windows_of_their_own():
    run = Run("1m")
    run.trade(0, 10)
    assert run.trade(5, 20, symbol="B")["1m"]["vwap"] == to_units("20")


def test_gap_shows_in_the_windows_that_it_touches_and_in_when_it_was_known():
    run = Run()
    run.control("begin", -40 * MINUTE)
    run.trade(0)
    assert {row["completeness"] for row in run.trade(1, recv=5).values()} == {"complete"}
    run.control("gap", 30 * SECOND, ts_from=20 * SECOND, recv=900)
    rows = run.trade(31 * SECOND, recv=6)
    assert {row["completeness"] for row in rows.values()} == {"gap"}
    assert {row["ts_recv"] for row in rows.values()} == {T * 1000 + 900}
    rows = run.trade(90 * SECOND)
    assert [rows[window]["completeness"] for window in run.windows] == ["complete", "gap", "gap"]


def test_window_that_ends_before_the_first_millisecond_of_a_gap_is_complete():
    run = Run("1m")
    run.control("begin", -5 * MINUTE)
    run.trade(0)
    run.control("gap", MINUTE, ts_from=1)
    assert run.trade(0)["1m"]["completeness"] == "complete"
    assert run.trade(1)["1m"]["completeness"] == "gap"
    run.trade(2 * MINUTE - 2)
    assert run.trade(2 * MINUTE - 2)["1m"]["completeness"] == "gap"
    assert run.trade(2 * MINUTE - 1)["1m"]["completeness"] == "complete"


def test_grid_shows_each_window_as_it_stood_at_the_last_trade_before_the_line():
    run = Run("1m", "session", emit_ms=10 * SECOND)
    assert run.trade(1000, 10) == {}
    assert run.trade(9_999, 20) == {}
    assert run.trade(4_000, 30) == {}
    rows = run.trade(25_000, 99, recv=77)
    for window in ("1m", "session"):
        row = rows[window]
        assert (row["ts_event"], row["trade_count"], row["turnover"]) == (
            T + 9_999,
            3,
            to_units("60"),
        )
        assert (row["source_offset"], row["ts_recv"]) == (3, T * 1000 + 77)
    assert run.trade(26_000) == {}
    assert set(run.trade(500 * MINUTE)) == {"1m", "session"}
    assert set(run.trade(501 * MINUTE)) == {"1m"}  # the session had no trade since


def test_windows_are_checked_at_the_start():
    with pytest.raises(WindowsWrong, match=r"'0s'.*'25h'.*'1w'") as caught:
        Vwap(["0s", "25h", "1w", "24h", "1s", "session"], Market(), EventTime())
    assert "'24h'" not in str(caught.value)
    with pytest.raises(WindowsWrong, match="each once"):
        Vwap(["1m", "1m"], Market(), EventTime())
    with pytest.raises(WindowsWrong, match="at least one"):
        Vwap([], Market(), EventTime())
    with pytest.raises(WindowsWrong, match="emit_ms=0"):
        Vwap(["1m"], Market(), EventTime(), 0)


def test_state_serves_shorter_windows_and_refuses_what_it_cannot_know():
    run = Run("1m", "5m")
    run.trade(0)
    run.trade(90 * SECOND)
    run.write()
    shorter = Vwap(["2m"], Market(), EventTime())
    assert [
        window.count for window in shorter.load(3, run.entries).symbols["A"].rolling.windows
    ] == [2]
    run.agent = Vwap(["1m"], Market(), EventTime())
    run.restart()
    assert run.trade(91 * SECOND)["1m"]["trade_count"] == 2
    run.write()
    assert run.buckets() == [
        b"trades:%d:A" % ((T + second * SECOND) // SECOND) for second in (90, 91)
    ]
    for windows in (["30m"], ["5m"], ["1m", "session"]):
        with pytest.raises(WindowsChanged, match="fresh prefix"):
            Vwap(windows, Market(), EventTime()).load(3, run.entries)


def test_sources_never_mix():
    run = Run()
    run.trade(0)
    with pytest.raises(SourcesMixed):
        run.trade(1, symbol="B", source="replay")


def test_unreadable_record_is_passed_over():
    assert Run().feed(Unreadable(0, None, b"", "E", "")) == {}


def test_trade_rewrites_one_second_of_trades_and_expired_ones_are_removed():
    run = Run("1m", "5m", "session")
    trades = 12 * 60 * 4
    written = 0
    for place in range(trades):
        run.trade(place * 250, 10 + place % 7)
        changed = [value for key, value in run.write() if key.startswith(b"trades:")]
        written += len(changed)
        assert sum(len(value or b"") for value in changed) < 300
        assert len(run.buckets()) <= 301
    assert written / trades < 1.3  # its own bucket, and a tombstone every fourth trade
    run.trade(300 * MINUTE)
    run.write()
    assert len(run.buckets()) == 1
    assert (
        len(run.entries) == 5
    )  # windows, feeds, the feeds' coverage of the symbol, its head, one bucket


def test_memory_is_bounded_by_the_longest_window():
    run = Run("1s")
    for place in range(30_000):
        run.agent.apply(
            run.state,
            [
                Trade(
                    place,
                    "A",
                    T + place,
                    UNIT,
                    UNIT,
                    0,
                    None,
                    False,
                    "stock",
                    "f",
                    "c1",
                    T * 1000,
                    "live",
                )
            ],
        )
    assert len(run.state.symbols["A"].rolling._times) < 10_000


def test_standard_deviation_is_rounded_half_to_even():
    def deviation(*prices):
        sums = Sums()
        for price in prices:
            sums.add(1, price, price * price, 1)
        return figures(sums)[-1]

    assert [deviation(0, step) for step in range(8)] == [
        0,
        0,
        1,
        2,
        2,
        2,
        3,
        4,
    ]  # halves of the step
    assert deviation(0, 0, 1) == 0  # 0.47
    assert deviation(0, 1, 2, 3, 4, 5) == 2  # 1.71


numbers = st.integers(1, 10**24)


@given(
    st.lists(
        st.tuples(st.one_of(numbers, st.integers(-5, 5)), st.one_of(numbers, st.integers(0, 3))),
        min_size=1,
        max_size=12,
    )
)
@settings(deadline=None)
def test_figures_of_any_trades_agree_with_the_reference(chosen):
    sums = Sums()
    for price, volume in chosen:
        sums.add(volume, price * volume, price * price * volume, 1)
    trades = [
        Trade(0, "A", 0, price, volume, 0, None, False, "", "", "", 0, "")
        for price, volume in chosen
    ]
    assert dict(zip(FIGURES, figures(sums), strict=True)) == reference.vwap(trades)


prices = st.integers(1, 400).map(lambda cents: cents * UNIT // 100)
volumes = st.one_of(st.integers(0, 5).map(lambda size: size * UNIT), st.integers(1, 10**21))
steps = st.one_of(
    st.integers(0, 1), st.integers(0, 1500), st.integers(0, 20_000), st.integers(0, 400_000)
)
lateness = st.one_of(st.just(0), st.just(0), st.integers(0, 40_000))
arrivals = st.lists(
    st.tuples(
        steps,
        lateness,
        prices,
        volumes,
        st.sampled_from("AAAB"),
        st.sampled_from([False] * 9 + [True]),
    ),
    max_size=50,
)


def log_of(arrivals):
    log, clock = [], T
    for offset, (step, late, price, volume, symbol, repeat) in enumerate(arrivals):
        clock += step
        log.append(
            Trade(
                offset,
                symbol,
                clock - late,
                price,
                volume,
                0,
                None,
                repeat,
                "stock",
                "f",
                "c1",
                clock * 1000,
                "live",
            )
        )
    return log


def rows_of(agent, log, cuts):
    """Return the rows of a log that is cut into batches, the state restored from its topic before
    each of them."""
    entries, rows = {}, []
    for begin, end in pairwise([0, *cuts, len(log)]):
        state = agent.load(0, entries)
        rows += agent.apply(state, log[begin:end])
        for key, value in agent.dirty(state):
            entries.pop(key, None)
            if value is not None:
                entries[key] = value
    return rows


@settings(max_examples=150, deadline=None)
@given(arrivals, st.data())
def test_any_log_agrees_with_the_reference_however_it_is_cut(arrivals, data):
    log = log_of(arrivals)
    cuts = (
        sorted(data.draw(st.sets(st.integers(1, max(1, len(log) - 1)), max_size=len(log))))
        if len(log) > 1
        else []
    )
    spans = {"1s": 1_000, "10s": 10_000, "1m": 60_000}
    event_time = EventTime(revision_horizon_ms=20_000)
    agent = Vwap([*spans, "session"], Market(), event_time)
    whole = rows_of(agent, log, [])
    assert rows_of(agent, log, cuts) == whole
    found = iter(dict(zip(NAMES, fields, strict=True)) for _, _, fields in whole)
    feeds, taken = Feeds(event_time, 0, DAY, {}), []
    for trade in log:
        if not feeds.accept(trade):
            continue
        taken.append(trade)
        own = [other for other in taken if other.symbol == trade.symbol]
        for window, span in spans.items():
            row, expected = next(found), reference.rolling_vwap(own, span)
            assert (row["window"], row["source_offset"], row["symbol"]) == (
                window,
                trade.offset,
                trade.symbol,
            )
            assert {name: row[name] for name in expected} == expected
            if row["vwap"] is not None:
                inside = [other.price for other in own if row["ts_start"] < other.ts_event]
                assert min(inside) <= row["vwap"] <= max(inside)
        session = Market().session_of("", "", trade.ts_event)
        if session is not None:
            row, expected = next(found), reference.session_vwap(own, session.start, session.end)
            assert (row["window"], row["trade_date"]) == ("session", session.trade_date)
            assert {name: row[name] for name in expected} == expected
    assert next(found, None) is None


@settings(max_examples=50, deadline=None)
@given(arrivals, st.integers(1, 49))
def test_grid_rows_are_the_same_however_the_log_is_cut(arrivals, cut):
    log = log_of(arrivals)
    agent = Vwap(["10s", "session"], Market(), EventTime(), 5_000)
    assert rows_of(agent, log, [cut] if cut < len(log) else []) == rows_of(agent, log, [])


def trades_of(path, business):
    with gzip.open(path) as lines:
        for offset, line in enumerate(
            sorted(map(orjson.loads, lines), key=lambda line: line["recv_ms"])
        ):
            if line["frame"]["code"] == 10002:
                pushed = line["frame"]["data"]
                raw = {
                    "symbol": pushed["s"],
                    "ts_event": pushed["t"],
                    "price": pushed["p"],
                    "volume": pushed["v"],
                    "direction": pushed["td"],
                }
                raw |= {
                    "trade_type": None,
                    "repeat": False,
                    "business": business,
                    "feed": "f",
                    "connection": "c",
                }
                yield trade_of(
                    offset, raw_trade(raw | {"ts_recv": line["recv_ms"] * 1000, "source": "replay"})
                )


def test_session_vwap_of_600519_equals_the_exchanges_own_at_every_snapshot(recordings):
    agent = Vwap(["session"], Calendars(), EventTime())
    log = list(trades_of(recordings / "sh600519_20230201_fullday.jsonl.gz", "stock"))
    rows = [
        dict(zip(NAMES, fields, strict=True))
        for _, _, fields in agent.apply(agent.load(0, {}), log)
    ]
    assert len(rows) == len(log) == 27_135
    assert [row["trade_count"] for row in rows] == list(range(1, len(log) + 1))
    compared = 0
    with (recordings / "truth_sh600519_20230201_sse_snapshots.csv").open() as lines:
        for truth in csv.DictReader(lines):
            if int(truth["trades"]):
                row = rows[int(truth["trades"]) - 1]
                volume, turnover = Fraction(truth["cum_volume"]), Fraction(truth["cum_turnover"])
                assert (row["volume"], row["turnover"]) == (volume * UNIT, turnover * UNIT)
                assert row["vwap"] == round(turnover / volume * UNIT)
                assert abs(
                    Fraction(row["vwap"], UNIT) - Fraction(truth["session_vwap"])
                ) <= Fraction(1, 10**6)  # it has six digits
                compared += 1
    assert compared > 4_900
    assert rows[-1]["trade_count"] == 27_135  # the closing auction's prints of 15:00:01 included


def test_minute_window_of_btcusdt_equals_the_exchanges_klines(recordings):
    """A trade of no volume in a minute's last millisecond makes the window (t - 1m, t] the kline's
    own [start, end)."""
    log = list(trades_of(recordings / "binance_btcusdt_perp_20240808.jsonl.gz", "crypto"))
    with (recordings / "truth_binance_btcusdt_perp_1m_klines.csv").open() as lines:
        klines = [truth for truth in csv.DictReader(lines) if truth["complete_in_recording"] == "1"]
    ends = {int(truth["close_time_ms"]): truth for truth in klines}
    log += [replace(log[0], ts_event=end, volume=0, offset=-end) for end in ends]
    log.sort(key=lambda trade: trade.ts_event)
    agent = Vwap(["1m"], Calendars(), EventTime())
    rows = {
        fields[-1]: dict(zip(NAMES, fields, strict=True))
        for _, _, fields in agent.apply(agent.load(0, {}), log)
    }
    bars = reference.bars([trade for trade in log if trade.volume], MINUTE)
    assert len(ends) == 5
    for end, truth in ends.items():
        row, bar = rows[-end], bars[int(truth["open_time_ms"])]
        expected = (to_units(truth["volume"]), to_units(truth["quote_volume"]))
        assert (row["volume"], row["turnover"]) == (bar["volume"], bar["turnover"]) == expected
        assert (
            row["vwap"]
            == bar["vwap"]
            == round(Fraction(truth["quote_volume"]) / Fraction(truth["volume"]) * UNIT)
        )
        assert row["trade_count"] - 1 == bar["trade_count"] == int(truth["count"])


def test_windows_over_bursts_of_one_millisecond_agree_with_the_reference(recordings):
    log = list(trades_of(recordings / "binance_btcusdt_perp_20240808.jsonl.gz", "crypto"))[:6_000]
    spans = {"10s": 10 * SECOND, "1m": MINUTE}
    agent = Vwap(list(spans), Calendars(), EventTime())
    rows = [
        dict(zip(NAMES, fields, strict=True))
        for _, _, fields in agent.apply(agent.load(0, {}), log)
    ]
    for window, span in spans.items():
        found = [row for row in rows if row["window"] == window]
        for place in range(0, len(log), 599):
            expected = reference.rolling_vwap(log[: place + 1], span)
            assert {name: found[place][name] for name in expected} == expected
