"""What happens to a batch: cut at `applied`, folded, published with its state and offsets in one transaction; no Faust here.

Every agent keeps `applied`, the next offset of each source, in its own state. So agents on one topic move independently, and
what leaves no other trace (a dead letter, a late trade) is not written twice.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from processors.engine.exits import Exit, leave
from processors.engine.group import Member
from processors.engine.outputs import Outputs
from processors.engine.state import APPLIED, StateNotReadable, load_states, log_starts
from processors.engine.transactions import Transactions
from processors.records import Computation, Record, SourcesMixed, Unreadable

log = logging.getLogger(__name__)

Place = tuple[str, int]
"""(full topic name, partition) of a source."""


@dataclass(frozen=True, slots=True)
class Agent:
    """One computation on its source topics (full names throughout); of several it has the same partition of each."""

    computation: Computation[Any]
    sources: tuple[str, ...]
    state_topic: str
    dead_letters: bool
    """Whether this agent writes the dead letters of its sources: exactly one agent of a topic does."""

    @property
    def name(self) -> str:
        """The agent's name, as in `infoway.state.<name>`."""
        return self.computation.name


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one partition, fetched under one assignment."""

    place: Place
    member: Member
    continues: int
    """The offset that follows the batch before in this assignment: nothing lies between it and the first record."""
    records: Sequence[Record]
    next_offset: int


@dataclass(slots=True)
class Held:
    """An agent's state of one partition while it is assigned."""

    state: Any
    applied: dict[str, int]
    """The next offset of each source."""


