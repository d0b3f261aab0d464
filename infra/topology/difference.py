"""What a cluster differs in from what is wanted, as values; a pure comparison that neither reads
nor changes a cluster."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from infra.topology.wanted import Wanted
from schemas.clients.registry import COMPATIBILITY
from schemas.topics import Topic

PARTITIONS = "partitions"
REPLICATION = "replication factor"
SCHEMA = "schema"
LEVEL = "compatibility"
VERIFICATION = "transaction.partition.verification.enable"
"""The broker's setting that keeps a late record, or a late offset, out of the next transaction;
Kafka has it since 3.6."""


class Action(StrEnum):
    """What becomes of a topic or a subject."""

    CREATE = "create"
    CHANGE = "change"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is; `replication` is the least of its partitions', `config` has every effective
    value."""

    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SubjectState:
    """A subject of the registry as it is."""

    schema_id: int | None
    """Of the schema that is wanted; None where the subject does not have it."""
    compatibility: str | None
    latest: int | None = None
    """Number of the newest version, where the wanted one is not there."""
    refusal: str | None = None
    """Why the registry would not take the wanted one."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is there of the topics and subjects that are wanted, by full name; nothing else was
    looked at."""

    topics: Mapping[str, TopicState]
    subjects: Mapping[str, SubjectState]
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Why the cluster would not create a topic that is not there."""
    verification: Mapping[str, str | None] = field(default_factory=dict)
    """VERIFICATION of each broker that shows its settings, by its id; None where it has no such
    setting."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is refused unless it is asked for."""

    partition_change: bool = False
    shorter_retention: bool = False
    unverified_transactions: bool = False


@dataclass(frozen=True, slots=True)
class Attribute:
    """One property that differs; `refused` says why it may not be changed."""

    name: str
    old: str | None
    new: str
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One topic or subject that is not as wanted."""

    kind: Literal["broker", "topic", "schema"]
    name: str
    is_new: bool
    attributes: tuple[Attribute, ...]

    @property
    def action(self) -> Action:
        """Refused as a whole where one of its attributes is."""
        if any(attribute.refused for attribute in self.attributes):
            return Action.REFUSED
        return Action.CREATE if self.is_new else Action.CHANGE


@dataclass(frozen=True, slots=True)
class TopologyPlan:
    """All that is not as wanted, brokers and topics first, each in the order of `topics.yaml`."""

    changes: tuple[Change, ...]
    schema_ids: Mapping[str, int]
    """Of the schemas that are registered already, by subject."""

    def count(self, action: Action) -> int:
        """Return how many topics and subjects the action concerns."""
        return sum(change.action == action for change in self.changes)


def compare(wanted: Wanted, snapshot: Snapshot, allowed: Allowed) -> TopologyPlan:
    """Return what has to be done, and what is refused: everything that would lose records, or the
    order of a key's records."""
    topics = [
        _created(topic, wanted.replication, snapshot.refusals.get(topic.name))
        if topic.name not in snapshot.topics
        else _altered(topic, wanted.replication, snapshot.topics[topic.name], allowed)
        for topic in wanted.topics
    ]
    subjects = [
        _schema_change(topic, snapshot.subjects.get(topic.subject))
        for topic in wanted.topics
        if topic.schema is not None
    ]
    ids = {
        subject: state.schema_id
        for subject, state in snapshot.subjects.items()
        if state.schema_id is not None
    }
    brokers = (
        []
        if allowed.unverified_transactions
        else [_unverified(*broker) for broker in snapshot.verification.items()]
    )
    return TopologyPlan(
        tuple(change for change in (*brokers, *topics, *subjects) if change.attributes), ids
    )


