"""What happens to a batch: cut at `applied`, folded, published with its state and offsets in one
transaction; no Faust here.

Every agent keeps `applied`, the next offset of each source, in its own state. So agents on one
topic move independently, and what leaves no other trace (a dead letter, a late trade) is not
written twice.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

from processors.engine.assigned import JOURNALED, AssignedState, restored, stops_of
from processors.engine.assigned import Agent as Agent
from processors.engine.batch import Batch, Piece, Span, count_of, parts_of, since, span_of
from processors.engine.commits import WAIT, Commits
from processors.engine.dead_letters import DeadLetterCounts
from processors.engine.failures import STOPS_AT, Failure, Stopped
from processors.engine.held import Applied
from processors.engine.outputs import Outputs
from processors.engine.sources import SourcePartition, Sources
from processors.engine.state import (
    APPLIED,
    FAILED,
    LOG,
    Abandoned,
    StateNotReadable,
    load_states,
    log_starts,
    topic_ids,
    until_answered,
)
from processors.engine.transactions.exits import Exit, leave
from processors.engine.transactions.group import Member
from processors.engine.transactions.transactions import Transactions
from processors.kernels.columns import EncodedRows
from processors.model.records import Row, SourcesMixed, Unreadable

log = logging.getLogger(__name__)


@dataclass
class Engine:
    """The agents of one worker, their states, and the transaction that joins what they write."""

    bootstrap: str
    transactional_id: str
    agents: tuple[Agent, ...]
    outputs: Outputs
    membership: Callable[[], Member]
    """Reads the present member of the consumer group."""
    source: str | None = None
    """What all records come from, if a setting says so; else each partition's first record
    decides."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    assigned: dict[tuple[str, int], AssignedState] = field(default_factory=dict)
    """By the agent's name and the partition."""
    ready: Member | None = None
    """The member for whose assignment the states are loaded."""
    progress_at: float = field(default_factory=time.monotonic)
    """When an agent last finished a batch, or something more of the states was read (monotonic
    seconds)."""
    turned_at: float = 0.0
    """When the event loop last had a turn (monotonic seconds), 0 before the start."""
    busy_since: dict[str, float] = field(default_factory=dict)
    """The agents that have a batch in hand, and since when (monotonic seconds)."""
    waits: dict[str, str] = field(default_factory=dict)
    """What is waited for outside of this worker, by the part of it that waits."""
    loading: bool = False
    records_applied: int = 0
    rows_published: int = 0
    dead_letters: DeadLetterCounts = field(default_factory=DeadLetterCounts)
    _starts: dict[SourcePartition, int] = field(default_factory=dict)
    _unsealed: dict[tuple[str, int], tuple[Agent, AssignedState]] = field(default_factory=dict)
    """What has been applied in the open transaction, whose state is not in it yet."""
    # a thread of its own, so that neither a commit nor a revocation waits for states to be read
    _loader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "states"))

    def __post_init__(self) -> None:
        self.sources = Sources(self.source, [agent.sources for agent in self.agents])
        self.commits = Commits(self.waits)

    @property
    def waiting_for(self) -> str | None:
        """What outside of this worker is waited for: /readyz says it, and /livez does not count
        it."""
        return "; ".join(self.waits.copy().values()) or None

    def wait_for(self, part: str, what: str | None) -> None:
        """Say what a part of the worker waits for, None once it does not; from any thread."""
        if what is None:
            self.waits.pop(part, None)
        else:
            self.waits[part] = what

    async def start(self) -> None:
        """Connect the transactional producer; fences what a predecessor in this slot left open."""
        await self.commits.start(self.connect)

    def connect(self) -> Transactions:
        """Return the worker's transactions."""
        return Transactions.start(
            self.bootstrap, self.transactional_id, partial(self.wait_for, WAIT)
        )

    async def assign(
        self,
        member: Member,
        source_partitions: Collection[SourcePartition],
        still: Callable[[], bool] = lambda: True,
    ) -> dict[SourcePartition, int] | None:
        """Load the states of these partitions and return where to read each from; None once
        `still()` is false.

        Nothing is open and no lock is held while the state topics are read: a transaction of our
        own would hold back the very offset that is waited for.
        """
        await self.commit()
        wanted = [
            (agent, partition)
            for agent in self.agents
            for partition in sorted(
                {at for topic, at in source_partitions if topic in agent.sources}
            )
        ]
        state_partitions = sorted({(agent.state_topic, partition) for agent, partition in wanted})

        def load() -> tuple[
            dict[SourcePartition, dict[bytes, bytes]], dict[SourcePartition, int], dict[str, str]
        ]:
            entries = self.load(state_partitions, still)
            starts = until_answered(lambda: log_starts(self.bootstrap, source_partitions), still)
            return (
                entries,
                starts,
                until_answered(
                    lambda: topic_ids(self.bootstrap, {topic for topic, _ in source_partitions}),
                    still,
                ),
            )

        self.loading = True
        try:
            entries, starts, ids = await asyncio.get_running_loop().run_in_executor(
                self._loader, load
            )
        except Abandoned:
            return None
        except StateNotReadable as error:
            leave(Exit.GROUP_LOST, str(error))
        finally:
            self.loading = False
        assigned: dict[tuple[str, int], AssignedState] = {}
        for agent, partition in wanted:
            stored = entries[agent.state_topic, partition]
            assigned[agent.name, partition] = restored(agent, partition, stored, starts, ids)
        try:
            states = (
                (agent, partition, assigned[agent.name, partition].state)
                for agent, partition in wanted
            )
            self.sources.restore(
                ((agent.sources[0], partition), agent.source_of(state))
                for agent, partition, state in states
            )
        except SourcesMixed as error:
            leave(Exit.SETUP_WRONG, f"INFOWAY_SOURCE={self.source}: {error}")
        async with self.lock:
            if not still():
                return None
            self.assigned = assigned
            self.ready = member
            # a batch that comes first thing is not late by the time that loading took
            self.progress_at = time.monotonic()
            self._starts = {
                source_partition: max(self._read_by_all(source_partition), starts[source_partition])
                for source_partition in source_partitions
            }
        return dict(self._starts)

    def load(
        self, partitions: Sequence[tuple[str, int]], still: Callable[[], bool]
    ) -> dict[tuple[str, int], dict[bytes, bytes]]:
        """Read state topics up to their high watermark."""
        return load_states(self.bootstrap, partitions, still=still, moved=self._moved)

    def _moved(self) -> None:
        self.progress_at = time.monotonic()

    async def look_for_skips(self) -> None:
        """Name the agents that are stopped, and end the worker where a record was passed over: it
        goes on from its state."""
        for stop in self.stopped():
            log.error("%s", stop)
            state_partition = (
                next(agent.state_topic for agent in self.agents if agent.name == stop.agent),
                stop.partition,
            )
            entries = await asyncio.get_running_loop().run_in_executor(
                self._loader, load_states, self.bootstrap, [state_partition]
            )
            if (
                FAILED + stop.topic.encode() not in entries[state_partition]
                and stop in self.stopped()
            ):
                leave(
                    Exit.GAP_FOUND,
                    f"{stop.topic}[{stop.partition}] offset {stop.offset} was passed over for "
                    f"agent {stop.agent}",
                )

    def stopped(self) -> list[Stopped]:
        """Return the agents that take nothing more of a partition."""
        agents = {agent.name: agent for agent in self.agents}
        return [
            stop
            for (name, partition), assigned in self.assigned.copy().items()
            for stop in stops_of(agents[name], partition, assigned)
        ]

    async def revoke(self) -> None:
        """Commit what is open under its own generation and forget every state."""
        async with self.commits.alone, self.lock:
            await self.commits.commit(self._seal_all)
            self.assigned = {}
            self.ready = None

    async def commit(self) -> None:
        """Commit what is open; nothing is open then, and nothing is applied meanwhile."""
        async with self.commits.alone, self.lock:
            await self.commits.commit(self._seal_all)

    async def commit_beside_work(self) -> None:
        """Commit what is open; what is applied meanwhile goes into a transaction that begins
        then."""
        await self.commits.commit_beside_work(self.lock, self._seal_all, self._not_added)

    async def handle(self, agent: Agent, batch: Batch) -> None:
        """Apply a batch to one agent, in one step; a batch of another assignment is left to whoever
        has it now."""
        await self.commits.room()
        async with self.lock:
            assigned = self.assigned.get((agent.name, batch.source_partition[1]))
            if assigned is None or batch.member != self.ready:
                return
            for part in parts_of(batch, assigned.failed.get(batch.source_partition[0])):
                applied = assigned.applied[batch.source_partition[0]]
                if not agent.takes_runs:
                    part = part.one_by_one()
                pieces = self.cut(part, applied)
                if not pieces and part.next_offset <= applied:
                    continue
                self.check_no_gap(agent, part, applied)
                if not self._begin(part.member):
                    return
                topic, partition = batch.source_partition
                span = span_of(part, pieces)
                self.commits.begin_batch(Applied(agent, partition, assigned, topic, span))
                try:
                    self._apply(agent, part, assigned, pieces)
                    assigned.join(topic, span)
                    self._unsealed[agent.name, partition] = agent, assigned
                    if topic in assigned.failed:
                        # the state of a record may be what fails: then it is known which one's
                        self._seal(agent, partition, assigned)
                except SourcesMixed as error:
                    leave(Exit.SETUP_WRONG, f"{agent.name}: {topic}: {error}")
                except Exception as error:
                    log.exception("agent %s", agent.name)
                    await self.commits.in_thread(
                        partial(self._failed, agent, partition, assigned, {topic: span}, error)
                    )
            self.progress_at = time.monotonic()

    def _failed(
        self,
        agent: Agent,
        partition: int,
        assigned: AssignedState,
        spans: Mapping[str, Span],
        error: Exception,
    ) -> NoReturn:
        """Write down at which records the agent failed, by source, in a transaction of its own, and
        end the worker: its state is spoiled."""
        failures = {
            topic: Failure.at(*span, error, assigned.failed.get(topic))
            for topic, span in spans.items()
        }
        # where a commit is under way this waits for its end: both have the same thread
        member = self.commits.into.member or self.commits.transactions.member
        assert member is not None
        # as the next start would: what is open, spoiled too, is aborted. The offsets are there to
        # be fenced as any transaction's
        transactions = self.connect()
        transactions.begin(member)
        for topic, failure in failures.items():
            transactions.produce(
                agent.state_topic, partition, FAILED + topic.encode(), failure.encoded()
            )
            transactions.offsets[topic, partition] = self._starts[topic, partition]
        transactions.commit()
        where = "; ".join(
            f"{topic}[{partition}] offsets {failure.first} to {failure.last}, failure "
            f"{failure.count} of {STOPS_AT}"
            for topic, failure in failures.items()
        )
        leave(Exit.AGENT_FAILED, f"{agent.name}: {where}: {error}")

    def cut(self, batch: Batch, applied: int) -> Sequence[Piece]:
        """Return what the agent has not applied yet."""
        if batch.continues >= applied:
            return batch.pieces
        return since(batch.pieces, applied)

    def check_no_gap(self, agent: Agent, batch: Batch, applied: int) -> None:
        """End the worker where a batch before this one never reached the agent; it will read again
        from `applied`."""
        if applied < batch.continues:
            topic, partition = batch.source_partition
            leave(
                Exit.GAP_FOUND,
                f"{agent.name}: {topic}[{partition}] applied up to {applied}, "
                f"next batch from {batch.continues}",
            )

    def _begin(self, member: Member) -> bool:
        open_for = self.commits.into.member
        if open_for is not None:
            return open_for == member
        if self.membership() != member:
            return (
                False  # out of the group: a new assignment follows and reads again from `applied`
            )
        self.commits.begin(member)
        return True

    def _apply(
        self, agent: Agent, batch: Batch, assigned: AssignedState, pieces: Sequence[Piece]
    ) -> None:
        topic, partition = batch.source_partition
        transactions, outputs = self.commits.into, self.outputs
        # one that takes runs returns encoded rows, too
        apply: Callable[..., Sequence[Row | EncodedRows]] = agent.computation.apply
        rows = apply(assigned.state, pieces) if pieces else []
        for row in rows:
            if isinstance(row, EncodedRows):
                transactions.produce_packed(partition, outputs.packed(row))
                self.rows_published += len(row)
            else:
                name, key, record = row
                transactions.produce(*outputs.encode(name, partition, key, record, topic))
                self.rows_published += 1
        if agent.dead_letters:
            for piece in pieces:
                if isinstance(piece, Unreadable):
                    transactions.produce(
                        *outputs.dead_letter(topic, partition, piece), list(piece.headers)
                    )
                    self.dead_letters.add(topic, partition, piece)
        assigned.applied[topic] = batch.next_offset
        transactions.offsets[batch.source_partition] = self._read_by_all(batch.source_partition)
        self.records_applied += count_of(pieces)

    def _seal_all(self) -> None:
        """Add to the open transaction the states that belong to what was applied in it; ends the
        worker where an agent fails at that."""
        for (_, partition), (agent, assigned) in list(self._unsealed.items()):
            try:
                self._seal(agent, partition, assigned)
            except Exception as error:
                log.exception("agent %s", agent.name)
                self._failed(agent, partition, assigned, assigned.unsealed, error)

    def _seal(self, agent: Agent, partition: int, assigned: AssignedState) -> None:
        """Add to the open transaction the state of an agent, and the offsets that it belongs to."""

        def put(key: bytes, value: bytes | None) -> None:
            self.commits.into.produce(agent.state_topic, partition, key, value)

        for key, value in assigned.journal.written(agent.changes(assigned.state)):
            put(key, value)
        for topic in assigned.unsealed:
            applied = assigned.applied[topic]
            if (topic_id := assigned.unwritten.pop(topic, None)) is not None:
                put(LOG + topic.encode(), (topic_id + JOURNALED).encode())
            if (failure := assigned.failed.get(topic)) is not None and failure.last < applied:
                del assigned.failed[topic]
                put(FAILED + topic.encode(), None)
            put(APPLIED + topic.encode(), b"%d" % applied)
        assigned.unsealed.clear()
        del self._unsealed[agent.name, partition]

    def _read_by_all(self, source_partition: SourcePartition) -> int:
        topic, partition = source_partition
        return min(
            self.assigned[agent.name, partition].applied[topic]
            for agent in self.agents
            if topic in agent.sources
        )

    def _not_added(self, applied: Applied, error: Exception) -> NoReturn:
        log.exception("agent %s", applied.agent.name)
        spans = {applied.topic: applied.span}
        self._failed(applied.agent, applied.partition, applied.assigned, spans, error)
