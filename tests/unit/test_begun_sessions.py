"""A change of calendars: trade dates that have begun keep their hours, later ones have the new
ones, in every agent alike."""

import logging
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.agents.activity.agent import ActivityBars
from processors.agents.bars.agent import Bars
from processors.agents.reconciliation.agent import Reconciliation
from processors.agents.vwap.agent import Vwap
from processors.model.begun_sessions import BegunSessions
from processors.model.event_time import EventTime
from processors.model.records import ControlRecord, Kline, Trade
from processors.model.sessions import Calendars
from schemas.control import Control
from schemas.decimals import UNIT
from schemas.topics import load_schema

SYMBOL, OTHER = "600519.SH", "000001.SZ"
FEED = ("stock", "stock-1", "c1")
TODAY, TOMORROW = "2027-01-04", "2027-01-05"
SCHEMAS = {
    "vwap": "vwap",
    "bars": "bar",
    "activity": "activity_bar",
    "reconciliation": "reconciliation",
}


def ms(text):
    return int(
        datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Asia/Shanghai")).timestamp() * 1000
    )


@pytest.fixture(scope="module")
def calendars(tmp_path_factory):
    """By name: as they are, with half days, with longer days, and with a Saturday."""

    def with_rows(name, *rows):
        path = tmp_path_factory.mktemp(name) / "sessions.yaml"
        path.write_text(
            "sessions:\n" + "".join(f"- {{market: CN, {row}, source: x}}\n" for row in rows)
        )
        return Calendars(path)

    dates = (TODAY, TOMORROW)
    return {
        "regular": Calendars(),
        "half": with_rows(
            "half", *(f'date: {day}, open: "09:30", close: "11:30"' for day in dates)
        ),
        "long": with_rows(
            "long", *(f'date: {day}, open: "09:00", close: "17:00"' for day in dates)
        ),
        "closed": with_rows("closed", *(f"date: {day}, closed: true" for day in dates)),
        "saturday": with_rows(
            "saturday",
            'date: 2027-01-09, open: "09:30", close: "15:00"',
            'date: 2027-01-16, open: "09:30", close: "15:00"',
        ),
    }


def trade(offset, text, symbol=SYMBOL, price=10):
    ts = ms(text)
    return Trade(
        offset,
        symbol,
        ts,
        price * UNIT,
        UNIT,
        0,
        None,
        False,
        "stock",
        "stock-1",
        "c1",
        ts * 1000,
        "live",
    )


def mark(offset, text):
    return ControlRecord(
        offset, None, Control("mark", "stock-1", "stock", "c1", "live", ms(text), ms(text) * 1000)
    )


AGENTS = {
    "vwap": lambda found: Vwap(["1m", "session"], found, EventTime()),
    "bars": lambda found: Bars(["1m", "1d"], found, EventTime()),
    "bars with updates": lambda found: Bars(["1m", "1d"], found, EventTime(), 60_000),
    "activity": lambda found: ActivityBars(["tick-1000"], found, EventTime()),
}


def run(make, log, calendars_at, cuts):
    """Return the rows of a log; it is cut into batches, and the state is restored with the
    calendars in force at each cut."""
    entries, rows = {}, []
    bounds = [0, *sorted(set(cuts)), len(log)]
    for begin, end in pairwise(bounds):
        agent = make(calendars_at(begin))
        state = agent.load(0, dict(entries))
        found = agent.apply(state, log[begin:end])
        for key, value in agent.dirty(state):
            entries.pop(key, None)
            if value is not None:
                entries[key] = value
        rows += found
    return rows


def days_of(rows):
    """Return what the rows of sessions say at last: per date the count of trades, and start and end
    if they have them."""
    found = {}
    for topic, _, fields in rows:
        schema = "vwap" if ".vwap." in topic else "activity_bar" if "tick" in topic else "bar"
        if topic in ("infoway.vwap.session", "infoway.bars.1d", "infoway.bars.tick-1000"):
            row = dict(
                zip([field["name"] for field in load_schema(schema)["fields"]], fields, strict=True)
            )
            found.setdefault(row["trade_date"], {})[row["symbol"], row.get("ts_start")] = (
                row["trade_count"],
                row.get("ts_end"),
            )
    return found


