"""Sessions by name and date, from public knowledge of each market rather than from the calendar
package."""

import random
from collections import Counter
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import cache
from importlib.resources import files
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from processors.model import sessions, trading_days
from processors.model.session_rules import BadSessions, read_rules
from processors.model.sessions import Calendars

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
DAY, HOUR = 86_400_000, 3_600_000
YAML = yaml.safe_load(
    files("processors.model").joinpath("sessions.yaml").read_text(encoding="utf-8")
)


@cache
def shared_calendars():
    return Calendars()


@pytest.fixture(scope="module")
def calendars():
    return shared_calendars()


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
    # Sunday evening belongs to Monday
    ("2024-07-07T16:59:59.999", None), ("2024-07-07T17:00", "2024-07-08"),
    # the weekend
    ("2024-07-05T16:59:59.999", "2024-07-05"), ("2024-07-05T17:00", None),
    ("2024-07-06T12:00", None),
    # ES reopens on Christmas evening
    ("2023-12-25T18:00", "2023-12-26"), ("2023-12-25T18:30", "2023-12-26"),
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


BOUNDS = {
    "HK": ("2010-01-01", "2030-12-31"),
    "US": ("2010-01-01", "2030-12-31"),
    "SH": ("2010-01-01", "2026-12-31"),
    "JP": ("2010-01-01", "2030-12-31"),
    "KR": ("2015-01-01", "2026-12-31"),
    "IN": ("2015-01-01", "2026-12-31"),
    "TW": ("2019-01-01", "2026-12-31"),
}


@pytest.mark.parametrize("market", BOUNDS)
def test_sessions_are_those_of_the_calendar_within_its_bounds_and_assumed_beyond(calendars, market):
    first, last = map(date.fromisoformat, BOUNDS[market])
    assert not any(session.assumed for session in sessions_of(calendars, market, first, last))
    for begin, end in (
        (date(2010, 1, 1), first - timedelta(days=1)),
        (last + timedelta(days=1), date(2032, 12, 31)),
    ):
        assert all(session.assumed for session in sessions_of(calendars, market, begin, end))


@pytest.mark.parametrize("market", BOUNDS)
def test_at_the_bounds_sessions_neither_overlap_nor_leave_a_time_unanswered(calendars, market):
    business, symbol, zone = MARKETS[market]
    for bound in BOUNDS[market]:
        middle = date.fromisoformat(bound)
        found = sessions_of(
            calendars, market, middle - timedelta(days=10), middle + timedelta(days=10)
        )
        assert all(session.end <= following.start for session, following in pairwise(found))
        begin = ms(str(middle - timedelta(days=9)), zone)
        expected = dict.fromkeys(range(begin, begin + 18 * DAY, 600000))
        for session in found:
            expected |= {at: session for at in expected if session.start <= at < session.end}
        # forwards, backwards and at random: what was asked before changes no answer
        order = list(expected)
        for asked in (order, order[::-1], random.Random(1).sample(order, len(order))):
            assert all(calendars.session_of(business, symbol, at) == expected[at] for at in asked)


@pytest.mark.parametrize(
    ("market", "opens", "closes"),
    [
        ("HK", "09:00", "16:11"), ("US", "09:30", "16:01"), ("SH", "09:15", "15:05"),
        ("SZ", "09:15", "15:05"),
        ("JP", "09:00", "15:31"), ("KR", "09:00", "15:35"), ("IN", "09:00", "15:40"),
        ("TW", "09:00", "13:35"),
    ],
)  # fmt: skip
def test_beyond_its_calendar_a_market_has_its_regular_hours_on_local_weekdays(
    calendars, market, opens, closes
):
    business, symbol, zone = MARKETS[market]
    for day in ("2031-03-03", "2031-07-14", "2056-11-08", "2100-01-11", "2100-07-14", "2100-12-31"):
        weekday = date.fromisoformat(day).weekday() < 5
        session = calendars.session_on(business, symbol, days(day))
        expected = (
            (days(day), ms(f"{day}T{opens}", zone), ms(f"{day}T{closes}", zone), True)
            if weekday
            else None
        )
        assert (
            session and (session.trade_date, session.start, session.end, session.assumed)
        ) == expected
        if session:
            assert calendars.session_of(business, symbol, session.start) == session
            assert calendars.session_of(business, symbol, session.end - 1) == session
        for outside in (f"{day}T04:00", f"{day}T18:00"):
            assert session_of(calendars, market, outside) is None


