"""While a commit is under way agents go on: what they write waits for the next transaction, bounded
and in order."""

import asyncio
import threading
from contextlib import asynccontextmanager

import drill
import pipelines
import pytest
from confluent_kafka.admin import NewTopic
from small_worker import Left, Pipeline, keep_open, leave_by_exception
from tally import Tally, decode_tally

from processors.engine import engine as engine_module
from processors.engine import held
from processors.engine.batch import Batch
from processors.engine.engine import Engine
from processors.engine.transactions.exits import Exit


class Slow:
    """An engine in this process with the tally's agents, and a commit that stands still."""

    def __init__(self, bootstrap, name):
        self.bootstrap = bootstrap
        self.tally = pipelines.tally(name)
        topics = [
            NewTopic(topic, 1, 1, config=drill.COMPACTED if compacted else {})
            for topic, compacted in self.tally.topics().items()
        ]
        drill.create_topics(bootstrap, topics)
        # only for a member of a group
        self.group = Pipeline(bootstrap, f"{name}-member")
        self.member = self.group.member()
        self.at, self.go_on = asyncio.Event(), threading.Event()
        self.next = 0

    async def started(self):
        self.engine = Engine(
            self.bootstrap,
            f"{self.group.name}-0",
            self.tally.agents,
            self.tally.outputs,
            membership=lambda: self.member,
        )
        await self.engine.start()
        continues = await self.engine.assign(self.member, [(self.tally.source, 0)])
        self.next = continues[self.tally.source, 0]
        return self

    def batch(self, value=b"trade"):
        """The next ten records, for both agents."""
        offsets = range(self.next, self.next + 10)
        records = [decode_tally(b"k", value, offset) for offset in offsets]
        batch = Batch((self.tally.source, 0), self.member, self.next, records, self.next + 10)
        self.next += 10
        return batch

    async def handle(self, batch, *places):
        """Have a batch applied by both agents, or by some; not for as long as a commit stands."""
        for place in places or (0, 1):
            await asyncio.wait_for(self.engine.handle(self.tally.agents[place], batch), 60)

    @asynccontextmanager
    async def committing(self, step="after flush"):
        """Begin a commit that does not come beyond a step of it before the end."""
        loop = asyncio.get_running_loop()

        def stand_still(now):
            if now == step:
                loop.call_soon_threadsafe(self.at.set)
                self.go_on.wait(60)

        self.engine.commits.transactions.at_step = stand_still
        commit = asyncio.create_task(self.engine.commit_beside_work())
        await asyncio.wait_for(self.at.wait(), 60)
        try:
            yield commit
        finally:
            self.go_on.set()
            await commit
            self.engine.commits.transactions.at_step = lambda now: None

    def numbers(self, isolation, agent="fast"):
        """The offsets of the rows that an agent has written, in order."""
        log = drill.read(self.bootstrap, f"{self.tally.source[:-3]}-{agent}", isolation)[0]
        return [int(message.value().split()[1]) for message in log]

    def commits(self, count, agent="fast"):
        """Whether consumers come to see this many rows of an agent's: a commit is answered before
        its markers are written everywhere."""
        return drill.wait_until(
            lambda: self.numbers("read_committed", agent) == list(range(count)), 30
        )

    def close(self):
        self.group.consumer.close()


@pytest.fixture
def slow(stack, namespace, monkeypatch):
    keep_open(monkeypatch)
    made = Slow(stack.bootstrap, namespace)
    yield made
    made.close()


def test_records_are_applied_during_a_commit_and_go_out_with_the_next(slow):
    async def run():
        await slow.started()
        await slow.handle(slow.batch())
        async with slow.committing():
            await slow.handle(slow.batch())
            assert slow.engine.commits.open
            assert slow.numbers("read_uncommitted") == list(range(10))
        # the transaction that has begun holds them
        assert drill.wait_until(lambda: len(slow.numbers("read_uncommitted")) == 20, 60)
        assert slow.commits(10)
        await slow.engine.commit()
        assert not slow.engine.commits.open
        assert slow.commits(20)
        assert slow.commits(20, "slow")
        # state and outputs agree: the next worker goes on behind both
        assert (await slow.started()).next == 20

    asyncio.run(run())


def test_a_revocation_during_a_commit_leaves_nothing_open_and_loses_nothing(slow):
    async def run():
        await slow.started()
        await slow.handle(slow.batch())
        async with slow.committing() as commit:
            await slow.handle(slow.batch())
            revoked = asyncio.create_task(slow.engine.revoke())
            await asyncio.sleep(0)
            slow.go_on.set()
            await commit
            await revoked
        assert not slow.engine.commits.open
        assert slow.commits(20)
        # what comes for the assignment that is over is left to whoever has it now
        await slow.handle(slow.batch())
        assert not slow.engine.commits.open

    asyncio.run(run())


def test_what_waits_is_bounded(slow, monkeypatch):
    monkeypatch.setattr(held, "MOST_BYTES", 1000)

    async def run():
        await slow.started()
        await slow.handle(slow.batch())
        async with slow.committing():
            first = slow.batch()
            await slow.handle(first, 0)
            second = asyncio.create_task(slow.engine.handle(slow.tally.agents[0], slow.batch()))
            done, _ = await asyncio.wait([second], timeout=0.5)
            assert not done
        await asyncio.wait_for(second, 30)
        await slow.handle(first, 1)
        await slow.engine.commit()
        assert slow.commits(30)
        assert slow.commits(20, "slow")

    asyncio.run(run())


@pytest.mark.parametrize("during", [False, True])
def test_an_agent_that_fails_during_a_commit_ends_the_worker_behind_it(slow, monkeypatch, during):
    leave_by_exception(monkeypatch)

    def leave(code, why):
        raise Left(code, why)

    monkeypatch.setattr(engine_module, "leave", leave)
    huge = Tally.apply

    def apply(self, state, records):
        rows = huge(self, state, records)
        if records[0].offset == 10 and self.name == "fast":
            if during:
                raise ArithmeticError("cannot count")
            # found by librdkafka alone, once the next transaction takes it
            rows.append(("fast", "k", ("x" * 2_000_000,)))
        return rows

    monkeypatch.setattr(Tally, "apply", apply)

    async def run():
        await slow.started()
        await slow.handle(slow.batch())
        with pytest.raises(Left) as left:
            async with slow.committing():
                failing = asyncio.create_task(
                    slow.engine.handle(slow.tally.agents[0], slow.batch())
                )
                await asyncio.wait([failing], timeout=0.5)
                slow.go_on.set()
                if during:
                    await failing
        code, why = left.value.args
        assert code == Exit.AGENT_FAILED
        assert f"{slow.tally.source}[0] offsets 10 to 19, failure 1 of 3" in why

    asyncio.run(run())
    assert slow.commits(10)
