"""Carries out a plan: makes the cluster as the topology wants it."""

import os
import time
from collections.abc import Mapping
from dataclasses import replace

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from infra.topology.cluster import TopologyError, asking, new_topics, plan, result_of, topics_of
from infra.topology.difference import (
    LEVEL,
    PARTITIONS,
    SCHEMA,
    Action,
    Allowed,
    Change,
    Snapshot,
    TopologyPlan,
    compare,
)
from infra.topology.wanted import Wanted, wanted
from schemas.clients.registry import COMPATIBILITY, Registry
from schemas.topics import Topic, Topology, load_schema

# seconds; more than one request takes at most, so that a late answer is asked for again
_SHOWN_WITHIN = 30.0


class Refused(TopologyError):
    """A plan has changes that are not made, and so none was; the message names each reason once."""

    def __init__(self, planned: TopologyPlan) -> None:
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


def carry_out(
    bootstrap: str, registry: Registry, wants: Wanted, planned: TopologyPlan
) -> dict[str, int]:
    """Do what the plan says, wait until the broker shows it, and return the schema id of each
    topic; done twice, it changes nothing more.

    Raises Refused before anything is changed, TopologyError and RegistryError.
    """
    if planned.count(Action.REFUSED):
        raise Refused(planned)
    topics = {topic.name: topic for topic in wants.topics}
    changes = [change for change in planned.changes if change.kind == "topic"]
    _hold_to_level(registry, wants.topics, planned)
    with asking(bootstrap) as admin:
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
    """Make the cluster as the topology and the environment want it, and return the schema id of
    each topic.

    Raises Refused, WantedWrong, TopologyError, TopicHidden and RegistryError.
    """
    wants = wanted(topology, environment)
    return carry_out(bootstrap, registry, wants, plan(bootstrap, registry, wants, Allowed()))


def _create(admin: AdminClient, topics: list[Topic], replication: int | None) -> None:
    new = new_topics(topics, replication)
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
        result_of(resource.name, future)


def _add_partitions(admin: AdminClient, topic: Topic) -> None:
    for future in admin.create_partitions([NewPartitions(topic.name, topic.partitions)]).values():
        try:
            future.result()
        except KafkaException as error:
            # another apply was faster; whether it made as many is seen where the changes are waited
            # for
            if error.args[0].code() != KafkaError.INVALID_PARTITIONS:
                raise TopologyError(f"topic {topic.name}: {error.args[0].str()}") from error


def _wait_until_shown(admin: AdminClient, changed: Wanted) -> None:
    # the controller answers before the brokers have read what it wrote: a producer started right
    # away would miss its topics
    deadline = time.monotonic() + _SHOWN_WITHIN
    while changed.topics:
        try:
            found = topics_of(admin, changed.topics)
        except KafkaException as error:
            # a busy broker answers late; what was changed is not undone by an early end
            if error.args[0].code() != KafkaError._TIMED_OUT or time.monotonic() > deadline:
                raise
            continue
        left = compare(
            changed,
            Snapshot(found, {}),
            Allowed(partition_change=True, shorter_retention=True),
        ).changes
        names = {change.name for change in left if change.kind == "topic"}
        changed = replace(
            changed, topics=tuple(topic for topic in changed.topics if topic.name in names)
        )
        if names and time.monotonic() > deadline:
            raise TopologyError(
                f"the broker took the changes and does not show them after {_SHOWN_WITHIN:.0f} s: "
                f"{', '.join(sorted(names))}: "
                "see what `infoway-streams topology plan` says"
            )
        if names:
            time.sleep(0.02)


def _hold_to_level(registry: Registry, topics: tuple[Topic, ...], planned: TopologyPlan) -> None:
    """Set the level of subjects that get a new version under another one: while that held, the plan
    could not know what ours refuses."""
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
                    f"{topic.subject}: {topic.schema}.avsc is not {COMPATIBILITY} ({refusal}): "
                    "keep every field, give new ones a default; "
                    f"nothing was applied but the subject's level, {COMPATIBILITY} now"
                )


def _register(
    registry: Registry, topics: tuple[Topic, ...], planned: TopologyPlan
) -> dict[str, int]:
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