@pytest.mark.parametrize("market", BOUNDS)
def test_regular_hours_breaks_and_auctions_beyond_the_calendar_are_those_of_its_last_whole_days(
    calendars, market
):
    zone = ZoneInfo(MARKETS[market][2])

    def local(session):
        times = (session.start, session.end, *(at for span in session.continuous for at in span))
        return tuple(datetime.fromtimestamp(at / 1000, zone).time() for at in times)

    last = date.fromisoformat(BOUNDS[market][1])
    known = Counter(map(local, sessions_of(calendars, market, last - timedelta(days=60), last)))
    assumed = set(
        map(
            local,
            sessions_of(calendars, market, last + timedelta(days=1), last + timedelta(days=400)),
        )
    )
    assert assumed == {known.most_common(1)[0][0]}


@given(st.sampled_from(list(MARKETS)), st.integers(ms("2010-01-01"), ms("2101-01-01") - 1))
def test_a_time_of_any_year_has_the_session_of_its_local_date_or_none(market, ts):
    calendars, (business, symbol, zone) = shared_calendars(), MARKETS[market]
    session = calendars.session_of(business, symbol, ts)
    local = datetime.fromtimestamp(ts / 1000, ZoneInfo(zone))
    if market == "common" and local.hour >= 17:
        local += timedelta(days=1)
    trade_date = days(str(local.date()))
    on_date = calendars.session_on(business, symbol, trade_date)
    covers = on_date is not None and on_date.start <= ts < on_date.end
    assert session == (on_date if covers else None)
    if market in ("crypto", "common"):
        assert (session is None) == (market == "common" and local.weekday() >= 5)
        assert session is None or not session.assumed
    if on_date:
        assert not (on_date.start % 60_000 or on_date.end % 60_000)


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("ts", [-(10**18), -1, 10**15, 10**18, 1 << 70])
def test_a_time_that_no_date_has_is_in_no_session(calendars, market, ts):
    business, symbol, _ = MARKETS[market]
    assert calendars.session_of(business, symbol, ts) is None
    assert calendars.session_on(business, symbol, ts // DAY) is None


@pytest.mark.parametrize("year", [2015, 2031, 2100])
def test_17_new_york_follows_daylight_saving_in_any_year(calendars, year):
    for day, utc in ((f"{year}-01-14", "22:00"), (f"{year}-07-14", "21:00")):
        weekday = next(
            at
            for at in (day, str(date.fromisoformat(day) + timedelta(days=2)))
            if date.fromisoformat(at).weekday() < 5
        )
        assert calendars.session_on("common", "USDJPY", days(weekday)).end == ms(f"{weekday}T{utc}")


def test_what_is_remembered_of_sessions_is_bounded():
    calendars = Calendars()
    market = calendars._markets["CN"]
    for day in range(days("2027-01-01"), days("2101-01-01")):
        calendars.session_of("stock", "600519.SH", day * DAY + 3 * HOUR)
    assert market.session_on.cache_info().currsize <= 512
    assert market._date_of_cell.cache_info().currsize <= 4096
    for number in range(70_000):
        calendars.session_of("crypto", f"{number}USDT", 0)
    assert len(calendars._of_symbol) <= 1 << 16


def test_no_calendar_is_built_for_what_lies_beyond_its_bounds_nor_for_markets_without_one(
    monkeypatch,
):
    calendars = Calendars()
    monkeypatch.setattr(
        trading_days.ExchangeDays, "_opening_times", lambda self: pytest.fail("built")
    )
    for market in MARKETS:
        session_of(calendars, market, "2040-07-16T10:00")
    session_of(calendars, "crypto", "2026-07-16T10:00")
    session_of(calendars, "common", "2026-07-16T10:00")


def test_a_calendar_that_ends_is_reported_from_60_days_before():
    calendars = Calendars()
    markets = ("CN", "US", "crypto", "common")
    assert list(calendars.ending(markets, date(2026, 10, 31))) == []
    assert list(calendars.ending(markets, date(2026, 11, 1))) == [
        "the calendar of CN ends on 2026-12-31, in 60 days: sessions after it are assumed"
    ]
    assert list(calendars.ending(markets, date(2027, 1, 1))) == [
        "the calendar of CN ended on 2026-12-31: sessions are assumed"
    ]
    assert calendars.exchanges_in_use() == {}
    calendars.session_of("stock", "600519.SH", 0)
    calendars.session_of("crypto", "BTCUSDT", 0)
    assert calendars.exchanges_in_use() == {"CN": date(2026, 12, 31)}


def test_the_package_has_not_caught_up_with_an_override(calendars, monkeypatch):
    rules = read_rules(YAML)
    monkeypatch.setattr(
        sessions,
        "packaged_rules",
        lambda: {name: replace(rule, overrides=()) for name, rule in rules.items()},
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
        "hours": ["09:30", "9:00"],
        "before": -1,
        "after": True,
        "closing_auction": 0,
        "first": date(2020, 1, 1),
        "last": date(2021, 1, 1),
    }
    hong_kong["overrides"] = [
        {"date": date(2020, 5, 1), "closed": True},
        {"date": date(2020, 5, 2), "closed": False, "source": ""},
        {"date": date(2009, 5, 1), "open": "10:00", "close": "09:15", "source": "HKEX"},
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
        "date is no date from 2010-01-01 to 2100-12-31",
        "HK: hours is ['09:30', '9:00'], expected two or four times in order",
        "open and close are no times in order",
        "HK: date 2020-05-04 is overridden 2 times",
        "JP: calendar is None, expected a name",
        "JP: first is '2020' and last is datetime.date(2021, 1, 1), expected two dates in order",
        "TW: overrides is None, expected a list",
        "XX: no market, expected one of HK",
        "XX: expected the keys calendar, hours, before",
    ):
        assert mistake in mistakes
    assert len(error.value.mistakes) == 19
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


@pytest.mark.parametrize(
    ("market", "closed", "opened"),
    [
        (
            "SH",
            ["2027-01-01", "2027-02-05", "2027-02-08", "2027-10-01"],
            ["2027-01-04", "2027-02-03", "2027-09-16"],
        ),
        (
            "KR",
            ["2027-01-01", "2027-02-08", "2027-02-09", "2027-08-16", "2027-12-31"],
            ["2027-01-04", "2027-02-05", "2027-12-30"],
        ),
        ("IN", ["2027-01-26"], ["2027-01-01", "2027-01-25"]),
        (
            "TW",
            ["2027-01-01", "2027-02-04", "2027-03-01", "2027-12-24"],
            ["2027-01-04", "2027-02-26"],
        ),
        # within the calendars: as HKEX, NYSE and JPX have published
        (
            "HK",
            ["2027-01-01", "2027-02-08", "2027-02-09", "2027-03-26", "2027-03-29", "2027-12-27"],
            ["2027-02-10"],
        ),
        (
            "US",
            ["2027-01-01", "2027-01-18", "2027-03-26", "2027-06-18", "2027-07-05", "2027-12-24"],
            ["2027-11-26", "2027-12-31"],
        ),
        ("JP", ["2027-01-01", "2027-02-11", "2027-03-22", "2027-12-31"], ["2027-01-04"]),
    ],
)
def test_what_is_fixed_of_2027_is_known(calendars, market, closed, opened):
    business, symbol, _ = MARKETS[market]
    assert [calendars.session_on(business, symbol, days(day)) for day in closed] == [None] * len(
        closed
    )
    assert all(calendars.session_on(business, symbol, days(day)) for day in opened)
