"""The kernels of the VWAP agent against its general path: the same rows on any log, however it is
cut, from any state."""

import os
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.random_log import log_of
from unit.runs import runs_of
from unit.test_restarts import TIME, Market

from processors.agents.vwap.agent import Vwap
from processors.agents.vwap.native_state import StateFromTheFuture
from processors.kernels.columns import EncodedRows, Tables, TradeRun
from processors.model.records import Trade
from schemas.decimals import UNIT
from schemas.topics import load_schema
from schemas.wire import compile_encoder

EXAMPLES = 2 if os.environ.get("NUMBA_DISABLE_JIT") == "1" else 60
ENCODE = compile_encoder(load_schema("vwap"), 1)
AGENTS = {
    "windows and sessions": lambda: Vwap(("10s", "5m", "session"), Market(), TIME),
    "sessions alone": lambda: Vwap(("session",), Market(), TIME),
    "windows alone": lambda: Vwap(("1m", "10s"), Market(), TIME),
    "a grid": lambda: Vwap(("1m", "session"), Market(), TIME, 10_000),
}


def bodies(rows):
    found = []
    for row in rows:
        if isinstance(row, EncodedRows):
            found += row.bodies()
        else:
            topic, key, record = row
            found.append((topic, key, ENCODE(*record)[5:]))
    return found


class Partition:
    """A state with its topic; `native`: trades come in runs."""

    def __init__(self, agent, native):
        self.agent = agent
        self.native = native
        self.entries = {}
        self.state = agent.load(0, {})
        self.tables = Tables()
        self.written = 0

    def apply(self, log):
        records = runs_of(log, self.tables) if self.native else log
        return bodies(self.agent.apply(self.state, records))

    def write(self):
        changes = list(self.agent.dirty(self.state))
        assert len({key for key, _ in changes}) == len(changes)
        for key, value in changes:
            self.entries.pop(key, None)
            if value is not None:
                self.entries[key] = value
            self.written += len(key) + len(value or b"")

    def restart(self):
        self.write()
        self.state = self.agent.load(0, dict(self.entries))
        self.tables = Tables()


def check(make, log, cuts=(), restarts=(), writes=()):
    general, native = Partition(make(), False), Partition(make(), True)
    expected = general.apply(log)
    found = []
    for begin, end in pairwise([0, *cuts, len(log)]):
        if begin in restarts:
            native.restart()
        found += native.apply(log[begin:end])
        if end in writes:
            native.write()
    assert found == expected
    return native


@pytest.mark.parametrize("name", AGENTS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(2, 300))
def test_any_log_gives_the_rows_of_the_general_path(name, seed, length):
    log = log_of("vwap", seed, length)
    chance = Random(seed)
    cuts = sorted(chance.sample(range(1, length), min(length - 1, chance.randint(0, 12))))
    restarts = {cut for cut in cuts if chance.random() < 0.5}
    check(AGENTS[name], log, cuts, restarts, set(cuts))


WINDOWS = ("10s", "1m", "session")
T = 19_676 * 86_400_000 + 36_000_000


def agent(*windows, emit_ms=None):
    return Vwap(windows or WINDOWS, Market(), TIME, emit_ms)


def trade(offset, ts, price=10 * UNIT, volume=UNIT, symbol="A", business="crypto", **others):
    """A trade `ts` ms after T, its numbers in units of 10^-18."""
    made = Trade(
        offset, symbol, T + ts, price, volume, 0, None, False, business, f"{business}-1", "c1",
        (T + ts) * 1000, "live",
    )  # fmt: skip
    return replace(made, **others)


digits = st.integers(0, 17).flatmap(lambda count: st.integers(10**count, 10 ** (count + 1) - 1))
numbers = st.one_of(
    st.sampled_from([1, 10**18 - 1, 10**18, 5 * 10**17, UNIT + 1]),
    st.tuples(digits, st.integers(0, 18)).map(lambda made: made[0] * 10 ** (18 - made[1])),
)
arrivals = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 500, 3_000, 15_000, 70_000]),
        st.sampled_from([0, 0, 0, 1, 900, 12_000, 59_000]),
        numbers,
        st.one_of(numbers, st.just(0)),
        st.sampled_from("AAAB"),
        st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


def log_of_numbers(arrivals):
    log, clock = [], 0
    for offset, (step, late, price, volume, symbol, is_below) in enumerate(arrivals):
        clock += step
        if price * volume >= (10**38 - 1) * UNIT:
            continue
        log.append(
            trade(
                offset,
                clock - late,
                -price if is_below else price,
                volume,
                symbol,
                business="common",
            )
        )
    return log


def of_columns(log):
    return sum(TradeRun.of(Tables(), each) is not None for each in log)


@settings(max_examples=EXAMPLES, deadline=None)
@given(arrivals, st.integers(1, 20), st.booleans())
def test_any_numbers_give_the_rows_of_the_general_path(arrivals, step, restarts):
    log = log_of_numbers(arrivals)
    cuts = list(range(step, len(log), step))
    check(agent, log, cuts, set(cuts) if restarts else (), set(cuts))


def is_native(partition, name):
    return name not in partition.state.symbols


