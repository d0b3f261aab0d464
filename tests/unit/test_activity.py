"""Activity bars: what completes one, what never revises it, when a date is over; any log against
the slow definition."""

from collections import defaultdict
from fractions import Fraction

import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.bar_log import DAY, HOUR, MINUTE, Market, Path, Run, T, path  # noqa: F401
from unit.encoded_rows import plain
from unit.test_vwap import trades_of

from processors.agents.activity.agent import ActivityBars
from processors.agents.activity.thresholds import ActivityBarsWrong, thresholds
from processors.agents.bars.state import BarSettingsChanged
from processors.model.event_time import EventTime, Feeds
from processors.model.observation import BEGINNING
from processors.model.records import ControlRecord, Trade, Unreadable
from processors.model.sessions import Calendars
from processors.model.trading_days import Session
from schemas.control import Control
from schemas.decimals import UNIT
from schemas.topics import load_schema

NAMES = [field["name"] for field in load_schema("activity_bar")["fields"]]
OPEN, CLOSE = 570 * MINUTE, 960 * MINUTE
"""The market's hours, from T on."""
OVER = CLOSE + 602_000
"""The event time at which no trade of T's date is accepted any more."""


def start(*names, **settings):
    """Return a log of a symbol that was observed from the opening on."""
    run = Run(names, computation=ActivityBars, schema="activity_bar", **settings)
    run.control("begin", OPEN)
    return run


def of(rows):
    """Return the records of rows."""
    return [row for _, row in rows]


def trades(run, *prices_and_volumes, ts=OPEN):
    """Add trades a second apart; return their rows."""
    return [
        row
        for place, values in enumerate(prices_and_volumes)
        for row in of(run.trade(ts + place * 1_000, *values))
    ]


def shown(rows):
    """Return (place, revision, cause, trades) of each bar."""
    return [(row["bar_index"], row["revision"], row["cause"], row["trade_count"]) for row in rows]


def test_every_field_of_a_bar():
    run = start("volume-7")
    for ts, price, volume, direction in ((2_000, 10, 2, 1), (1_000, 13, 1, 2), (3_000, 8, 3, 1)):
        assert run.trade(OPEN + ts, price, volume, direction, recv=T + DAY - ts) == []
    ((topic, row),) = run.trade(OPEN + 2_500, 9, 1, 0)
    assert topic == "bars.volume-7"
    units = {
        name: row.pop(name) // UNIT
        for name in ("threshold", "open", "high", "low", "close", "volume", "turnover")
    }
    assert units == {
        "threshold": 7,
        "open": 10,
        "high": 13,
        "low": 8,
        "close": 9,
        "volume": 7,
        "turnover": 66,
    }
    assert row == {
        "symbol": "A",
        "kind": "volume",
        "trade_date": T // DAY,
        "bar_index": 0,
        "vwap": round(Fraction(66, 7) * UNIT),
        "buy_volume": 5 * UNIT,
        "sell_volume": UNIT,
        "trade_count": 4,
        "ts_first": T + OPEN + 1_000,
        "ts_last": T + OPEN + 3_000,
        "revision": 1,
        "is_closed": True,
        "cause": "close",
        "completeness": "complete",
        "source": "live",
        "ts_recv": (T + DAY - 1_000) * 1000,
        "source_partition": 3,
        "source_offset": 4,
    }


