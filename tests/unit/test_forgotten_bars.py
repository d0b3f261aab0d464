"""Bars that were published and have left the state: nothing changes them, whatever heals and
control records say."""

import logging
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.bar_log import DAY, HOUR, MINUTE, Run, T, bars_of, path  # noqa: F401
from unit.random_log import log_of
from unit.test_healing import heal

from processors.agents.bars.agent import Bars
from processors.agents.bars.forgotten import ForgottenBars
from processors.agents.bars.published import CHUNK, BarNumbers, Published
from processors.model.event_time import EventTime
from processors.model.records import Heal
from processors.model.trading_days import Session
from schemas.decimals import UNIT

EXAMPLES = int(os.environ.get("INFOWAY_EXAMPLES", "150"))
NAMES = ("1m", "5m", "15m", "1h", "1d")
OPEN = 570 * MINUTE
LIKE_ANY = ((5, 6, 4, 5), 50, 250)
TIME = EventTime(watermark_delay_ms=2_000, revision_horizon_ms=60_000)


def whole_day(names=NAMES, **more):
    """A day whose bars all were complete, closed and are forgotten: 13 trades of 50."""
    run = Run(names, **more)
    run.control("begin", OPEN - HOUR)
    for number in range(13):
        run.trade(OPEN + number * 30 * MINUTE, 10, 50, recv=T + OPEN + number * 30 * MINUTE)
    for hour in range(16, 18):
        run.mark(hour * HOUR)
    (day,) = bars_of(run.rows, "1d") or [None]
    assert day is None or (day["volume"], day["completeness"]) == (650 * UNIT, "complete")
    assert not run.kept()
    return run


@pytest.mark.parametrize("restarts", [False, True])
def test_a_wrong_gap_and_a_heal_leave_a_day_that_was_seen_whole_as_it_was(restarts, caplog):
    run = whole_day()
    if restarts:
        run.restart()
    assert run.control("gap", OPEN + HOUR, ts_from=OPEN + 20 * MINUTE) == []
    assert run.bars.forgotten.gaps == 6, (
        "1m, 5m and 15m of the trade at 10:00, two hours and the day"
    )
    assert heal(run, LIKE_ANY, OPEN + 30 * MINUTE) == []
    assert run.bars.forgotten.heals == 1
    (line, *_) = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert "A" in line and "stays as published" in line


def test_a_bar_that_never_was_is_healed_and_the_forgotten_ones_above_it_are_not_rebuilt():
    run = whole_day()
    run.control("gap", OPEN + HOUR, ts_from=OPEN + 20 * MINUTE)
    rows = bars_of(heal(run, LIKE_ANY, OPEN + 31 * MINUTE))
    assert [
        (row["interval"], row["provenance"], row["volume"], row["revision"]) for row in rows
    ] == [("1m", "klines", 50 * UNIT, 1)]
    assert run.bars.forgotten.heals == 4
    assert heal(run, LIKE_ANY, OPEN + 30 * MINUTE, "5m") == [], (
        "a kline of the coarse interval itself"
    )


def test_a_kline_for_a_forgotten_minute_does_not_reach_the_bars_that_are_still_there():
    run = Run(("1m", "15m"))
    run.control("begin", 0)
    run.trade(1_000, 10, 7)
    run.mark(13 * MINUTE)
    assert run.kept() == [(1, T)]
    run.control("gap", 30_000, ts_from=20_000)
    assert heal(run, LIKE_ANY, 0) == []
    # a minute that never was is added to the coarse bar, which is still there
    run.control("gap", 80_000, ts_from=70_000)
    assert heal(run, LIKE_ANY, 60_000)[0][1]["volume"] == 50 * UNIT
    (row,) = bars_of(run.mark(16 * MINUTE), "15m")
    assert (row["volume"], row["completeness"], row["provenance"]) == (57 * UNIT, "gap", "mixed")


@pytest.mark.parametrize("restarts", [False, True])
def test_a_bar_that_turns_out_to_be_complete_leaves_with_the_others_after_a_restart_or_not(
    restarts,
):
    run = Run(("1m",))
    run.control("begin", 0)
    run.control("end", 2_000)
    run.trade(61_000)
    run.mark(15 * MINUTE)
    (row,) = bars_of(run.control("begin", 3_000, connection="c2"))
    assert (row["ts_start"], row["completeness"]) == (T + MINUTE, "complete")
    if restarts:
        run.restart()
    run.mark(20 * MINUTE)
    assert run.control("gap", 62_000, ts_from=61_000) == []


