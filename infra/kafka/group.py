"""What a consumer group does: its members, and how far it is behind in each partition of its
sources."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.kafka.offsets import committed_offsets, partitions_of, refused, watermarks_of
from schemas.clients.kafka import client

TIMEOUT = 10.0
Source = tuple[str, int]
"""A topic and a partition of it."""


@dataclass(frozen=True, slots=True)
class MemberOf:
    """A member of the group."""

    member_id: str
    client_id: str
    host: str
    partitions: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the group is in a partition."""

    topic: str
    partition: int
    committed: int | None
    """The offset to go on at; None before the first commit."""
    stable: int
    """The offset up to which transactions have ended: read_committed reads no further."""
    high: int
    """The high watermark: one after the last record."""
    seconds: float | None
    """For how long the first record that the group has not committed has been there; 0 if there is
    none, None if it could not be read."""

    @property
    def lag(self) -> int:
        """Offsets not committed yet; of a topic that is written in transactions their markers
        too."""
        return max(0, self.high - (self.committed or 0))


@dataclass(frozen=True, slots=True)
class GroupFound:
    """A group as the broker describes it."""

    name: str
    state: str
    members: tuple[MemberOf, ...]
    partitions: tuple[Progress, ...]

    @property
    def lag(self) -> int:
        """Offsets not committed yet, of all partitions."""
        return sum(each.lag for each in self.partitions)

    @property
    def seconds(self) -> float | None:
        """The greatest lag of a partition in seconds; None if one is not known."""
        known = [each.seconds for each in self.partitions]
        return None if None in known else max((each for each in known if each), default=0.0)


def group_found(bootstrap: str, name: str, topics: Iterable[str]) -> GroupFound:
    """Ask the broker for a group and its progress in the topics. Raises NoSuchTopic and NotAllowed,
    and KafkaException where no broker answers."""
    state, members = _described(bootstrap, name)
    highs, stables, committed = _offsets(bootstrap, name, topics)
    behind = {
        source: committed.get(source, 0)
        for source, high in stables.items()
        if high > committed.get(source, 0)
    }
    stamps = _stamps(bootstrap, behind, stables)
    now_ms = time.time_ns() // 1_000_000
    partitions = tuple(
        Progress(
            *source,
            committed.get(source),
            stables[source],
            high,
            _seconds(source in behind, stamps.get(source), now_ms),
        )
        for source, high in highs.items()
    )
    return GroupFound(name, state, members, partitions)


def _described(bootstrap: str, name: str) -> tuple[str, tuple[MemberOf, ...]]:
    admin = AdminClient({**client(bootstrap), "log_level": 0})
    [future] = admin.describe_consumer_groups([name], request_timeout=TIMEOUT).values()
    try:
        found: Any = future.result()
    except KafkaException as error:
        raise refused(error.args[0], f"describe the group {name}") from None
    members = tuple(
        MemberOf(
            member.member_id,
            member.client_id,
            member.host,
            tuple(
                (each.topic, each.partition)
                for each in (member.assignment.topic_partitions if member.assignment else ())
            ),
        )
        for member in found.members
    )
    return found.state.name.lower(), members


def _offsets(
    bootstrap: str, name: str, topics: Iterable[str]
) -> tuple[dict[Source, int], dict[Source, int], dict[Source, int]]:
    """Return high watermarks, stable offsets and committed offsets."""
    found: list[dict[Source, int]] = []
    committed: dict[Source, int] = {}
    topics = list(topics)
    # a client's watermark is the stable offset if it reads committed records alone; asked last, so
    # that what was written meanwhile does not look held back
    for isolation in ("read_uncommitted", "read_committed"):
        asking = ck.Consumer(
            {
                **client(bootstrap),
                "group.id": name,
                "enable.auto.commit": False,
                "isolation.level": isolation,
                "log_level": 0,
            }
        )
        try:
            partitions = [
                TopicPartition(topic, each)
                for topic in topics
                for each in partitions_of(asking, topic)
            ]
            found.append(
                {
                    (each.topic, each.partition): watermarks_of(asking, each)[1]
                    for each in partitions
                }
            )
            if not committed:
                committed = {
                    (each.topic, each.partition): each.offset
                    for each in committed_offsets(asking, partitions, TIMEOUT)
                    if each.offset >= 0
                }
        except KafkaException as error:
            raise refused(error.args[0], f"see the offsets of the group {name}") from None
        finally:
            asking.close()
    highs, stables = found
    return {each: max(high, stables[each]) for each, high in highs.items()}, stables, committed


def _stamps(
    bootstrap: str, starts: Mapping[Source, int], ends: Mapping[Source, int]
) -> dict[Source, tuple[int, ...]]:
    """Return of each partition when its first record from the start on was written, in ms UTC;
    empty if there is none up to its end. What does not come in time is left out."""
    reading = ck.Consumer(
        {
            **client(bootstrap),
            "group.id": "read-to-end",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
            "log_level": 0,
        }
    )
    found: dict[Source, tuple[int, ...]] = {}
    deadline = time.monotonic() + TIMEOUT
    try:
        reading.assign([TopicPartition(*source, start) for source, start in starts.items()])
        while len(found) < len(starts) and time.monotonic() < deadline:
            for message in reading.consume(500, 0.1):
                source = cast(str, message.topic()), cast(int, message.partition())
                error = message.error()
                if error is None:
                    found.setdefault(source, (message.timestamp()[1],))
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise refused(error, f"read {source[0]}")
                elif cast(int, message.offset()) >= ends[source]:
                    found.setdefault(source, ())
    finally:
        reading.close()
    return found


def _seconds(behind: bool, stamp: tuple[int, ...] | None, now_ms: int) -> float | None:
    if not behind or stamp == ():
        return 0.0
    return None if stamp is None else max(0.0, (now_ms - stamp[0]) / 1000)