def _unverified(broker: str, value: str | None) -> Change:
    if value == "true":
        return Change("broker", broker, False, ())
    cause = (
        "no such setting: older than Kafka 3.6, or no Apache Kafka"
        if value is None
        else "set it to true in the broker's own settings"
    )
    reason = (
        "a record that the network delivers late would get into the next transaction of a "
        "worker, or stop its readers for good: "
        f"{cause}; or --allow-unverified-transactions"
    )
    return Change("broker", broker, False, (Attribute(VERIFICATION, value, "true", reason),))


def _created(topic: Topic, replication: int | None, refusal: str | None) -> Change:
    shown = {
        PARTITIONS: topic.partitions,
        **({REPLICATION: replication} if replication else {}),
        **topic.config,
    }
    reason = refusal and f"the cluster says: {refusal}"
    # a refusal is of the whole topic, most often for too few brokers
    blamed = REPLICATION if replication else PARTITIONS
    attributes = (
        Attribute(name, None, str(value), reason if name == blamed else None)
        for name, value in shown.items()
    )
    return Change("topic", topic.name, True, tuple(attributes))


def _altered(topic: Topic, replication: int | None, actual: TopicState, allowed: Allowed) -> Change:
    attributes = (*_layout(topic, replication, actual, allowed), *_configs(topic, actual, allowed))
    return Change("topic", topic.name, False, attributes)


def _layout(
    topic: Topic, replication: int | None, actual: TopicState, allowed: Allowed
) -> Iterator[Attribute]:
    if topic.partitions < actual.partitions:
        reason = (
            "Kafka takes no partitions away: wish for as many as there are, or choose "
            "another prefix"
        )
        yield Attribute(PARTITIONS, str(actual.partitions), str(topic.partitions), reason)
    elif topic.partitions > actual.partitions:
        reason = (
            "keys would move to other partitions, away from their earlier records and their "
            "state: choose another prefix, "
            "or --allow-partition-change"
        )
        yield Attribute(
            PARTITIONS,
            str(actual.partitions),
            str(topic.partitions),
            None if allowed.partition_change else reason,
        )
    if replication is not None and replication != actual.replication:
        reason = (
            "replicas move by kafka-reassign-partitions.sh alone: do that first, or set "
            f"INFOWAY_REPLICATION={actual.replication}"
        )
        yield Attribute(REPLICATION, str(actual.replication), str(replication), reason)


def _configs(topic: Topic, actual: TopicState, allowed: Allowed) -> Iterator[Attribute]:
    shorter = _kept_ms({**actual.config, **topic.config}) < _kept_ms(actual.config)
    refused = None
    if shorter and not allowed.shorter_retention:
        refused = (
            "records would be deleted sooner: keep them by INFOWAY_RETENTION, or "
            "--allow-shorter-retention"
        )
    for name, value in topic.config.items():
        if actual.config.get(name) != value:
            yield Attribute(
                name,
                actual.config.get(name),
                value,
                refused if name in ("cleanup.policy", "retention.ms") else None,
            )


def _kept_ms(config: Mapping[str, str]) -> int:
    """How long time retention keeps a record; bounds by size are none of ours."""
    milliseconds = int(config["retention.ms"])
    return (
        milliseconds if "delete" in config["cleanup.policy"] and milliseconds >= 0 else sys.maxsize
    )


def _schema_change(topic: Topic, actual: SubjectState | None) -> Change:
    file = f"{topic.schema}.avsc"
    if actual is None:
        return Change(
            "schema",
            topic.subject,
            True,
            (Attribute(SCHEMA, None, file), Attribute(LEVEL, None, COMPATIBILITY)),
        )
    attributes = []
    if actual.schema_id is None:
        reason = (
            actual.refusal
            and f"not {COMPATIBILITY} ({actual.refusal}): keep every field, give new ones a default"
        )
        attributes.append(Attribute(SCHEMA, f"version {actual.latest}", file, reason))
    if actual.compatibility != COMPATIBILITY:
        attributes.append(Attribute(LEVEL, actual.compatibility, COMPATIBILITY))
    return Change("schema", topic.subject, False, tuple(attributes))
