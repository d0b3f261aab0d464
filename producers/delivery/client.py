"""The Kafka client of the producers: its delivery settings, and what it finds at the broker."""

import logging
from typing import Any

from confluent_kafka import KafkaException, Producer

from producers.delivery.errors import BrokerUnreachable, TopicsMissing
from schemas.clients.cluster import metadata_of
from schemas.clients.kafka import client
from schemas.topics import RAW, Topology

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


def open_producer(bootstrap: str) -> Producer:
    """Return librdkafka's producer with the project's delivery settings."""
    # librdkafka would write to stderr by itself
    config: dict[str, Any] = {**_DELIVERY, **client(bootstrap)}
    return Producer({**config, "logger": logging.getLogger("librdkafka")})


def raw_partitions(
    producer: Producer, topology: Topology, bootstrap: str, timeout: float = 10.0
) -> dict[str, int]:
    """Return the number of partitions of each raw topic by its name in the contract.

    Raises BrokerUnreachable after `timeout` seconds, and TopicsMissing where a topic of the
    producers is not there.
    """
    try:
        found = metadata_of(producer, timeout=timeout).topics
    except KafkaException as error:
        producer.poll(0)  # logs why the broker lets nobody in
        raise BrokerUnreachable(bootstrap, error.args[0].str()) from None
    missing = [
        topic.name
        for topic in topology.topics()
        if "producers" in topic.owner and topic.name not in found
    ]
    if missing:
        raise TopicsMissing(missing)
    return {topic: len(found[topology.name(topic)].partitions) for topic in RAW}
