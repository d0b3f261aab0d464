"""What waits for the broker: in order over outages and ends, and told as lost where the disk takes
nothing."""

import errno
import os
import threading

import pytest
from fakes import ProducerQueue

from producers.delivery.backlog import Backlog, BacklogFull
from producers.delivery.entries import SpoolEntry
from producers.delivery.publisher import Publisher
from producers.delivery.spool import Spool
from producers.feed.metrics import FeedCounters
from producers.feed.outputs import Publication
from schemas.control import read_control
from schemas.partition import partition_of
from schemas.records import DeadLetterRecord, RawKlineRecord, RawTradeRecord
from schemas.topics import Topology

TOPOLOGY = Topology(prefix="t.")
IDS = {topic.name: number for number, topic in enumerate(TOPOLOGY.topics(), 1) if topic.schema}


def trade(n):
    return Publication(
        "infoway.raw.trade",
        "X",
        RawTradeRecord(
            symbol="X",
            ts_event=1,
            price="1",
            volume="2",
            turnover=None,
            direction=0,
            trade_type=None,
            repeat=False,
            business="crypto",
            feed="crypto-1",
            connection="c",
            sequence=n,
            ts_recv=n * 1000,
            source="simulated",
            extra=None,
        ),
    )


def opened(folder, partitions=1):
    def report(fields):
        headers = [("symbols", ",".join(fields[7]).encode()), ("times", b"%d %d" % fields[5:7])]
        return SpoolEntry("status", fields[0], fields[4].encode(), -1, headers, "other", fields[0])

    return Backlog(
        Spool(folder, 1 << 30, "me"),
        "simulated",
        report,
        {"t.infoway.raw.trade": partitions},
        lambda topics, oldest: {},
    )


def entry(number, kind="raw"):
    return SpoolEntry(
        "t.infoway.raw.trade", "X", b"v", -1, None, kind, "crypto-1", "c", number, number
    )


def taken(backlog):
    found = []
    while (each := backlog.next()) is not None:
        segment, read, _ = each
        found.append(read)
        backlog.acknowledge(segment)
    return found


def test_what_came_from_disk_and_what_followed_it_keep_their_order_at_an_end(tmp_path):
    queue, backlog, counters = ProducerQueue(3), opened(tmp_path / "s"), FeedCounters("crypto-1")
    target = Publisher(queue, TOPOLOGY, IDS, threading.Event(), backlog)
    counters.received = 7
    target.publish(
        [trade(number) for number in range(1, 6)], counters
    )  # three in the queue, two on disk
    queue.deliver()  # the broker is back
    target.serve()
    assert (backlog.empty, len(queue)) == (True, 2)
    queue.room = 10
    target.publish([trade(6), trade(7)], counters)  # directly, behind those from disk
    assert target.close(0) == 4  # away again
    target.account(counters)
    assert counters.spooled == 4
    again = opened(tmp_path / "s")
    assert [each.sequence for each in taken(again)] == [4, 5, 6, 7]
    assert again.bytes == 0


def test_a_segment_that_is_half_delivered_at_an_end_is_not_delivered_twice(tmp_path):
    queue, backlog, counters = ProducerQueue(2), opened(tmp_path / "s"), FeedCounters("crypto-1")
    target = Publisher(queue, TOPOLOGY, IDS, threading.Event(), backlog)
    counters.received = 9
    target.publish([trade(number) for number in range(1, 10)], counters)
    for _ in range(2):
        queue.deliver()
        target.serve()
    assert target.close(0) == 5
    target.account(counters)
    assert [each.sequence for each in taken(opened(tmp_path / "s"))] == [5, 6, 7, 8, 9]


