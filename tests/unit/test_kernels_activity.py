"""The kernel of activity bars against the general path: on any log the same rows byte for byte and
the same state, however the log is cut, and from one path's state to the other's."""

import os
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.encoded_rows import bodies
from unit.random_log import DAY, HOUR, MINUTE, SECOND, T, log_of
from unit.runs import runs_of
from unit.test_native_bars import mean, written
from unit.test_restarts import TIME, Market
from unit.test_vwap import trades_of

from processors.agents.activity import native
from processors.agents.activity.agent import ActivityBars
from processors.agents.activity.exchange import bar_of, fits, record_of, records_of
from processors.agents.activity.state import ActivityBar
from processors.agents.activity.thresholds import thresholds
from processors.kernels.activity import arrays, figures
from processors.kernels.columns import EncodedRows, Tables
from processors.kernels.compiled import AVAILABLE, kernel
from processors.model.event_time import EventTime
from processors.model.records import ControlRecord, Trade
from processors.model.sessions import Calendars
from schemas.control import Control
from schemas.decimals import LIMIT, UNIT

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="numba has no wheel here")

PLAIN_PYTHON = os.environ.get("NUMBA_DISABLE_JIT") == "1"
EXAMPLES = 3 if PLAIN_PYTHON else 60
CALENDARS = Calendars()
SMALL = ("tick-1", "tick-2", "tick-7", "volume-5.5", "volume-6", "turnover-20", "turnover-60")
ANY_SIZE = (
    "tick-3", "tick-99999999999999999999", "volume-0.000000000000000001", "volume-1000",
    "volume-99999999999999999999", "turnover-0.5", "turnover-1000000000",
    "turnover-99999999999999999999",
)  # fmt: skip
KINDS = {
    "short sessions": (SMALL, Market(), None),
    "one threshold": (("tick-3",), Market(), None),
    "exchanges' hours": (SMALL, CALENDARS, None),
    "updates": (("tick-3", "volume-20", "turnover-500"), Market(), 10_000),
    "seldom full": (("tick-1000", "volume-500", "turnover-100000"), CALENDARS, None),
    "of any size": (ANY_SIZE, Market(), None),
    "of any size with updates": (ANY_SIZE, CALENDARS, 30_000),
}


def pair(names, calendars=CALENDARS, event_time=TIME, update_ms=None):
    return [
        ActivityBars(names, calendars, event_time, update_ms, native) for native in (False, True)
    ]


def compare(kind, log, seed, event_time=TIME):
    """Feed a log to both paths, cut at random; restart each from what the other has written."""
    chance = Random(seed)
    names, calendars, update_ms = KINDS[kind]
    general, kernels = pair(names, calendars, event_time, update_ms)
    one, other = general.load(3, {}), kernels.load(3, {})
    written_by_general, written_by_kernels, tables = {}, {}, Tables()
    while log:
        size = chance.choice((1, 1, 5, 30, 300))
        part, log = log[:size], log[size:]
        records = part if chance.random() < 0.2 else runs_of(part, tables)
        assert bodies(kernels.apply(other, records)) == bodies(general.apply(one, part))
        if chance.random() < 0.4:
            written(written_by_general, general.dirty(one))
            written(written_by_kernels, kernels.dirty(other))
            assert written_by_kernels == written_by_general
            if chance.random() < 0.5:
                one = general.load(3, dict(written_by_kernels))
                other, tables = kernels.load(3, dict(written_by_general)), Tables()
    written(written_by_general, general.dirty(one))
    assert written(written_by_kernels, kernels.dirty(other)) == written_by_general


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 1 << 40), length=st.integers(2, 300))
def test_any_log_gives_the_rows_and_the_state_of_the_general_path(kind, seed, length):
    compare(kind, log_of("activity", seed, length), seed)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 1 << 40), length=st.integers(2, 300))
def test_so_do_numbers_of_any_size(kind, seed, length):
    compare(kind, list(mean(log_of("activity", seed, length), seed)), seed, EventTime())


def trade(offset, ts, price=10 * UNIT, volume=UNIT, symbol="A", **others):
    """A trade `ts` ms after T, its numbers in units of 10^-18."""
    made = Trade(
        offset, symbol, T + ts, price, volume, offset % 3, None, False, "crypto", "crypto-1", "c1",
        (T + ts) * 1000, "live",
    )  # fmt: skip
    return replace(made, **others)


