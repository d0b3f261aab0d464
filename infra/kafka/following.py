"""Follows topics from some place on; whoever waits for it can end at any time, with the broker away
too."""

import threading
from collections.abc import Callable, Sequence
from typing import cast

import confluent_kafka as ck
from confluent_kafka import TopicPartition

from infra.kafka.offsets import offsets_since, partitions_of, refused
from infra.kafka.waiting import interruptible
from schemas.clients.kafka import client


def follow(
    bootstrap: str,
    topics: Sequence[str],
    start: int,
    take: Callable[[ck.Message], bool],
    stop: threading.Event,
) -> None:
    """Give every committed record of the topics to `take` until it returns False or `stop` is set.

    `start` is OFFSET_BEGINNING, OFFSET_END, or a time in ms UTC: then records that Kafka has
    stamped at or after it. Raises NoSuchTopic and NotAllowed, KafkaException where no broker
    answers, and what `take` raises.
    """
    interruptible(lambda: _read(bootstrap, topics, start, take, stop), stop)


def _read(
    bootstrap: str,
    topics: Sequence[str],
    start: int,
    take: Callable[[ck.Message], bool],
    stop: threading.Event,
) -> None:
    consumer = ck.Consumer(
        {
            **client(bootstrap),
            "group.id": "tail",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    try:
        partitions = [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in partitions_of(consumer, topic)
        ]
        for each in partitions:
            each.offset = start
        if start >= 0:
            # beyond the last record it is the end
            partitions = offsets_since(consumer, partitions)
        consumer.assign(partitions)
        while not stop.is_set():
            for message in consumer.consume(500, 0.2):
                error = message.error()
                if error is not None:
                    raise refused(error, f"read {message.topic() or ', '.join(topics)}")
                if not take(message):
                    return
    finally:
        consumer.close()


def place_of(message: ck.Message) -> str:
    """Return topic, partition and offset for people."""
    return f"{cast(str, message.topic())}[{message.partition()}] offset {message.offset()}"