class Market:
    """Sessions from each full hour on for 45 minutes."""

    def session_of(self, business, symbol, ts):
        number = ts // HOUR
        session = Session(number, number * HOUR, number * HOUR + 45 * MINUTE)
        return session if ts < session.end else None


def never_forgetting(agent):
    """Return a state that keeps every bar, and the set that names those which another would have
    forgotten."""
    state, forgotten = agent.load(0, {}), set()
    state.forget = lambda bar, until: forgotten.add(
        (bar.symbol, agent._general.names[bar.level], bar.start)
    )
    state.drop = lambda bar: forgotten.add((bar.symbol, agent._general.names[bar.level], bar.start))
    return state, forgotten


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.integers(0, 1 << 40),
    st.integers(2, 200),
    st.sampled_from((None, None, 10_000)),
    st.booleans(),
)
def test_revisions_are_those_of_an_agent_that_never_forgets_and_none_comes_for_a_forgotten_bar(
    seed, length, update_ms, restarts
):
    names = ("10s", "1m", "5m", "15m", "1h", "1d")
    agent, slow = Bars(names, Market(), TIME, update_ms), Bars(names, Market(), TIME, update_ms)
    state, entries = agent.load(0, {}), {}
    slow_state, forgotten = never_forgetting(slow)
    for record in log_of("bars", seed, length):
        rows = agent.apply(state, [record])
        expected = []
        if not (
            isinstance(record, Heal)
            and (record.symbol, record.interval, record.ts_start) in forgotten
        ):
            before = set(forgotten)
            for row in slow.apply(slow_state, [record]):
                topic, symbol, fields = row
                if not topic.startswith("infoway.bars.") or (symbol, *fields[1:3]) not in before:
                    expected.append(row)
        assert rows == expected
        if restarts:
            entries.update(agent.dirty(state))
            state = agent.load(
                0, {key: value for key, value in entries.items() if value is not None}
            )


def test_what_is_remembered_is_small_and_leaves_after_two_days():
    run = Run(("10s", "1m", "1d"))
    run.control("begin", 0)
    written = forgotten = most = 0
    for number in range(0, 3 * DAY, 10_000):
        run.trade(number, 10, 1, recv=T + number)
        if number % MINUTE == 0:
            changes = [(key, value) for key, value in run.write() if key.startswith(b"published:")]
            written += sum(len(key) + len(value or b"") for key, value in changes)
            forgotten += len(changes)
            most = max(most, len([key for key in run.entries if key.startswith(b"published:")]))
    assert most <= 2 * DAY / 10_000 / CHUNK + 2 * DAY / MINUTE / CHUNK + 4 + 6
    assert written / forgotten < 100
    run.mark(8 * DAY)
    run.mark(8 * DAY + HOUR)
    assert heal(run, LIKE_ANY, 0) == []


@given(st.sets(st.integers(-5, 3 * CHUNK)), st.integers(-5, 3 * CHUNK), st.integers(1, 600))
def test_the_bars_remembered_are_those_added(starts, begin, length):
    published = Published([BarNumbers(10, 10), BarNumbers(10, 30)])
    for start in starts:
        published.add(0, start * 10)
        published.add(1, start * 10)
    assert {start for start in range(-9, 4 * CHUNK) if published.has(0, start * 10)} == starts
    found = list(published.overlapping(begin * 10 + 3, begin * 10 + 3 + length))
    for level, longest in ((0, 10), (1, 30)):
        bounds = begin * 10 + 3 - longest, begin * 10 + 3 + length
        expected = [start * 10 for start in sorted(starts) if bounds[0] < start * 10 < bounds[1]]
        assert [start for at, start in found if at == level] == expected


def test_the_log_has_one_line_a_minute_and_the_count_has_all(caplog):
    now = [5.0]
    forgotten = ForgottenBars(lambda: now[0])
    for number in range(1_000):
        now[0] = 5.0 + number / 10
        forgotten.heal("A", "1m", T, number)
    assert forgotten.heals == 1_000
    texts = [record.getMessage() for record in caplog.records]
    assert [text[text.index("(") :] for text in texts] == [
        "(0 more since the last such line)",
        "(599 more since the last such line)",
    ]
