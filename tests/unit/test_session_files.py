"""The operator's file of sessions: what it adds, what it overrides, and every mistake in it
reported at once."""

import os
from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest

from infra.ingest.producer_process import market_hours
from processors.model.session_rules import BadSessions
from processors.model.sessions import Calendars

CN = ("stock", "600519.SH", "Asia/Shanghai")
IN = ("india", "RELIANCE.IN", "Asia/Kolkata")


def ms(text, zone):
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def days(text):
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


@pytest.fixture
def calendars_with(tmp_path):
    def make(text):
        path = tmp_path / "sessions.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Calendars.from_environment({"INFOWAY_SESSIONS": str(path)})

    return make


def shown(calendars, market, day):
    """Return start and end by the local clock, and whether the session is assumed."""
    business, symbol, zone = market
    session = calendars.session_on(business, symbol, days(day))
    if session is None:
        return None
    times = [
        datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).strftime("%H:%M")
        for at in (session.start, session.end)
    ]
    assert calendars.session_of(business, symbol, session.start) == session
    return (*times, session.assumed)


def test_without_a_file_there_is_none():
    assert (
        Calendars.from_environment({}).fingerprint
        == Calendars.from_environment({"INFOWAY_SESSIONS": ""}).fingerprint
    )


def test_rows_add_sessions_closures_and_half_days_within_the_calendar_and_beyond(calendars_with):
    calendars = calendars_with(
        """
        sessions:
          - {market: IN, date: 2026-11-08, open: "18:00", close: "19:00", source: "NSE circular: Muhurat trading, a Sunday"}
          - {market: IN, date: 2027-02-06, open: 09:15, close: 15:30, source: "NSE circular: a Saturday, Union Budget"}
          - {market: CN, date: 2027-06-09, closed: true, source: "SSE notice"}
          - {market: CN, date: 2026-11-30, open: "09:30", close: "11:30", source: "SSE notice"}
        """  # noqa: E501
    )
    plain = Calendars()
    assert (shown(plain, IN, "2026-11-08"), shown(calendars, IN, "2026-11-08")) == (
        None,
        ("17:45", "19:10", False),
    )
    assert (shown(plain, IN, "2027-02-06"), shown(calendars, IN, "2027-02-06")) == (
        None,
        ("09:00", "15:40", False),
    )
    assert shown(calendars, CN, "2027-06-09") is None
    assert shown(plain, CN, "2026-11-30") == ("09:15", "15:05", False)
    assert shown(calendars, CN, "2026-11-30") == ("09:15", "11:35", False)
    assert shown(calendars, CN, "2027-06-10") == ("09:15", "15:05", True)
    assert calendars.session_of(*IN[:2], ms("2027-02-06T15:40", IN[2])) is None


def test_a_row_of_the_operator_wins_over_the_packages(calendars_with):
    row = '{market: IN, date: 2025-10-21, open: "18:00", close: "19:00", source: "a correction"}'
    assert shown(Calendars(), IN, "2025-10-21") == ("13:30", "14:55", False)
    assert shown(calendars_with(f"sessions: [{row}]"), IN, "2025-10-21") == (
        "17:45",
        "19:10",
        False,
    )


def test_a_row_of_a_whole_day_has_the_markets_lunch_break(calendars_with):
    calendars = calendars_with(
        'sessions: [{market: CN, date: 2027-01-09, open: "09:30", close: "15:00", source: "a '
        'Saturday"}]'
    )
    session = calendars.session_on(*CN[:2], days("2027-01-09"))
    clocks = [("09:30", "11:30"), ("13:00", "14:57")]
    assert session.continuous == tuple(
        tuple(ms(f"2027-01-09T{clock}", CN[2]) for clock in span) for span in clocks
    )


def test_a_year_that_is_announced_is_known_and_no_longer_assumed(calendars_with):
    calendars = calendars_with(
        """
        announced: {CN: 2027-12-31}
        sessions:
          - {market: CN, date: 2027-06-09, closed: true, source: "SSE notice"}
        """
    )
    assert shown(calendars, CN, "2027-06-10") == ("09:15", "15:05", False)
    assert shown(calendars, CN, "2028-01-03") == ("09:15", "15:05", True)
    assert list(calendars.ending(["CN"], date(2027, 5, 1))) == []
    monday = ms("2027-06-14T10:00", CN[2]) * 1000
    assert market_hours(calendars)(*CN[:2], monday)
    assert not market_hours(Calendars())(*CN[:2], monday)


