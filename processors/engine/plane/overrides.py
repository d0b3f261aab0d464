"""Everything that is overridden of Faust, in one place, each with its reason; a test fails when upstream changes under it.

Faust's aiokafka consumer keeps the membership of the group and nothing else: its partitions are paused, librdkafka
fetches, and the transaction carries the offsets.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, cast

import confluent_kafka as ck
import faust
from aiokafka.consumer.group_coordinator import GroupCoordinator
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from processors.engine.engine import Batch, Engine, Place
from processors.engine.exits import Exit, leave
from processors.engine.group import Member
from processors.records import Record
from schemas.security import client

log = logging.getLogger(__name__)

Decode = Callable[[ck.Message], Record]

COMMIT_INTERVAL = 0.1
STOP_TIMEOUT = 10.0
"""Seconds that the last commit has: with the leave of the group, a third of what a pod has to end."""
OVERRIDDEN = (
    (
        driver.Consumer,
        (
            "on_partitions_revoked",
            "on_partitions_assigned",
            "_commit_offsets",
            "_new_offset",
            "_drain_messages",
            "verify_event_path",
        ),
    ),
    (GroupCoordinator, ("_do_heartbeat",)),
    (driver.Producer, ("flush",)),
    (faust.Topic, ("_compile_decode",)),
    (faust.App, ("_new_transport", "_new_producer_transport")),
)
"""What the subclasses here stand in for: the test of upstream's sources reads this."""


