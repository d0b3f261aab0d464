"""Bars by kernels against the general path, which is their reference: on any log the same rows,
byte for byte, however it is cut, and from one path's state to the other's."""

from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.encoded_rows import bodies
from unit.random_log import MINUTE, SECOND, T, log_of
from unit.test_restarts import EXAMPLES, TIME, Market

from processors.agents.bars import native
from processors.agents.bars.agent import Bars
from processors.agents.bars.arrays import BAR_KEY, StateTooNew
from processors.kernels.bars import arrays
from processors.kernels.columns import Tables, TradeRun
from processors.model.event_time import EventTime
from processors.model.records import ControlRecord, Trade
from schemas.control import Control
from schemas.decimals import LIMIT, UNIT

KINDS = {
    "minutes": (("1m", "5m", "15m", "1h", "1d"), None),
    "sessions alone": (("1d",), None),
    "a session as root": (("5m", "1h", "1d"), None),
    "seconds": (("1s", "10s", "1m", "1d"), None),
    "two roots": (("2s", "3s", "1m"), None),
    "updates": (("1m", "5m", "1d"), 10_000),
}
BATCHES = (1, 7, 155, 2_000, 20_000)


def pair(kind, event_time=TIME):
    names, update_ms = KINDS[kind]
    return (
        Bars(names, Market(), event_time, update_ms),
        Bars(names, Market(), event_time, update_ms, native=True),
    )


def in_runs(records, tables):
    """Return records as the data plane gives them: consecutive plain trades are one run."""
    found, trades = [], []
    for record in [*records, None]:
        one = TradeRun.of(tables, record) if isinstance(record, Trade) else None
        if one is not None:
            trades.append(one.trades)
        else:
            if trades:
                found.append(TradeRun(np.concatenate(trades), tables))
                trades = []
            if record is not None:
                found.append(record)
    return found


def written(entries, changes):
    changes = list(changes)
    assert len({key for key, _ in changes}) == len(changes)
    for key, value in changes:
        entries.pop(key, None)
        if value is not None:
            entries[key] = value
    return entries


def mean(log, seed):
    """Give the trades numbers of any scale: of one digit and of twenty, of prices below zero, of
    sums that no row can hold."""
    chance = Random(seed)
    scales = {symbol: (chance.randrange(19), chance.randrange(19)) for symbol in "ABC"}
    for record in log:
        if not isinstance(record, Trade):
            yield record
            continue
        numbers = []
        for scale in scales[record.symbol]:
            if chance.random() < 0.2:
                scale = chance.randrange(19)
            digits = chance.choice((1, 3, 3, 6, 6, 18, 19))
            number = chance.randrange(10**digits) * 10 ** (18 - scale)
            if chance.random() < 0.02:
                number = LIMIT - 1 - chance.randrange(3)
            numbers.append(min(number, LIMIT - 1))
        price, volume = numbers
        if record.business == "common" and chance.random() < 0.5:
            price = -price
        yield replace(record, price=price, volume=volume)