def test_every_mistake_of_the_file_is_reported_at_once_with_row_and_reason(calendars_with):
    with pytest.raises(BadSessions) as error:
        calendars_with(
            """
            announced: {CN: 2026-12-31, XX: 2027-12-31, US: soon}
            sessions:
              - {market: CN, date: 2027-06-09, closed: true, source: "SSE"}
              - {market: CN, date: 2027-06-09, open: "09:30", close: "11:30", source: "SSE"}
              - {market: SH, date: 2027-06-10, closed: true, source: "SSE"}
              - {market: KR, date: 2027-02-30, closed: true, source: "KRX"}
              - {market: KR, date: 2009-12-31, closed: true, source: "KRX"}
              - {market: TW, date: 2027-02-05, closed: maybe, source: "TWSE"}
              - {market: TW, date: 2027-02-08, closed: true, source: " "}
              - {market: IN, date: 2027-01-26, open: "09:15:30", close: "15:30", source: "NSE"}
              - {market: IN, date: 2027-01-27, open: "15:30", close: "09:15", source: "NSE"}
              - {market: IN, date: 2027-01-28, open: "24:00", close: "25:00", source: "NSE"}
              - {market: IN, date: 2027-01-29, open: "00:10", close: "01:00", source: "NSE"}
              - {market: IN, date: 2027-02-01, open: "22:00", close: "23:55", source: "NSE"}
              - {market: [IN], date: 2027-02-02, closed: true, source: "NSE"}
              - {market: HK, date: 2027-02-02, open: "09:30", source: "HKEX"}
              - 2027-02-03
            """
        )
    path, expected = error.value.args[0].split(": ")[0], [
        "announced: CN: '2026-12-31' is no date after 2026-12-31",
        "announced: XX: no market, expected one of HK, US, CN, JP, KR, IN, TW",
        "announced: US: 'soon' is no date after 2030-12-31",
        ("row 3 ", "market is 'SH', expected one of"),
        ("row 4 ", "date is no date from 2010-01-01 to 2100-12-31"),
        ("row 5 ", "date is no date"),
        ("row 6 ", "closed is not true"),
        ("row 7 ", "source is empty"),
        ("row 8 ", "on whole minutes"),
        ("row 9 ", "no times in order"),
        ("row 10 ", "no times in order"),
        ("row 11 ", "overlaps with the next day or the one before"),
        ("row 12 ", "overlaps with the next day or the one before"),
        ("row 13 ", "market is ['IN'], expected one of"),
        ("row 14 ", "expected the keys date, source, and either closed or open and close"),
        ("row 15 ", "expected the keys market, date"),
        "CN 2027-06-09 has 2 rows, expected one",
    ]  # fmt: skip
    assert path.startswith("INFOWAY_SESSIONS=")
    assert len(error.value.mistakes) == len(expected)
    for mistake, parts in zip(error.value.mistakes, expected, strict=True):
        assert all(part in mistake for part in ([parts] if isinstance(parts, str) else parts))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected the key sessions"),
        ("[]", "expected the key sessions"),
        ("sessions: 5", "sessions is '5', expected a list"),
        ("sessions: []\nmarkets: {}", "expected the key sessions"),
        ("sessions: []\nannounced: [CN]", "announced is ['CN'], expected a date for each market"),
        ("sessions: [", "line 1"),
        ("sessions: []\nsessions: []", "line 2: the key 'sessions' comes twice"),
        ("sessions: [{market: CN, market: HK}]", "the key 'market' comes twice"),
        ("sessions: [{[a]: CN}]", "a key is no plain text"),
        (b"sessions: \xff", "not UTF-8 text"),
        ("a: &a [x]\nsessions: [*a, *a]", "line 2: an alias (*name) is not allowed"),
        ("sessions: " + "[" * 100_000, "nested deeper than 8 levels"),
        ("sessions: " + "- " * 100_000, "not the YAML that is expected"),
        ("sessions: []\n" + "#" * (256 * 1024), "larger than 262144 bytes"),
        ("sessions: !!python/object/apply:os.system [exit]", "line 1: a tag (!name) is not"),
        ("sessions: !!int x", "line 1: a tag (!name) is not allowed"),
        ("sessions: !!map [x]", "line 1: a tag (!name) is not allowed"),
        ("sessions: []\nannounced: {CN: 2028-01-01, US: 1}", "US: '1' is no date"),
    ],
    ids=range(18),
)
def test_a_file_that_is_not_what_it_should_be_is_refused_in_one_line(calendars_with, text, reason):
    with pytest.raises(BadSessions) as error:
        calendars_with(text)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1_000


def test_aliases_that_would_grow_without_end_are_refused(calendars_with):
    bomb = "\n".join(
        f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" if n else "l0: &l0 [x]" for n in range(30)
    )
    with pytest.raises(BadSessions, match="alias"):
        calendars_with(f"{bomb}\nsessions: *l29")


def test_a_file_that_is_missing_or_no_file_is_refused_and_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path / "nowhere.yaml", tmp_path, pipe, "/dev/zero"):
        with pytest.raises(BadSessions, match=rf"INFOWAY_SESSIONS={path}: no such file"):
            Calendars.from_environment({"INFOWAY_SESSIONS": str(path)})


def test_a_file_as_large_as_may_be_is_read(calendars_with):
    rows = [f'- {{market: US, date: {year}-{month:02}-{day:02}, closed: true, source: "x"}}'
            for year in range(2031, 2041)
            for month in range(1, 13) for day in range(1, 29)]  # fmt: skip
    calendars = calendars_with("sessions:\n" + "\n".join(rows))
    assert shown(calendars, ("stock", "AAPL.US", "America/New_York"), "2040-12-28") is None


def test_the_fingerprint_follows_what_changes_a_session_and_nothing_else(calendars_with):
    def fingerprint(row):
        return calendars_with(f"sessions: [{row}]").fingerprint

    row = '{market: CN, date: 2027-06-09, closed: true, source: "SSE"}'
    assert (
        fingerprint(row)
        == fingerprint(row.replace("SSE", "another notice"))
        == fingerprint(f"{row} ] # [")
    )
    others = [
        row.replace("CN", "HK"),
        row.replace("06-09", "06-10"),
        row.replace("closed: true", 'open: "10:00", close: "11:00"'),
        "",
    ]
    assert len({fingerprint(row), *map(fingerprint, others)}) == 5
    assert fingerprint("") == Calendars().fingerprint
    announced = calendars_with("announced: {CN: 2027-12-31}\nsessions: []").fingerprint
    assert announced != Calendars().fingerprint