def test_a_disk_that_takes_nothing_is_a_loss_on_record_and_no_end_of_the_producer(
    tmp_path, monkeypatch
):
    backlog, counters = opened(tmp_path / "s"), FeedCounters("crypto-1")
    backlog.append(entry(1), counters)

    def full(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("producers.delivery.spool.os.write", full)
    for number in range(2, 6):
        backlog.append(entry(number), counters)
    backlog.append(entry(0, "other"), counters)
    assert not backlog.empty
    monkeypatch.undo()
    backlog.append(entry(6), counters)
    assert (counters.lost, counters.spooled) == (4, 2)
    first, held, gap, status, last = taken(backlog)
    assert (first, held.kind, last) == (entry(1), "other", entry(6))
    control = read_control(gap.headers)
    assert (control.kind, control.ts_from, control.ts, control.reason) == (
        "gap",
        2 - 2_000,
        5,
        "4 records lost",
    )
    assert status.value == b"4 records lost: the broker was away and the spool full"


def test_an_end_on_a_full_disk_counts_what_is_lost_and_the_next_start_owns_up(
    tmp_path, monkeypatch
):
    queue, backlog, counters = ProducerQueue(3), opened(tmp_path / "s"), FeedCounters("crypto-1")
    target = Publisher(queue, TOPOLOGY, IDS, threading.Event(), backlog)
    counters.received = 5
    write, refused = os.write, [True]
    # the disk refuses a copy of what the queue holds, and then takes what comes after it
    monkeypatch.setattr(
        "producers.delivery.spool.os.write",
        lambda file, data: 0 if refused and refused.pop() else write(file, data),
    )
    target.publish([trade(number) for number in range(1, 6)], counters)
    assert (counters.queued, counters.spooled, backlog.whole) == (3, 2, True)
    monkeypatch.setattr("producers.delivery.spool.os.write", lambda file, data: 0)
    assert target.close(0) == 2
    assert not backlog.whole
    monkeypatch.undo()
    target.account(counters)
    assert (counters.lost, counters.spooled) == (3, 2)
    gap, *rest = taken(opened(tmp_path / "s"))
    assert (read_control(gap.headers).kind, [each.sequence for each in rest]) == ("gap", [4, 5])


def gaps_of(entries):
    """By place among entries the partition, feed, connection, from and to of each gap."""
    controls = {
        at: (each, read_control(each.headers)) for at, each in enumerate(entries) if each.headers
    }
    return {
        at: (
            each.key,
            each.partition,
            control.feed,
            control.connection,
            control.ts_from,
            control.ts,
        )
        for at, (each, control) in controls.items()
    }


def test_after_a_kill_the_gap_is_of_all_of_a_feed_in_a_partition_not_only_of_what_the_disk_has(
    tmp_path,
):
    backlog, counters = opened(tmp_path / "s", partitions=2), FeedCounters("crypto-1")
    # 0 and 1 are the partitions of these; the healer's kline is no sign of life of the feed that it
    # heals
    for number, (key, kind, feed) in enumerate(
        [
            ("X", "rest", "crypto-2"),
            ("X", "raw", "crypto-1"),
            ("X", "raw", "crypto-2"),
            ("Y", "raw", "crypto-1"),
            ("X", "raw", "crypto-1"),
        ],
        1,
    ):
        backlog.append(
            entry(number, kind)._replace(key=key, feed=feed, connection=f"c{number}"), counters
        )
    os.close(backlog._spool._lock)
    first, *rest = partition_of(b"X", 2), partition_of(b"Y", 2)
    found = taken(opened(tmp_path / "s", partitions=2))
    assert gaps_of(found) == {
        0: (None, first, "crypto-1", "c2", None, 2),
        1: (None, first, "crypto-2", "c3", None, 3),
        2: (None, *rest, "crypto-1", "c4", None, 4),
    }
    assert [each.sequence for each in found[3:]] == [1, 2, 3, 4, 5]


def test_a_start_on_the_full_disk_of_a_killed_producer_tells_of_its_loss_all_the_same(
    tmp_path, monkeypatch
):
    backlog, counters = opened(tmp_path / "s"), FeedCounters("crypto-1")
    backlog.append(entry(4), counters)
    backlog.append(entry(5), counters)
    for ended in ("killed", "in order", None):
        # what waits can only go out if the producer starts
        os.close(backlog._spool._lock)
        monkeypatch.setattr("producers.delivery.spool.os.write", lambda file, data: 0)
        monkeypatch.setattr(
            "producers.delivery.spool.Path.write_text",
            lambda *_: pytest.fail("it would be empty now"),
        )
        backlog = opened(tmp_path / "s")
        # until the loss is told, no mark says that there is none
        assert not backlog.mark_whole(True)
        if ended == "in order":
            assert backlog.close([]) == 3
            backlog = opened(tmp_path / "s")
    gap, *rest = taken(backlog)
    assert (read_control(gap.headers).kind, [each.sequence for each in rest]) == ("gap", [4, 5])
    assert not list((tmp_path / "s").glob("*.spool"))
    assert backlog.mark_whole(True)


def test_damage_in_the_middle_of_the_spool_is_a_gap_in_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr("producers.delivery.spool.SEGMENT", 1)
    backlog, counters = opened(tmp_path / "s"), FeedCounters("crypto-1")
    for number in range(1, 5):
        backlog.append(entry(number), counters)
    assert backlog.close([]) == 4
    damaged = sorted((tmp_path / "s").glob("*.spool"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    found = taken(opened(tmp_path / "s"))
    assert gaps_of(found) == {1: (None, 0, "crypto-1", "c", None, 3)}
    assert [each.sequence for each in found if not each.headers] == [1, 3, 4]


def test_what_is_lost_of_dead_letters_and_klines_of_the_past_is_counted_and_in_the_status(
    tmp_path, monkeypatch
):
    backlog, counters, rest = opened(tmp_path / "s"), FeedCounters("crypto-1"), FeedCounters("rest")
    monkeypatch.setattr("producers.delivery.spool.os.write", lambda file, data: 0)
    for number, kind in enumerate(("dead", "rest", "raw", "mark"), 1):
        key = "X" if kind == "raw" else "Y"
        backlog.append(entry(number, kind)._replace(key=key), rest if kind == "rest" else counters)
    monkeypatch.undo()
    backlog.append(entry(9), counters)
    assert (counters.lost, rest.lost, counters.spooled) == (2, 1, 1)
    gap, status, last = taken(backlog)
    control = read_control(gap.headers)
    assert (control.kind, control.reason, status.value) == (
        "gap",
        "1 records lost",
        b"3 records lost: the broker was away and the spool full",
    )
    assert (status.headers, last.sequence) == ([("symbols", b"X"), ("times", b"1 3")], 9)


def test_a_gap_is_owed_for_what_was_lost_of_trades_alone(tmp_path, monkeypatch):
    backlog, counters, unseen = opened(tmp_path / "s"), FeedCounters("crypto-1"), []
    backlog.report_outage = lambda *told: unseen.append(told)
    monkeypatch.setattr("producers.delivery.spool.os.write", lambda file, data: 0)
    for number, kind in enumerate(("rest", "dead", "raw"), 1):
        backlog.append(entry(number, kind), counters)
    monkeypatch.undo()
    assert backlog.next() is not None
    assert unseen == [("X", "crypto", "crypto-1", 3 - 2_000, 3)]


@pytest.mark.parametrize(
    ("made_before_ms", "repeat", "since_before_ms"),
    [
        (13_000, False, 13_000),
        (500, False, 2_000),
        (9 * 60_000, False, 60_000),
        (13_000, True, 2_000),
    ],
    ids=["held back", "at once", "of long ago", "repeat"],
)
def test_the_gap_of_what_was_lost_begins_when_it_happened(
    tmp_path, monkeypatch, made_before_ms, repeat, since_before_ms
):
    queue, backlog, counters = ProducerQueue(0), opened(tmp_path / "s"), FeedCounters("crypto-1")
    target = Publisher(queue, TOPOLOGY, IDS, threading.Event(), backlog)
    received_ms = 1_700_000_000_000
    envelope = ("crypto", "crypto-1", "c", 1, received_ms * 1000, "simulated", None)
    record = RawTradeRecord(
        "X", received_ms - made_before_ms, "1", "2", None, 0, None, repeat, *envelope
    )
    monkeypatch.setattr("producers.delivery.spool.os.write", lambda file, data: 0)
    target.publish([Publication("infoway.raw.trade", "X", record)], counters)
    monkeypatch.undo()
    gap = read_control(backlog.next()[1].headers)
    assert gap.ts_from == received_ms - since_before_ms


def test_klines_of_the_healer_keep_its_accounts_on_their_way_over_the_disk(tmp_path):
    queue, backlog, counters, rest = (
        ProducerQueue(1),
        opened(tmp_path / "s"),
        FeedCounters("crypto-1"),
        FeedCounters("rest"),
    )
    target = Publisher(queue, TOPOLOGY, IDS, threading.Event(), backlog)
    kline = Publication(
        "infoway.raw.kline",
        "X",
        RawKlineRecord(
            "X",
            "1m",
            60_000,
            *["1"] * 6,
            None,
            None,
            "crypto",
            "crypto-1",
            "rest-1",
            1,
            5_000,
            "rest",
            None,
        ),
    )
    letter = Publication(
        "infoway.dead-letter",
        "X",
        DeadLetterRecord(
            "", None, None, None, b"{}", "BadKline", "o is missing", "crypto-1", "r", 5_000, "rest"
        ),
    )
    counters.received, rest.received = 2, 2
    target.publish([trade(1), trade(2)], counters)
    target.publish([kline, letter], rest)
    assert (counters.spooled, rest.spooled) == (2, 2)
    for _ in range(4):
        queue.deliver()
        target.serve()
        target.account(counters)
        target.account(rest)
    assert (counters.acknowledged, counters.dead_lettered) == (2, 0)
    assert (rest.acknowledged, rest.dead_lettered, backlog.empty) == (1, 1, True)


def test_what_must_not_be_dropped_has_an_end_too(tmp_path, monkeypatch):
    monkeypatch.setattr("producers.delivery.backlog.HELD", 2)
    backlog, counters = opened(tmp_path / "s"), FeedCounters("crypto-1")
    monkeypatch.setattr("producers.delivery.spool.os.write", lambda file, data: 0)
    for number in range(2):
        backlog.append(entry(number, "other"), counters)
    with pytest.raises(BacklogFull, match="make room, or name another by INFOWAY_SPOOL"):
        backlog.append(entry(2, "other"), counters)