LOG = [
    trade(0, f"{TODAY}T09:25"),
    trade(1, f"{TODAY}T09:31"),
    trade(2, f"{TODAY}T10:00", OTHER),
    # here the calendars change
    trade(3, f"{TODAY}T13:30"),
    trade(4, f"{TODAY}T13:31", "601318.SH"),  # its first of the date
    trade(5, f"{TODAY}T14:59"),
    trade(6, f"{TODAY}T16:30"),
    mark(7, f"{TODAY}T18:00"),
    trade(8, f"{TOMORROW}T09:05"),
    trade(9, f"{TOMORROW}T09:40"),
    trade(10, f"{TOMORROW}T11:20", OTHER),
    trade(11, f"{TOMORROW}T14:00"),
    trade(12, f"{TOMORROW}T16:00"),
    mark(13, f"{TOMORROW}T20:00"),
]
CHANGE = 3


def sessions_for(name, calendars, changed, cuts):
    return run(
        AGENTS[name],
        LOG,
        lambda offset: calendars["regular" if offset < CHANGE else changed],
        [CHANGE, *cuts],
    )


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize(("changed", "tomorrow"), [("half", 2), ("long", 5), ("closed", 0)])
def test_today_stays_as_it_began_and_the_next_trade_date_has_the_new_hours(
    calendars, name, changed, tomorrow
):
    plain = run(AGENTS[name], LOG, lambda _: calendars["regular"], [])
    new = run(AGENTS[name], LOG, lambda _: calendars[changed], [])
    found = days_of(sessions_for(name, calendars, changed, []))
    today = ms(TODAY) // 86_400_000 + 1
    assert found[today] == days_of(plain)[today]
    assert found.get(today + 1) == days_of(new).get(today + 1)
    assert found.get(today + 1) != days_of(plain)[today + 1]
    assert sum(count for count, _ in found.get(today + 1, {}).values()) == tomorrow


@given(
    st.lists(st.integers(1, len(LOG) - 1), max_size=6),
    st.sampled_from(list(AGENTS)),
    st.sampled_from(["half", "long", "closed"]),
)
@settings(max_examples=40, deadline=None)
def test_a_change_gives_the_same_rows_however_the_log_is_cut_and_restarted(
    calendars, cuts, name, changed
):
    assert sessions_for(name, calendars, changed, cuts) == sessions_for(
        name, calendars, changed, []
    )


@pytest.mark.parametrize("name", AGENTS)
def test_workers_that_disagree_do_not_tear_a_session_that_has_begun(calendars, name):
    turns = ["regular", "half", "long", "closed"]
    found = run(AGENTS[name], LOG, lambda offset: calendars[turns[offset % 4]], range(1, len(LOG)))
    assert all(
        len({start for _, start in rows if start is not None}) <= 1
        for rows in days_of(found).values()
    )
    today = ms(TODAY) // 86_400_000 + 1
    assert (
        days_of(found)[today]
        == days_of(run(AGENTS[name], LOG, lambda _: calendars["regular"], []))[today]
    )


@st.composite
def logs_and_changes(draw):
    """Trades of two symbols over ten days, in the order of time, and the calendars in force from
    some of them on."""
    minutes = sorted(draw(st.lists(st.integers(0, 10 * 24 * 60 - 1), min_size=2, max_size=25)))
    begin = ms("2027-01-02")
    log = []
    for offset, minute in enumerate(minutes):
        ts = begin + minute * 60_000 + draw(st.integers(0, 59_999))
        symbol = draw(st.sampled_from([SYMBOL, OTHER]))
        log.append(
            Trade(
                offset,
                symbol,
                max([ts, *(known.ts_event for known in log[-1:])]),
                UNIT,
                UNIT,
                0,
                None,
                False,
                *FEED,
                ts * 1000,
                "live",
            )
        )
    log.append(mark(len(log), "2027-01-14T12:00"))
    names = st.sampled_from(["regular", "half", "long", "closed", "saturday"])
    changes = draw(st.dictionaries(st.integers(1, len(log) - 1), names, max_size=5))
    return log, {0: draw(names), **changes}


@given(logs_and_changes())
@settings(max_examples=60, deadline=None)
def test_every_agent_keeps_the_same_hours_whatever_changes_when(calendars, drawn):
    log, changes = drawn

    def in_force(offset):
        return calendars[changes[max(at for at in changes if at <= offset)]]

    found = {
        name: days_of(run(make, log, in_force, [at for at in changes if at]))
        for name, make in AGENTS.items()
    }
    counts = {
        name: {
            date: sorted((symbol, count) for (symbol, _), (count, _) in rows.items())
            for date, rows in dates.items()
        }
        for name, dates in found.items()
    }
    assert counts["vwap"] == counts["bars"] == counts["bars with updates"] == counts["activity"]
    assert found["bars"] == found["bars with updates"]
    assert all(
        len({(start, end) for (_, start), (_, end) in rows.items()}) == 1
        for rows in found["bars"].values()
    )


