"""A restart of any agent anywhere in any log: same rows, same state as of the run that went on.

Logs are random: several feeds of several businesses, symbols that move between them, reconnects,
repeats, late trades, gaps, heals, outages of days. INFOWAY_EXAMPLES=2000 tries that many logs per
agent.
"""

import os
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.random_log import MINUTE, log_of

from processors.agents.activity.agent import ActivityBars
from processors.agents.bars.agent import Bars
from processors.agents.depth.agent import Imbalance
from processors.agents.reconciliation.agent import Reconciliation
from processors.agents.vwap.agent import Vwap
from processors.model.event_time import EventTime
from processors.model.sessions import Calendars
from processors.model.trading_days import Session

EXAMPLES = int(os.environ.get("INFOWAY_EXAMPLES", "60"))
TIME = EventTime(watermark_delay_ms=2_000, revision_horizon_ms=60_000)
LENGTHS = {"stock": (20, 15), "common": (30, 30), "crypto": (1_440, 1_440)}
"""Per business: a session begins at each multiple of so many minutes, and is so many minutes
long."""


class Market:
    """Short sessions whose starts, but not their ends, often are the same for several
    businesses."""

    def session_of(self, business, symbol, ts):
        every, length = (minutes * MINUTE for minutes in LENGTHS[business])
        number = ts // every
        session = Session(number, number * every, number * every + length)
        return session if ts < session.end else None


AGENTS = {
    "bars": lambda: Bars(("1m", "5m", "15m", "1h", "1d"), Market(), TIME),
    "bars of sessions alone": lambda: Bars(("1d",), Market(), TIME),
    "bars whose session is a root": lambda: Bars(("5m", "1h", "1d"), Market(), TIME),
    "bars of seconds": lambda: Bars(("10s", "1m", "1d"), Market(), TIME),
    "bars with updates": lambda: Bars(("1m", "5m", "1d"), Market(), TIME, 10_000),
    "activity": lambda: ActivityBars(
        ("tick-2", "tick-7", "volume-5.5", "turnover-60"), Market(), TIME
    ),
    "activity with updates": lambda: ActivityBars(("tick-3", "volume-20"), Market(), TIME, 30_000),
    "vwap": lambda: Vwap(("10s", "5m", "session"), Market(), TIME),
    "vwap of sessions alone": lambda: Vwap(("session",), Market(), TIME),
    "vwap on a grid": lambda: Vwap(("1m", "session"), Market(), TIME, 10_000),
    "imbalance": lambda: Imbalance(TIME),
    "reconciliation": lambda: Reconciliation(("1m", "5m", "1d"), CALENDARS, TIME),
}
CALENDARS = Calendars()


def run(agent, log, cuts, restarts):
    """Return the rows, the state's entries and the changes to them of a log cut into batches."""
    state, entries, rows, changelog = agent.load(0, {}), {}, [], []
    for begin, end in zip([0, *cuts], [*cuts, len(log)], strict=True):
        if begin in restarts:
            state = agent.load(0, dict(entries))
        rows += agent.apply(state, log[begin:end])
        changes = list(agent.dirty(state))
        assert len({key for key, _ in changes}) == len(changes)
        for key, value in changes:
            entries.pop(key, None)
            if value is not None:
                entries[key] = value
        changelog.append(sorted(changes, key=lambda change: change[0]))
    return rows, entries, changelog


def without_numbers(entries):
    """Return what a state has: the number of a segment of waiting bars says nothing, and a restart
    may give a free one earlier."""
    segments = sorted(
        (key.rpartition(b":")[0], value)
        for key, value in entries.items()
        if key.startswith(b"bars:")
    )
    return segments, {key: value for key, value in entries.items() if not key.startswith(b"bars:")}


@pytest.mark.parametrize("name", AGENTS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    seed=st.integers(0, 1 << 40), length=st.integers(2, 150), each=st.sampled_from((0.03, 0.2, 1.0))
)
def test_a_restart_anywhere_changes_no_row_and_no_state(name, seed, length, each):
    log, chance = log_of(name, seed, length), Random(seed)
    cuts = [place for place in range(1, length) if chance.random() < each]
    restarts = {place for place in cuts if chance.random() < 0.5}
    agent = AGENTS[name]()
    rows, entries, _ = run(agent, log, cuts, set())
    assert run(AGENTS[name](), log, [], set())[0] == rows, "batches"
    again, entries_again, _ = run(AGENTS[name](), log, cuts, restarts)
    assert again == rows
    assert without_numbers(entries_again) == without_numbers(entries)
