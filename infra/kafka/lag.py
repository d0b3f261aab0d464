"""How far a consumer group is behind."""

import time
from collections.abc import Iterable
from typing import cast

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from infra.kafka.offsets import (
    COORDINATOR_COMING_UP,
    committed_offsets,
    partitions_of,
    watermarks,
    watermarks_of,
)
from infra.kafka.reader import HELD_BACK_S
from schemas.clients.kafka import client


class Lag:
    """How far a consumer group is behind on its source topics."""

    def __init__(self, bootstrap: str, group: str, topics: Iterable[str]) -> None:
        self._bootstrap = bootstrap
        # in the group by name only: it never subscribes. The admin client would be one call for all
        # partitions, but has crashed on the answers of a broker just started, and does not wait for
        # a new topic's leader
        self._asking = ck.Consumer(
            {
                **client(bootstrap),
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        self._partitions = [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in partitions_of(self._asking, topic)
        ]

    def __call__(self) -> int:
        """Return the number of source records that the group has not committed yet."""
        ends = {
            _address(partition): watermarks_of(self._asking, partition)[1]
            for partition in self._partitions
        }
        done = self._committed()
        return sum(end - done.get(partition, 0) for partition, end in ends.items())

    def records_left(self) -> int:
        """Return the number of source records not committed yet, found by reading them: the end of
        a topic that is written in transactions has their markers too, which no consumer ever
        gets. Each partition with an open transaction counts one more."""
        done = self._committed()
        topics = {partition.topic for partition in self._partitions}
        unread = {
            (topic, part): end
            for topic in topics
            for part, (_, end) in watermarks(self._bootstrap, topic).items()
        }
        left = 0
        self._asking.assign(
            [TopicPartition(*partition, done.get(partition, 0)) for partition in unread]
        )
        read_at = time.monotonic()
        try:
            while unread and time.monotonic() - read_at < HELD_BACK_S:
                for message in self._asking.consume(5000, 0.05):
                    error = message.error()
                    if error is None:
                        left += 1
                        read_at = time.monotonic()
                    elif error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    else:
                        partition = cast(str, message.topic()), cast(int, message.partition())
                        if cast(int, message.offset()) >= unread.get(partition, 0):
                            unread.pop(partition, None)
        finally:
            self._asking.unassign()
        return left + len(unread)

    def _committed(self) -> dict[tuple[str, int], int]:
        try:
            committed = committed_offsets(self._asking, self._partitions, timeout=5)
        except KafkaException as error:
            if error.args[0].code() not in COORDINATOR_COMING_UP:
                raise
            return {}  # nothing is known to be committed
        return {_address(partition): max(partition.offset, 0) for partition in committed}


def _address(partition: TopicPartition) -> tuple[str, int]:
    return partition.topic, partition.partition
