"""What a broker is asked of topics before they are read: partitions, offsets, and what a group has
committed."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from schemas.clients.cluster import metadata_of
from schemas.clients.kafka import client
from schemas.errors import InfowayError

Answer = TypeVar("Answer")
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
LEADER_COMING_UP = frozenset(
    (
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._TIMED_OUT,
    )
)
"""What a broker answers of a topic that was just made, and of each just after its own start."""
NOT_ALLOWED = frozenset(
    (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    )
)
"""What a broker answers where its ACLs do not let a client do something."""


class NoSuchTopic(InfowayError):
    """A topic is not there."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"no topic {topic}: run `infoway-streams topology apply`, or name another --prefix"
        )
        self.topic = topic


class NotAllowed(InfowayError):
    """The ACLs of the cluster keep this client from what it has to do."""

    def __init__(self, what: str) -> None:
        super().__init__(f"this principal may not {what}: grant it by infra/deploy/acls.yaml")


def refused(error: KafkaError, what: str) -> Exception:
    """Return the exception of a broker's answer to an attempt at `what`: NotAllowed where its ACLs
    forbid it."""
    return (
        NotAllowed(f"{what} ({error.str()})")
        if error.code() in NOT_ALLOWED
        else KafkaException(error)
    )


def partitions_of(asking: ck.Consumer, topic: str) -> list[int]:
    """Return a topic's partitions. Raises NoSuchTopic and NotAllowed."""
    described = metadata_of(asking, topic, TIMEOUT).topics[topic]
    if described.error is None:
        return sorted(described.partitions)
    if described.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise NoSuchTopic(topic)
    raise refused(described.error, f"see {topic}")


def watermarks(bootstrap: str, topic: str) -> dict[int, tuple[int, int]]:
    """Return the first offset of each partition and the one after its last. Raises NoSuchTopic and
    NotAllowed."""
    asking = ck.Consumer(
        {
            **client(bootstrap),
            "group.id": "read-to-end",
            "isolation.level": "read_uncommitted",
            "log_level": 0,
        }
    )
    try:
        return {
            each: watermarks_of(asking, TopicPartition(topic, each))
            for each in partitions_of(asking, topic)
        }
    finally:
        asking.close()


def watermarks_of(asking: ck.Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Return the first offset of a partition and the one after its last, once it has a leader."""
    return _once_led(lambda: asking.get_watermark_offsets(partition, timeout=TIMEOUT), TIMEOUT)


def offsets_since(
    asking: ck.Consumer, times: Sequence[TopicPartition], timeout: float = TIMEOUT
) -> list[TopicPartition]:
    """Return each partition with the offset of its first record since a time, which it has as its
    offset (ms UTC); below 0 where nothing is so late.

    Raises KafkaException where a partition has no answer within `timeout` seconds.
    """
    return _once_led(
        lambda: _each_answered(asking.offsets_for_times(list(times), timeout=timeout)), timeout
    )


def committed_offsets(
    asking: ck.Consumer, partitions: Sequence[TopicPartition], timeout: float
) -> list[TopicPartition]:
    """Return each partition with the offset that the consumer's group has committed, below 0 where
    it has none; raises KafkaException also where the broker could not say it of one alone."""
    return _each_answered(asking.committed(list(partitions), timeout=timeout))


def _once_led(ask: Callable[[], Answer], timeout: float) -> Answer:
    """Return what is answered once each partition has a leader."""
    give_up = time.monotonic() + timeout
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in LEADER_COMING_UP or time.monotonic() > give_up:
                raise
            time.sleep(0.1)


def _each_answered(found: list[TopicPartition]) -> list[TopicPartition]:
    # a call succeeds also where a broker that comes up has said nothing of a partition
    for each in found:
        if each.error is not None:
            raise KafkaException(each.error)
    return found