def mark(offset, ts):
    end = T + ts
    return ControlRecord(
        offset, None, Control("mark", "crypto-1", "crypto", "c1", "live", end, end * 1000)
    )


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 1 << 40), length=st.integers(2, 300))
def test_so_do_symbols_that_do_nothing_but_trade(kind, seed, length):
    """Nearly all of it is the kernel's."""
    log = crowd("ABC", length, seed)
    compare(kind, list(mean(log, seed)) if seed % 2 else log, seed, EventTime())


class Counting:
    """Runs the kernel, and counts why it stops."""

    def __init__(self):
        self.reasons = Counter()

    def __call__(self, *taken):
        reason = fold_trades(*taken)
        self.reasons[int(reason)] += 1
        return reason


fold_trades = native.fold_trades


@pytest.fixture
def counted(monkeypatch):
    counting = Counting()
    monkeypatch.setattr(native, "fold_trades", counting)
    return counting.reasons


def crowd(names, trades, seed=1):
    """A log in which symbols trade at once, some of it late or in one millisecond; a mark ends
    their trade date."""
    chance, symbols = Random(seed), len(names)
    log = [trade(offset, HOUR, symbol=name) for offset, name in enumerate(names)]
    for offset in range(symbols, symbols + trades):
        ts = 2 * HOUR + offset * 3 * MINUTE // trades
        late = chance.choice((0, 0, 0, 1, 500, 90_000, 700_000))
        price, volume = chance.randrange(1, 999) * UNIT // 100, chance.randrange(999) * UNIT // 1000
        is_repeat = chance.random() < 0.01
        log.append(trade(offset, ts - late, price, volume, chance.choice(names), repeat=is_repeat))
    return [*log, mark(symbols + trades, 2 * DAY)]


@pytest.mark.parametrize("batch", [1, 7, 155, 20_000])
def test_a_crowd_of_symbols_gives_the_same_in_batches_of_any_size(batch, counted):
    size = 600 if PLAIN_PYTHON else 6_000
    symbols = size // 100
    log = crowd([f"S{number}-ä" for number in range(symbols)], size)
    general, kernels = pair(("tick-4", "volume-3", "turnover-7"), event_time=EventTime())
    one = general.load(3, {})
    expected = bodies(general.apply(one, log))
    state, tables, found = kernels.load(3, {}), Tables(), []
    for start in range(0, len(log), batch):
        found += bodies(kernels.apply(state, runs_of(log[start : start + batch], tables)))
    assert found == expected
    assert len(found) > size // 4
    assert written({}, kernels.dirty(state)) == written({}, general.dirty(one))
    # a look at the first trade of each symbol; what follows is plain
    assert counted[arrays.LOOK] == symbols
    assert counted[arrays.GENERAL] == 0


@pytest.mark.parametrize(("rows", "row_bytes"), [(1, 320), (2, 320), (5, 320), (50, 12)])
def test_an_output_that_is_full_is_emptied_or_grows(rows, row_bytes, monkeypatch, counted):
    """Up to six bars close on one trade."""
    monkeypatch.setattr(native, "_ROWS", rows)
    monkeypatch.setattr(native, "_ROW_BYTES", row_bytes)
    names = ("tick-1", "tick-2", "tick-3", "volume-0.001", "volume-0.002", "turnover-0.001")
    log = crowd("ABCDEFGHIJKLMNOPQRST", 400)
    general, kernels = pair(names, event_time=EventTime())
    found = kernels.apply(kernels.load(3, {}), runs_of(log, Tables()))
    assert bodies(found) == bodies(general.apply(general.load(3, {}), log))
    assert counted[arrays.FULL] > 3


def test_a_symbol_whose_numbers_do_not_fit_returns_with_the_next_bar(counted):
    general, kernels = pair(("tick-3",))
    one, other, tables = general.load(3, {}), kernels.load(3, {}), Tables()
    most = LIMIT - 1
    volumes = [UNIT, UNIT, most, UNIT, UNIT, UNIT, UNIT, UNIT]
    stops = []
    for offset, volume in enumerate(volumes * 2):
        record = trade(offset, offset, UNIT, volume)
        before = counted[arrays.GENERAL]
        found = kernels.apply(other, runs_of([record], tables))
        assert bodies(found) == bodies(general.apply(one, [record]))
        stops.append(counted[arrays.GENERAL] - before)
    # the bar of trades 9 to 11 has the wide one second: the one after it is the general path's
    assert stops == [0] * 11 + [1] + [0] * 4


