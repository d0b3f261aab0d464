"""What the page reads: partitions that a topic gets later, too, of live records and of the past."""

import time

from confluent_kafka.admin import AdminClient, NewPartitions
from page_records import MINUTE, imbalance

from infra.kafka.offsets import watermarks
from infra.page import follow
from infra.page.follow import Follower
from infra.page.history import History
from schemas.partition import partition_of

from .conftest import wait_until


def symbol_of(partition, partitions):
    """A symbol whose key goes to a partition."""
    names = (f"S{number}" for number in range(1_000))
    return next(each for each in names if partition_of(each.encode(), partitions) == partition)


def test_partitions_that_topics_get_later_are_read(stack, writer, monkeypatch):
    monkeypatch.setattr(follow, "LOOK_S", 0.2)
    # a busy machine is no trouble
    monkeypatch.setattr(follow, "ASK_S", 60.0)
    names, seen, troubles = writer.names, [], []
    history = History(stack.bootstrap, stack.registry_url, names)
    ts = int(time.time() * 1000) // MINUTE * MINUTE
    first, late = symbol_of(0, 2), symbol_of(3, 4)
    with Follower(
        stack.bootstrap, stack.registry_url, names, seen.extend, troubles.append
    ) as follower:
        writer.write("infoway.depth.imbalance", imbalance(first, ts))
        writer.bar(symbol=first, start=ts)
        writer.flush()

        def symbols():
            return [(told.name, told.record["symbol"]) for told in seen]

        wait_until(lambda: len(symbols()) == 2)
        assert len(history(first, "1m", False).since(0)["bars"]) == 1
        admin = AdminClient({"bootstrap.servers": stack.bootstrap})
        topics = [names.name("infoway.depth.imbalance"), names.name("infoway.bars.1m")]
        grown = admin.create_partitions([NewPartitions(topic, 4) for topic in topics])
        for future in grown.values():
            future.result(30)
        wait_until(lambda: all(len(watermarks(stack.bootstrap, each)) == 4 for each in topics))
        writer.partitions(4)
        writer.write("infoway.depth.imbalance", imbalance(late, ts))
        writer.bar(symbol=late, start=ts)
        writer.flush()
        wait_until(lambda: ("infoway.depth.imbalance", late) in symbols(), what="the new partition")
        wait_until(lambda: ("infoway.bars.1m", late) in symbols(), what="the new partition")
        assert follower.unreadable == 0
    assert [each for each in troubles if each] == []
    assert len(history(late, "1m", False).since(0)["bars"]) == 1
    history.close()
