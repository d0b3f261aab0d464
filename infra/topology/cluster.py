"""Reads what a cluster has of the topology, and plans what differs."""

import logging
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from infra.topology.difference import (
    VERIFICATION,
    Allowed,
    Snapshot,
    SubjectState,
    TopicState,
    TopologyPlan,
    compare,
)
from infra.topology.wanted import Wanted
from schemas.clients.cluster import TIMEOUT, described, metadata_of, require
from schemas.clients.kafka import client
from schemas.clients.registry import Registry
from schemas.errors import InfowayError, Unreachable
from schemas.topics import Topic, Topology, load_schema

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

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


class TopologyError(InfowayError):
    """The cluster does not fit the topology, or is out of reach."""


class ClusterAway(TopologyError, Unreachable):
    """The broker does not answer."""


def plan(bootstrap: str, registry: Registry, wants: Wanted, allowed: Allowed) -> TopologyPlan:
    """Compare the cluster with what is wanted; raises TopologyError, TopicHidden and
    RegistryError."""
    with asking(bootstrap) as admin:
        verification = _verification(admin)
        topics = topics_of(admin, wants.topics)
        refusals = _refusals(
            admin, [topic for topic in wants.topics if topic.name not in topics], wants.replication
        )
    subjects = {
        topic.subject: _subject(registry, topic.subject, topic.schema)
        for topic in wants.topics
        if topic.schema is not None
    }
    there = {name: state for name, state in subjects.items() if state is not None}
    return compare(wants, Snapshot(topics, there, refusals, verification), allowed)


def looked_up(bootstrap: str, registry: Registry, topology: Topology) -> dict[str, int]:
    """Return the schema id of each topic that producers write, and change nothing.

    Raises NotApplied where a topic or a schema is missing, TopologyError, TopicHidden and
    RegistryError.
    """
    with asking(bootstrap) as admin:
        return require(
            admin, registry, [topic for topic in topology.topics() if "producers" in topic.owner]
        )


@contextmanager
def asking(bootstrap: str) -> Iterator[AdminClient]:
    """Give a client to ask the cluster by; what no broker answers is ClusterAway."""
    admin = AdminClient({**client(bootstrap), "log_level": 0})
    try:
        yield admin
    except KafkaException as error:
        admin.poll(0)  # logs why the broker lets nobody in
        raise ClusterAway(
            f"no answer from the broker at {bootstrap} ({error.args[0].str()}): "
            "is it running, and are its address and INFOWAY_SECURITY_PROTOCOL right?"
        ) from error


def topics_of(admin: AdminClient, topics: tuple[Topic, ...]) -> dict[str, TopicState]:
    """Return what the cluster has of the topics, by name; raises KafkaException."""
    found = described(admin, [topic.name for topic in topics])
    asked = [ConfigResource(ResourceType.TOPIC, name) for name in found]
    configs = {
        resource.name: {
            name: entry.value or "" for name, entry in result_of(resource.name, future).items()
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


def _verification(admin: AdminClient) -> dict[str, str | None]:
    """Return VERIFICATION of each broker that shows its settings to this principal."""
    asked = [
        ConfigResource(ResourceType.BROKER, str(broker)) for broker in metadata_of(admin).brokers
    ]
    found: dict[str, str | None] = {}
    for resource, future in admin.describe_configs(asked, request_timeout=TIMEOUT).items():
        try:
            entry = future.result().get(VERIFICATION)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.CLUSTER_AUTHORIZATION_FAILED:
                raise
            _log.warning(
                "broker %s does not show its settings (this principal may not DescribeConfigs "
                "on the cluster): see to it that %s is true",
                resource.name,
                VERIFICATION,
            )
        else:
            found[resource.name] = entry.value if entry is not None else None
    return found


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
    """Return why the cluster would not create these topics, by name: too few brokers, a policy of
    its own."""
    found: dict[str, str] = {}
    new = new_topics(topics, replication)
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


def new_topics(topics: list[Topic], replication: int | None) -> list[NewTopic]:
    """Return the requests that create topics."""
    # -1: the cluster's default
    return [
        NewTopic(topic.name, topic.partitions, replication or -1, config=dict(topic.config))
        for topic in topics
    ]


def result_of(topic: str, future: "Future[Result]") -> Result:
    """Return what a request about a topic gave; raises TopologyError."""
    try:
        return future.result()
    except KafkaException as error:
        raise TopologyError(f"topic {topic}: {error.args[0].str()}") from error