def test_digits_that_grow_are_taken_in_place():
    prices = ["1", "1.5", "1.25", "2", "1.123456789", "7.1"]
    units = [int(float(price) * 10**9) * 10**9 for price in prices]
    log = [trade(at, at * 100, price, UNIT // 10**at) for at, price in enumerate(units)]
    found = check(agent, log, cuts=[3], restarts={3})
    assert is_native(found, "A")


def test_numbers_of_nineteen_digits_make_a_symbol_general_and_it_returns():
    wide = 10**18 + 10**17 + 1
    log = [trade(0, 0), trade(1, 1, wide), trade(2, 2)]
    found = check(agent, log)
    assert not is_native(found, "A")
    log += [trade(3 + at, 100_000 + at) for at in range(1_100)]
    # the session's sums have the digits still; those of a market without sessions have gone
    found = check(lambda: agent("10s", "1m"), log)
    assert is_native(found, "A")


def test_rows_that_could_overflow_are_general():
    # each trade fits, and together their volume or their turnover does not
    most = 10**18 - 1
    log = [trade(at, at, 1, most * UNIT) for at in range(120)]
    assert of_columns(log) == 120
    check_without_encoding(log)
    log = [trade(at, at, 10**9 * UNIT, 10**9 * UNIT) for at in range(120)]
    check_without_encoding(log)


def check_without_encoding(log):
    """Compare up to the row that no schema can hold, where the engine writes a dead letter."""
    general, native = Partition(agent(), False), Partition(agent(), True)
    left = agent().apply(general.state, log)
    right = agent().apply(native.state, runs_of(log, native.tables))
    plain = [row for row in right if not isinstance(row, EncodedRows)]
    assert plain == left[len(left) - len(plain) :]
    encoded = bodies(row for row in right if isinstance(row, EncodedRows))
    assert encoded == bodies(left[: len(encoded)])
    assert len(encoded) > 3 and len(plain) > 3
    assert not is_native(native, "A")


def test_plain_trades_of_a_symbol_that_kernels_have_stay_native():
    log = [trade(at, at * 100) for at in range(9)]
    general, native = Partition(agent(), False), Partition(agent(), True)
    expected = general.apply(log)
    found = native.apply(log[:5])
    for each in log[5:]:
        found += bodies(native.agent.apply(native.state, [each]))
    assert found == expected
    assert native.state.native.folded == 9


def test_state_of_the_general_path_is_taken_over_and_given_back():
    log = [trade(at, at * 700, (10 + at % 7) * UNIT, symbol="AB"[at % 2]) for at in range(200)]
    general, native = Partition(agent(), False), Partition(agent(), True)
    expected = general.apply(log[:100])
    native.native = False
    assert native.apply(log[:100]) == expected
    native.restart()
    assert any(key.startswith(b"trades:") for key in native.entries)
    native.native = True
    expected = general.apply(log[100:150])
    assert native.apply(log[100:150]) == expected
    native.restart()
    assert not any(key.startswith((b"trades:", b"head:")) for key in native.entries)
    assert any(key.startswith(b"symbol:") for key in native.entries)
    # a machine without numba
    native.agent = Vwap(WINDOWS, Market(), TIME, native=False)
    native.native = False
    native.restart()
    expected = general.apply(log[150:])
    assert native.apply(log[150:]) == expected
    native.write()
    assert not any(key.startswith((b"chunk:", b"symbol:")) for key in native.entries)


def test_state_of_a_later_version_is_refused_in_one_line():
    native = Partition(agent(), True)
    native.apply([trade(0, 0)])
    native.write()
    native.entries[b"symbol:A"] = b"\2" + native.entries[b"symbol:A"][1:]
    with pytest.raises(StateFromTheFuture, match=r"'symbol:A' has the form 02, .* reads 01"):
        native.agent.load(0, native.entries)


def test_chunks_of_trades_go_with_their_window():
    native = Partition(agent("10s"), True)
    most = 0
    for at in range(40):
        native.apply([trade(at * 50 + number, at * 1_000 + number) for number in range(50)])
        native.write()
        chunks = [key for key in native.entries if key.startswith(b"chunk:")]
        most = max(most, len(chunks))
    assert most <= 50 * 11 // 32 + 2
    native.apply([trade(5_000, 100_000)])
    native.write()
    assert not any(key.startswith(b"chunk:") for key in native.entries)
    native.restart()
    slots = native.state.native.slots
    assert len(slots.ring(0)) == 1


def test_ring_that_is_left_is_used_again():
    native = Partition(agent("10s"), True)
    chance = Random(3)
    offset = 0
    for burst in range(12):
        start = burst * 60_000
        log = []
        for _ in range(200):
            offset += 1
            log.append(trade(offset, start + chance.randrange(9_000), symbol="ABCD"[burst % 4]))
        native.apply(log)
    slots = native.state.native.slots
    # 200 trades take a ring of 256; smaller ones are left on the way there
    assert len(slots.arena) <= 4 * 2 * 256 + 64 * 8


def test_many_windows_of_one_batch_fill_more_than_one_output():
    names = [f"{'LONGNAME' * 40}{number}" for number in range(40)]
    log = [trade(at, at, symbol=names[at % 40]) for at in range(400)]
    found = check(agent, log)
    assert found.state.native.folded == 400
