"""Everything that is overridden of Faust, in one place, each with its reason; a test fails when
upstream changes under it.

Faust's aiokafka consumer keeps the membership of the group and nothing else: its partitions are
paused, librdkafka fetches, and the transaction carries the offsets.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import faust
from aiokafka.errors import KafkaConnectionError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from processors.decode.messages import Messages
from processors.engine.batch import Batch
from processors.engine.engine import Engine
from processors.engine.plane.fetch import Decode as Decode
from processors.engine.plane.fetch import Fetch, Fetched, Pieces
from processors.engine.plane.reading import Columns, Lookup, wait_for_schemas
from processors.engine.plane.watch import PATIENCE_S, QUIET_S, Watch
from processors.engine.sources import SourcePartition
from processors.engine.transactions.exits import Exit, leave
from processors.engine.transactions.group import Member
from processors.engine.waiting import Wait

log = logging.getLogger(__name__)

COMMIT_INTERVAL_S = 0.06
"""Seconds between two commits."""
LOADED_COMMIT_INTERVAL_S = 0.25
"""The same while a backlog is read: each commit waits for the broker, and nothing is applied
meanwhile."""
WORK_PER_COMMIT, LOADED_WORK_PER_COMMIT = 2, 4
"""Where commits take long, so many times as long is left to the work between two of them."""
LONGEST_COMMIT_INTERVAL_S = 1.0
"""Seconds between two commits, however long one takes."""
STOP_TIMEOUT = 10.0
"""Seconds that the last commit has: with the leave of the group, a third of what a pod has to
end."""
END_WITHIN_S = 25.0
"""Seconds that the whole of an orderly end has: a pod has 30."""
SKIPS_EVERY_S = 60.0
CONNECT_AGAIN_S = 1.0
LONGEST_WAIT_S = 0.1
"""Seconds after which the assignment is looked at again while the agents' buffers are full."""
TOPICS_EVERY_S = 1.0
"""Seconds between two looks for topics that the broker did not name."""
OVERRIDDEN = (
    (
        driver.Consumer,
        (
            "_new_consumer_thread",
            "on_partitions_revoked",
            "on_partitions_assigned",
            "_commit_offsets",
            "_new_offset",
            "_drain_messages",
            "on_buffer_drop",
            "verify_event_path",
            "perform_seek",
        ),
    ),
    (driver.AIOKafkaConsumerThread, ("on_start",)),
    (driver.Producer, ("on_start", "flush")),
    (faust.Topic, ("_compile_decode",)),
    (faust.App, ("_new_transport", "_new_producer_transport")),
)
"""What the subclasses here stand in for: the test of upstream's sources reads this."""


class Producer(driver.Producer):  # type: ignore[misc]
    """Faust's own producer carries nothing: agents publish through the engine's transaction."""

    async def on_start(self) -> None:
        """Connect nothing: a broker that is away would end the worker."""

    async def flush(self) -> None:
        """Do nothing: Faust flushes at every revocation, and a broker that is away would hold it
        up."""


class GroupThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread of aiokafka's consumer, which waits for a broker that is away."""

    async def on_start(self) -> None:
        """Connect once a broker answers."""
        wait, engine = None, self.consumer.app.engine
        while True:
            try:
                await super().on_start()
            except KafkaConnectionError as error:
                await self._consumer.stop()
                wait = wait or Wait("the broker")
                engine.wait_for("group", wait.text(str(error)))
                await asyncio.sleep(CONNECT_AGAIN_S)
            else:
                break
        engine.wait_for("group", None)
        if wait is not None:
            wait.over()


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer with librdkafka as its data plane."""

    @property
    def engine(self) -> Engine:
        """The engine of the app."""
        engine: Engine = self.app.engine
        return engine

    @property
    def aiokafka(self) -> Any:
        """The aiokafka consumer that holds the membership."""
        return self._thread._consumer

    def _new_consumer_thread(self) -> GroupThread:
        return GroupThread(self, loop=self.loop, beacon=self.beacon)

    def member(self) -> Member:
        """Return who this worker is in the group now; not valid() while it is in none."""
        coordinator = self.aiokafka._coordinator if self.aiokafka is not None else None
        if coordinator is None:  # not subscribed yet
            return Member(self.app.conf.id, -1, "")
        return Member(self.app.conf.id, coordinator.generation, coordinator.member_id or "")

    async def on_start(self) -> None:
        """Start the watch, the engine before the group is joined, and the loop that commits."""
        await super().on_start()
        self._read_to: dict[SourcePartition, int] = {}
        self._drained = asyncio.Event()
        self.engine.membership = self.member
        self._fetch = Fetch(self.engine.bootstrap, self.app.batch_records)
        self._ends_at = time.monotonic() + END_WITHIN_S
        loop = asyncio.get_running_loop()

        def tick() -> None:
            self._end_in_time()
            # the loop may be closed while a thread that waits for the broker holds the process back
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._turned)

        patience_s = max(PATIENCE_S, 3 * self.app.conf.broker_session_timeout)
        # before the engine, which waits for the broker: an end that is asked for meanwhile has its
        # bound too
        Watch(self.engine, self._ends, self._all_done, patience_s).start(tick)
        await self.engine.start()
        self.add_future(self._commit_regularly())
        self.add_future(self._look_for_skips())
        self.add_future(self._look_for_topics())

    async def on_stop(self) -> None:
        """Commit what is open while the membership still holds, then leave; a broker that does not
        answer is not waited for."""
        try:
            await asyncio.wait_for(asyncio.shield(self.engine.commit()), STOP_TIMEOUT)
        except TimeoutError:
            leave(
                Exit.BROKER_AWAY,
                f"the broker has not taken the last transaction for {STOP_TIMEOUT:.0f} s: the "
                "next worker does it again",
            )
        await super().on_stop()

    async def _commit_regularly(self) -> None:
        took_s = 0.0
        while not self.should_stop:
            least_s, work = COMMIT_INTERVAL_S, WORK_PER_COMMIT
            if self._fetch.backlog:
                least_s, work = LOADED_COMMIT_INTERVAL_S, LOADED_WORK_PER_COMMIT
            await asyncio.sleep(max(least_s, min(work * took_s, LONGEST_COMMIT_INTERVAL_S)))
            began = time.monotonic()
            # to its end, also where this loop is ended: the last commit waits for it
            await asyncio.shield(self.engine.commit_beside_work())
            took_s = time.monotonic() - began

    def _end_in_time(self) -> None:
        if not self.app.should_stop:
            self._ends_at = time.monotonic() + END_WITHIN_S
        elif time.monotonic() > self._ends_at:
            leave(
                Exit.BROKER_AWAY,
                f"the worker was told to end and has not within {END_WITHIN_S:.0f} s",
            )

    async def _look_for_skips(self) -> None:
        while not self.should_stop:
            await self.sleep(SKIPS_EVERY_S)
            await self.engine.look_for_skips()

    async def _look_for_topics(self) -> None:
        """Ask again for topics that the broker did not name: one that comes up names none, and the
        group then shares out nothing until aiokafka asks anew, after minutes."""
        while not self.should_stop:
            await self.sleep(TOPICS_EVERY_S)
            if not self.member().valid:
                continue
            client = self.aiokafka._client
            missing = [
                name
                for name in sorted(self.app.decoders)
                if not client.cluster.partitions_for_topic(name)
            ]
            text = f"the broker to name the partitions of {missing[0]}" if missing else None
            self.engine.wait_for("topics", text)
            if missing:
                # in aiokafka's own thread; what it then hears of makes the group share out again
                client._loop.call_soon_threadsafe(client.force_metadata_update)

    def _turned(self) -> None:
        self.engine.turned_at = time.monotonic()
        # aiokafka counts only its own getmany as life, and would leave the group for good after
        # broker_max_poll_interval: it is to leave where the event loop stands still. Whatever else
        # gets stuck, the watch ends
        if self.aiokafka is not None:
            self.aiokafka._subscription._last_fetch_ended = self.engine.turned_at

    def _ends(self) -> dict[SourcePartition, int] | None:
        return self._fetch.ends(self._read_to or [(topic, 0) for topic in self.app.decoders])

    def _all_done(self, ends: Mapping[SourcePartition, int]) -> bool:
        """Return whether this worker has read and applied everything before these ends."""
        member = self.member()
        turning = time.monotonic() - self.engine.turned_at < QUIET_S
        joined = member.valid and self.engine.ready == member and not self.app.rebalancing
        at_rest = not (
            self._buffered_partitions or self.engine.busy_since or self.engine.commits.open
        )
        return (
            turning
            and joined
            and at_rest
            and all(
                ends.get(source_partition, 0) <= at
                for source_partition, at in self._read_to.copy().items()
            )
        )

    async def _commit_offsets(self, offsets: Any, start_new_transaction: bool = True) -> bool:
        """Commit nothing: source offsets travel in the transaction."""
        return True

    def _new_offset(self, tp: TP) -> int | None:
        """Forget acknowledgements: the engine knows what has been applied."""
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return None

    def on_buffer_drop(self, tp: TP) -> None:
        """Wake the fetcher once no agent's buffer is full any more."""
        super().on_buffer_drop(tp)
        if not self._buffered_partitions:
            self._drained.set()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do not look for stuck fetches of aiokafka: its partitions are paused for good."""

    async def perform_seek(self) -> None:
        """Ask for no committed offsets, which Faust waits for before it reads: the states say where
        each partition goes on. aiokafka forgets the question where a rebalance overtakes it."""

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Commit under the generation that ends, before the rejoin."""
        await super().on_partitions_revoked(revoked)
        await self.engine.revoke()

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        """Pause aiokafka's fetching of the sources."""
        sources = self.app.decoders
        mine = [tp for tp in self.aiokafka.assignment() if tp.topic in sources]
        if mine:
            self.aiokafka.pause(*mine)
        await super().on_partitions_assigned(assigned, generation_id)

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch with librdkafka and hand out one event per partition and fetch, its value a
        Batch."""
        try:
            await self._drain(fetcher)
        except asyncio.CancelledError:
            # in a rebalance Faust takes the cancelling of its fetcher for a crash, also where it is
            # the worker's own end
            if not self.app.should_stop:
                raise

    async def _drain(self, fetcher: Any) -> None:
        while not (self.should_stop or fetcher.should_stop):
            # Faust clears the agents' queues when it resumes at the end of a rebalance: nothing is
            # fetched before
            if not self.flow_active or self.app.rebalancing or not self.member().valid:
                await asyncio.sleep(0.01)
                continue
            try:
                await self._serve_assignment(fetcher)
            except self.consumer_stopped_errors:
                if not self.app.should_stop:
                    raise
                return
            except Exception as error:
                # stock Faust would stay alive with a dead fetcher
                log.exception("fetching")
                leave(Exit.READING_FAILED, str(error))

    async def _serve_assignment(self, fetcher: Any) -> None:
        member = self.member()
        # from the group, not from Faust's active set: that loses a partition whenever a buffer is
        # full
        source_partitions = sorted(
            (tp.topic, tp.partition) for tp in self.assignment() if tp.topic in self.app.decoders
        )
        self._read_to = {}
        self._columns = {
            source_partition: self.app.columns[source_partition[0]]()
            for source_partition in source_partitions
            if source_partition[0] in self.app.columns
        }
        continues = await self.engine.assign(member, source_partitions, lambda: self._still(member))
        if continues is None or not self._still(member):
            return
        self._read_to = continues
        self._fetch.assign(continues)
        while self._still(member) and not (self.should_stop or fetcher.should_stop):
            if self._buffered_partitions:
                self._drained.clear()
                # a rebalance empties buffers without a word
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._drained.wait(), LONGEST_WAIT_S)
                continue
            if not source_partitions:
                await asyncio.sleep(0.1)
                continue
            for source_partition, fetched in (await self._fetch.next(self._read)).items():
                if not self._still(member):
                    return
                if fetched.next_offset > continues[source_partition]:
                    await self._hand_out(source_partition, fetched, member, continues)

    def _read(self, source_partition: SourcePartition, run: Messages) -> Pieces:
        columns: Columns | None = self._columns.get(source_partition)
        if columns is None:
            return list(range(len(run)))
        return columns.read(run, self.engine.sources.of(source_partition))

    async def _hand_out(
        self,
        source_partition: SourcePartition,
        fetched: Fetched,
        member: Member,
        continues: dict[SourcePartition, int],
    ) -> None:
        lookup, still = self.app.lookup, lambda: self._still(member) and not self.should_stop
        run, pieces, next_offset = fetched
        singly = [run[piece] for piece in pieces if isinstance(piece, int)]
        if lookup is not None and not await wait_for_schemas(self.engine, lookup, singly, still):
            return
        decode: Decode = self.app.decoders[source_partition[0]]
        if len(singly) == len(run):
            # of the first messages the schema was not known, and what they come from
            self.engine.sources.find(source_partition, map(decode, singly))
            pieces = self._read(source_partition, run)
            singly = [run[piece] for piece in pieces if isinstance(piece, int)]
        records = iter(
            self.engine.sources.sort_out(
                source_partition, [decode(message) for message in singly], singly
            )
        )
        read = [next(records) if isinstance(piece, int) else piece for piece in pieces]
        batch = Batch(source_partition, member, continues[source_partition], read, next_offset)
        if not self._still(member):
            return
        continues[source_partition] = next_offset
        tp = TP(*source_partition)
        message = ConsumerMessage(
            source_partition[0],
            source_partition[1],
            next_offset - 1,
            time.time(),
            0,
            None,
            None,
            batch,
            None,
            0,
            0,
            tp,
            generation_id=member.generation,
        )
        await self.wait_first(self.callback(message), self.suspend_flow.wait())

    def _still(self, member: Member) -> bool:
        return bool(self.flow_active and not self.app.rebalancing and self.member() == member)


class Transport(driver.Transport):  # type: ignore[misc]
    """Faust's aiokafka transport with the consumer and producer of this module."""

    Consumer = Consumer
    Producer = Producer


class BatchTopic(faust.Topic):  # type: ignore[misc]
    """A topic whose events bear batches that the data plane has decoded."""

    def _compile_decode(self) -> None:
        create_event = self.app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return create_event(None, message.value, None, message)

        self.decode = decode


class EngineApp(faust.App):  # type: ignore[misc]
    """A Faust app whose transport is this module's."""

    engine: Engine
    decoders: dict[str, Decode]
    columns: dict[str, Callable[[], Columns]]
    """By topic what reads a partition of it into columns."""
    lookup: Lookup | None
    batch_records: int

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Transport:
        return Transport(self.conf.broker_producer, self)
