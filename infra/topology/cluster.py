"""Reads what a cluster has of the topology, and carries out a plan; what is to be done is decided elsewhere."""

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from infra.topology.difference import (
    LEVEL,
    PARTITIONS,
    SCHEMA,
    Action,
    Allowed,
    Change,
    Plan,
    Snapshot,
    SubjectState,
    TopicState,
    compare,
)
from infra.topology.wanted import Wanted, wanted
from schemas.cluster import TIMEOUT, described, require
from schemas.registry import COMPATIBILITY, Registry
from schemas.security import client
from schemas.topics import Topic, Topology, load_schema

Result = TypeVar("Result")

_UNCREATABLE = frozenset(
    (
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_CONFIG,
        KafkaError.POLICY_VIOLATION,
    )
)
_NOT_KNOWN_YET = frozenset(
    (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_ALREADY_EXISTS,
    )
)
"""Who may only look plans too; and another apply may have been faster."""


class TopologyError(RuntimeError):
    """The cluster does not fit the topology, or is out of reach."""


class Refused(TopologyError):
    """A plan has changes that are not made, and so none was; the message names each reason once."""

    def __init__(self, planned: Plan) -> None:
        reasons: dict[str, list[str]] = {}
        for change in planned.changes:
            for attribute in change.attributes:
                if attribute.refused:
                    before = "" if attribute.old is None else f"{attribute.old} -> "
                    difference = f"{attribute.name} {before}{attribute.new}, {attribute.refused}"
                    reasons.setdefault(difference, []).append(change.name)
        super().__init__(
            "nothing was applied, since this is refused: "
            + "; ".join(
                f"{', '.join(names)}: {difference}" for difference, names in reasons.items()
            )
        )


def plan(bootstrap: str, registry: Registry, wants: Wanted, allowed: Allowed) -> Plan:
    """Compare the cluster with what is wanted; raises TopologyError, TopicHidden and RegistryError."""
    with _asking(bootstrap) as admin:
        topics = _topics(admin, wants.topics)
        refusals = _refusals(
            admin, [topic for topic in wants.topics if topic.name not in topics], wants.replication
        )
    subjects = {
        topic.subject: _subject(registry, topic.subject, topic.schema)
        for topic in wants.topics
        if topic.schema is not None
    }
    there = {name: state for name, state in subjects.items() if state is not None}
    return compare(wants, Snapshot(topics, there, refusals), allowed)


def carry_out(bootstrap: str, registry: Registry, wants: Wanted, planned: Plan) -> dict[str, int]:
    """Do what the plan says, wait until the broker shows it, and return the schema id of each topic; done twice, it changes nothing more.

    Raises Refused before anything is changed, TopologyError and RegistryError.
    """
    if planned.count(Action.REFUSED):
        raise Refused(planned)
    topics = {topic.name: topic for topic in wants.topics}
    changes = [change for change in planned.changes if change.kind == "topic"]
    _hold_to_level(registry, wants.topics, planned)
    with _asking(bootstrap) as admin:
        _create(
            admin, [topics[change.name] for change in changes if change.is_new], wants.replication
        )
        _alter(admin, [change for change in changes if not change.is_new], topics)
        ids = _register(registry, wants.topics, planned)
        _wait_until_shown(
            admin, Wanted(tuple(topics[change.name] for change in changes), wants.replication)
        )
    return ids


def apply(
    bootstrap: str,
    registry: Registry,
    topology: Topology,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, int]:
    """Make the cluster as the topology and the environment want it, and return the schema id of each topic.

    Raises Refused, WantedWrong, TopologyError, TopicHidden and RegistryError.
    """
    wants = wanted(topology, environment)
    return carry_out(bootstrap, registry, wants, plan(bootstrap, registry, wants, Allowed()))


def looked_up(bootstrap: str, registry: Registry, topology: Topology) -> dict[str, int]:
    """Return the schema id of each topic that producers write, and change nothing.

    Raises NotApplied where a topic or a schema is missing, TopologyError, TopicHidden and RegistryError.
    """
    with _asking(bootstrap) as admin:
        return require(
            admin, registry, [topic for topic in topology.topics() if "producers" in topic.owner]
        )


@contextmanager
def _asking(bootstrap: str) -> Iterator[AdminClient]:
    admin = AdminClient({**client(bootstrap), "log_level": 0})
    try:
        yield admin
    except KafkaException as error:
        admin.poll(0)  # logs why the broker lets nobody in
        raise TopologyError(
            f"no answer from the broker at {bootstrap} ({error.args[0].str()}): "
            "is it running, and are its address and INFOWAY_SECURITY_PROTOCOL right?"
        ) from error


def _topics(admin: AdminClient, topics: tuple[Topic, ...]) -> dict[str, TopicState]:
    found = described(admin, [topic.name for topic in topics])
    asked = [ConfigResource(ResourceType.TOPIC, name) for name in found]
    configs = {
        resource.name: {
            name: entry.value or "" for name, entry in _result(resource.name, future).items()
        }
        for resource, future in (
            admin.describe_configs(asked, request_timeout=TIMEOUT) if asked else {}
        ).items()
    }
    return {
        name: TopicState(
            len(topic.partitions),
            min(len(partition.replicas) for partition in topic.partitions),
            configs[name],
        )
        for name, topic in found.items()
    }