@pytest.mark.parametrize(
    ("price", "volume"),
    [(1, (10**18 - 1) * UNIT), (10**9 * UNIT, 10**9 * UNIT), (-(10**9) * UNIT, 10**9 * UNIT)],
)
def test_sums_that_outgrow_the_kernel_are_the_general_paths(price, volume, counted):
    """Each trade fits, and together their volume or their turnover does not."""
    general, kernels = pair(("tick-5", "tick-150", "tick-1000"))
    one, other, tables = general.load(3, {}), kernels.load(3, {}), Tables()
    for offset in range(0, 400, 10):
        log = [trade(at, at, price, volume, business="common") for at in range(offset, offset + 10)]
        found = kernels.apply(other, runs_of(log, tables))
        assert bodies(found) == bodies(general.apply(one, log))
    assert written({}, kernels.dirty(other)) == written({}, general.dirty(one))
    assert 40 < counted[arrays.GENERAL] < 390


def test_a_bar_whose_beginning_was_not_observed_is_the_general_paths_and_no_other():
    _, kernels = pair(("tick-2",))
    state, tables = kernels.load(3, {}), Tables()
    gap = Control("gap", "crypto-1", "crypto", "c1", "live", T + 50, T * 1000, T + 20)
    log = [trade(0, 0), ControlRecord(1, "A", gap), trade(2, 60), trade(3, 70), trade(4, 80)]
    rows = kernels.apply(state, runs_of(log, tables))
    assert [isinstance(row, EncodedRows) for row in rows] == [False, True]
    assert rows[0][2].completeness == "gap"


def test_trades_between_sessions_are_looked_up_once_a_minute(counted):
    """So after hours do not cost more than the general path's trades."""
    general, kernels = pair(("tick-2",), Market())
    one, other, tables = general.load(3, {}), kernels.load(3, {}), Tables()
    # a session of this market has 15 of 20 minutes
    log = [trade(at, at * 6 * SECOND, business="stock") for at in range(400)]
    for start in range(0, 400, 30):
        part = log[start : start + 30]
        assert bodies(kernels.apply(other, runs_of(part, tables))) == bodies(
            general.apply(one, part)
        )
    assert written({}, kernels.dirty(other)) == written({}, general.dirty(one))
    # 40 minutes: two sessions, and five minutes after each
    assert (counted[arrays.LOOK], counted[arrays.GENERAL]) == (1, 1 + 2 * 5)


def test_each_reason_to_stop_comes_about(counted):
    _, kernels = pair(("tick-2",), update_ms=SECOND)
    state, tables = kernels.load(3, {}), Tables()
    log = [
        trade(0, 0), trade(1, 1), trade(2, SECOND), trade(3, SECOND + 1),
        trade(4, SECOND + 2, business="common"), trade(5, SECOND + 2, connection="c2"),
        trade(6, DAY), trade(7, DAY + 1),
    ]  # fmt: skip
    kernels.apply(state, runs_of(log, tables))
    assert {arrays.LOOK, arrays.GENERAL, arrays.DUE, arrays.DONE} == set(counted)


def test_more_thresholds_than_a_topics_number_holds_are_the_general_paths():
    names = [f"tick-{count}" for count in range(1, arrays.MOST_LEVELS + 2)]
    assert [pair(names[:count])[1].takes_runs for count in (127, 128)] == [True, False]


def test_one_that_takes_no_runs_takes_them_one_by_one():
    log = crowd("ABC", 50)
    general, _ = pair(("tick-2",))
    expected = general.apply(general.load(3, {}), log)
    assert general.apply(general.load(3, {}), runs_of(log, Tables())) == expected


@pytest.mark.skipif(PLAIN_PYTHON, reason="a day of trades in plain Python takes minutes")
@pytest.mark.parametrize(
    ("recording", "business", "names"),
    [
        (
            "sh600519_20230201_fullday", "stock",
            ("tick-1000", "tick-10", "volume-50000", "turnover-100000000"),
        ),
        (
            "binance_btcusdt_perp_20240808", "crypto",
            ("tick-1000", "tick-1", "volume-25.5", "turnover-1000000"),
        ),
    ],
)  # fmt: skip
def test_recordings_give_the_same_rows_and_state(recordings, recording, business, names, counted):
    log = list(trades_of(recordings / f"{recording}.jsonl.gz", business))
    general, kernels = pair(names, event_time=EventTime())
    one, other, tables = general.load(3, {}), kernels.load(3, {}), Tables()
    kept, entries = {}, {}
    for start in range(0, len(log), 997):
        part = log[start : start + 997]
        found = bodies(kernels.apply(other, runs_of(part, tables)))
        assert found == bodies(general.apply(one, part))
        assert written(entries, kernels.dirty(other)) == written(kept, general.dirty(one))
    assert counted[arrays.GENERAL] + counted[arrays.LOOK] < 20