@pytest.mark.parametrize("name", AGENTS)
def test_a_saturday_that_is_named_in_its_midst_begins_with_the_next_one(calendars, name):
    log = [
        trade(0, "2027-01-08T10:00"),
        trade(1, "2027-01-09T10:00"),
        # here the calendars change
        trade(2, "2027-01-09T11:00"),
        trade(3, "2027-01-11T10:00"),
        trade(4, "2027-01-16T10:00"),
        mark(5, "2027-01-17T10:00"),
    ]
    found = days_of(
        run(
            AGENTS[name],
            log,
            lambda offset: calendars["saturday" if offset >= 2 else "regular"],
            [2, 3, 4],
        )
    )
    assert [day - ms("2027-01-08") // 86_400_000 - 1 for day in found] == [0, 3, 8]
    before = days_of(
        run(
            AGENTS[name],
            log,
            lambda offset: calendars["saturday" if offset >= 1 else "regular"],
            [1, 3],
        )
    )
    assert [day - ms("2027-01-08") // 86_400_000 - 1 for day in before] == [0, 1, 3, 8]


def test_the_vendors_daily_kline_is_held_against_the_session_as_it_began(calendars):
    def make(found):
        return Reconciliation(["1m", "1d"], found, EventTime())

    def kline(offset, text, interval):
        ts = ms(text)
        return Kline(
            offset,
            SYMBOL,
            interval,
            ts,
            (UNIT,) * 4,
            UNIT,
            UNIT,
            1,
            "stock",
            "stock-k",
            "c1",
            (ts + 1) * 1000,
            "live",
        )

    log = [
        kline(0, f"{TODAY}T10:00", "1m"),
        kline(1, f"{TODAY}T10:01", "1m"),
        kline(2, f"{TODAY}T00:00", "1d"),
        kline(3, f"{TOMORROW}T00:00", "1d"),
    ]
    entries = {}
    for name, part in (("regular", log[:2]), ("half", log[2:])):
        agent = make(calendars[name])
        state = agent.load(0, dict(entries))
        agent.apply(state, part)
        entries |= {key: value for key, value in agent.dirty(state) if value is not None}
    pairs = state.stream(SYMBOL, "1d").pairs
    expected = [(f"{TODAY}T09:15", f"{TODAY}T15:05"), (f"{TOMORROW}T09:15", f"{TOMORROW}T11:35")]
    assert [(pair.start, pair.end) for pair in pairs.values()] == [
        tuple(map(ms, span)) for span in expected
    ]


def test_a_state_of_other_calendars_is_logged_and_counted_and_the_same_is_not(calendars, caplog):
    first = BegunSessions(calendars["regular"], "vwap", 3, {})
    assert first.session_of("stock", SYMBOL, ms(f"{TODAY}T10:00")) is not None
    entries = dict(first.dirty())
    assert list(first.dirty()) == []
    with caplog.at_level(logging.WARNING):
        same = BegunSessions(Calendars(), "vwap", 3, entries)
        assert list(same.dirty()) == []
        assert caplog.messages == []
        before = calendars["half"].changes
        other = BegunSessions(calendars["half"], "vwap", 3, entries)
    assert calendars["half"].changes == before + 1
    [message] = caplog.messages
    assert (
        f"vwap[3]: the state was built with the calendars {calendars['regular'].fingerprint}"
        in message
    )
    assert calendars["half"].fingerprint in message
    written = dict(other.dirty())
    assert written.keys() == entries.keys()
    assert written != entries
    assert list(BegunSessions(calendars["half"], "vwap", 3, written).dirty()) == []
    assert calendars["half"].changes == before + 1


def test_only_the_last_few_dates_of_a_market_are_kept(calendars):
    sessions = BegunSessions(calendars["regular"], "vwap", 0, {})
    for month in (12, 1):
        for day in range(1, 29):
            sessions.session_of("stock", SYMBOL, ms(f"2027-{month:02}-{day:02}T10:00"))
            sessions.session_of("stock", "AAPL.US", ms(f"2027-{month:02}-{day:02}T23:00"))
            sessions.session_of("crypto", "BTCUSDT", ms(f"2027-{month:02}-{day:02}T23:00"))
            sessions.session_of("stock", f"X.X{day}", ms(f"2027-{month:02}-{day:02}T23:00"))
    assert {market: len(dates) for market, dates in sessions._begun.items()} == {"CN": 8, "US": 8}
    assert min(sessions._begun["CN"]) > ms("2027-12-10") // 86_400_000
    [(_, value)] = sessions.dirty()
    assert len(value) < 4_000
    # older ones are answered, and change nothing
    assert sessions.session_of("stock", SYMBOL, ms("2027-06-10T10:00")) is not None
    assert list(sessions.dirty()) == []