@dataclass
class Engine:
    """The agents of one worker, their states, and the transaction that joins what they write."""

    bootstrap: str
    transactional_id: str
    agents: tuple[Agent, ...]
    outputs: Outputs
    membership: Callable[[], Member]
    """Reads the present member of the consumer group."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    held: dict[tuple[str, int], Held] = field(default_factory=dict)
    """By the agent's name and the partition."""
    ready: Member | None = None
    """The member for whose assignment the states are loaded."""
    progress_at: float = field(default_factory=time.monotonic)
    """When an agent last finished a batch, or there was none to do (monotonic seconds)."""
    turned_at: float = 0.0
    """When the event loop last had a turn for the membership (monotonic seconds), 0 before the start."""
    member_at: float = 0.0
    """When the worker was last seen to be in the group (monotonic seconds), 0 before."""
    answered_at: float = 0.0
    """When the broker last answered a heartbeat of the membership (monotonic seconds), 0 before."""
    life_at: float = 0.0
    """When the worker last fetched, or an agent finished a batch while one waited (monotonic seconds), 0 before."""
    records_applied: int = 0
    rows_published: int = 0
    dead_lettered: int = 0
    _transactions: Transactions | None = None
    # one thread: librdkafka's transactional calls are made one after the other
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "transactions")
    )

    async def start(self) -> None:
        """Connect the transactional producer; fences what a predecessor in this slot left open."""
        self._transactions = await self._in_thread(self.connect)

    def connect(self) -> Transactions:
        """Return the worker's transactions."""
        return Transactions.start(self.bootstrap, self.transactional_id)

    @property
    def transactions(self) -> Transactions:
        """The worker's transactions; only after start()."""
        assert self._transactions is not None
        return self._transactions

    async def assign(self, member: Member, places: Collection[Place]) -> dict[Place, int]:
        """Load the states of these partitions and return where to read each from.

        Nothing is open and no lock is held while the state topics are read: a transaction of our own would hold back
        the very offset that is waited for.
        """
        await self.commit()
        wanted = [
            (agent, partition)
            for agent in self.agents
            for partition in sorted({at for topic, at in places if topic in agent.sources})
        ]
        try:
            entries = await self._in_thread(
                lambda: self.load(
                    sorted({(agent.state_topic, partition) for agent, partition in wanted})
                )
            )
            starts = await self._in_thread(lambda: log_starts(self.bootstrap, places))
        except StateNotReadable as error:
            leave(Exit.GROUP_LOST, str(error))
        held: dict[tuple[str, int], Held] = {}
        for agent, partition in wanted:
            stored = entries[agent.state_topic, partition]
            applied = {
                topic: _applied(agent, (topic, partition), stored, starts)
                for topic in agent.sources
            }
            held[agent.name, partition] = Held(self._restore(agent, partition, stored), applied)
        async with self.lock:
            self.held = held
            self.ready = member
            # a batch that comes first thing is not late by the time that loading took
            self.progress_at = time.monotonic()
        return {place: self._read_by_all(place) for place in places}

    def load(
        self, partitions: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], dict[bytes, bytes]]:
        """Read state topics up to their high watermark."""
        return load_states(self.bootstrap, partitions)

    def _restore(self, agent: Agent, partition: int, stored: dict[bytes, bytes]) -> Any:
        try:
            return agent.computation.load(partition, stored)
        except Exception as error:
            log.exception("agent %s", agent.name)
            leave(
                Exit.SETUP_WRONG,
                f"{agent.name}: {agent.state_topic}[{partition}] cannot be used: {error}",
            )

    async def revoke(self) -> None:
        """Commit what is open under its own generation and forget every state."""
        async with self.lock:
            await self._commit()
            self.held = {}
            self.ready = None

    async def commit(self) -> None:
        """Commit what is open."""
        async with self.lock:
            await self._commit()

    async def handle(self, agent: Agent, batch: Batch) -> None:
        """Apply a batch to one agent, in one step; a batch of another assignment is left to whoever has it now."""
        async with self.lock:
            held = self.held.get((agent.name, batch.place[1]))
            if held is None or batch.member != self.ready:
                return
            applied = held.applied[batch.place[0]]
            self.check_no_gap(agent, batch, applied)
            records = self.cut(batch, applied)
            if not records or not self._begin(batch.member):
                return
            self._apply(agent, batch, held, records)
            self.progress_at = time.monotonic()

    def cut(self, batch: Batch, applied: int) -> Sequence[Record]:
        """Return the records that the agent has not applied yet."""
        if batch.records[0].offset >= applied:
            return batch.records
        return [record for record in batch.records if record.offset >= applied]

    def check_no_gap(self, agent: Agent, batch: Batch, applied: int) -> None:
        """End the worker where a batch before this one never reached the agent; it will read again from `applied`."""
        if applied < batch.continues:
            leave(
                Exit.GAP_FOUND,
                f"{agent.name}: {batch.place[0]}[{batch.place[1]}] applied up to {applied}, next batch from {batch.continues}",
            )

    def _begin(self, member: Member) -> bool:
        open_for = self.transactions.member
        if open_for is not None:
            return open_for == member
        if self.membership() != member:
            return (
                False  # out of the group: a new assignment follows and reads again from `applied`
            )
        self.transactions.begin(member)
        return True

    def _apply(self, agent: Agent, batch: Batch, held: Held, records: Sequence[Record]) -> None:
        topic, partition = batch.place
        transactions, outputs = self.transactions, self.outputs
        try:
            rows = agent.computation.apply(held.state, records)
            for name, key, fields in rows:
                transactions.produce(*outputs.encode(name, partition, key, fields, topic))
            if agent.dead_letters:
                for record in records:
                    if isinstance(record, Unreadable):
                        transactions.produce(
                            *outputs.dead_letter(topic, partition, record), list(record.headers)
                        )
                        self.dead_lettered += 1
            for key_bytes, value in agent.computation.dirty(held.state):
                transactions.produce(agent.state_topic, partition, key_bytes, value)
        except SourcesMixed as error:
            leave(Exit.SETUP_WRONG, f"{agent.name}: {topic}: {error}")
        except Exception:
            log.exception("agent %s", agent.name)
            leave(
                Exit.AGENT_FAILED,
                f"{agent.name} failed between offsets {records[0].offset} and {records[-1].offset} of {topic}[{partition}]",
            )
        held.applied[topic] = batch.next_offset
        transactions.produce(
            agent.state_topic, partition, APPLIED + topic.encode(), b"%d" % batch.next_offset
        )
        transactions.offsets[batch.place] = self._read_by_all(batch.place)
        self.records_applied += len(records)
        self.rows_published += len(rows)

    def _read_by_all(self, place: Place) -> int:
        topic, partition = place
        return min(
            self.held[agent.name, partition].applied[topic]
            for agent in self.agents
            if topic in agent.sources
        )

    async def _commit(self) -> None:
        if self._transactions is not None:
            await self._in_thread(self._transactions.commit)

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _applied(
    agent: Agent, place: Place, stored: dict[bytes, bytes], starts: Mapping[Place, int]
) -> int:
    """Take the next offset of a source out of the state."""
    if place not in starts:
        leave(
            Exit.SETUP_WRONG,
            f"{agent.name} reads {', '.join(agent.sources)} side by side, and partition {place[1]} of {place[0]} went to another worker or "
            "is not there: all of them must have the same number of partitions",
        )
    applied = int(stored.pop(APPLIED + place[0].encode(), b"%d" % starts[place]))
    if applied < starts[place]:
        leave(
            Exit.SETUP_WRONG,
            f"{agent.name}: offsets {applied} to {starts[place] - 1} of {place[0]}[{place[1]}] were deleted by retention "
            "before they were read: compute anew under a fresh prefix, or give the topic a longer retention",
        )
    return applied
