"""Sessions by name and date, from public knowledge of each market rather than from the calendar package."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from processors.sessions import BadSessions, BeyondCalendar, Calendars, read_rules

ZONES = {
    "HK": "Asia/Hong_Kong",
    "US": "America/New_York",
    "SH": "Asia/Shanghai",
    "SZ": "Asia/Shanghai",
    "JP": "Asia/Tokyo",
    "KS": "Asia/Seoul",
    "IN": "Asia/Kolkata",
    "TW": "Asia/Taipei",
}
BUSINESS = {"JP": "japan", "KS": "korea", "IN": "india", "TW": "taiwan"}
SYMBOL = {
    "HK": "00700.HK",
    "US": "AAPL.US",
    "SH": "600519.SH",
    "SZ": "002594.SZ",
    "JP": "7203.JP",
    "KS": "005930.KS",
    "IN": "RELIANCE.IN",
    "TW": "2330.TW",
}


@pytest.fixture(scope="module")
def calendars():
    return Calendars()


def ms(text, zone="UTC"):
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def trade_date(session):
    return None if session is None else str(date(1970, 1, 1) + timedelta(days=session.trade_date))


def in_session(calendars, market, local):
    return trade_date(calendars.session_of(BUSINESS.get(market, "stock"), SYMBOL[market], ms(local, ZONES[market])))


@pytest.mark.parametrize(
    ("market", "local"),
    [
        ("HK", "2024-02-12T10:00"),  # Lunar New Year
        ("HK", "2023-09-08T10:00"),  # black rainstorm
        ("HK", "2023-07-17T10:00"),  # typhoon Talim
        ("US", "2024-11-28T10:00"),  # Thanksgiving
        ("US", "2025-07-04T10:00"),  # Independence Day
        ("US", "2025-01-09T10:00"),  # mourning for Jimmy Carter
        ("SH", "2024-10-02T10:00"),  # National Day
        ("SZ", "2024-02-12T10:00"),  # Spring Festival
        ("JP", "2024-05-03T10:00"),  # Golden Week
        ("KS", "2024-09-17T10:00"),  # Chuseok
        ("IN", "2024-11-15T10:00"),  # Guru Nanak
        ("TW", "2024-02-12T10:00"),  # Lunar New Year
        ("TW", "2024-10-31T10:00"),  # typhoon Kong-rey
        ("HK", "2024-02-10T10:00"),  # a Saturday
    ],
)
def test_a_holiday_has_no_session(calendars, market, local):
    assert in_session(calendars, market, local) is None


@pytest.mark.parametrize(
    ("market", "inside", "outside"),
    [
        ("HK", "2025-07-18T16:08:33", "2025-07-18T16:10:00"),  # closing auction
        ("HK", "2025-07-18T09:20:00", "2025-07-18T08:59:59"),  # opening auction
        ("HK", "2025-07-18T12:30:00", "2025-07-18T20:00:00"),  # lunch
        ("HK", "2024-12-24T12:08:00", "2024-12-24T13:30:00"),  # half day, Christmas Eve
        ("HK", "2024-02-09T12:08:00", "2024-02-09T13:30:00"),  # half day, Lunar New Year's Eve
        ("US", "2025-07-18T09:30:00", "2025-07-18T09:29:59"),
        ("US", "2025-07-18T15:59:59", "2025-07-18T16:00:00"),
        ("US", "2024-11-29T12:59:59", "2024-11-29T13:00:00"),  # half day after Thanksgiving
        ("SH", "2023-02-01T09:25:00", "2023-02-01T09:14:59"),
        ("SH", "2023-02-01T15:00:01", "2023-02-01T15:05:00"),
        ("SZ", "2023-02-01T12:00:00", "2023-02-01T20:00:00"),  # lunch
        ("JP", "2024-11-05T15:30:00", "2024-11-01T15:30:00"),  # the close moved to 15:30 on 5 November 2024
        ("KS", "2025-11-12T09:00:20", "2025-11-13T09:30:00"),  # exam day opens at 10:00
        ("KS", "2025-11-13T16:15:00", "2025-11-12T16:15:00"),
        ("IN", "2024-11-01T18:30:00", "2024-11-01T10:00:00"),  # Muhurat trading
        ("IN", "2025-02-01T10:00:00", "2025-02-08T10:00:00"),  # Budget Saturday
        ("TW", "2025-07-18T13:32:00", "2025-07-18T13:36:00"),
    ],
)
def test_auctions_half_days_and_special_sessions(calendars, market, inside, outside):
    assert in_session(calendars, market, inside) == inside[:10]
    assert in_session(calendars, market, outside) is None


def test_the_sample_trade_of_the_vendor_lies_in_the_closing_auction(calendars):
    assert trade_date(calendars.session_of("stock", "00005.HK", 1752826113546)) == "2025-07-18"


@pytest.mark.parametrize(
    ("day", "open_utc"), [("2025-03-07", "14:30"), ("2025-03-10", "13:30"), ("2025-10-31", "13:30"), ("2025-11-03", "14:30")]
)
def test_daylight_saving_moves_the_us_open(calendars, day, open_utc):
    opens = ms(f"{day}T{open_utc}")
    assert calendars.session_of("stock", "AAPL.US", opens - 1) is None
    assert calendars.session_of("stock", "AAPL.US", opens).start == opens


def test_crypto_days_are_utc_days(calendars):
    midnight = ms("2024-08-09T00:00")
    assert trade_date(calendars.session_of("crypto", "BTCUSDT", midnight - 1)) == "2024-08-08"
    assert trade_date(calendars.session_of("crypto", "BTCUSDT", midnight)) == "2024-08-09"


@pytest.mark.parametrize(("local", "expected"), [
    ("2024-01-03T16:59:59.999", "2024-01-03"), ("2024-01-03T17:00", "2024-01-04"),
    ("2024-07-03T16:59:59.999", "2024-07-03"), ("2024-07-03T17:00", "2024-07-04"),
    ("2024-07-07T17:00", "2024-07-08"),  # Sunday evening belongs to Monday
    ("2024-07-05T17:00", None), ("2024-07-06T12:00", None),  # the weekend
    ("2023-12-25T18:00", "2023-12-26"),
])  # fmt: skip
def test_forex_and_futures_turn_over_at_17_new_york(calendars, local, expected):
    assert trade_date(calendars.session_of("common", "USDJPY", ms(local, "America/New_York"))) == expected


def test_a_forex_day_has_an_hour_less_when_clocks_go_forward(calendars):
    session = calendars.session_of("common", "USDJPY", ms("2024-03-11T12:00"))
    assert datetime.fromtimestamp(session.start / 1000, UTC).hour == 21
    assert calendars.session_of("common", "USDJPY", ms("2024-03-08T12:00")).start == ms("2024-03-07T22:00")


def test_a_time_beyond_the_calendar_is_an_error_and_not_no_session(calendars):
    for beyond in ("1999-01-04T02:00", "2041-01-03T02:00"):
        with pytest.raises(BeyondCalendar, match="beyond the calendar of HK"):
            calendars.session_of("stock", "00700.HK", ms(beyond))


def test_a_symbol_of_no_known_market_has_no_session(calendars):
    assert calendars.session_of("stock", "ABC.XX", ms("2024-07-03T12:00")) is None


def test_every_mistake_in_the_rules_is_reported_at_once():
    with pytest.raises(BadSessions, match=r"(?s)HK: before is -1.*HK: override.*source is missing.*CN: no such entry"):
        read_rules(
            {
                "markets": {
                    "HK": {
                        "calendar": "XHKG",
                        "before": -1,
                        "after": 0,
                        "first": date(2020, 1, 1),
                        "last": date(2021, 1, 1),
                        "overrides": [{"date": date(2020, 5, 1), "closed": True}],
                    }
                }
            }
        )