def compare(kind, log, seed, event_time=TIME):
    """Feed a log to both paths, cut at random, and restart the kernels' from either path's
    state."""
    chance = Random(seed)
    general, kernels = pair(kind, event_time)
    one, other = general.load(3, {}), kernels.load(3, {})
    entries, tables = {}, Tables()
    while log:
        size = chance.choice((1, 1, 5, 30, 300))
        part, log = log[:size], log[size:]
        records = part if chance.random() < 0.2 else in_runs(part, tables)
        assert bodies(kernels.apply(other, records)) == bodies(general.apply(one, part))
        if chance.random() < 0.4:
            written(entries, kernels.dirty(other))
            if chance.random() < 0.5:
                if chance.random() < 0.4:  # a worker without kernels had it for a while
                    between = pair(kind, event_time)[0]
                    written(entries, between.dirty(between.load(3, dict(entries))))
                    assert not any(key.startswith(BAR_KEY) for key in entries)
                other, tables = kernels.load(3, dict(entries)), Tables()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=max(EXAMPLES // 4, 3), deadline=None)
@given(seed=st.integers(0, 1 << 40), length=st.integers(2, 300))
def test_kernels_give_the_rows_of_the_general_path(kind, seed, length):
    compare(kind, log_of("bars", seed, length), seed)


def test_a_gap_reaches_two_sessions_with_one_end_in_the_order_of_their_starts():
    """A state that was read back has them in another order than the one that made them."""
    compare("updates", log_of("bars", 925952067, 26), 925952067)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=max(EXAMPLES // 4, 3), deadline=None)
@given(seed=st.integers(0, 1 << 40), length=st.integers(2, 300))
def test_so_they_do_for_numbers_of_any_size(kind, seed, length):
    compare(kind, list(mean(log_of("bars", seed, length), seed)), seed, EventTime())


def trade(offset, symbol, event, price=10, volume=1, direction=0):
    return Trade(
        offset, symbol, T + event, price * UNIT // 100, volume * UNIT // 1000, direction, None,
        False, "crypto", "crypto-1", "c1", (T + event) * 1000, "live",
    )  # fmt: skip


def crowd(symbols, trades, seed=1):
    """A log in which many symbols trade at once, and fall silent; marks end each minute."""
    chance = Random(seed)
    names = [f"S{number}-{chance.choice('aäZ0')}" for number in range(symbols)]
    log = []
    for offset in range(trades):
        now = offset * 3 * MINUTE // trades
        late = chance.choice((0, 0, 0, 1, 500, 90_000))
        log.append(
            trade(
                offset, chance.choice(names), now - late, chance.randrange(1, 999),
                chance.randrange(999), chance.randrange(3),
            )
        )  # fmt: skip
    end = T + 20 * MINUTE
    mark = Control("mark", "crypto-1", "crypto", "c1", "live", end, end * 1000)
    return [*log, ControlRecord(trades, None, mark)]


@pytest.mark.parametrize("batch", BATCHES)
def test_a_crowd_of_symbols_closes_in_order_in_batches_of_any_size(batch, monkeypatch):
    monkeypatch.setattr(native, "fold_trades", counted := Counting())
    log = crowd(2_000, 6_000)
    general, kernels = pair("minutes", EventTime())
    expected = bodies(general.apply(general.load(3, {}), log))
    state, tables, found = kernels.load(3, {}), Tables(), []
    for start in range(0, len(log), batch):
        found += bodies(kernels.apply(state, in_runs(log[start : start + batch], tables)))
    assert found == expected
    assert len(found) > 9_000
    # once they are known, the symbols' trades need no look
    assert not state.symbols
    assert counted.reasons[arrays.GENERAL] == 0


class Counting:
    """Runs the kernel, and counts why it stops."""

    def __init__(self):
        self.reasons = Counter()
        self._kernel = native.fold_trades

    def __call__(self, trades, arrays):
        reason = self._kernel(trades, arrays)
        self.reasons[int(reason)] += 1
        return reason


def test_an_output_that_is_full_is_emptied_in_the_midst_of_a_trade(monkeypatch):
    monkeypatch.setattr("processors.agents.bars.arrays._LEAST_BYTES", 6_000)
    monkeypatch.setattr(native, "fold_trades", counted := Counting())
    log = crowd(100, 600)
    general, kernels = pair("minutes", EventTime())
    rows = kernels.apply(kernels.load(3, {}), in_runs(log, Tables()))
    assert bodies(rows) == bodies(general.apply(general.load(3, {}), log))
    assert counted.reasons[arrays.FULL] > 10


def test_what_the_general_path_wrote_is_taken_over_and_written_anew_at_once():
    log = crowd(50, 2_000)
    general, kernels = pair("minutes", EventTime())
    one = general.load(3, {})
    general.apply(one, log[:1_000])
    entries = written({}, general.dirty(one))
    assert any(key.startswith(b"bar:") for key in entries)
    other = kernels.load(3, dict(entries))
    written(entries, kernels.dirty(other))
    assert not any(key.startswith(b"bar:") for key in entries)
    assert bodies(kernels.apply(other, log[1_000:])) == bodies(general.apply(one, log[1_000:]))


def test_a_symbol_whose_numbers_do_not_fit_returns_once_they_do(monkeypatch):
    general, kernels = pair("minutes", EventTime(2_000, 60_000))
    one, other = general.load(3, {}), kernels.load(3, {})
    wide = replace(trade(0, "A", 0), price=10**19 * UNIT - 1)
    for record in (wide, *(trade(n, "A", n * 20_000) for n in range(1, 300))):
        assert bodies(kernels.apply(other, [record])) == bodies(general.apply(one, [record]))
        if record.ts_event < T + 60 * SECOND:
            assert "A" in other.symbols
    # a day's and an hour's bar have the price, and are forgotten by then
    for record in (trade(n, "A", n * 20_000) for n in range(300, 9_000)):
        assert bodies(kernels.apply(other, [record])) == bodies(general.apply(one, [record]))
    assert "A" not in other.symbols


def test_only_the_bars_that_changed_are_written_and_numbers_are_used_again():
    _, kernels = pair("minutes", EventTime(2_000, 60_000))
    state, entries = kernels.load(3, {}), {}
    for number in range(1_000):
        kernels.apply(state, [trade(number, "A", number * 20_000)])
        changes = list(kernels.dirty(state))
        bars = [key for key, _ in changes if key.startswith(BAR_KEY)]
        assert len(bars) < 12, number
        written(entries, changes)
    assert len([key for key in entries if key.startswith(BAR_KEY)]) < 20
    # a trade that closes nothing writes its bar alone
    kernels.apply(state, [trade(1_000, "A", 999 * 20_000 + 1)])
    changed = [key for key, _ in kernels.dirty(state) if key.startswith(BAR_KEY)]
    assert len(changed) == 1


def test_a_state_of_a_later_version_is_refused():
    _, kernels = pair("minutes")
    state = kernels.load(3, {})
    kernels.apply(state, [trade(0, "A", 0)])
    entries = written({}, kernels.dirty(state))
    [key] = [key for key in entries if key.startswith(BAR_KEY)]
    size = int.from_bytes(entries[key][:3], "big") + 3
    entries[key] = entries[key][:size] + b"\x7f" + entries[key][size + 1 :]
    for path in pair("minutes"):
        with pytest.raises(StateTooNew, match="fresh prefix"):
            path.load(3, dict(entries))
