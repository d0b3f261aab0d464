"""Bars: which bar a trade belongs to, when a bar closes, what revises it, what is refused."""

from typing import NamedTuple

import pytest

from processors.bar_state import BarSettingsChanged
from processors.bars import Bars
from processors.feeds import EventTime
from processors.intervals import IntervalsWrong, ladder
from processors.records import ControlRecord, Trade
from schemas.control import Control
from schemas.decimals import UNIT
from schemas.topics import load_schema
from schemas.wire import compile_encoder

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
T = 19_676 * DAY
SCHEMAS = {"infoway.progress": "progress", "infoway.late": "late_trade"}


class Session(NamedTuple):
    trade_date: int
    start: int
    end: int


class Market:
    """A market whose sessions run from 09:30 to 16:00 UTC."""

    def session_of(self, business, symbol, ts_ms):
        day = ts_ms // DAY
        session = Session(day, day * DAY + 570 * MINUTE, day * DAY + 960 * MINUTE)
        return session if session.start <= ts_ms < session.end else None


class Run:
    """A partition's log as it is written, and the rows that it gave so far."""

    def __init__(self, intervals=("1m",), update_ms=None, **event_time):
        self.bars = Bars(intervals, Market(), EventTime(**event_time), update_ms)
        self.state = self.bars.load(3, {})
        self.entries = {}
        self.offset = 0
        self.rows = []

    def restart(self):
        """Go on from what the state topic has."""
        self.write()
        self.state = self.bars.load(3, self.entries)
        return self

    def write(self):
        changes = list(self.bars.dirty(self.state))
        assert len({key for key, _ in changes}) == len(changes)
        for key, value in changes:
            self.entries.pop(key, None)
            if value is not None:
                self.entries[key] = value
        return changes

    def feed(self, record):
        self.offset += 1
        found = []
        for topic, key, fields in self.bars.apply(self.state, [record]):
            schema = load_schema(SCHEMAS.get(topic, "bar"))
            compile_encoder(schema, 1)(*fields)
            row = dict(zip([field["name"] for field in schema["fields"]], fields, strict=True))
            assert key == row.get("symbol", row.get("feed"))
            found.append((topic.removeprefix("infoway."), row))
        self.rows += found
        return found

    def trade(self, ts, price=10, volume=1, direction=0, symbol="A", feed="f", connection="c1", repeat=False, recv=None):
        recv_us = (T + self.offset if recv is None else recv) * 1000
        units = (price * UNIT, volume * UNIT)
        return self.feed(Trade(self.offset, symbol, T + ts, *units, direction, None, repeat, "stock", feed, connection, recv_us, "live"))

    def control(self, kind, ts, symbol="A", feed="f", connection="c1", ts_from=None):
        since = None if ts_from is None else T + ts_from
        return self.feed(
            ControlRecord(self.offset, symbol, Control(kind, feed, "stock", connection, "live", T + ts, (T + ts) * 1000, since))
        )

    def mark(self, ts, feed="f"):
        return self.control("mark", ts, symbol=None, feed=feed)


def bars_of(rows, interval=None):
    return [row for topic, row in rows if topic.startswith("bars.") and interval in (None, row["interval"])]


