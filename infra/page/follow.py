"""Follows the topics in a thread of its own, as any other service would read them, and hands
batches of records to whoever owns them."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import confluent_kafka as ck
from confluent_kafka import KafkaException, TopicPartition

from infra.kafka.offsets import partitions_of, refused
from infra.kafka.reader import ValueReader
from schemas.clients.cluster import metadata_of
from schemas.clients.kafka import client
from schemas.clients.registry import Registry, UnknownSchema
from schemas.printable import printable
from schemas.topics import DEPTH_IMBALANCE, FEED_STATUS, PROGRESS, RAW_TRADE, Topology, load_schema
from schemas.wire import Schema, UnreadableValue

GROUP = "page"
"""Named and never joined: partitions are assigned, nothing is committed."""
START_RECORDS = 2_000
"""Records of each partition that are read at the start, the newest."""
MOST_MESSAGES = 5_000
"""Messages of a batch."""
BATCH_S = 0.05
RECONNECT_S = 1.0
"""Seconds between two attempts to follow the topics."""
SILENCE_S = 2.0
"""Seconds without a record after which the broker is asked whether it is there."""
ASK_S = 2.0
"""Seconds that it has to answer."""
LOOK_S = 5.0
"""Seconds between two looks at how many partitions the topics have."""

_log = logging.getLogger(__name__)


class Told(NamedTuple):
    """A record of a topic."""

    name: str
    """The topic's in the contract."""
    record: Mapping[str, Any]
    at_ms: int
    """When Kafka got it."""


def followed(names: Topology) -> dict[str, Schema]:
    """Return the schemas of the topics that the page reads, by the topics' full names."""
    wanted = {RAW_TRADE, DEPTH_IMBALANCE, FEED_STATUS, PROGRESS}
    families = {f"infoway.bars.{each}" for each in names.intervals} | {
        f"infoway.vwap.{each}" for each in names.windows
    }
    return {
        topic.name: load_schema(topic.schema)
        for topic in names.topics()
        if topic.schema is not None and names.contract_name(topic.name) in wanted | families
    }


def consumer_of(bootstrap: str) -> ck.Consumer:
    """Return a consumer of committed records that joins no group."""
    return ck.Consumer(
        {
            **client(bootstrap),
            "group.id": GROUP,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 0,
        }
    )


class Follower:
    """Reads the topics from shortly before their end, for as long as it is entered."""

    def __init__(
        self,
        bootstrap: str,
        registry_url: str,
        names: Topology,
        take: Callable[[Sequence[Told]], None],
        trouble: Callable[[str], None],
    ) -> None:
        """`take` gets each batch and returns once it may get the next; `trouble` gets why nothing
        is read, and an empty text once something is. Both are called in the thread."""
        self._bootstrap, self._registry_url, self._names = bootstrap, registry_url, names
        self._take, self._say = take, trouble
        self.unreadable = 0
        """Records that their topic's schema cannot read."""
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        # a question to a broker that does not answer is not waited for
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 - the page ends nothing: it says so, and tries again
                said = error.args[0].str() if isinstance(error, KafkaException) else str(error)
                self._tell(said or type(error).__name__)
                self._stopping.wait(RECONNECT_S)

    def _tell(self, trouble: str) -> None:
        if trouble and not self._trouble:
            _log.warning("the page reads nothing, and tries again: %s", trouble)
        if trouble != self._trouble:
            self._trouble = trouble
            self._say(printable(trouble))

    def _follow(self) -> None:
        schemas = followed(self._names)
        read = ValueReader(Registry(self._registry_url))
        consumer = consumer_of(self._bootstrap)
        try:
            there = {topic: partitions_of(consumer, topic) for topic in schemas}
            places = [
                TopicPartition(topic, partition) for topic in schemas for partition in there[topic]
            ]
            for place in places:
                low, end = consumer.get_watermark_offsets(place, timeout=10)
                place.offset = max(low, end - START_RECORDS)
            consumer.assign(places)
            heard_at = looked_at = time.monotonic()
            while not self._stopping.is_set():
                messages = consumer.consume(MOST_MESSAGES, BATCH_S)
                now = time.monotonic()
                if messages:
                    heard_at = now
                    self._tell("")
                    self._take(self._records(messages, schemas, read))
                elif now - heard_at > SILENCE_S:
                    heard_at = now
                    self._ask(consumer, places[0])
                if now - looked_at > LOOK_S and not self._trouble:
                    looked_at = now
                    if self._differ(consumer, there):
                        _log.warning("the topics have other partitions now: they are read anew")
                        return
        finally:
            consumer.close()

    def _ask(self, consumer: ck.Consumer, place: TopicPartition) -> None:
        """Ask the broker for something: a consumer alone does not say that its broker is gone."""
        with self._answered():
            consumer.get_watermark_offsets(place, timeout=ASK_S)
            self._tell("")

    def _differ(self, consumer: ck.Consumer, there: Mapping[str, Sequence[int]]) -> bool:
        """Return whether a topic has other partitions than `there`."""
        with self._answered():
            return any(
                sorted(metadata_of(consumer, topic, ASK_S).topics[topic].partitions) != partitions
                for topic, partitions in there.items()
            )
        return False

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Say so if the broker does not answer what is asked in the block."""
        try:
            yield
        except KafkaException as error:
            self._tell(f"no answer from the broker ({error.args[0].str()})")

    def _records(
        self, messages: Sequence[ck.Message], schemas: Mapping[str, Schema], read: ValueReader
    ) -> list[Told]:
        """Return the records of messages. Raises RegistryError where the registry is away: they are
        read again."""
        found: list[Told] = []
        for message in messages:
            error = message.error()
            if error is not None:
                if not error.retriable():
                    raise refused(error, "read the topics")
                continue
            value = message.value()
            if value is None:
                continue
            topic = cast(str, message.topic())
            try:
                record = read(value, schemas[topic])[1]
            except (UnknownSchema, UnreadableValue):
                self.unreadable += 1
                continue
            found.append(Told(self._names.contract_name(topic), record, message.timestamp()[1]))
        return found
