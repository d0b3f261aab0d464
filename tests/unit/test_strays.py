"""Which records are of another source than their partition: the same for every way to cut the log
into batches."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_message import Message
from unit.raw_records import raw_trade

from processors.agents.vwap.agent import Vwap
from processors.decode.raw_records import trade_of
from processors.engine.dead_letters import DeadLetterCounts
from processors.engine.engine import Agent, Engine
from processors.engine.outputs import Outputs
from processors.engine.sources import Sources, of_one_source
from processors.engine.transactions.group import Member
from processors.model.event_time import EventTime
from processors.model.records import ControlRecord, Heal, SourcesMixed, Unreadable
from processors.model.sessions import Calendars
from processors.settings import Settings, SettingsError
from schemas.control import Control
from schemas.topics import load_example

T = 1_752_825_600_000
TOPIC, PLACE, MEMBER = "infoway.raw.trade", ("infoway.raw.trade", 0), Member("g", 1, "m")


def message(offset, headers=None):
    return Message(offset, None if headers else b"value %d" % offset, b"BTCUSDT", headers)


def record(offset, source):
    if source in ("mark", "odd mark"):
        return ControlRecord(
            offset,
            None,
            Control(
                "mark",
                "crypto-1",
                "crypto",
                "c",
                "live" if source == "mark" else "replay",
                T,
                T * 1000,
            ),
        )
    if source == "heal":
        return Heal(offset, "BTCUSDT", "1m", T, T + 60_000, (1, 1, 1, 1), 1, 1, "crypto", T)
    if source is None:
        return Unreadable(offset, None, b"", "E", "why")
    raw = {
        **load_example("raw_trade"),
        "symbol": "BTCUSDT",
        "business": "crypto",
        "source": source,
        "ts_event": T,
        "ts_recv": T * 1000,
    }
    return trade_of(offset, raw_trade(raw))


SOURCES = st.lists(
    st.sampled_from(
        [
            "live",
            "live",
            "simulated",
            "replay",
            "rest",
            "\x1b[31m",
            "mark",
            "odd mark",
            "heal",
            None,
        ]
    ),
    max_size=30,
)


def taken(sources, cuts, expected=None):
    """Return what becomes of records in batches that end at the cuts."""
    found = []
    for begin, end in zip([0, *cuts], [*cuts, len(sources)], strict=True):
        records = [record(offset, sources[offset]) for offset in range(begin, end)]
        expected = of_one_source(
            records, [message(offset) for offset in range(begin, end)], expected, 0
        )
        found += records
    return found, expected


@given(SOURCES, st.lists(st.integers(0, 30), max_size=4))
def test_the_decision_depends_on_the_log_alone(sources, cuts):
    whole, source = taken(sources, [])
    cuts = sorted(min(cut, len(sources)) for cut in cuts)
    assert taken(sources, cuts) == (whole, source)
    # a worker that starts in the middle knows the source from its state
    middle = len(sources) // 2
    _, known = taken(sources[:middle], [])
    rest = [record(offset, sources[offset]) for offset in range(middle, len(sources))]
    of_one_source(rest, [message(offset) for offset in range(middle, len(sources))], known, 0)
    assert rest == whole[middle:]


def test_what_rest_gives_is_of_every_source_and_anything_else_is_a_dead_letter_with_its_headers():
    headers = [("control", b"mark"), ("source", b"replay")]
    records = [
        record(0, "rest"),
        record(1, "\x1b[31m"),
        record(2, "heal"),
        record(3, "live"),
        record(4, "odd mark"),
        record(5, "mark"),
    ]
    messages = [*map(message, range(4)), message(4, headers), message(5)]
    assert of_one_source(records, messages, None, 3) == "live"
    assert [isinstance(each, Unreadable) for each in records] == [
        True,
        True,
        False,
        False,
        True,
        False,
    ]
    assert (records[4].error_class, records[4].key, records[4].value, records[4].headers) == (
        "SourcesMixed",
        b"BTCUSDT",
        b"",
        tuple(headers),
    )
    assert records[0].value == b"value 0"
    assert (
        "partition 3 offset 4 is of source 'replay', the state was built from 'live'"
        in records[4].error_text
    )


def engine():
    agent = Agent(Vwap(("1m",), Calendars(), EventTime()), (TOPIC,), "state", True)
    return Engine("", "", (agent,), Outputs({}), membership=lambda: MEMBER)


def test_a_setting_is_worth_more_than_the_first_record():
    first_wins, named = Sources(None, [(TOPIC,)]), Sources("live", [(TOPIC,)])
    assert not isinstance(
        first_wins.sort_out(PLACE, [record(0, "replay")], [message(0)])[0], Unreadable
    )
    assert isinstance(named.sort_out(PLACE, [record(0, "replay")], [message(0)])[0], Unreadable)
    assert (first_wins.of(PLACE), named.of(PLACE)) == ("replay", "live")
    assert first_wins.of((TOPIC, 1)) is None


def test_a_new_agent_goes_by_the_states_of_those_before_it():
    sources = Sources(None, [("klines", "bars"), (TOPIC,), (TOPIC,)])
    sources.restore([(PLACE, None), (PLACE, "live"), (("klines", 0), None)])
    assert (sources.of(PLACE), sources.of(("bars", 0))) == ("live", None)
    sources.keep(("bars", 0), "replay")
    assert sources.of(("klines", 0)) == "replay"
    sources.restore([])
    assert sources.of(PLACE) is None
    with pytest.raises(
        SourcesMixed, match="partition 0 is of source 'live', the state was built from 'replay'"
    ):
        Sources("live", [(TOPIC,)]).restore([(PLACE, "replay")])


def settings(**environment):
    return Settings.from_environment(
        {"INFOWAY_BOOTSTRAP": "b:1", "INFOWAY_REGISTRY": "http://r", **environment}
    )


def test_the_setting_is_one_of_the_sources():
    assert settings().source is None
    assert settings(INFOWAY_SOURCE="simulated").source == "simulated"
    with pytest.raises(
        SettingsError, match="INFOWAY_SOURCE='rest': expected one of live, simulated, replay"
    ):
        settings(INFOWAY_SOURCE="rest")


def test_dead_letters_are_counted_and_logged_once_in_a_while(caplog):
    counting = DeadLetterCounts()
    with caplog.at_level(logging.WARNING):
        for offset in range(500):
            counting.add(
                TOPIC,
                0,
                Unreadable(
                    offset, None, b"", "SourcesMixed" if offset % 5 else "E", "why\n\x1b[31m"
                ),
            )
    assert (counting.count, counting.strays) == (500, 400)
    assert len(caplog.records) == 1
    assert "offset 0 is dead-lettered: E: why" in caplog.text