def shown(rows):
    """Return (interval, start in minutes, revision, cause, trades) of each bar."""
    return [(row["interval"], (row["ts_start"] - T) // MINUTE, row["revision"], row["cause"], row["trade_count"]) for row in bars_of(rows)]


def test_a_bar_has_open_high_low_close_and_the_sums_of_its_trades():
    run = Run()
    run.control("begin", 0)
    for ts, price, volume, direction in ((100, 10, 2, 1), (200, 13, 1, 2), (300, 8, 4, 1), (400, 9, 1, 0)):
        run.trade(ts, price, volume, direction)
    (row,) = bars_of(run.mark(62_000))
    assert (row["ts_start"], row["ts_end"], row["trade_date"]) == (T, T + MINUTE, None)
    assert [row[name] // UNIT for name in ("open", "high", "low", "close")] == [10, 13, 8, 9]
    assert [row[name] // UNIT for name in ("volume", "turnover", "buy_volume", "sell_volume")] == [8, 74, 6, 1]
    assert row["vwap"] == 74 * UNIT // 8
    assert (row["trade_count"], row["ts_first"], row["ts_last"]) == (4, T + 100, T + 400)
    assert (row["is_closed"], row["provenance"], row["completeness"], row["source"]) == (True, "trades", "complete", "live")


def test_the_origin_names_the_record_that_caused_it_and_the_greatest_receive_time():
    run = Run()
    run.trade(100, recv=T + 99_000)
    (row,) = bars_of(run.mark(62_000))
    assert (row["source_partition"], row["source_offset"], row["ts_recv"]) == (3, 1, (T + 99_000) * 1000)
    run = Run()
    run.trade(100, recv=T + 100)
    (row,) = bars_of(run.mark(62_000))
    assert row["ts_recv"] == (T + 62_000) * 1000


def test_trades_of_one_millisecond_keep_their_order_in_the_log():
    run = Run()
    for ts, price in ((500, 5), (100, 1), (100, 2), (500, 6)):
        run.trade(ts, price)
    (row,) = bars_of(run.mark(62_000))
    assert (row["open"], row["close"]) == (1 * UNIT, 6 * UNIT)


def test_a_volume_of_zero_moves_prices_and_count_and_leaves_vwap_null():
    run = Run()
    run.trade(100, 7, 0)
    run.trade(200, 8, 0)
    (row,) = bars_of(run.mark(62_000))
    assert (row["high"], row["trade_count"], row["volume"], row["vwap"]) == (8 * UNIT, 2, 0, None)
    assert (row["buy_volume"], row["sell_volume"]) == (0, 0)


def test_turnover_is_summed_exactly_and_rounded_once():
    run = Run()
    for offset in range(3):
        run.feed(Trade(offset, "A", T + offset, UNIT // 2 + 1, 1, 0, None, False, "stock", "f", "c1", T * 1000, "live"))
    (row,) = bars_of(run.mark(62_000))
    assert row["turnover"] == 2, "thrice 0.5 units and a bit are 1.5 units and a bit, not thrice 1"


def test_a_bar_closes_when_the_watermark_reaches_its_end_and_not_before():
    run = Run()
    run.trade(1_000)
    assert bars_of(run.trade(61_999)) == []
    assert shown(run.trade(62_000)) == [("1m", 0, 1, "close", 1)]


def test_a_bar_closes_in_time_where_its_end_is_no_boundary_of_the_finest_interval():
    run = Run(("2s", "3s"))
    run.trade(0)
    assert [row["interval"] for row in bars_of(run.mark(4_000))] == ["2s"]
    assert [row["interval"] for row in bars_of(run.restart().mark(5_000))] == ["3s"]


def test_a_bar_of_an_idle_symbol_closes_by_a_mark_or_by_another_symbol_of_its_feed():
    run = Run()
    run.trade(1_000, symbol="A")
    run.trade(2_000, symbol="B")
    assert [row["symbol"] for row in bars_of(run.trade(62_000, symbol="B"))] == ["A", "B"]
    assert [row["symbol"] for row in bars_of(run.mark(122_000))] == ["B"]


def test_another_feed_closes_nothing_of_a_silent_one():
    run = Run()
    run.trade(1_000, feed="down")
    assert bars_of(run.trade(500_000, symbol="B", feed="well")) == []
    assert bars_of(run.mark(700_000, feed="well")) == bars_of(run.rows, "1m")
    assert [row["symbol"] for row in bars_of(run.rows)] == ["B"]


def test_no_trade_no_bar():
    run = Run()
    run.mark(1_000)
    assert bars_of(run.mark(10 * MINUTE)) == []


def test_bars_close_in_the_order_of_end_length_and_symbol():
    run = Run(("1h", "5m", "1m"))
    for ts, symbol in ((1_000, "B"), (1_000, "A"), (241_000, "A"), (241_000, "B"), (242_000, "A")):
        run.trade(ts, symbol=symbol)
    rows = bars_of(run.mark(310_000))
    assert [(row["ts_end"] - T, row["interval"], row["symbol"]) for row in rows] == [
        (300_000, "1m", "A"),
        (300_000, "1m", "B"),
        (300_000, "5m", "A"),
        (300_000, "5m", "B"),
    ]


def test_a_coarse_bar_folded_from_fine_ones_has_its_own_open_and_close():
    run = Run(("1m", "5m", "15m"))
    for ts, price in ((200_000, 4), (1_000, 1), (70_000, 2), (299_000, 5), (1_000, 9)):
        run.trade(ts, price)
    (row,) = bars_of(run.mark(302_000), "5m")
    assert (row["open"], row["close"], row["high"], row["low"]) == (1 * UNIT, 5 * UNIT, 9 * UNIT, 1 * UNIT)
    assert (row["trade_count"], row["ts_first"], row["ts_last"]) == (5, T + 1_000, T + 299_000)


def test_late_trade_revises_closed_bar():
    run = Run()
    run.trade(1_000, 10)
    run.trade(3_000, 11)
    run.mark(100_000)
    assert shown(run.trade(500, 12)) == [("1m", 0, 2, "late", 3)]
    row = bars_of(run.rows)[-1]
    assert (row["is_closed"], row["open"], row["close"], row["source_offset"]) == (True, 12 * UNIT, 11 * UNIT, 3)
    assert shown(run.trade(600, 13)) == [("1m", 0, 3, "late", 4)]


def test_late_trade_makes_the_bar_that_never_was():
    run = Run()
    run.mark(62_000)
    assert shown(run.trade(1_000)) == [("1m", 0, 1, "late", 1)]


def test_late_trade_revises_the_closed_levels_and_is_folded_into_the_open_one():
    run = Run(("1m", "5m", "15m"))
    run.trade(1_000)
    run.mark(310_000)
    assert shown(run.trade(2_000)) == [("1m", 0, 2, "late", 2), ("5m", 0, 2, "late", 2)]
    assert shown(run.trade(61_000)) == [("1m", 1, 1, "late", 1), ("5m", 0, 3, "late", 3)]
    (row,) = bars_of(run.mark(902_000), "15m")
    assert (row["trade_count"], row["revision"], row["cause"]) == (3, 1, "close")


def test_too_late_trade_goes_to_late_and_into_no_bar():
    run = Run(watermark_delay_ms=2_000, revision_horizon_ms=60_000)
    run.trade(1_000)
    run.mark(200_000)
    rows = run.trade(137_999, 10, 3, 2)
    ((topic, row),) = rows
    assert topic == "late"
    assert (row["ts_event"], row["ts_watermark"], row["late_ms"]) == (T + 137_999, T + 198_000, 60_001)
    assert (row["turnover"], row["direction"], row["feed"]) == (30 * UNIT, 2, "f")
    assert shown(run.trade(138_000)) == [("1m", 2, 1, "late", 1)]


def test_a_repeat_is_counted_nowhere():
    run = Run()
    run.trade(1_000)
    assert run.trade(1_000, repeat=True) == []
    assert run.trade(-10 * HOUR, repeat=True) == []
    assert bars_of(run.mark(62_000))[0]["trade_count"] == 1


def test_an_end_closes_all_open_bars_of_its_symbol_at_once():
    run = Run(("1m", "5m"))
    run.control("begin", 0)
    run.trade(1_000)
    run.trade(61_000)
    run.trade(61_000, symbol="B")
    rows = run.control("end", 70_000)
    assert shown(rows) == [("1m", 0, 1, "close", 1), ("1m", 1, 1, "close", 1), ("5m", 0, 1, "close", 2)]
    assert [row["completeness"] for row in bars_of(rows)] == ["complete", "partial", "partial"]
    assert {row["symbol"] for row in bars_of(rows)} == {"A"}
    assert shown(run.trade(62_000)) == [("1m", 1, 2, "late", 2), ("5m", 0, 2, "late", 3)], "after the end all of its bars are closed"


def test_an_end_closes_bars_in_the_order_of_their_ends():
    run = Run(("1m", "5m"))
    run.trade(299_500)
    run.trade(300_500)
    assert [row[:2] for row in shown(run.control("end", 301_000))] == [("1m", 4), ("5m", 0), ("1m", 5), ("5m", 5)]


def test_a_bar_that_an_end_closed_is_open_again_when_the_symbol_begins_before_it_is_over():
    run = Run(("1m", "5m"))
    run.control("begin", 0)
    run.trade(61_000)
    run.control("end", 70_000)
    run.restart()
    assert bars_of(run.control("begin", 80_000, connection="c2")) == []
    run.trade(90_000, connection="c2")
    run.trade(130_000, connection="c2")
    assert shown(run.rows) == [("1m", 1, 1, "close", 1), ("5m", 0, 1, "close", 1), ("1m", 1, 2, "close", 2)]
    rows = bars_of(run.mark(302_000))
    assert shown(run.rows)[-2:] == [("1m", 2, 1, "close", 1), ("5m", 0, 2, "close", 3)]
    assert [row["completeness"] for row in rows] == ["complete", "partial"]


def test_a_gap_that_becomes_known_after_the_close_revises_the_bars_that_it_touches():
    run = Run(("1m", "5m"))
    run.control("begin", 0)
    for minute in range(5):
        run.trade(minute * MINUTE + 1_000)
    run.mark(190_000)
    assert shown(run.control("gap", 130_000, ts_from=70_000)) == [("1m", 1, 2, "gap", 1), ("1m", 2, 2, "gap", 1)]
    assert bars_of(run.control("gap", 130_000, ts_from=70_000)) == [], "what is known already revises nothing"
    rows = bars_of(run.mark(400_000))
    assert [(row["interval"], row["completeness"], row["revision"]) for row in rows] == [
        ("1m", "complete", 1),
        ("1m", "complete", 1),
        ("5m", "gap", 1),
    ]


def test_a_reconnect_marks_the_open_bar_and_revises_the_closed_one():
    run = Run(feed_latency_ms=1_000)
    run.control("begin", 0)
    run.trade(1_000, recv=T + 1_000)
    run.mark(60_500)
    run.trade(62_000, recv=T + 60_500)
    assert shown(run.control("begin", 100_000, connection="c2")) == [("1m", 0, 2, "gap", 1)]
    assert bars_of(run.mark(130_000))[0]["completeness"] == "gap"


def test_a_bar_is_partial_where_its_feed_began_inside():
    run = Run()
    run.control("begin", 30_000)
    run.trade(40_000)
    run.trade(70_000)
    assert [row["completeness"] for row in bars_of(run.mark(130_000))] == ["complete"]
    assert [row["completeness"] for row in bars_of(run.rows)] == ["partial", "complete"]


def test_bars_follow_their_symbol_to_another_feed():
    run = Run()
    run.control("begin", 0)
    run.trade(1_000)
    run.control("begin", 0, symbol="B", feed="g", connection="d")
    run.trade(20_000, symbol="B", feed="g", connection="d")
    assert bars_of(run.control("begin", 30_000, feed="g", connection="d")) == []
    assert bars_of(run.mark(90_000, feed="f")) == []
    run.restart()
    assert [row["symbol"] for row in bars_of(run.mark(62_000, feed="g"))] == ["A", "B"]


def test_moving_to_a_feed_that_is_further_on_closes_what_is_over_there():
    run = Run()
    run.trade(1_000)
    run.mark(200_000, feed="g")
    assert shown(run.control("begin", 30_000, feed="g")) == [("1m", 0, 1, "close", 1)]


def test_progress_is_told_when_the_watermark_crosses_a_boundary_of_the_finest_interval_after_the_closes():
    run = Run(("1m", "5m"))
    run.trade(3_000)
    assert run.trade(61_999) == []
    rows = run.trade(62_000)
    assert [topic for topic, _ in rows] == ["bars.1m", "progress"]
    assert rows[-1][1] == {"partition": 3, "feed": "f", "ts_watermark": T + 60_000, "source_offset": 2}
    assert run.trade(121_999) == []
    run.restart()
    assert run.trade(121_999) == []
    assert [topic for topic, _ in run.mark(122_000)] == ["bars.1m", "progress"]


def test_progress_is_told_at_an_end():
    run = Run()
    run.trade(1_000)
    rows = run.control("end", 2_000)
    assert [topic for topic, _ in rows] == ["bars.1m", "progress"]
    assert rows[-1][1]["ts_watermark"] == T - 1_000


def test_the_day_is_the_markets_session_and_takes_nothing_from_outside():
    run = Run(("1m", "1h", "1d"))
    run.control("begin", 0)
    opening = 570 * MINUTE
    for ts, price in ((opening - 1, 1), (opening, 2), (opening + HOUR, 3), (960 * MINUTE - 1, 4), (960 * MINUTE, 5)):
        run.trade(ts, price)
    assert bars_of(run.rows, "1d") == []
    (row,) = bars_of(run.mark(960 * MINUTE + 2_000), "1d")
    assert (row["trade_date"], row["ts_start"], row["ts_end"]) == (T // DAY, T + opening, T + 960 * MINUTE)
    assert (row["open"], row["close"], row["trade_count"]) == (2 * UNIT, 4 * UNIT, 3)
    assert [row["trade_count"] for row in bars_of(run.rows, "1h")] == [2, 1, 1]


@pytest.mark.parametrize("intervals", [("1d",), ("1h", "1d")])
def test_the_day_takes_each_trade_where_no_finer_interval_fits_the_session(intervals):
    run = Run(intervals)
    for ts in (569 * MINUTE, 570 * MINUTE, 571 * MINUTE):
        run.trade(ts)
    assert [row["trade_count"] for row in bars_of(run.mark(961 * MINUTE), "1d")] == [2]


def test_updates_of_open_bars_come_on_the_grid_of_event_time_where_they_changed():
    run = Run(("1m", "5m"), update_ms=1_000)
    run.trade(100)
    rows = run.trade(900) + run.trade(1_000, 11)
    assert shown(rows) == [("1m", 0, 2, "update", 3), ("5m", 0, 2, "update", 3)]
    assert not bars_of(rows)[0]["is_closed"]
    assert bars_of(run.trade(1_500)) == []
    run.restart()
    assert shown(run.mark(2_000)) == [("1m", 0, 3, "update", 4), ("5m", 0, 3, "update", 4)]
    assert bars_of(run.mark(3_000)) == [], "nothing changed since"
    assert shown(run.mark(62_000)) == [("1m", 0, 4, "close", 4)]


def test_bars_leave_the_state_when_the_horizon_has_passed_them():
    run = Run(("1m", "5m"), revision_horizon_ms=60_000)
    for minute in range(30):
        run.trade(minute * MINUTE)
    changes = run.write()
    assert not any(key.startswith(b"bar:1m:%d:" % T) and value is not None for key, value in changes)
    assert sum(key.startswith(b"bar:1m") for key in run.entries) <= 4
    run.mark(40 * MINUTE)
    assert {value for key, value in run.write() if key.startswith(b"bar:1m")} == {None}
    assert not any(key.startswith(b"bar:") for key in run.entries)


def test_only_what_changed_is_written():
    run = Run(("1m", "5m"))
    for minute in range(10):
        run.trade(minute * MINUTE)
    run.write()
    assert run.write() == []
    run.trade(9 * MINUTE + 1, symbol="A")
    assert {key.split(b":")[0] for key, _ in run.write()} == {b"\0feeds", b"bar"}
    run.trade(9 * MINUTE + 2)
    assert len([key for key, _ in run.write() if key.startswith(b"bar")]) == 1


def test_state_built_with_other_intervals_is_refused():
    run = Run(("1m", "5m"))
    run.trade(1_000)
    run.write()
    with pytest.raises(BarSettingsChanged, match="fresh prefix"):
        Bars(("1m", "15m"), Market(), EventTime()).load(3, run.entries)


@pytest.mark.parametrize("wrong", ["7m", "0s", "1w", "24h", "13h", "90", "m", "1M", "86400s", "-1m", "1.5m", ""])
def test_an_interval_that_does_not_divide_a_day_is_refused_with_what_is_allowed(wrong):
    with pytest.raises(IntervalsWrong, match="1s to 12h") as caught:
        ladder(("1m", wrong))
    assert repr(wrong) in str(caught.value)


def test_intervals_are_given_once_and_at_all():
    with pytest.raises(IntervalsWrong, match="the same as '1m'"):
        ladder(("1m", "60s"))
    with pytest.raises(IntervalsWrong, match="none"):
        ladder(())


def test_each_interval_is_folded_from_the_coarsest_that_divides_it():
    plan = ladder(("1d", "1h", "2s", "3s", "5m", "1m"))
    assert [interval.name for interval in plan.intervals] == ["2s", "3s", "1m", "5m", "1h", "1d"]
    assert plan.roots == (0, 1)
    assert plan.coarser == ((), (2,), (3, 5), (4,), (), ())