class Producer(driver.Producer):  # type: ignore[misc]
    """Faust's own producer carries nothing: agents publish through the engine's transaction."""

    async def flush(self) -> None:
        """Do nothing: Faust flushes at every revocation, and a broker that is away would hold it up."""


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

    def member(self) -> Member:
        """Return who this worker is in the group now; not valid() while it is in none."""
        coordinator = self.aiokafka._coordinator if self.aiokafka is not None else None
        if coordinator is None:  # not subscribed yet
            return Member(self.app.conf.id, -1, "")
        return Member(self.app.conf.id, coordinator.generation, coordinator.member_id or "")

    async def on_start(self) -> None:
        """Start the engine before the group is joined, and the loops that commit and that watch the membership."""
        await super().on_start()
        self._watched: Any = None
        self._joined: Member | None = None
        self.engine.membership = self.member
        self._fetcher_of_records = ck.Consumer(
            {
                **client(self.engine.bootstrap),
                "group.id": "unused",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 10,
                # the default of 1000 ms throttles bursts: 133k records/s against 600k
                "fetch.queue.backoff.ms": 10,
                "queued.max.messages.kbytes": 32_768,
            },
            logger=log,
        )
        await self.engine.start()
        self.add_future(self._commit_regularly())
        self.add_future(self._watch_membership())

    async def on_stop(self) -> None:
        """Commit what is open while the membership still holds, then leave; a broker that does not answer is not waited for."""
        try:
            await asyncio.wait_for(asyncio.shield(self.engine.commit()), STOP_TIMEOUT)
        except TimeoutError:
            leave(
                Exit.BROKER_AWAY,
                f"the broker has not taken the last transaction for {STOP_TIMEOUT:.0f} s: the next worker does it again",
            )
        await super().on_stop()

    async def _commit_regularly(self) -> None:
        while not self.should_stop:
            await asyncio.sleep(COMMIT_INTERVAL)
            await self.engine.commit()

    async def _watch_membership(self) -> None:
        # aiokafka may leave the group silently and for good; a worker outside does nothing and looks alive
        allowed = self.app.conf.broker_session_timeout
        outside_since: float | None = None
        while not self.should_stop:
            await asyncio.sleep(0.5)
            now = self.engine.turned_at = time.monotonic()
            self._watch_heartbeats()
            member = self.member()
            if member.valid:
                self.engine.member_at = now
                if member != self._joined:
                    # the broker's answer to a join; the first heartbeat follows
                    self._joined, self.engine.answered_at = member, now
            if member.valid or self.app.rebalancing or not self.app.consumer_generation_id:
                outside_since = None
                continue
            outside_since = outside_since or now
            if now - outside_since > allowed:
                leave(
                    Exit.GROUP_LOST,
                    f"out of the group {self.app.conf.id!r} for more than {allowed:.0f} s",
                )

    def _watch_heartbeats(self) -> None:
        """Note when the coordinator last answered: aiokafka keeps a membership for as long as no broker says that it is lost."""
        coordinator = self.aiokafka._coordinator if self.aiokafka is not None else None
        if coordinator is None or coordinator is self._watched:
            return
        self._watched, heartbeat = coordinator, coordinator._do_heartbeat

        async def watched() -> bool:
            answered = bool(await heartbeat())
            if answered:
                self.engine.answered_at = time.monotonic()
            return answered

        coordinator._do_heartbeat = watched

    async def _commit_offsets(self, offsets: Any, start_new_transaction: bool = True) -> bool:
        """Commit nothing: source offsets travel in the transaction."""
        return True

    def _new_offset(self, tp: TP) -> int | None:
        """Forget acknowledgements: the engine knows what has been applied."""
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return None

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do not look for stuck fetches of aiokafka: its partitions are paused for good."""

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
        """Fetch with librdkafka and hand out one event per partition and fetch, its value a Batch."""
        while not (self.should_stop or fetcher.should_stop):
            # Faust clears the agents' queues when it resumes at the end of a rebalance: nothing is fetched before
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
        loop = asyncio.get_running_loop()
        member = self.member()
        # from the group, not from Faust's active set: that loses a partition whenever a buffer is full
        places = sorted(
            (tp.topic, tp.partition) for tp in self.assignment() if tp.topic in self.app.decoders
        )
        continues = await self.engine.assign(member, places)
        if not self._still(member):
            return
        self._fetcher_of_records.assign(
            [
                TopicPartition(topic, partition, offset)
                for (topic, partition), offset in continues.items()
            ]
        )
        while self._still(member) and not (self.should_stop or fetcher.should_stop):
            if self._buffered_partitions:
                # an agent is behind: wait, and mark life only if some agent has finished a batch meanwhile
                self._mark_life(self.engine.progress_at)
                await asyncio.sleep(0.005)
                continue
            if not places:
                self._mark_life(time.monotonic())
                await asyncio.sleep(0.1)
                continue
            messages = await loop.run_in_executor(
                None, self._fetcher_of_records.consume, self.app.batch_records, 0.05
            )
            self._mark_life(time.monotonic() if not messages else self.engine.progress_at)
            for place, run in _by_partition(messages).items():
                if not self._still(member):
                    return
                await self._hand_out(place, run, member, continues)

    async def _hand_out(
        self, place: Place, run: list[ck.Message], member: Member, continues: dict[Place, int]
    ) -> None:
        decode: Decode = self.app.decoders[place[0]]
        next_offset = cast(int, run[-1].offset()) + 1
        batch = Batch(
            place, member, continues[place], [decode(message) for message in run], next_offset
        )
        continues[place] = next_offset
        tp = TP(*place)
        message = ConsumerMessage(
            place[0],
            place[1],
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

    def _mark_life(self, when: float) -> None:
        self.engine.life_at = max(self.engine.life_at, when)
        # aiokafka counts only its own getmany as life, and leaves the group after broker_max_poll_interval without
        subscription = self.aiokafka._subscription
        subscription._last_fetch_ended = max(subscription._last_fetch_ended, when)


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
    batch_records: int

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Transport:
        return Transport(self.conf.broker_producer, self)


def _by_partition(messages: list[ck.Message]) -> dict[Place, list[ck.Message]]:
    runs: dict[Place, list[ck.Message]] = {}
    for message in messages:
        error = message.error()
        if error is None:
            runs.setdefault(
                (cast(str, message.topic()), cast(int, message.partition())), []
            ).append(message)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            leave(
                Exit.SETUP_WRONG,
                f"{message.topic()}[{message.partition()}]: the log no longer has the offset that the state names: {error.str()}",
            )
        elif not error.retriable() and error.code() not in (
            KafkaError._TRANSPORT,
            KafkaError._ALL_BROKERS_DOWN,
        ):
            raise KafkaException(error)
    return runs
