"""Reading the pipeline's topics as another service would, for replay, tail and the live view; agents read by their engine."""

from collections.abc import Iterable, Iterator

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from schemas.registry import Registry
from schemas.wire import Decoder, Record, Schema, compile_decoder, schema_id_of

TIMEOUT = 30.0
COORDINATOR_COMING_UP = frozenset(
    (
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError._WAIT_COORD,
        KafkaError._TIMED_OUT,
    )
)
"""What a broker answers of a group just after its start."""


class ValueReader:
    """Decodes values by the schema id that each names."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[int, tuple[Schema, Decoder]] = {}

    def __call__(self, value: bytes) -> tuple[Schema, Record]:
        """Return the schema and the physical record of a value."""
        schema_id = schema_id_of(value)
        if schema_id not in self._known:
            schema = self._registry.schema(schema_id)
            self._known[schema_id] = (schema, compile_decoder(schema))
        schema, decode = self._known[schema_id]
        return schema, decode(value)


def read_to_end(bootstrap: str, topic: str) -> Iterator[ck.Message]:
    """Yield every committed record of a topic, partition after partition, each in its order, up to its end now."""
    consumer = ck.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "read-to-end",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "log_level": 0,
        }
    )
    try:
        for partition in sorted(consumer.list_topics(topic, TIMEOUT).topics[topic].partitions):
            consumer.assign([TopicPartition(topic, partition, ck.OFFSET_BEGINNING)])
            ended = False
            while not ended:
                for message in consumer.consume(10_000, 0.02):
                    error = message.error()
                    if error is None:
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended = True
                    else:
                        raise KafkaException(error)
    finally:
        consumer.close()


class Lag:
    """How far a consumer group is behind on its source topics."""

    def __init__(self, bootstrap: str, group: str, topics: Iterable[str]) -> None:
        # in the group by name only: it never subscribes. The admin client would be one call for all partitions, but has
        # crashed on the answers of a broker just started, and does not wait for a new topic's leader
        self._asking = ck.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        described = self._asking.list_topics(timeout=TIMEOUT).topics
        self._partitions = [TopicPartition(topic, partition) for topic in topics for partition in described[topic].partitions]

    def __call__(self) -> int:
        """Return the number of source records that the group has not committed yet."""
        ends = {self._place(partition): self._asking.get_watermark_offsets(partition, timeout=TIMEOUT)[1] for partition in self._partitions}
        done = self._committed()
        return sum(end - done.get(place, 0) for place, end in ends.items())

    def records_left(self) -> int:
        """Return the number of source records not committed yet, found by reading them: the end of a topic that is written in
        transactions bears their markers too, which no consumer ever gets."""
        done = self._committed()
        left, unread = 0, {self._place(partition) for partition in self._partitions}
        self._asking.assign([TopicPartition(*place, done.get(place, 0)) for place in unread])
        try:
            while unread:
                for message in self._asking.consume(5000, 0.05):
                    error = message.error()
                    if error is None:
                        left += 1
                    elif error.code() == KafkaError._PARTITION_EOF:
                        unread.discard((message.topic() or "", message.partition() or 0))
                    else:
                        raise KafkaException(error)
        finally:
            self._asking.unassign()
        return left

    def _committed(self) -> dict[tuple[str, int], int]:
        try:
            committed = self._asking.committed(self._partitions, timeout=5)
        except KafkaException as error:
            if error.args[0].code() not in COORDINATOR_COMING_UP:
                raise
            return {}  # nothing is known to be committed
        return {self._place(partition): max(partition.offset, 0) for partition in committed}

    @staticmethod
    def _place(partition: TopicPartition) -> tuple[str, int]:
        return partition.topic, partition.partition
