"""What a cluster and its registry have of the contract, looked up by those who write and read it;
nothing is created here."""

import time
from collections.abc import Iterable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ClusterMetadata,
    TopicDescription,
)

from schemas.clients.registry import Registry
from schemas.errors import InfowayError
from schemas.topics import Topic, load_schema

TIMEOUT = 10.0
"""Seconds that a broker has for an answer."""


class NotApplied(InfowayError):
    """The cluster lacks topics or schemas that a producer or a worker needs."""

    def __init__(
        self, absent: Sequence[str], differing: Sequence[str], unregistered: Sequence[str]
    ) -> None:
        facts = [f"no topic {', '.join(absent)}"] if absent else []
        facts += differing
        facts += (
            [f"the registry lacks this version's schema of {', '.join(unregistered)}"]
            if unregistered
            else []
        )
        super().__init__(
            f"{'; '.join(facts)}: run `infoway-streams topology apply` first, with the same "
            "settings as here"
        )
        self.absent = tuple(absent)
        self.differing = tuple(differing)
        self.unregistered = tuple(unregistered)


class TopicHidden(InfowayError):
    """The broker does not show a topic to this client."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"the broker does not let this client see {topic}: allow its principal to DESCRIBE "
            "the topic"
        )
        self.topic = topic


def metadata_of(
    asking: AdminClient | Consumer | Producer, topic: str | None = None, timeout: float = TIMEOUT
) -> ClusterMetadata:
    """Return which brokers and topics the cluster names, or of the topics only one.

    A broker that has just come up, or that did not answer for longer than its session lasts, names
    neither for a moment, and calls topics unknown: it is asked again. Raises KafkaException where
    no broker answers within `timeout` seconds, or none is named by then.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = (
            asking.list_topics(timeout=timeout)
            if topic is None
            else asking.list_topics(topic, timeout=timeout)
        )
        if found.brokers:
            return found
        if time.monotonic() > deadline:
            raise KafkaException(
                KafkaError(KafkaError.BROKER_NOT_AVAILABLE, "the cluster names no broker")
            )
        time.sleep(0.1)


def require(
    admin: AdminClient, registry: Registry, writes: Iterable[Topic], reads: Iterable[Topic] = ()
) -> dict[str, int]:
    """Return the id of the schema of each topic that is written, by the topic's full name; state
    topics have none.

    Raises NotApplied with everything that is missing, TopicHidden, RegistryError, and
    KafkaException where no broker answers.
    """
    writes = list(writes)
    needed = {topic.name: topic for topic in (*writes, *reads)}
    found = described(admin, needed)
    absent = [name for name in needed if name not in found]
    differing = [
        f"{name} has {len(found[name].partitions)} partitions, not {topic.partitions}"
        for name, topic in needed.items()
        if name in found and len(found[name].partitions) != topic.partitions
    ]
    ids: dict[str, int] = {}
    unregistered: list[str] = []
    for topic in writes:
        if topic.schema is not None:
            schema_id = registry.id_of(topic.subject, load_schema(topic.schema))
            if schema_id is None:
                unregistered.append(topic.subject)
            else:
                ids[topic.name] = schema_id
    if absent or differing or unregistered:
        raise NotApplied(absent, differing, unregistered)
    return ids


def described(admin: AdminClient, names: Iterable[str]) -> Mapping[str, TopicDescription]:
    """Return those of the topics that exist; asks for no others. Raises TopicHidden, and
    KafkaException where no broker answers."""
    metadata_of(admin)  # until then existing topics are called unknown
    found: dict[str, TopicDescription] = {}
    for name, future in admin.describe_topics(
        TopicCollection(list(names)), request_timeout=TIMEOUT
    ).items():
        try:
            found[name] = future.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise TopicHidden(name) from None
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    return found