# parts of the kernel, each against Python's integers


@kernel
def add_all(trades, bars):
    """Add each trade to the bar of its place."""
    for at in range(len(trades)):
        record = trades[at]
        t0, t1, t2, small = figures.turnover_of(record)
        if not small or not figures.has_room(bars[at]):
            bars[at]["index"] = -1
            continue
        figures.add(
            bars[at], record, figures.price_of(record), figures.volume_of(record), (t0, t1, t2)
        )


@kernel
def which_are_full(records, bars, found):
    """Write for each threshold whether the bar of its place is complete."""
    for at in range(len(records)):
        bar = bars[at]
        found[at] = figures.is_full(
            records[at],
            bar["count"],
            (bar["volume_0"], bar["volume_1"]),
            (bar["turnover_0"], bar["turnover_1"], bar["turnover_2"]),
        )


def near(most):
    """Numbers up to `most`, and the powers of two and of ten below it with their neighbours."""
    powers = [2**k for k in range(300)] + [10**k for k in range(80)]
    edges = [power + more for power in powers for more in (-1, 0, 1) if power + more <= most]
    return st.one_of(st.integers(0, most), st.sampled_from(edges), st.integers(0, 9))


signs = st.sampled_from((1, -1))
times = st.integers(0, 1 << 45)
bars = st.builds(
    lambda index, count, received, first, length, prices, volume, turnover, buy, sell: ActivityBar(
        index, 3, 2, count, received, first, first + length,
        prices[1], prices[3], prices[0], prices[2], volume, turnover, buy, sell,
    ),
    near(10**9), near(10**15), times, times, times,
    st.lists(st.builds(lambda size, sign: size * sign, near(LIMIT - 1), signs),
             min_size=4, max_size=4).map(sorted),
    near(figures.MOST_VOLUME * 2), st.builds(
        lambda size, sign: size * sign, near(figures.MOST_TURNOVER * 2), signs),
    near(figures.MOST_VOLUME - 1), near(figures.MOST_VOLUME - 1),
)  # fmt: skip
trades = st.builds(
    lambda price, sign, volume, scales, ts, received, direction: Trade(
        0, "A", ts, sign * price * 10 ** (18 - scales[0]), volume * 10 ** (18 - scales[1]),
        direction, None, False, "common", "f", "c", received, "live",
    ),
    near(10**18 - 1), signs, near(10**18 - 1), st.tuples(st.integers(0, 18), st.integers(0, 18)),
    times, times, st.integers(0, 2),
)  # fmt: skip


@settings(max_examples=EXAMPLES * 5, deadline=None)
@given(bars, st.booleans(), trades)
def test_a_trade_added_to_a_bar(bar, is_empty, record):
    if is_empty:
        bar = ActivityBar(bar.index)
    [run] = runs_of([record], Tables())
    rows = np.array([record_of(bar)], arrays.BAR)
    add_all(run.trades, rows)
    turnover = record.price * record.volume
    if not fits(bar) or abs(turnover) >= 1 << 184:
        assert rows[0]["index"] == -1
        return
    before, trade_fits = bar_of(record_of(bar)), bar.volume + record.volume < LIMIT
    assert record_of(before) == record_of(bar)
    bar.add(record, turnover)
    assert record_of(bar_of(rows[0].item())) == record_of(bar)
    assert trade_fits and abs(bar.turnover) < LIMIT * UNIT - UNIT


kinds = st.sampled_from(("tick", "volume", "turnover"))


@settings(max_examples=EXAMPLES * 5, deadline=None)
@given(bars, kinds, near(LIMIT - 1), st.sampled_from((None, -1, 0, 1)))
def test_a_bar_is_full_when_its_total_reaches_the_threshold(bar, kind, value, beside):
    value = max(value // UNIT * UNIT, UNIT) if kind == "tick" else max(value, 1)
    text = f"{value // UNIT}.{value % UNIT:018}" if kind != "tick" else str(value // UNIT)
    [threshold] = thresholds([f"{kind}-{text}"])
    if beside is not None:  # at the limit, and on both sides of it
        total = threshold.limit + beside
        if kind == "tick":
            bar.count = min(total, (1 << 62) - 1)
        else:
            setattr(bar, kind, total)
    found = np.zeros(1, np.bool_)
    if bar.volume >= 1 << 127:
        return
    which_are_full(records_of([threshold]), np.array([record_of(bar)], arrays.BAR), found)
    assert found[0] == (threshold.total(bar) >= threshold.limit)
