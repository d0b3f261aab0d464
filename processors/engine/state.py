"""State of agents in compacted topics: how it is read back after an assignment; writing is the
transaction's."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, OffsetSpec  # type: ignore[attr-defined]

from processors.engine.transactions.hanging import open_transactions
from schemas.clients.kafka import client
from schemas.errors import InfowayError

APPLIED = b"\0applied:"
LOG = b"\0log:"
FAILED = b"\0failed:"
SKIPPED = b"\0skipped:"
"""The engine's own keys of each partition's state, each followed by a source's full name: its next
offset, as decimal digits; the id of the topic that it belongs to; where the agent failed, as JSON;
and the offset that was skipped last, as decimal digits."""

Entries = dict[bytes, bytes]
LOAD_TIMEOUT = 60.0
"""Seconds for which nothing more of a state can be read, though the broker answers."""
ANSWER_TIMEOUT = 5.0
"""Seconds that the broker has for the answer to one request."""
NAMED_WITHIN_S = 15.0
"""Seconds after which a broker that answers knows all its topics."""

Answer = TypeVar("Answer")


class StateNotReadable(InfowayError):
    """The state topics did not become readable in time: a dead owner's transaction is still
    open."""


class Abandoned(Exception):
    """The assignment that a state was loaded for is over."""


def load_states(
    bootstrap: str,
    partitions: Iterable[tuple[str, int]],
    timeout: float = LOAD_TIMEOUT,
    still: Callable[[], bool] = lambda: True,
    moved: Callable[[], None] = lambda: None,
) -> dict[tuple[str, int], Entries]:
    """Return the live entries of every (state topic, partition), each read up to its high
    watermark.

    A read_committed consumer stops at the first open transaction; what a dead owner has flushed
    lies behind it and may yet be committed. So the end is where the high watermark was, not where
    the consumer first runs dry. A broker that is away is waited for; `moved` is called whenever
    something was read. Raises StateNotReadable where the broker answers and nothing was read for
    `timeout` seconds, and Abandoned once `still()` is false.
    """
    wanted = list(partitions)
    states: dict[tuple[str, int], Entries] = {topic_partition: {} for topic_partition in wanted}
    if not wanted:
        return states
    ends = until_answered(lambda: high_watermarks(bootstrap, wanted), still)
    consumer = ck.Consumer(
        {
            **client(bootstrap),
            "group.id": "state",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # the default is to go on at the end, as if there were no state
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 10,
        }
    )
    deadline = time.monotonic() + timeout
    unread = set(wanted)
    try:
        beginnings = [
            TopicPartition(topic, partition, ck.OFFSET_BEGINNING) for topic, partition in wanted
        ]
        consumer.assign(beginnings)
        while unread:
            messages = consumer.consume(5000, 0.2)
            if not still():
                raise Abandoned
            if messages:
                deadline = time.monotonic() + timeout
                moved()
            elif time.monotonic() > deadline:
                until_answered(lambda: high_watermarks(bootstrap, wanted), still)
                raise StateNotReadable(
                    f"nothing more to be read for {timeout:.0f} s, short of the high watermark: "
                    f"{sorted(unread)}" + open_transactions(bootstrap, unread)
                )
            for message in messages:
                topic_partition = (cast(str, message.topic()), cast(int, message.partition()))
                error = message.error()
                if error is None:
                    _put(states[topic_partition], cast(bytes, message.key()), message.value())
                elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                    # the log has lost its start meanwhile, and what was read of it may be what
                    # compaction has removed since
                    states, unread = (
                        {topic_partition: {} for topic_partition in wanted},
                        set(wanted),
                    )
                    consumer.assign(beginnings)
                    break
                elif error.code() != KafkaError._PARTITION_EOF:
                    # what stays unknown ends at the deadline
                    if not (is_away(error) or is_unnamed(error)):
                        raise KafkaException(error)
                elif cast(int, message.offset()) >= ends[topic_partition]:
                    unread.discard(topic_partition)
    finally:
        consumer.close()
    return states


def until_answered(call: Callable[[], Answer], still: Callable[[], bool] = lambda: True) -> Answer:
    """Return what the call returns once a broker answers it; raises Abandoned once `still()` is
    false, and KafkaException where it calls a topic or partition unknown for NAMED_WITHIN_S."""
    unnamed_since: float | None = None
    while True:
        try:
            return call()
        except KafkaException as error:
            if is_unnamed(error.args[0]):
                unnamed_since = unnamed_since or time.monotonic()
                if time.monotonic() - unnamed_since > NAMED_WITHIN_S:
                    raise
            elif is_away(error.args[0]):
                unnamed_since = None
            else:
                raise
        except TimeoutError:
            pass  # a call of a client just made is now and then never answered
        if not still():
            raise Abandoned
        time.sleep(0.2)


def is_unnamed(error: KafkaError) -> bool:
    """Return whether the error says that there is no such topic or partition, or none that leads
    it: of a broker that has just come back it may mean nothing."""
    return error.code() in _UNNAMED


_UNNAMED = frozenset(
    (
        # librdkafka's own: no leaders, and what it does not find in what it was told last
        KafkaError._NOENT,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    )
)


def is_away(error: KafkaError) -> bool:
    """Return whether the error says that a broker cannot be reached or is not up yet, so that
    waiting helps."""
    return bool(error.retriable()) or error.code() in _AWAY


_AWAY = frozenset(
    (
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
        # of a broker that has just come back
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
    )
)


def high_watermarks(
    bootstrap: str, partitions: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """Return the end of each partition's log, open transactions included."""
    return _offsets(bootstrap, partitions, OffsetSpec.latest)


def log_starts(bootstrap: str, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Return the first offset that retention has left of each partition."""
    return _offsets(bootstrap, partitions, OffsetSpec.earliest)


def topic_ids(bootstrap: str, topics: Iterable[str]) -> dict[str, str]:
    """Return the id that the broker gave each topic when it was made: a topic made again under the
    same name has another."""
    admin = AdminClient(client(bootstrap))
    futures = admin.describe_topics(
        TopicCollection(sorted(set(topics))), request_timeout=ANSWER_TIMEOUT
    )
    return {
        topic: str(future.result(ANSWER_TIMEOUT + 1).topic_id) for topic, future in futures.items()
    }


def _offsets(
    bootstrap: str, partitions: Iterable[tuple[str, int]], spec: Callable[[], OffsetSpec]
) -> dict[tuple[str, int], int]:
    admin = AdminClient(client(bootstrap))
    # the admin client's default isolation is read_uncommitted: the high watermark, not the last
    # stable offset
    asked = {TopicPartition(topic, partition): spec() for topic, partition in partitions}
    futures = admin.list_offsets(asked, request_timeout=ANSWER_TIMEOUT) if asked else {}
    return {
        (topic_partition.topic, topic_partition.partition): listed(
            future.result(ANSWER_TIMEOUT + 1)
        )
        for topic_partition, future in futures.items()
    }


def listed(result: ListOffsetsResultInfo) -> int:
    """Return the offset that was asked for; raises TimeoutError where the broker did not answer,
    which librdkafka gives as -1001."""
    offset = int(result.offset)
    if offset < 0:
        raise TimeoutError("the broker did not answer which offsets it has")
    return offset


def _put(entries: Entries, key: bytes, value: bytes | None) -> None:
    if value is None:
        entries.pop(key, None)
    else:
        entries[key] = value
