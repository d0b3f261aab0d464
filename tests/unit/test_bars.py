"""Bars: which bar a trade belongs to, when a bar closes, what is written of it."""

import pytest
from unit.bar_log import DAY, HOUR, MINUTE, Market, Run, T, bars_of, path, shown  # noqa: F401

from processors.agents.bars.agent import Bars
from processors.agents.bars.state import BarSettingsChanged
from processors.model.event_time import EventTime
from processors.model.records import ControlRecord, Trade
from processors.model.sessions import Calendars
from schemas.control import Control
from schemas.decimals import UNIT


def test_a_bar_has_open_high_low_close_and_the_sums_of_its_trades():
    run = Run()
    run.control("begin", 0)
    for ts, price, volume, direction in (
        (100, 10, 2, 1),
        (200, 13, 1, 2),
        (300, 8, 4, 1),
        (400, 9, 1, 0),
    ):
        run.trade(ts, price, volume, direction)
    (row,) = bars_of(run.mark(62_000))
    assert (row["ts_start"], row["ts_end"], row["trade_date"]) == (T, T + MINUTE, None)
    assert [row[name] // UNIT for name in ("open", "high", "low", "close")] == [10, 13, 8, 9]
    assert [row[name] // UNIT for name in ("volume", "turnover", "buy_volume", "sell_volume")] == [
        8,
        74,
        6,
        1,
    ]
    assert row["vwap"] == 74 * UNIT // 8
    assert (row["trade_count"], row["ts_first"], row["ts_last"]) == (4, T + 100, T + 400)
    assert (row["is_closed"], row["provenance"], row["completeness"], row["source"]) == (
        True,
        "trades",
        "complete",
        "live",
    )


def test_the_origin_names_the_record_that_caused_it_and_the_greatest_receive_time():
    run = Run()
    run.trade(100, recv=T + 99_000)
    (row,) = bars_of(run.mark(62_000))
    assert (row["source_partition"], row["source_offset"], row["ts_recv"]) == (
        3,
        1,
        (T + 99_000) * 1000,
    )
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
        run.feed(
            Trade(
                offset,
                "A",
                T + offset,
                UNIT // 2 + 1,
                1,
                0,
                None,
                False,
                "stock",
                "f",
                "c1",
                T * 1000,
                "live",
            )
        )
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
    assert (row["open"], row["close"], row["high"], row["low"]) == (
        1 * UNIT,
        5 * UNIT,
        9 * UNIT,
        1 * UNIT,
    )
    assert (row["trade_count"], row["ts_first"], row["ts_last"]) == (5, T + 1_000, T + 299_000)


def test_the_day_is_the_markets_session_and_takes_nothing_from_outside():
    run = Run(("1m", "1h", "1d"))
    run.control("begin", 0)
    opening = 570 * MINUTE
    for ts, price in (
        (opening - 1, 1),
        (opening, 2),
        (opening + HOUR, 3),
        (960 * MINUTE - 1, 4),
        (960 * MINUTE, 5),
    ):
        run.trade(ts, price)
    assert bars_of(run.rows, "1d") == []
    (row,) = bars_of(run.mark(960 * MINUTE + 2_000), "1d")
    assert (row["trade_date"], row["ts_start"], row["ts_end"]) == (
        T // DAY,
        T + opening,
        T + 960 * MINUTE,
    )
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
    run = Run(("1m", "5m"), native=False, revision_horizon_ms=60_000)
    for minute in range(30):
        run.trade(minute * MINUTE)
    changes = run.write()
    assert not any(
        key.startswith(b"bar:1m:%d:" % T) and value is not None for key, value in changes
    )
    assert sum(key.startswith(b"bar:1m") for key in run.entries) <= 4
    run.mark(40 * MINUTE)
    assert {value for key, value in run.write() if key.startswith(b"bar:1m")} == {None}
    assert not any(key.startswith(b"bar:") for key in run.entries)


def test_only_what_changed_is_written():
    run = Run(("1m", "5m"), native=False)
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


class Watched(dict):
    passes = 0

    def values(self):
        self.passes += 1
        return super().values()


def test_a_reconnect_looks_once_at_its_symbols_bars_and_a_begin_behind_an_end_opens_them_again():
    agent = Bars(("1m",), Calendars(), EventTime())
    state = agent.load(0, {})
    start = 1_752_796_800_000

    def control(offset, kind, ts, connection):
        made = Control(kind, "crypto-1", "crypto", connection, "live", ts, ts * 1000)
        agent.apply(state, [ControlRecord(offset, "BTCUSDT", made)])

    control(0, "begin", start, "c1")
    bought = (
        10 * UNIT,
        UNIT,
        1,
        None,
        False,
        "crypto",
        "crypto-1",
        "c1",
        (start + 5_000) * 1000,
        "live",
    )
    agent.apply(state, [Trade(1, "BTCUSDT", start + 5_000, *bought)])
    symbol_bars = state.symbols["BTCUSDT"]
    symbol_bars.bars = watched = Watched(symbol_bars.bars)
    control(2, "begin", start + 9_000, "c2")
    assert watched.passes == 1
    control(3, "end", start + 10_000, "c2")
    (bar,) = dict.values(watched)
    assert bar.closed
    control(4, "begin", start + 11_000, "c3")
    assert not bar.closed
