"""A broker that acknowledges nothing: what it has not is on disk within seconds, sent once, in
order, and outlives a kill."""

import logging
import os
import random
import threading

import pytest
from fakes import ProducerQueue
from unit.test_backlog import IDS, TOPOLOGY, trade

from producers.delivery.backlog import Backlog
from producers.delivery.broker_watch import PERIOD, SILENCE
from producers.delivery.entries import SpoolEntry
from producers.delivery.publisher import Publisher
from producers.delivery.spool import Spool
from producers.feed.metrics import FeedCounters


def opened(folder):
    def report(fields):
        return SpoolEntry("status", fields[0], b"", -1, None, "other", fields[0])

    return Backlog(
        Spool(folder, 1 << 30, "me"),
        "simulated",
        report,
        {"t.infoway.raw.trade": 1},
        lambda topics, oldest: {},
    )


def taken(backlog):
    found = []
    while (each := backlog.next()) is not None:
        found.append(each[1])
        backlog.acknowledge(each[0])
    return found


@pytest.fixture
def now(monkeypatch):
    clock = [1_000.0]
    monkeypatch.setattr("producers.delivery.broker_watch.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("producers.delivery.publisher.time.monotonic", lambda: clock[0])
    return clock


class Run:
    """A producer process over a spool."""

    def __init__(self, folder, room=1_000):
        self.broker, self.backlog, self.counters = (
            ProducerQueue(room),
            opened(folder),
            FeedCounters("crypto-1"),
        )
        self.publisher = Publisher(self.broker, TOPOLOGY, IDS, threading.Event(), self.backlog)

    def receive(self, *numbers):
        self.counters.received += len(numbers)
        self.publisher.publish([trade(number) for number in numbers], self.counters)

    def counts(self):
        self.publisher.account(self.counters)
        return (
            self.counters.queued,
            self.counters.spooled,
            self.counters.acknowledged,
            self.counters.lost,
        )

    def kill(self):
        os.close(self.backlog._spool._lock)


def numbers(entries):
    return [each.sequence for each in entries if each.kind == "raw"]


def values(run, *numbers):
    encode = run.publisher._entries._encoders["infoway.raw.trade"]
    return [encode(*trade(number).record) for number in numbers]


def test_what_a_silent_broker_has_not_acknowledged_is_on_disk_and_sent_once(tmp_path, now):
    run = Run(tmp_path / "s")
    run.receive(1, 2, 3)
    assert run.counts() == (3, 0, 0, 0)
    now[0] += SILENCE + 0.1
    run.publisher.serve()
    assert run.counts() == (0, 3, 0, 0)
    run.receive(4, 5)
    assert (run.counts(), len(run.broker)) == ((0, 5, 0, 0), 3)
    run.broker.deliver()
    run.publisher.serve()
    assert run.counts() == (2, 0, 3, 0)
    run.receive(6)
    run.broker.deliver()
    run.publisher.serve()
    assert run.counts() == (0, 0, 6, 0)
    assert run.broker.values() == values(run, 1, 2, 3, 4, 5, 6)
    assert not list((tmp_path / "s").glob("*.spool"))


def test_a_kill_while_it_is_silent_loses_nothing_and_claims_no_gap(tmp_path, now):
    run = Run(tmp_path / "s")
    run.receive(1, 2, 3)
    now[0] += SILENCE + 0.1
    run.receive(4)
    run.receive(5)
    run.kill()
    found = taken(opened(tmp_path / "s"))
    assert (numbers(found), len(found)) == ([1, 2, 3, 4, 5], 5)


def test_a_kill_after_it_is_back_claims_a_gap_again(tmp_path, now):
    run = Run(tmp_path / "s")
    run.receive(1, 2)
    now[0] += SILENCE + 0.1
    run.publisher.serve()
    run.receive(3)
    run.broker.deliver()
    run.publisher.serve()
    run.receive(4)  # in memory alone, behind one that is on disk
    run.kill()
    found = taken(opened(tmp_path / "s"))
    assert [each.value is None for each in found] == [True, False]
    assert numbers(found) == [3]


def test_a_full_queue_is_copied_before_anything_later_goes_to_disk(tmp_path, now):
    run = Run(tmp_path / "s", room=2)
    run.receive(1, 2, 3)
    assert run.counts() == (0, 3, 0, 0)
    run.kill()
    assert numbers(taken(opened(tmp_path / "s"))) == [1, 2, 3]


def test_what_is_acknowledged_while_it_is_copied_is_counted_once_and_leaves_the_disk(
    tmp_path, now, monkeypatch
):
    run = Run(tmp_path / "s")
    run.receive(1, 2, 3)
    now[0] += SILENCE + 0.1
    keep = run.backlog.keep

    def interrupted(entries):
        segments = keep(entries)
        run.broker.deliver(2)  # as another feed's thread would
        return segments

    monkeypatch.setattr(run.backlog, "keep", interrupted)
    run.publisher.serve()
    assert run.counts() == (0, 1, 2, 0)
    run.broker.deliver()
    assert run.counts() == (0, 0, 3, 0)
    assert not list((tmp_path / "s").glob("*.spool"))


def test_with_a_disk_that_takes_nothing_records_stay_in_memory_while_it_has_room(
    tmp_path, now, monkeypatch
):
    run = Run(tmp_path / "s", room=4)
    monkeypatch.setattr("producers.delivery.spool.os.write", lambda file, data: 0)
    run.receive(1, 2)
    now[0] += SILENCE + 0.1
    run.publisher.serve()
    run.receive(3, 4)
    assert run.counts() == (4, 0, 0, 0)
    run.receive(5)
    assert run.counts() == (4, 0, 0, 1)
    monkeypatch.undo()


def test_an_end_on_a_full_disk_loses_nothing_that_is_on_disk_already(tmp_path, now, monkeypatch):
    run = Run(tmp_path / "s")
    run.receive(1, 2)
    now[0] += SILENCE + 0.1
    run.receive(3)
    with monkeypatch.context() as patched:
        patched.setattr("producers.delivery.spool.os.write", lambda file, data: 0)
        assert run.publisher.close(0) == 3
    assert (run.counts(), run.backlog.whole) == ((0, 3, 0, 0), True)
    found = taken(opened(tmp_path / "s"))
    assert (numbers(found), len(found)) == ([1, 2, 3], 3)


def test_the_log_says_when_it_goes_and_comes_and_once_a_minute_how_much_waits(
    tmp_path, now, caplog
):
    caplog.set_level(logging.WARNING, "producers.delivery.broker_watch")
    run = Run(tmp_path / "s")
    run.receive(1, 2)
    now[0] += SILENCE + 1
    run.publisher.serve()
    for number in range(3, 103):
        run.receive(number)
        now[0] += (PERIOD + 1) / 100
    run.broker.deliver(1)
    run.publisher.serve()
    run.publisher.serve()
    assert [record.message for record in caplog.records] == [
        "the broker is away for 3 s: 2 records wait on disk, 0 in memory alone",
        "the broker is away for 63 s: 102 records wait on disk, 0 in memory alone",
        "the broker is back after 64 s: 101 records wait on disk, 0 in memory alone",
    ]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_broker_disk_and_kills_do_nothing_is_swapped_and_what_is_missing_is_counted(
    tmp_path, now, monkeypatch, seed
):
    chance, folder = random.Random(seed), tmp_path / "s"
    full, write = [False], os.write
    monkeypatch.setattr("producers.delivery.spool.SEGMENT", 1_000)
    monkeypatch.setattr(
        "producers.delivery.spool.os.write", lambda file, data: 0 if full[0] else write(file, data)
    )
    run, number = Run(folder, room=20), 0
    for _ in range(300):
        act = chance.random()
        if act < 0.55:
            run.receive(*range(number + 1, number + 1 + chance.randrange(1, 6)))
            number += len(range(run.counters.received - number))
        elif act < 0.75:
            run.broker.deliver(chance.randrange(1, 30))
        elif act < 0.9:
            now[0] += chance.choice((0.5, SILENCE + 0.1))
        else:
            full[0] = chance.random() < 0.3
        run.publisher.serve()
        run.counts()
    full[0] = False
    now[0] += 2
    encoded = {value: place for place, value in enumerate(values(run, *range(1, number + 1)), 1)}
    if seed % 2:
        run.publisher.close(0)
        _, spooled, acknowledged, lost = run.counts()
        left = numbers(taken(opened(folder)))
        assert len(left) == spooled
    else:
        while len(run.broker) or not run.backlog.empty:
            run.broker.deliver()
            run.publisher.serve()
        _, _, acknowledged, lost = run.counts()
        left = []
    sent = [encoded[value] for value in run.broker.values() if value in encoded]
    assert sent + left == sorted(set(sent + left))
    assert (len(sent), len(sent) + len(left) + lost) == (acknowledged, number)
