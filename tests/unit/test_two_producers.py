"""Two producers of one feed, and what is redriven of an old connection: counted and named, and the
feed keeps its connection."""

import logging

import pytest
from unit.test_feeds import T, control, feeds, restored, trade
from unit.test_health import healthy_worker

from processors.model import strays
from processors.model.event_time import Feeds
from processors.model.strays import Strays, is_older

OLD, NEW = "f-1700000000000000", "f-1700000100000000"
RECEIVED_LATER = 1_700_000_100_000_001
"""Microseconds: after NEW was made."""


@pytest.fixture
def counted(monkeypatch):
    found = Strays()
    monkeypatch.setattr("processors.model.event_time.STRAYS", found)
    return found


def begun(*connections) -> Feeds:
    state = feeds()
    for second, connection in enumerate(connections):
        state.control(control("begin", T + second * 1000, connection=connection))
    return state


def test_records_of_two_producers_flip_no_connection_and_are_counted(counted, caplog):
    caplog.set_level(logging.WARNING)
    state = begun(OLD, NEW)
    for number in range(50):
        assert state.accept(trade(T + 102_000 + number, connection=(OLD, NEW)[number % 2]))
        state.control(control("mark", T + 102_000 + number, symbol=None, connection=OLD))
    assert state.feed("f").connection == NEW
    assert counted.records == 75
    assert state.completeness("A", T + 1000, T + 103_000) == "complete"
    assert [
        f"records of connection {OLD} were received after {NEW} was made" in each.message
        for each in caplog.records
    ] == [True]


def test_what_came_late_from_the_network_is_counted_and_accuses_nobody(counted, caplog):
    caplog.set_level(logging.INFO)
    state = begun(OLD, NEW)
    # one process received it, was killed, and its last request arrived after its successor's
    assert state.accept(trade(T + 2000, connection=OLD, recv=RECEIVED_LATER // 1000 - 5))
    assert counted.records == 1
    assert state.feed("f").connection == NEW
    (line,) = caplog.records
    assert line.levelno == logging.INFO
    assert "late or redriven" in line.message


def test_the_log_names_them_once_a_minute(counted, caplog, monkeypatch):
    now = 0.0
    monkeypatch.setattr(strays.time, "monotonic", lambda: now)
    for now in range(1, 181):  # noqa: B007 - the clock reads it
        counted.count("f", OLD, NEW, RECEIVED_LATER)
    assert [each.message.rpartition(": ")[2] for each in caplog.records] == [
        "f 1)",
        "f 60)",
        "f 60)",
    ]


def test_a_redriven_record_leaves_a_later_gap_as_it_is(counted):
    def gap(redriven):
        state = begun(OLD)
        state.accept(trade(T + 10_000, connection=OLD))
        state.control(control("begin", T + 20_000, connection=NEW, ts_from=T + 15_000))
        state.accept(trade(T + 60_000, connection=NEW))
        if redriven:
            state.accept(trade(T + 9_000, connection=OLD))
        state.accept(trade(T + 61_000, connection=NEW))
        state.control(
            control("begin", T + 90_000, connection="f-1700000190000000", ts_from=T + 80_000)
        )
        return [state.completeness("A", T + at * 1000, T + at * 1000 + 999) for at in range(100)]

    assert gap(redriven=True) == gap(redriven=False)


def test_a_begin_makes_a_connection_of_a_clock_that_was_set_back_the_feeds(counted):
    state = begun(NEW, OLD)
    assert state.feed("f").connection == OLD
    state.accept(trade(T + 5000, connection=OLD))
    assert counted.records == 0
    # as it is restored
    assert restored(state).feed("f").connection == OLD


@pytest.mark.parametrize(
    ("connection", "current", "older"),
    [
        (OLD, NEW, True),
        (NEW, OLD, False),
        (OLD, OLD, False),
        ("rest-1", NEW, False),
        (OLD, "rest-9", False),
        ("f-", NEW, False),
        ("f-1_0", NEW, False),
        ("f-" + "9" * 5000, NEW, False),
    ],
)
def test_connections_are_older_by_the_time_in_their_ids(connection, current, older):
    assert is_older("f", connection, current) == older


def test_metric_is_served():
    assert "infoway_older_connection_records" in [
        sample.name for sample in healthy_worker().samples()
    ]
