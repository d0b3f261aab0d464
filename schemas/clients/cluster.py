"""What a cluster and its registry have of the contract, looked up by those who write and read it; nothing is created here."""

from collections.abc import Iterable, Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, TopicDescription  # type: ignore[attr-defined]

from schemas.registry import Registry
from schemas.topics import Topic, load_schema

TIMEOUT = 10.0
"""Seconds that a broker has for an answer."""


class NotApplied(RuntimeError):
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
            f"{'; '.join(facts)}: run `infoway-streams topology apply` first, with the same settings as here"
        )
        self.absent = tuple(absent)
        self.differing = tuple(differing)
        self.unregistered = tuple(unregistered)


class TopicHidden(RuntimeError):
    """The broker does not show a topic to this client."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"the broker does not let this client see {topic}: allow its principal to DESCRIBE the topic"
        )
        self.topic = topic


def require(
    admin: AdminClient, registry: Registry, writes: Iterable[Topic], reads: Iterable[Topic] = ()
) -> dict[str, int]:
    """Return the id of the schema of each topic that is written, by the topic's full name; state topics have none.

    Raises NotApplied with everything that is missing, TopicHidden, RegistryError, and KafkaException where no broker answers.
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
    """Return those of the topics that exist; asks for no others. Raises TopicHidden, and KafkaException where no broker answers."""
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
