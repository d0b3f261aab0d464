"""The topology of a deployment on a cluster: topics created and schemas registered as `schemas/` says; plan first, then apply."""

from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from schemas.registry import Registry
from schemas.topics import Topic, Topology, load_schema

TIMEOUT = 15.0


class TopologyError(RuntimeError):
    """The cluster does not fit the topology, or is out of reach."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` would do: topics that are missing, and topics that have another number of partitions."""

    missing: tuple[Topic, ...]
    different: tuple[str, ...]


def plan(bootstrap: str, topology: Topology) -> Plan:
    """Compare the cluster with the topology; raises TopologyError where the broker is out of reach."""
    try:
        present = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=TIMEOUT).topics
    except KafkaException as error:
        raise TopologyError(
            f"no answer from the broker at {bootstrap} ({error.args[0].str()}): is it running, and is the address right?"
        ) from error
    missing = tuple(topic for topic in topology.topics() if topic.name not in present)
    different = tuple(
        f"{topic.name} has {len(present[topic.name].partitions)} partitions, not {topic.partitions}"
        for topic in topology.topics()
        if topic.name in present and len(present[topic.name].partitions) != topic.partitions
    )
    return Plan(missing, different)


def apply(bootstrap: str, registry: Registry, topology: Topology, replication: int = 1) -> dict[str, int]:
    """Create what is missing, register every schema, and return the schema id of each topic.

    Raises TopologyError where a topic has another number of partitions: keys would change places.
    """
    planned = plan(bootstrap, topology)
    if planned.different:
        raise TopologyError(f"{'; '.join(planned.different)}: choose another prefix, or the same number of partitions")
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    new = [NewTopic(topic.name, topic.partitions, replication, config=dict(topic.config)) for topic in planned.missing]
    for name, future in (admin.create_topics(new) if new else {}).items():
        try:
            future.result(TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopologyError(f"topic {name}: {error.args[0].str()}") from error
    return {
        topic.name: registry.register(topic.subject, load_schema(topic.schema)) for topic in topology.topics() if topic.schema is not None
    }