def _subject(registry: Registry, subject: str, schema_name: str) -> SubjectState | None:
    schema = load_schema(schema_name)
    schema_id = registry.id_of(subject, schema)
    if schema_id is not None:
        return SubjectState(schema_id, registry.compatibility(subject))
    latest = registry.latest_version(subject)
    if latest is None:
        return None
    return SubjectState(
        None, registry.compatibility(subject), latest, registry.refusal(subject, schema)
    )


def _refusals(admin: AdminClient, topics: list[Topic], replication: int | None) -> dict[str, str]:
    """Return why the cluster would not create these topics, by name: too few brokers, a policy of its own."""
    found: dict[str, str] = {}
    new = _new(topics, replication)
    for name, future in (
        admin.create_topics(new, validate_only=True, request_timeout=TIMEOUT) if new else {}
    ).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() in _UNCREATABLE:
                found[name] = error.args[0].str().rstrip(".")
            elif error.args[0].code() not in _NOT_KNOWN_YET:
                raise TopologyError(f"topic {name}: {error.args[0].str()}") from error
    return found


def _new(topics: list[Topic], replication: int | None) -> list[NewTopic]:
    # -1: the cluster's default
    return [
        NewTopic(topic.name, topic.partitions, replication or -1, config=dict(topic.config))
        for topic in topics
    ]


def _create(admin: AdminClient, topics: list[Topic], replication: int | None) -> None:
    new = _new(topics, replication)
    for name, future in (admin.create_topics(new) if new else {}).items():
        try:
            future.result()
        except KafkaException as error:
            # another apply was faster
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopologyError(f"topic {name}: {error.args[0].str()}") from error


def _alter(admin: AdminClient, changes: list[Change], topics: Mapping[str, Topic]) -> None:
    resources = []
    for change in changes:
        topic = topics[change.name]
        if any(attribute.name == PARTITIONS for attribute in change.attributes):
            _add_partitions(admin, topic)
        entries = [
            ConfigEntry(attribute.name, attribute.new, incremental_operation=AlterConfigOpType.SET)
            for attribute in change.attributes
            if attribute.name in topic.config
        ]
        if entries:
            resources.append(
                ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=entries)
            )
    for resource, future in (
        admin.incremental_alter_configs(resources) if resources else {}
    ).items():
        _result(resource.name, future)


def _add_partitions(admin: AdminClient, topic: Topic) -> None:
    for future in admin.create_partitions([NewPartitions(topic.name, topic.partitions)]).values():
        try:
            future.result()
        except KafkaException as error:
            # another apply was faster; whether it made as many is seen where the changes are waited for
            if error.args[0].code() != KafkaError.INVALID_PARTITIONS:
                raise TopologyError(f"topic {topic.name}: {error.args[0].str()}") from error


def _wait_until_shown(admin: AdminClient, changed: Wanted) -> None:
    # the controller answers before the brokers have read what it wrote: a producer started right away would miss its topics
    deadline = time.monotonic() + TIMEOUT
    while changed.topics:
        left = compare(
            changed,
            Snapshot(_topics(admin, changed.topics), {}),
            Allowed(partition_change=True, shorter_retention=True),
        ).changes
        names = {change.name for change in left if change.kind == "topic"}
        changed = replace(
            changed, topics=tuple(topic for topic in changed.topics if topic.name in names)
        )
        if names and time.monotonic() > deadline:
            raise TopologyError(
                f"the broker took the changes and does not show them after {TIMEOUT:.0f} s: {', '.join(sorted(names))}: "
                "see what `infoway-streams topology plan` says"
            )
        if names:
            time.sleep(0.02)


def _result(topic: str, future: "Future[Result]") -> Result:
    try:
        return future.result()
    except KafkaException as error:
        raise TopologyError(f"topic {topic}: {error.args[0].str()}") from error


def _hold_to_level(registry: Registry, topics: tuple[Topic, ...], planned: Plan) -> None:
    """Set the level of subjects that get a new version under another one: while that held, the plan could not know what ours refuses."""
    lax = {
        change.name
        for change in planned.changes
        if change.kind == "schema"
        and not change.is_new
        and {SCHEMA, LEVEL} <= {attribute.name for attribute in change.attributes}
    }
    for topic in topics:
        if topic.schema is not None and topic.subject in lax:
            registry.set_compatibility(topic.subject)
            refusal = registry.refusal(topic.subject, load_schema(topic.schema))
            if refusal:
                raise TopologyError(
                    f"{topic.subject}: {topic.schema}.avsc is not {COMPATIBILITY} ({refusal}): keep every field, give new ones a default; "
                    f"nothing was applied but the subject's level, {COMPATIBILITY} now"
                )


def _register(registry: Registry, topics: tuple[Topic, ...], planned: Plan) -> dict[str, int]:
    changed = {
        change.name: {attribute.name for attribute in change.attributes}
        for change in planned.changes
        if change.kind == "schema"
    }
    ids: dict[str, int] = {}
    for topic in topics:
        if topic.schema is None:
            continue
        if SCHEMA in changed.get(topic.subject, ()):
            ids[topic.name] = registry.register(topic.subject, load_schema(topic.schema))
            continue
        if topic.subject in changed:
            registry.set_compatibility(topic.subject)
        ids[topic.name] = planned.schema_ids[topic.subject]
    return ids
