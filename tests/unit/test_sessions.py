"""Sessions by name and date, from public knowledge of each market rather than from the calendar package."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from importlib.resources import files
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
import yaml

from processors import sessions
from processors.sessions import BadSessions, BeyondCalendar, Calendars, read_rules

MARKETS = {
    "HK": ("stock", "00700.HK", "Asia/Hong_Kong"),
    "US": ("stock", "AAPL.US", "America/New_York"),
    "SH": ("stock", "600519.SH", "Asia/Shanghai"),
    "SZ": ("stock", "002594.SZ", "Asia/Shanghai"),
    "JP": ("japan", "7203.JP", "Asia/Tokyo"),
    "KR": ("korea", "005930.KS", "Asia/Seoul"),
    "IN": ("india", "RELIANCE.IN", "Asia/Kolkata"),
    "TW": ("taiwan", "2330.TW", "Asia/Taipei"),
    "crypto": ("crypto", "BTCUSDT", "UTC"),
    "common": ("common", "USDJPY", "America/New_York"),
}
YAML = yaml.safe_load(files("processors").joinpath("sessions.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def calendars():
    return Calendars()


def ms(text, zone="UTC"):
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def days(text):
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


def session_of(calendars, market, local):
    business, symbol, zone = MARKETS[market]
    return calendars.session_of(business, symbol, ms(local, zone))


def trade_date(calendars, market, local):
    session = session_of(calendars, market, local)
    return None if session is None else str(date(1970, 1, 1) + timedelta(days=session.trade_date))


def sessions_of(calendars, market, first, last):
    business, symbol, _ = MARKETS[market]
    found = [
        calendars.session_on(business, symbol, day)
        for day in range(days(str(first)), days(str(last)) + 1)
    ]
    return [session for session in found if session is not None]


@pytest.mark.parametrize(
    ("market", "day"),
    [
        ("HK", "2024-02-12"),  # Lunar New Year
        ("HK", "2025-04-21"),  # Easter Monday
        ("HK", "2025-10-07"),  # the day after Mid-Autumn
        ("HK", "2021-10-13"),  # typhoon Kompasu
        ("HK", "2023-07-17"),  # typhoon Talim
        ("HK", "2023-09-01"),  # typhoon Saola
        ("HK", "2023-09-08"),  # black rainstorm
        ("HK", "2024-09-06"),  # typhoon Yagi
        ("HK", "2024-02-10"),  # a Saturday
        ("US", "2024-11-28"),  # Thanksgiving
        ("US", "2025-07-04"),  # Independence Day
        ("US", "2026-07-03"),  # Independence Day, observed on Friday
        ("US", "2025-04-18"),  # Good Friday
        ("US", "2024-06-19"),  # Juneteenth
        ("US", "2012-10-29"),  # hurricane Sandy
        ("US", "2025-01-09"),  # mourning for Jimmy Carter
        ("SH", "2024-10-02"),  # National Day
        ("SZ", "2024-02-12"),  # Spring Festival
        ("SH", "2024-02-04"),  # a Sunday on which China worked and its exchanges did not
        ("SH", "2020-01-31"),  # Spring Festival, prolonged in the epidemic
        ("SZ", "2025-10-08"),  # National Day and Mid-Autumn in one
        ("JP", "2024-05-03"),  # Golden Week
        ("JP", "2019-04-30"),  # Golden Week of ten days, abdication
        ("JP", "2024-12-31"),  # New Year's Eve
        ("JP", "2020-10-01"),  # the trading system failed
        ("KR", "2024-09-17"),  # Chuseok
        ("KR", "2025-01-28"),  # Seollal
        ("KR", "2024-10-01"),  # Armed Forces Day, a holiday for once
        ("KR", "2025-06-03"),  # presidential election
        ("KR", "2026-06-03"),  # local elections
        ("KR", "2026-07-17"),  # Constitution Day, a holiday again
        ("KR", "2024-12-31"),  # the exchange's end of year
        ("IN", "2024-11-15"),  # Guru Nanak
        ("IN", "2024-01-22"),  # Ayodhya
        ("IN", "2024-05-20"),  # elections in Mumbai
        ("IN", "2025-10-22"),  # Diwali Balipratipada
        ("IN", "2025-02-08"),  # an ordinary Saturday
        ("TW", "2024-02-12"),  # Lunar New Year
        ("TW", "2024-07-24"),  # typhoon Gaemi
        ("TW", "2024-10-02"),  # typhoon Krathon
        ("TW", "2024-10-31"),  # typhoon Kong-rey
        ("TW", "2025-10-24"),  # Retrocession Day, observed on Friday
        ("TW", "2023-06-17"),  # a Saturday on which Taiwan worked and its exchange did not
    ],
)
def test_a_holiday_has_no_session(calendars, market, day):
    business, symbol, _ = MARKETS[market]
    assert [
        trade_date(calendars, market, f"{day}T{clock}")
        for clock in ("09:35", "11:00", "13:10", "15:00")
    ] == [None] * 4
    assert calendars.session_on(business, symbol, days(day)) is None


@pytest.mark.parametrize(
    ("market", "day"),
    [
        (
            "HK",
            "2024-11-14",
        ),  # typhoon Toraji: since September 2024 the exchange trades through storms
        ("US", "2024-10-14"),  # Columbus Day closes banks and bonds, not the exchange
        ("US", "2025-12-26"),  # federal offices closed by executive order, the exchange open
        ("SH", "2025-06-03"),  # the day after the Dragon Boat Festival
        ("JP", "2024-05-02"),  # between the holidays of Golden Week
        ("KR", "2025-07-17"),  # Constitution Day before it was a holiday again
        ("IN", "2024-01-20"),  # a Saturday in place of the Monday of Ayodhya
        ("IN", "2025-02-01"),  # a Saturday, Union Budget
        ("IN", "2026-02-01"),  # a Sunday, Union Budget
        ("TW", "2024-10-04"),  # the day after typhoon Krathon
    ],
)
def test_a_day_that_looks_like_a_holiday_and_is_none_has_a_session(calendars, market, day):
    assert trade_date(calendars, market, f"{day}T11:00") == day


@pytest.mark.parametrize(
    ("market", "day", "first", "last"),  # the first and the last second that count
    [
        ("HK", "2025-07-18", "09:00:00", "16:10:59"),  # pre-opening session, closing auction
        ("HK", "2024-12-24", "09:00:00", "12:10:59"),  # Christmas Eve
        ("HK", "2024-02-09", "09:00:00", "12:10:59"),  # Lunar New Year's Eve
        ("HK", "2024-12-31", "09:00:00", "12:10:59"),  # New Year's Eve
        (
            "US",
            "2025-07-18",
            "09:30:00",
            "16:00:59",
        ),  # the closing cross prints seconds after 16:00
        ("US", "2024-11-29", "09:30:00", "13:00:59"),  # the day after Thanksgiving
        ("US", "2024-07-03", "09:30:00", "13:00:59"),  # the day before Independence Day
        ("US", "2024-12-24", "09:30:00", "13:00:59"),  # Christmas Eve
        (
            "SH",
            "2023-02-01",
            "09:15:00",
            "15:04:59",
        ),  # opening auction 09:25:00, closing prints from 15:00:01
        ("SZ", "2025-12-31", "09:15:00", "15:04:59"),
        ("JP", "2024-11-01", "09:00:00", "15:00:59"),
        ("JP", "2024-11-05", "09:00:00", "15:30:59"),  # the close moved by half an hour
        ("KR", "2025-11-12", "09:00:00", "15:34:59"),
        (
            "KR",
            "2016-07-29",
            "09:00:00",
            "15:04:59",
        ),  # the close moved by half an hour on 1 August 2016
        ("KR", "2025-01-02", "10:00:00", "15:34:59"),  # the year's first day opens at 10:00
        ("KR", "2020-12-03", "10:00:00", "16:34:59"),  # university entrance exam
        ("KR", "2023-11-16", "10:00:00", "16:34:59"),  # university entrance exam
        ("KR", "2025-11-13", "10:00:00", "16:34:59"),  # university entrance exam
        ("IN", "2024-11-04", "09:00:00", "15:39:59"),  # pre-open session
        ("IN", "2026-08-03", "09:00:00", "15:39:59"),  # the first closing auction, to 15:35
        ("IN", "2021-02-24", "09:00:00", "17:09:59"),  # prolonged after an outage
        ("IN", "2018-11-07", "17:15:00", "18:39:59"),  # Muhurat trading
        ("IN", "2023-11-12", "18:00:00", "19:24:59"),  # Muhurat trading on a Sunday
        ("IN", "2024-11-01", "17:45:00", "19:09:59"),  # Muhurat trading
        ("IN", "2025-10-21", "13:30:00", "14:54:59"),  # Muhurat trading in the afternoon
        ("IN", "2024-05-18", "09:00:00", "12:49:59"),  # a Saturday, from the recovery site too
        ("TW", "2025-07-18", "09:00:00", "13:34:59"),  # a closing auction may be put off to 13:33
    ],
)
def test_auctions_half_days_and_special_sessions(calendars, market, day, first, last):
    assert (
        trade_date(calendars, market, f"{day}T{first}")
        == trade_date(calendars, market, f"{day}T{last}.999")
        == day
    )
    session = session_of(calendars, market, f"{day}T{first}")
    assert (session.start, session.end) == (
        ms(f"{day}T{first}", MARKETS[market][2]),
        ms(f"{day}T{last}", MARKETS[market][2]) + 1000,
    )
    business, symbol, _ = MARKETS[market]
    assert calendars.session_of(business, symbol, session.start - 1) is None
    assert calendars.session_of(business, symbol, session.end) is None
    assert calendars.session_on(business, symbol, session.trade_date) == session


@pytest.mark.parametrize(
    ("market", "noon"), [("HK", "12:30"), ("SH", "12:00"), ("SZ", "11:30"), ("JP", "12:00")]
)
def test_lunch_does_not_split_the_session(calendars, market, noon):
    morning, lunch, afternoon = (
        session_of(calendars, market, f"2025-07-18T{clock}") for clock in ("10:00", noon, "14:00")
    )
    assert morning == lunch == afternoon is not None


def test_the_sample_trade_of_the_vendor_lies_in_the_closing_auction(calendars):
    session = calendars.session_of("stock", "00005.HK", 1752826113546)
    assert session.trade_date == days("2025-07-18")
    assert session.start < ms("2025-07-18T16:00", "Asia/Hong_Kong") < 1752826113546 < session.end


@pytest.mark.parametrize(
    ("day", "open_utc"),
    [
        ("2025-03-07", "14:30"),
        ("2025-03-10", "13:30"),
        ("2025-10-31", "13:30"),
        ("2025-11-03", "14:30"),
    ],
)
def test_daylight_saving_moves_the_us_open(calendars, day, open_utc):
    opens = ms(f"{day}T{open_utc}")
    assert calendars.session_of("stock", "AAPL.US", opens - 1) is None
    assert calendars.session_of("stock", "AAPL.US", opens).start == opens


@pytest.mark.parametrize(
    ("market", "year", "count"),
    [
        *[("US", 2023, 250), ("US", 2024, 252), ("US", 2025, 250)],
        *[("SH", 2023, 242), ("SZ", 2024, 242), ("SH", 2025, 243)],
        *[("JP", 2023, 246), ("JP", 2024, 245)],
    ],
)
def test_a_year_has_as_many_sessions_as_the_exchange_reported(calendars, market, year, count):
    assert len(sessions_of(calendars, market, date(year, 1, 1), date(year, 12, 31))) == count


def test_crypto_days_are_utc_days(calendars):
    midnight = ms("2024-08-09T00:00")
    before, after = (
        calendars.session_of("crypto", "BTCUSDT", ts) for ts in (midnight - 1, midnight)
    )
    assert (before.trade_date, before.end) == (days("2024-08-08"), midnight)
    assert (after.trade_date, after.start, after.end) == (
        days("2024-08-09"),
        midnight,
        midnight + 86_400_000,
    )


@pytest.mark.parametrize(("local", "expected"), [
    ("2024-01-03T16:59:59.999", "2024-01-03"), ("2024-01-03T17:00", "2024-01-04"),  # winter
    ("2024-07-03T16:59:59.999", "2024-07-03"), ("2024-07-03T17:00", "2024-07-04"),  # summer
    ("2024-07-07T16:59:59.999", None), ("2024-07-07T17:00", "2024-07-08"),  # Sunday evening belongs to Monday
    ("2024-07-05T16:59:59.999", "2024-07-05"), ("2024-07-05T17:00", None), ("2024-07-06T12:00", None),  # the weekend
    ("2023-12-25T18:00", "2023-12-26"), ("2023-12-25T18:30", "2023-12-26"),  # ES reopens on Christmas evening
])  # fmt: skip
def test_forex_and_futures_turn_over_at_17_new_york(calendars, local, expected):
    assert trade_date(calendars, "common", local) == expected


@pytest.mark.parametrize(
    ("friday", "before", "monday", "after"),
    [
        ("2024-03-08", "22:00", "2024-03-11", "21:00"),
        ("2024-11-01", "21:00", "2024-11-04", "22:00"),
    ],
)
def test_17_new_york_moves_in_utc_over_the_weekend_that_changes_the_clocks(
    calendars, friday, before, monday, after
):
    old, new = (calendars.session_on("common", "USDJPY", days(day)) for day in (friday, monday))
    assert old.start == ms(f"{friday}T{before}") - 86_400_000
    assert old.end == ms(f"{friday}T{before}")
    assert new.start == ms(f"{monday}T{after}") - 86_400_000
    assert new.end == ms(f"{monday}T{after}")


def test_what_follows_a_suffix_other_than_the_markets_first_is_found_by_the_business(calendars):
    assert calendars.session_of(
        "korea", "035720.KQ", ms("2025-07-18T10:00", "Asia/Seoul")
    ).trade_date == days("2025-07-18")


@pytest.mark.parametrize(
    ("business", "symbol"),
    [
        ("stock", "ABC.XX"),
        ("stock", "ABC"),
        ("stock", ""),
        ("stock", "7203.JP"),
        ("bonds", "AAPL.US"),
    ],
)
def test_a_symbol_of_no_known_market_has_no_session(calendars, business, symbol):
    assert calendars.session_of(business, symbol, ms("2024-07-03T15:00")) is None
    assert calendars.session_on(business, symbol, days("2024-07-03")) is None


@pytest.mark.parametrize("market", MARKETS)
def test_sessions_follow_one_another_on_whole_minutes(calendars, market):
    found = sessions_of(calendars, market, date(2019, 1, 1), date(2026, 12, 31))
    assert len(found) > 1_900
    assert all(session.start < session.end for session in found)
    assert all(session.end <= following.start for session, following in pairwise(found))
    assert not any(session.start % 60_000 or session.end % 60_000 for session in found)


@pytest.mark.parametrize(("market", "first", "last"), [
    ("HK", "2010-01-01", "2030-12-31"), ("US", "2010-01-01", "2030-12-31"), ("SH", "2010-01-01", "2026-12-31"),
    ("JP", "2010-01-01", "2030-12-31"), ("KR", "2015-01-01", "2026-12-31"), ("IN", "2015-01-01", "2026-12-31"),
    ("TW", "2019-01-01", "2026-12-31"), ("crypto", "2010-01-01", "2030-12-31"),
])  # fmt: skip
def test_a_time_beyond_the_calendar_is_an_error_and_not_no_session(calendars, market, first, last):
    business, symbol, zone = MARKETS[market]
    begin, end = ms(first, zone), ms(last, zone) + 86_400_000
    for within in (begin, end - 1):
        calendars.session_of(business, symbol, within)
    for beyond in (begin - 1, end, 0, -1, 10**18):
        with pytest.raises(
            BeyondCalendar,
            match=rf"beyond the calendar of \w+ \({first} to {last}\): correct the time, or bring",
        ) as error:
            calendars.session_of(business, symbol, beyond)
        assert (error.value.ts_ms, str(error.value.first), str(error.value.last)) == (
            beyond,
            first,
            last,
        )
    for beyond in (days(first) - 1, days(last) + 1):
        with pytest.raises(BeyondCalendar):
            calendars.session_on(business, symbol, beyond)


def test_forex_is_known_from_the_evening_before_its_first_trade_date(calendars):
    assert trade_date(calendars, "common", "2009-12-31T17:00") == "2010-01-01"
    for beyond in ("2009-12-31T16:59:59.999", "2030-12-31T17:00"):
        with pytest.raises(BeyondCalendar, match="common"):
            session_of(calendars, "common", beyond)


def test_narrower_bounds_change_no_session_within_them(calendars):
    first, last = date(2023, 10, 1), date(2025, 1, 31)
    narrow = Calendars(first, last)
    for market in MARKETS:
        assert sessions_of(narrow, market, first, last) == sessions_of(
            calendars, market, first, last
        )
    with pytest.raises(BeyondCalendar, match=r"TW \(2023-10-01 to 2025-01-31\)"):
        session_of(narrow, "TW", "2025-02-03T10:00")


def test_bounds_outside_of_what_a_market_knows_leave_it_without_a_date():
    with pytest.raises(BeyondCalendar, match="IN"):
        session_of(Calendars(date(2011, 1, 1), date(2012, 1, 1)), "IN", "2011-07-18T10:00")


def test_the_package_has_not_caught_up_with_an_override(calendars, monkeypatch):
    rules = read_rules(YAML)
    monkeypatch.setattr(
        sessions,
        "read_rules",
        lambda document: {name: replace(rule, overrides=()) for name, rule in rules.items()},
    )
    package, superfluous, count = Calendars(), [], 0
    for name, rule in rules.items():
        business, symbol, _ = MARKETS["SH" if name == "CN" else name]
        for override in rule.overrides:
            day, count = days(str(override.date)), count + 1
            if package.session_on(business, symbol, day) == calendars.session_on(
                business, symbol, day
            ):
                superfluous.append((name, override.date))
    assert count > 20
    assert superfluous == [], "these can be taken out of sessions.yaml"


def test_every_mistake_in_the_rules_is_reported_at_once():
    hong_kong = {
        "calendar": "XHKG",
        "before": -1,
        "after": True,
        "closing_auction": 0,
        "first": date(2020, 1, 1),
        "last": date(2021, 1, 1),
    }
    hong_kong["overrides"] = [
        {"date": date(2020, 5, 1), "closed": True},
        {"date": date(2020, 5, 2), "closed": False, "source": ""},
        {"date": date(2022, 5, 1), "open": "10:00", "close": "09:15", "source": "HKEX"},
        {"date": date(2020, 5, 4), "open": 600, "close": "16:00", "source": "HKEX"},
        {"date": date(2020, 5, 4), "closed": True, "source": "HKEX"},
        "2020-05-05",
    ]
    tokyo = {**hong_kong, "calendar": None, "first": "2020", "overrides": []}
    with pytest.raises(BadSessions) as error:
        read_rules(
            {
                "markets": {
                    **YAML["markets"],
                    "HK": hong_kong,
                    "JP": tokyo,
                    "XX": {},
                    "TW": {**YAML["markets"]["TW"], "overrides": None},
                }
            }
        )
    mistakes = "\n".join(error.value.mistakes)
    for mistake in (
        "HK: before is -1, expected minutes from 0 to 120",
        "HK: after is True, expected minutes",
        "expected the keys date, source, and either closed or open and close",
        "source is empty",
        "closed is not true",
        "date is no date from 2020-01-01 to 2021-01-01",
        "open and close are no times in order",
        "HK: date 2020-05-04 is overridden 2 times",
        "JP: calendar is None, expected a name",
        "JP: first is '2020' and last is datetime.date(2021, 1, 1), expected two dates in order",
        "TW: overrides is None, expected a list",
        "XX: no market, expected one of HK",
        "XX: expected the keys calendar, before",
    ):
        assert mistake in mistakes
    assert len(error.value.mistakes) == 17
    assert str(error.value).startswith("correct sessions.yaml: ")


@pytest.mark.parametrize("document", [None, [], {}, {"markets": None}])
def test_rules_without_markets_are_refused(document):
    with pytest.raises(BadSessions, match="markets is missing"):
        read_rules(document)


def test_a_market_left_out_is_named():
    with pytest.raises(BadSessions, match="CN: no such entry"):
        read_rules(
            {"markets": {name: entry for name, entry in YAML["markets"].items() if name != "CN"}}
        )