def test_a_tick_bar_is_complete_with_so_many_trades_whatever_their_volume():
    rows = trades(start("tick-3"), (10, 0), (11, 0), (12, 5), (13, 1), (14, 1), (15, 1), (16, 1))
    assert shown(rows) == [(0, 1, "close", 3), (1, 1, "close", 3)]
    assert [row["open"] // UNIT for row in rows] == [10, 13]


def test_a_turnover_bar_is_complete_at_exactly_its_turnover_and_not_a_unit_before():
    run = start("turnover-1")
    for volume in (10**17, UNIT // 2 - 10**17):
        half = Trade(
            run.offset,
            "A",
            T + OPEN,
            2 * UNIT - 1,
            volume,
            0,
            None,
            False,
            "stock",
            "f",
            "c1",
            T * 1000,
            "live",
        )
        assert run.feed(half) == [], (
            "5 x 10^17 units of 10^-36 are lacking: too few to be seen at 18 digits"
        )
    assert shown(trades(run, (1, 0))) == []
    ((_, row),) = run.trade(OPEN, 1)
    assert (row["turnover"], row["trade_count"]) == (2 * UNIT, 4)
    run = start("turnover-6")
    assert shown(trades(run, (3, 1), (3, 1))) == [(0, 1, "close", 2)]


def test_the_trade_that_overshoots_belongs_wholly_to_the_bar_and_the_next_one_starts_empty():
    rows = trades(start("volume-10"), (10, 9), (11, 95), (12, 10), (13, 3))
    assert [(row["volume"] // UNIT, row["close"] // UNIT) for row in rows] == [(104, 11), (10, 12)]
    assert shown(rows) == [(0, 1, "close", 2), (1, 1, "close", 1)]


def test_bars_without_volume_have_no_vwap():
    (row,) = trades(start("tick-2"), (10, 0), (11, 0))
    assert (row["vwap"], row["volume"], row["turnover"]) == (None, 0, 0)


def test_prices_below_zero_have_a_high_and_a_low():
    (row,) = trades(start("tick-3"), (-3, 1), (-5, 1), (-4, 1))
    assert [row[name] // UNIT for name in ("open", "high", "low", "close")] == [-3, -3, -5, -4]


def test_open_and_close_go_by_the_log_and_times_by_the_events():
    run = start("tick-3")
    for ts, price in ((5_000, 1), (9_000, 2), (4_000, 3)):
        rows = of(run.trade(OPEN + ts, price))
    assert [
        (row["open"] // UNIT, row["close"] // UNIT, row["ts_first"] - T, row["ts_last"] - T)
        for row in rows
    ] == [(1, 3, OPEN + 4_000, OPEN + 9_000)]


def test_each_name_counts_for_itself():
    run = start("volume-4", "tick-2", "tick-3")
    trades(run, *[(10, 1)] * 4)
    found = [(topic.removeprefix("bars."), row["source_offset"]) for topic, row in run.rows]
    assert found == [("tick-2", 2), ("tick-3", 3), ("tick-2", 4), ("volume-4", 4)]


def test_symbols_have_bars_of_their_own():
    run = start("tick-2")
    run.trade(OPEN)
    run.trade(OPEN, symbol="B")
    assert [row["symbol"] for row in of(run.trade(OPEN, symbol="B"))] == ["B"]


def test_a_late_trade_goes_into_the_open_bar_and_revises_no_closed_one():
    run = start("tick-2")
    trades(run, (10,), (11,), ts=OPEN)
    run.mark(OPEN + 500_000)
    assert run.trade(OPEN + 1, 99) == []
    ((_, row),) = run.trade(OPEN + 500_000, 12)
    assert shown([row]) == [(1, 1, "close", 2)]
    assert (row["high"], row["ts_first"]) == (99 * UNIT, T + OPEN + 1)


def test_repeats_and_too_late_trades_count_nowhere_and_are_written_nowhere():
    run = start("tick-2")
    run.trade(OPEN + HOUR)
    assert run.trade(OPEN + HOUR, repeat=True) == []
    assert run.trade(OPEN + HOUR - 602_001) == []
    assert shown(of(run.trade(OPEN + HOUR - 602_000))) == [(0, 1, "close", 2)]


def test_a_trade_outside_of_any_session_belongs_to_no_bar():
    run = start("tick-1")
    found = [
        [row["bar_index"] for row in of(run.trade(ts))] for ts in (OPEN - 1, OPEN, CLOSE - 1, CLOSE)
    ]
    assert found == [[], [0], [1], []]


def test_two_trade_dates_are_open_at_once_and_a_late_trade_finds_its_own():
    run = start("tick-3", revision_horizon_ms=DAY)
    run.trade(CLOSE - 1, 1)
    run.trade(CLOSE - 1, 2)
    run.trade(DAY + OPEN, 3)
    run.restart()
    run.trade(DAY + OPEN, 4)
    (late,) = of(run.trade(CLOSE - 2, 5))
    (next_day,) = of(run.trade(DAY + OPEN, 6))
    assert [
        (row["trade_date"], row["bar_index"], row["open"] // UNIT, row["close"] // UNIT)
        for row in (late, next_day)
    ] == [
        (T // DAY, 0, 1, 5),
        (T // DAY + 1, 0, 3, 6),
    ]
    run.trade(CLOSE - 3, 7)
    rows = of(run.mark(CLOSE + DAY + 2_000))
    assert [(row["trade_date"], *shown([row])[0]) for row in rows] == [
        (T // DAY, 1, 1, "session_end", 1)
    ]


@pytest.mark.parametrize("by", ["mark", "trade of the symbol", "trade of another"])
def test_an_unfilled_bar_is_closed_when_no_trade_of_its_date_can_come_and_not_before(by):
    def move(ts):
        return (
            run.mark(ts)
            if by == "mark"
            else run.trade(ts, symbol="A" if by == "trade of the symbol" else "B")
        )

    run = start("tick-2", "volume-10")
    trades(run, (10,), (11,), (12,))
    assert move(OVER - 1) == []
    assert shown(of(run.restart().trade(CLOSE - 1))) == [(1, 1, "close", 2)], (
        "the last millisecond's trade is still accepted"
    )
    run.trade(CLOSE - 1)
    rows = of(move(OVER))
    assert [(row["kind"], *shown([row])[0], row["is_closed"]) for row in rows] == [
        ("tick", 2, 1, "session_end", 1, True),
        ("volume", 0, 1, "session_end", 5, True),
    ]
    assert run.trade(CLOSE - 1) == move(OVER + DAY) == []


def test_an_update_just_before_the_date_is_over_closes_nothing():
    run = start("tick-9", update_ms=1)
    run.trade(CLOSE - 1)
    assert run.mark(OVER - 1) == []
    assert shown(of(run.trade(CLOSE - 1)) + of(run.mark(OVER))) == [(0, 2, "session_end", 2)]


def test_a_date_whose_last_bar_is_full_ends_without_a_record():
    run = start("tick-2")
    assert len(trades(run, (10,), (11,))) == 1
    assert run.mark(OVER) == []


def test_the_state_is_small_and_leaves_with_the_date():
    run = start("tick-2", "volume-10")
    trades(run, (10,), (11,), (12,))
    assert sorted(key for key, _ in run.write()) == [
        b"\0activity",
        b"\0feeds",
        b"\0symbol:A",
        b"bar:tick-2:%d:A" % (T // DAY),
        b"bar:volume-10:%d:A" % (T // DAY),
    ]
    assert run.write() == []
    trades(run, *[(10,)] * 500)
    assert {key[:5]: len(value) < 300 for key, value in run.write()} == {
        b"\0feed": True,
        b"bar:t": True,
        b"bar:v": True,
    }
    run.mark(OVER)
    assert {key for key, value in run.write() if value is None} == {
        b"bar:tick-2:%d:A" % (T // DAY),
        b"bar:volume-10:%d:A" % (T // DAY),
    }
    assert set(run.entries) == {b"\0activity", b"\0feeds", b"\0symbol:A"}
    assert run.state.symbols == {}


def test_an_end_shows_the_open_bars_that_changed_and_later_trades_go_on_in_them():
    run = start("tick-2", "tick-4")
    trades(run, (10,), (11,), (12,))
    rows = of(run.control("end", OPEN + 5_000))
    assert [(row["threshold"] // UNIT, *shown([row])[0], row["is_closed"]) for row in rows] == [
        (2, 1, 1, "update", 1, False),
        (4, 0, 1, "update", 3, False),
    ]
    run.restart()
    assert (
        run.control("end", OPEN + 6_000)
        == run.control("begin", OPEN + 9_000, connection="c2")
        == []
    )
    assert run.control("end", OPEN + 9_500, connection="c2") == [], "nothing changed since"
    run.control("begin", OPEN + 9_900, connection="c2")
    rows = of(run.trade(OPEN + 10_000, connection="c2"))
    assert [(*shown([row])[0], row["is_closed"]) for row in rows] == [
        (1, 2, "close", 2, True),
        (0, 2, "close", 4, True),
    ]
    assert [row["completeness"] for row in rows] == ["partial", "partial"]


def test_an_end_of_one_symbol_shows_nothing_of_another():
    run = start("tick-2")
    run.trade(OPEN, symbol="A")
    run.trade(OPEN, symbol="B")
    assert [row["symbol"] for row in of(run.control("end", OPEN + 5_000))] == ["A"]
    run.control("begin", OPEN + 6_000)
    assert [row["symbol"] for row in of(run.control("end", OPEN + 7_000, symbol=None))] == ["B"]


def test_an_end_shows_the_dates_in_order():
    run = start("tick-9", revision_horizon_ms=DAY)
    run.trade(DAY + OPEN)
    run.trade(CLOSE - 1)
    assert [row["trade_date"] - T // DAY for row in of(run.control("end", DAY + OPEN + 1))] == [
        0,
        1,
    ]


def test_a_date_that_was_shown_at_the_end_is_still_closed():
    run = start("tick-2")
    run.trade(OPEN)
    run.control("end", CLOSE)
    assert shown(of(run.mark(OVER))) == [(0, 2, "session_end", 1)]


def test_updates_come_on_the_grid_of_event_time_where_bars_changed():
    run = start("tick-3", update_ms=1_000)
    assert shown(of(run.trade(OPEN + 100))) == [(0, 1, "update", 1)], "the feed's first event time"
    assert run.trade(OPEN + 900) == []
    assert shown(of(run.mark(OPEN + 1_000))) == [(0, 2, "update", 2)]
    assert run.mark(OPEN + 2_000) == []
    run.restart()
    assert shown(of(run.trade(OPEN + 3_500))) == [(0, 3, "close", 3)]
    assert run.trade(OPEN + 3_600) == []
    assert shown(of(run.trade(OPEN + 4_100))) == [(1, 1, "update", 2)]


def test_a_gap_changes_nothing_by_itself_and_shows_in_the_bars_that_span_it():
    run = start("tick-2")
    for second in (1, 2, 10, 20, 30):
        run.trade(OPEN + second * 1_000)
    assert run.control("gap", OPEN + 25_000, ts_from=OPEN + 20_001) == []
    for second in (31, 32, 33):
        run.trade(OPEN + second * 1_000)
    assert [row["completeness"] for row in of(run.rows)] == ["complete"] * 4
    run.trade(OPEN + 20_001)
    run.trade(OPEN + 20_001)
    run.trade(OPEN + 24_999)
    run.trade(OPEN + 40_000)
    run.trade(OPEN + 25_000)
    run.trade(OPEN + 26_000)
    assert [row["completeness"] for row in of(run.rows)[4:]] == ["gap", "gap", "complete"]


def test_a_bar_that_spans_an_outage_is_a_gap():
    run = start("tick-2")
    run.trade(OPEN + 1_000, recv=T + OPEN + 1_000)
    run.control("begin", OPEN + 60_000, connection="c2")
    (row,) = of(run.trade(OPEN + 61_000, connection="c2"))
    assert row["completeness"] == "gap"


def test_an_outage_early_in_the_session_is_not_forgotten_by_its_end():
    run = start("tick-1000")
    run.trade(OPEN)
    run.control("gap", OPEN + 2_000, ts_from=OPEN + 1_000)
    run.trade(CLOSE - 1)
    run.control("gap", CLOSE + 500_000, ts_from=CLOSE + 400_000)
    assert [row["completeness"] for row in of(run.mark(OVER))] == ["gap"]


def test_bars_follow_their_symbol_to_another_feed():
    run = start("tick-2")
    run.trade(OPEN)
    run.control("begin", OPEN, symbol="B", feed="g", connection="d")
    assert run.control("begin", OPEN + 1, feed="g", connection="d") == []
    assert run.mark(OVER) == [], "the feed before is no measure any more"
    run.restart()
    assert run.mark(OVER - 1, feed="g") == []
    assert shown(of(run.trade(CLOSE - 1, feed="g", connection="d"))) == [(0, 1, "close", 2)]
    run.trade(CLOSE - 1, feed="g", connection="d")
    assert shown(of(run.mark(OVER, feed="g"))) == [(1, 1, "session_end", 1)]


def test_moving_to_a_feed_that_is_further_on_closes_what_is_over_there():
    run = start("tick-2")
    run.trade(OPEN)
    run.mark(OVER, feed="g")
    assert shown(of(run.control("begin", OPEN + 1, feed="g"))) == [(0, 1, "session_end", 1)]


def test_a_feed_without_a_time_of_its_own_moves_nothing():
    run = start("tick-2", update_ms=1_000)
    run.mark(OPEN)
    run.trade(OPEN)
    assert run.control("begin", OPEN + 1, feed="g") == []
    run.restart()
    assert run.control("begin", OPEN + 1, feed="g", symbol="B") == []


def test_a_date_lives_until_its_corrected_session_is_over():
    run = start("tick-2")
    run.trade(OPEN)

    class Longer:
        def session_of(self, business, symbol, ts):
            return Session(T // DAY, T + OPEN, T + CLOSE + HOUR)

    run.bars._general._calendars = Longer()
    run.restart()
    run.trade(CLOSE + 1)
    run.trade(CLOSE + 1)
    assert run.mark(OVER) == []
    assert shown(of(run.mark(OVER + HOUR))) == [(1, 1, "session_end", 1)]


def test_sessions_are_asked_for_only_outside_of_the_one_at_hand():
    class Counting(Market):
        asked = 0

        def session_of(self, *asked):
            self.asked += 1
            return super().session_of(*asked)

    calendars = Counting()
    run = start("tick-2")
    run.bars._general._calendars = calendars
    run.restart()
    trades(run, *[(10,)] * 50)
    assert calendars.asked == 1
    run.trade(DAY + OPEN)
    run.trade(DAY + OPEN)
    assert calendars.asked == 2


@pytest.mark.parametrize("restarts", [False, True])
def test_a_symbol_that_comes_by_another_business_has_its_sessions(restarts):
    class ByBusiness(Market):
        def session_of(self, business, symbol, ts):
            return (
                super().session_of(business, symbol, ts)
                if business == "stock"
                else Session(T // DAY + 1, T, T + DAY)
            )

    agent = ActivityBars(["tick-1"], ByBusiness(), EventTime(), native=Path.native)
    log = [
        Trade(
            offset,
            "A",
            T + OPEN,
            UNIT,
            UNIT,
            0,
            None,
            False,
            business,
            business,
            "c1",
            T * 1000,
            "live",
        )
        for offset, business in enumerate(("stock", "common", "stock"))
    ]
    found = [
        (row["trade_date"] - T // DAY, row["bar_index"])
        for _, row in by_name(rows_of(agent, log, 1, restarts))
    ]
    assert found == [(0, 0), (1, 0), (0, 1)]


def test_an_unreadable_record_is_passed_over():
    assert start("tick-1").feed(Unreadable(0, None, b"", "E", "")) == []


def test_names_are_checked_and_every_mistake_is_told():
    wrong = [
        "tick-0",
        "tick-1.5",
        "volume-1e3",
        "volume--1",
        "volume-.5",
        "turnover-0." + "0" * 18 + "1",
        "range-5",
        "tick-",
        "volume-0.0",
    ]
    wrong += ["turnover-1" + "0" * 20, "tick-٣", "tick-1\n", "1m"]
    with pytest.raises(ActivityBarsWrong, match=r"allowed, each once: tick-<trades>") as caught:
        ActivityBars(["tick-1000", *wrong, "volume-0.5", "volume-0.50"], Market(), EventTime())
    assert all(repr(name) in str(caught.value) for name in wrong)
    assert "'volume-0.50' (the same as 'volume-0.5')" in str(caught.value)
    assert "'tick-1000'" not in str(caught.value)
    with pytest.raises(ActivityBarsWrong, match="none given"):
        ActivityBars([], Market(), EventTime())
    with pytest.raises(ValueError, match="update_ms=0"):
        ActivityBars(["tick-1"], Market(), EventTime(), 0)
    assert isinstance(caught.value, ValueError)
    assert [found.value for found in thresholds(["volume-0." + "0" * 17 + "1", "tick-7"])] == [
        7 * UNIT,
        1,
    ]


def test_state_built_with_other_names_is_refused_and_their_order_is_nothing():
    run = start("tick-2", "volume-3")
    run.trade(OPEN)
    run.write()
    for names in (("tick-2",), ("tick-2", "volume-3", "volume-4"), ("tick-2", "volume-3.0")):
        with pytest.raises(BarSettingsChanged, match="fresh prefix"):
            ActivityBars(names, Market(), EventTime()).load(3, run.entries)
    run.bars = ActivityBars(("volume-3", "tick-2"), Market(), EventTime(), native=Path.native)
    assert [topic for topic, _ in run.restart().trade(OPEN, 10, 2)] == [
        "bars.tick-2",
        "bars.volume-3",
    ]


class Shifts:
    """A market of short sessions: from each multiple of 20 minutes on for 15; trade dates are their
    numbers."""

    def session_of(self, business, symbol, ts):
        number = ts // (20 * MINUTE)
        session = Session(number, number * 20 * MINUTE, number * 20 * MINUTE + 15 * MINUTE)
        return session if ts < session.end else None


RULES = {
    "tick-2": ("tick", 2),
    "tick-3": ("tick", 3),
    "volume-2.5": ("volume", Fraction("2.5")),
    "turnover-20": ("turnover", 20),
}
TIME = EventTime()
volumes = st.one_of(
    st.integers(0, 6).map(lambda halves: halves * UNIT // 2), st.integers(0, 3 * UNIT)
)
prices = st.one_of(
    st.integers(1, 12).map(lambda whole: whole * UNIT), st.integers(-UNIT, 10 * UNIT)
)


@st.composite
def logs(draw):
    """Trades in disorder, repeats, marks and controls of three symbols on two feeds with
    reconnects, in log order."""
    log, now = [], T
    for offset in range(draw(st.integers(1, 40))):
        now += draw(st.sampled_from((0, 7, 7, 7, 900, 60_000, 60_000, 300_000, 1_500_000)))
        symbol, feed = draw(st.sampled_from(("Af", "Bf", "Cg", "Cf")))
        connection = draw(st.sampled_from(("c1", "c1", "c1", "c2")))
        kind = draw(
            st.sampled_from(
                ("trade",) * 14
                + ("mark", "mark", "begin", "end", "gap", "gap of all", "end of all", "repeat")
            )
        )
        if kind in ("trade", "repeat"):
            ts = now - draw(st.sampled_from((0, 0, 0, 5_000, 100_000, 590_000, 602_000, 1_300_000)))
            values = (draw(prices), draw(volumes), draw(st.integers(0, 2)))
            log.append(
                Trade(
                    offset,
                    symbol,
                    ts,
                    *values,
                    None,
                    kind == "repeat",
                    "stock",
                    feed,
                    connection,
                    now * 1000 + draw(st.integers(-9, 9)),
                    "live",
                )
            )
        else:
            since = None if kind == "mark" else now - draw(st.sampled_from((10, 100_000)))
            control = Control(
                kind.split()[0], feed, "stock", connection, "live", now, now * 1000, since
            )
            log.append(
                ControlRecord(
                    offset,
                    None if kind in ("mark", "gap of all", "end of all") else symbol,
                    control,
                )
            )
    return log


def rows_of(agent, log, size, restarts):
    """Return the rows of a log in batches of a size, the state restored from its topic before each
    of them or carried on."""
    entries, rows, state = {}, [], None
    for begin in range(0, len(log), size):
        if restarts or state is None:
            state = agent.load(0, entries)
        rows += plain(agent.apply(state, log[begin : begin + size]))
        for key, value in agent.dirty(state):
            entries.pop(key, None)
            if value is not None:
                entries[key] = value
    return rows


def by_name(rows):
    return [
        (topic.removeprefix("infoway.bars."), dict(zip(NAMES, fields, strict=True)))
        for topic, _, fields in rows
    ]


def slow_rows(log, update_ms):
    """Return the rows by their definition: after each record all dates are formed anew from their
    trades, and compared with before."""
    feeds, taken, over, written, rows = Feeds(TIME, 0, DAY, {}), defaultdict(list), set(), {}, []

    def write(place, figures, cause, record, received):
        symbol, date, name = place
        key = (*place, figures["bar_index"])
        revision, count, closed = written.get(key, (0, 0, False))
        if closed or (cause == "update" and count == figures["trade_count"]):
            return
        written[key] = revision + 1, figures["trade_count"], cause != "update"
        row = {field: figures[field] for field in figures if field != "is_full"} | {
            "symbol": symbol,
            "kind": RULES[name][0],
            "threshold": RULES[name][1] * UNIT,
            "trade_date": date,
            "revision": revision + 1,
            "is_closed": cause != "update",
            "cause": cause,
            "completeness": feeds.completeness(symbol, figures["ts_first"], figures["ts_last"] + 1),
            "source": "live",
            "ts_recv": max(received, figures["ts_recv"]),
            "source_partition": 0,
            "source_offset": record.offset,
        }
        rows.append((name, row))

    for record in log:
        events = {name: feeds.feed(name).latest_event_ms for name in feeds.names()}
        ended = ()
        if isinstance(record, Trade):
            received = record.ts_recv
            session = Shifts().session_of("", "", record.ts_event)
            if feeds.accept(record) and session is not None:
                taken[record.symbol, session.trade_date].append(record)
        else:
            received = record.control.ts_recv
            changed = feeds.control(record)
            ended = changed if record.control.kind == "end" else ()
        formed = {
            (symbol, date, name): reference.activity_bars(members, *rule)
            for (symbol, date), members in taken.items()
            if (symbol, date) not in over
            for name, rule in RULES.items()
        }
        for place, bars in formed.items():
            for figures in bars:
                if figures["is_full"]:
                    write(place, figures, "close", record, received)
        for place, bars in formed.items():
            symbol, date, _ = place
            if symbol in ended:
                write(place, bars[-1], "update", record, received)
            if feeds.watermark_of(symbol) >= (date * 20 + 15) * MINUTE + TIME.revision_horizon_ms:
                over.add((symbol, date))
                if not bars[-1]["is_full"]:
                    write(place, bars[-1], "session_end", record, received)
            feed = feeds.feed_of(symbol)
            before = events.get(feed.name, BEGINNING)
            if (
                update_ms
                and feed.latest_event_ms != before
                and feed.latest_event_ms // update_ms > before // update_ms
            ):
                write(place, bars[-1], "update", record, received)
    return rows


def in_order(rows):
    return sorted(
        rows,
        key=lambda row: (
            row[1]["source_offset"],
            row[0],
            row[1]["symbol"],
            row[1]["trade_date"],
            row[1]["revision"],
        ),
    )


@settings(max_examples=120, deadline=None)
@given(logs(), st.sampled_from((None, None, 60_000)))
def test_any_log_gives_the_rows_of_the_slow_definition(log, update_ms):
    rows = by_name(
        rows_of(
            ActivityBars(list(RULES), Shifts(), TIME, update_ms, Path.native), log, len(log), False
        )
    )
    assert in_order(rows) == in_order(slow_rows(log, update_ms))


@settings(max_examples=60, deadline=None)
@given(logs(), st.sampled_from((None, 60_000)))
def test_batches_of_any_size_and_restarts_between_them_change_no_row(log, update_ms):
    agent = ActivityBars(list(RULES), Shifts(), TIME, update_ms, Path.native)
    whole = rows_of(agent, log, len(log), False)
    for size in (1, 3, 7):
        assert rows_of(agent, log, size, False) == whole
        assert rows_of(agent, log, size, True) == whole


@settings(max_examples=60, deadline=None)
@given(logs())
def test_bars_hold_each_accepted_trade_of_a_session_once_and_are_as_long_as_they_must_be(log):
    far = T + 1_000 * DAY
    log += [
        ControlRecord(
            len(log) + place, None, Control("mark", feed, "stock", "c1", "live", far, far * 1000)
        )
        for place, feed in enumerate("fg")
    ]
    rows = by_name(
        rows_of(ActivityBars(list(RULES), Shifts(), TIME, native=Path.native), log, len(log), False)
    )
    feeds, accepted = Feeds(TIME, 0, DAY, {}), defaultdict(list)
    for record in log:
        if isinstance(record, ControlRecord):
            feeds.control(record)
        elif feeds.accept(record) and (session := Shifts().session_of("", "", record.ts_event)):
            accepted[record.symbol, session.trade_date].append(record)
    closed = defaultdict(list)
    for name, row in rows:
        if row["is_closed"]:
            closed[name, row["symbol"], row["trade_date"]].append(row)
    assert set(closed) == {(name, *place) for name in RULES for place in accepted}
    for (name, *place), bars in closed.items():
        kind, threshold = RULES[name]
        members = accepted[tuple(place)]
        assert [bar["bar_index"] for bar in bars] == list(range(len(bars)))
        assert sum(bar["volume"] for bar in bars) == sum(trade.volume for trade in members)
        assert sum(bar["trade_count"] for bar in bars) == len(members)
        for bar in bars:
            own, members = members[: bar["trade_count"]], members[bar["trade_count"] :]
            sizes = [
                {
                    "tick": Fraction(1),
                    "volume": Fraction(trade.volume, UNIT),
                    "turnover": Fraction(trade.price * trade.volume, UNIT**2),
                }[kind]
                for trade in own
            ]
            assert sum(sizes[:-1]) < threshold
            assert (bar["cause"] == "close") == (sum(sizes) >= threshold)
            assert (bar["open"], bar["close"]) == (own[0].price, own[-1].price)
            assert bar["low"] <= bar["open"] <= bar["high"]


@pytest.mark.parametrize(
    ("recording", "business", "rules"),
    [
        (
            "sh600519_20230201_fullday",
            "stock",
            {"tick-1000": 1000, "volume-50000": 50_000, "turnover-100000000": 10**8},
        ),
        (
            "binance_btcusdt_perp_20240808",
            "crypto",
            {"tick-1000": 1000, "volume-25.5": Fraction("25.5"), "turnover-1000000": 10**6},
        ),
    ],
)
def test_recordings_give_the_bars_of_the_reference(recordings, recording, business, rules):
    log = list(trades_of(recordings / f"{recording}.jsonl.gz", business))
    last = log[-1]
    later = last.ts_event + 2 * DAY
    mark = ControlRecord(
        len(log), None, Control("mark", "f", business, "c", "replay", later, later * 1000)
    )
    rows = by_name(
        rows_of(
            ActivityBars(list(rules), Calendars(), EventTime(), native=Path.native),
            [*log, mark],
            997,
            True,
        )
    )
    for name, threshold in rules.items():
        expected = reference.activity_bars(log, name.partition("-")[0], Fraction(threshold))
        found = [row for topic, row in rows if topic == name]
        assert len(expected) > 3
        assert [row["is_closed"] for row in found] == [True] * len(found)
        assert [row["cause"] for row in found] == [
            "close" if bar.pop("is_full") else "session_end" for bar in expected
        ]
        assert [row["ts_recv"] for row in found[:-1]] == [bar.pop("ts_recv") for bar in expected][
            :-1
        ]
        assert [{field: row[field] for field in expected[0]} for row in found] == expected
        assert sum(row["volume"] for row in found) == sum(trade.volume for trade in log)
