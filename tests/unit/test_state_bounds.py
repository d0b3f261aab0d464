"""What is kept of a symbol that comes no more, over a simulated month: docs/state-bounds.md has
each bound."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.random_log import DAY, HOUR, MINUTE, T, log_of
from unit.test_restarts import AGENTS, EXAMPLES

from processors.agents.bars.state import BarsState
from processors.agents.vwap.agent import Vwap
from processors.model.records import Book, ControlRecord, Trade
from schemas.control import Control
from schemas.decimals import UNIT

DAYS = 30
KEPT = {
    "bars": 4,
    "bars of seconds": 4,
    "activity": 2,
    "vwap": 4,
    "vwap of sessions alone": 4,
    "imbalance": DAYS,
}
"""Of how many of the last symbols, one a day, more than a short remnant is there."""


def month(books):
    """A log in which each day another symbol trades for four hours, on a feed that lives on."""
    offset = 0
    for day in range(DAYS):
        symbol = f"S{day}"
        for number in range(4 * 60):
            now = T + day * DAY + number * MINUTE
            offset += 1
            rest = ("stock", "stock-1", "c1", now * 1000, "live")
            if books:
                yield Book(offset, symbol, now, [(3 * UNIT, UNIT)], [(2 * UNIT, UNIT)], *rest)
            else:
                yield Trade(offset, symbol, now, UNIT, UNIT, 0, None, False, *rest)
            if number == 60:
                gap = Control(
                    "gap", "stock-1", "stock", "c1", "live", now, now * 1000, now - MINUTE
                )
                yield ControlRecord(offset, symbol, gap)
        for hour in range(4, 24):
            now = T + day * DAY + hour * HOUR
            offset += 1
            yield ControlRecord(
                offset, None, Control("mark", "stock-1", "stock", "c1", "live", now, now * 1000)
            )


@pytest.mark.parametrize("name", KEPT)
def test_an_idle_symbol_leaves_a_short_remnant(name):
    agent = AGENTS[name]()
    state, entries = agent.load(0, {}), {}
    for record in month(name == "imbalance"):
        agent.apply(state, [record])
        entries.update(agent.dirty(state))
    sizes = {}
    for key, value in entries.items():
        if value is not None and b":S" in key:
            sizes.setdefault(key.rpartition(b":")[2], []).append(len(key) + len(value))
    assert len(sizes) == DAYS
    for day in range(DAYS - KEPT[name]):
        kept = sizes[b"S%d" % day]
        assert sum(kept) < 400 and len(kept) <= 4, (day, kept)


@pytest.mark.parametrize("name", [name for name in AGENTS if name.startswith(("bars", "vwap"))])
@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(seed=st.integers(0, 1 << 40), length=st.integers(2, 200))
def test_forgetting_idle_symbols_changes_no_row(name, seed, length):
    log = log_of(name, seed, length)
    agent = AGENTS[name]()
    rows = agent.apply(agent.load(0, {}), log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Vwap, "_forget_idle", lambda *_: None)
        patch.setattr(BarsState, "forget_idle", lambda *_: None)
        assert agent.apply(agent.load(0, {}), log) == rows
