"""Puts what the protocol wants published into Kafka, and counts what the broker has; it waits rather than lose a record."""

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from producers.counters import FeedCounters
from producers.records import DEAD_LETTER, Output, Record
from schemas.topics import Topology, load_schema
from schemas.wire import compile_encoder

GRACE = 2.0
"""Seconds that a full queue may still take to drain once the producer is told to stop."""

_RAW = ("infoway.raw.trade", "infoway.raw.depth", "infoway.raw.kline")
_DELIVERY = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 5,
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 65_536,
    # never: with the broker away the queue waits, and then the socket does
    "message.timeout.ms": 0,
    "client.id": "infoway-producer",
}


class PublishError(Exception):
    """Records cannot reach the broker."""


class BrokerUnreachable(PublishError):
    """No broker answers."""

    def __init__(self, bootstrap: str, reason: str) -> None:
        super().__init__(f"no Kafka broker answers at {bootstrap} ({reason}): start it, or correct its address and credentials")
        self.bootstrap = bootstrap
        self.reason = reason


class TopicsMissing(PublishError):
    """Topics that the producer writes do not exist."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.topics = tuple(topics)
        super().__init__(f"topics {', '.join(self.topics)} do not exist: create them with `infoway-streams topology apply`")


class DeliveryFailed(PublishError):
    """The broker refused a record for good."""

    def __init__(self, topic: str | None, reason: str) -> None:
        super().__init__(f"the broker refused a record for {topic} ({reason}): nothing more is published")
        self.topic = topic
        self.reason = reason


class Undelivered(PublishError):
    """Records were still unacknowledged when the time to wait was over."""

    def __init__(self, count: int, seconds: float) -> None:
        super().__init__(f"{count} records were not acknowledged within {seconds:g} s: check the broker, they are lost with this process")
        self.count = count


def open_producer(bootstrap: str, security: Mapping[str, str] | None = None) -> Producer:
    """Return librdkafka's producer with the project's delivery settings; `security` are its TLS and SASL settings."""
    # librdkafka would write to stderr by itself
    config: dict[str, Any] = {**_DELIVERY, **(security or {}), "bootstrap.servers": bootstrap}
    return Producer({**config, "logger": logging.getLogger("librdkafka")})


def raw_partitions(producer: Producer, topology: Topology, bootstrap: str, timeout: float = 10.0) -> dict[str, int]:
    """Return the number of partitions of each raw topic by its name in the contract.

    Raises BrokerUnreachable after `timeout` seconds, and TopicsMissing where a topic of the producers is not there.
    """
    try:
        found = producer.list_topics(timeout=timeout).topics
    except KafkaException as error:
        raise BrokerUnreachable(bootstrap, error.args[0].str()) from None
    missing = [topic.name for topic in topology.topics() if "producers" in topic.owner and topic.name not in found]
    if missing:
        raise TopicsMissing(missing)
    return {topic: len(found[topology.name(topic)].partitions) for topic in _RAW}


class Sink(Protocol):
    """Takes what a transport's feeds say."""

    def publish(self, outputs: Sequence[Output], counters: FeedCounters) -> None:
        """Take records in their order."""

    def serve(self) -> None:
        """Use a moment in which nothing is received."""


class Unpublished:
    """A sink that keeps nothing, for feeds that are only recorded."""

    def publish(self, outputs: Sequence[Output], counters: FeedCounters) -> None:
        """Let the records go."""

    def serve(self) -> None:
        """Nothing waits to be delivered."""


class Publisher:
    """Publishes for all feeds of a process; its methods may be called from any of their threads.

    A failed delivery is kept and raised by the next call of any method, in every thread.
    """

    def __init__(self, producer: Producer, topology: Topology, schema_ids: Mapping[str, int], stop: threading.Event) -> None:
        """`schema_ids` maps the full name of each topic of the producers to the id of its schema in the registry."""
        self._producer = producer
        self._topology = topology
        self._stop = stop
        self._encoders = {
            topology.contract_name(topic.name): compile_encoder(load_schema(topic.schema), schema_ids[topic.name])
            for topic in topology.topics()
            if topic.schema is not None and "producers" in topic.owner
        }
        self._failure: DeliveryFailed | None = None
        self._lock = threading.Lock()

    def publish(self, outputs: Iterable[Output], counters: FeedCounters) -> None:
        """Queue records in their order, waiting where the queue is full; deliveries are counted in the feed's counters."""
        for output in outputs:
            topic = self._topology.name(output.topic)
            if isinstance(output, Record):
                value = self._encoders[output.topic](*output.fields)
                self._produce(topic, value=value, key=output.key, on_delivery=self._counting(output.topic, counters))
            else:
                partition = -1 if output.partition is None else output.partition
                self._produce(topic, key=output.key, partition=partition, headers=output.control.headers(), on_delivery=self._delivered)
        self.serve()

    def serve(self) -> None:
        """Let deliveries be counted, without waiting; raises DeliveryFailed."""
        self._producer.poll(0)
        if self._failure is not None:
            raise self._failure

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until the broker has acknowledged everything; raises Undelivered after `timeout` seconds."""
        left = self._producer.flush(timeout)
        if self._failure is not None:
            raise self._failure
        if left:
            raise Undelivered(left, timeout)

    def _produce(self, topic: str, **message: Any) -> None:
        give_up = None
        while True:
            try:
                self._producer.produce(topic, **message)
            except BufferError:
                self._producer.poll(0.1)
                if self._failure is not None:
                    raise self._failure from None
                if self._stop.is_set():
                    give_up = give_up or time.monotonic() + GRACE
                    if time.monotonic() > give_up:
                        raise Undelivered(len(self._producer), GRACE) from None
            except KafkaException as error:
                raise DeliveryFailed(topic, error.args[0].str()) from error
            else:
                return

    def _counting(self, topic: str, counters: FeedCounters) -> Any:
        if topic in _RAW:
            return partial(self._record_delivered, counters)
        return partial(self._dead_letter_delivered, counters) if topic == DEAD_LETTER else self._delivered

    def _record_delivered(self, counters: FeedCounters, error: KafkaError | None, message: Message) -> None:
        self._delivered(error, message)
        if error is None:
            with self._lock:
                counters.acknowledged += 1

    def _dead_letter_delivered(self, counters: FeedCounters, error: KafkaError | None, message: Message) -> None:
        self._delivered(error, message)
        if error is None:
            with self._lock:
                counters.dead_lettered += 1

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failure is None:
            self._failure = DeliveryFailed(message.topic(), error.str())
