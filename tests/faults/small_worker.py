"""The smallest worker on the engine's transactions, in this process: it loads its state and goes on
from there."""

import time
from contextlib import suppress

import confluent_kafka as ck
import drill
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic

from processors.engine import commits
from processors.engine.transactions import transactions
from processors.engine.transactions.group import Member
from processors.engine.transactions.transactions import Transactions


class Left(Exception):
    """The worker has ended."""


def keep_open(monkeypatch):
    """Have the broker leave a transaction open for a minute: what a test reads within one may take
    longer than the 10 s after which it would be aborted."""
    monkeypatch.setattr(transactions, "TRANSACTION_TIMEOUT_MS", 60_000)
    monkeypatch.setattr(transactions, "TRANSACTION_LIMIT", 65.0)
    for module in (commits, transactions):
        monkeypatch.setattr(module, "OVERDUE", 80.0)


def leave_by_exception(monkeypatch):
    """Make a worker's end an exception."""

    def leave(code, why):
        raise Left(code, why)

    monkeypatch.setattr(transactions, "leave", leave)
    monkeypatch.setattr(transactions, "LISTED", 0.0)  # nobody takes the slot over here


class Pipeline:
    """A source of numbers, an output and a state topic, and a group with one real member."""

    def __init__(self, bootstrap, name):
        self.bootstrap, self.name = bootstrap, name
        self.source, self.out, self.state = (f"{name}{kind}" for kind in ("in", "out", "state"))
        drill.create_topics(
            bootstrap, [NewTopic(topic, 1, 1) for topic in (self.source, self.out, self.state)]
        )
        self.consumer = ck.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": name,
                "isolation.level": "read_uncommitted",
            }
        )
        self.consumer.subscribe([self.source])
        assert drill.wait_until(
            lambda: self.consumer.poll(0.05) is None and self.consumer.assignment(), 60
        )

    def member(self):
        """The member, out of the metadata that librdkafka has of it."""
        metadata = self.consumer.consumer_group_metadata()
        group, member_id = metadata[11:].split(b"\0")[:2]
        return Member(group.decode(), int.from_bytes(metadata[7:11], "little"), member_id.decode())

    def seen(self):
        """What a read_committed consumer sees: outputs, state, source offset."""
        outputs, states = (
            [int(message.value()) for message in drill.read_to_stable(self.bootstrap, topic)]
            for topic in (self.out, self.state)
        )
        offset = self.consumer.committed([TopicPartition(self.source, 0)], timeout=60)[0].offset
        return outputs, max(states, default=0), max(offset, 0)

    def check(self):
        """Outputs, state and offset agree; returns up to which batch."""

        def torn():
            outputs, state, offset = seen
            return (outputs, state) != ([n for n in range(1, offset + 1) for _ in range(2)], offset)

        seen = self.seen()
        # a commit is answered before its markers are written everywhere
        give_up = time.monotonic() + 15
        while torn() and time.monotonic() < give_up:
            seen = self.seen()
        assert not torn(), f"a torn transaction: {seen}"
        return seen[2]


class Worker:
    """Loads its state and goes on from there, as the engine does: one batch, two outputs, a
    transaction."""

    def __init__(self, pipeline, proxy, at_step):
        self.pipeline, self.at_step = pipeline, at_step
        self.transactions = Transactions.start(proxy.address, f"{pipeline.name}-0")
        self.transactions.at_step = lambda step: self.at_step(step)
        self.applied = pipeline.check()

    def batch(self):
        pipeline, connected = self.pipeline, self.transactions
        self.applied += 1
        connected.begin(pipeline.member())
        self.at_step("after begin")
        connected.produce(pipeline.out, 0, b"k", b"%d" % self.applied)
        connected._flush()
        self.at_step("mid-produce")
        connected.produce(pipeline.out, 0, b"k", b"%d" % self.applied)
        connected.produce(pipeline.state, 0, b"k", b"%d" % self.applied)
        connected.offsets[pipeline.source, 0] = self.applied
        connected.commit()

    def close(self):
        with suppress(KafkaException):  # what ended it is raised once more
            self.transactions.producer.client.close()
