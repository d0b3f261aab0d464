"""Why records cannot be published."""

from collections.abc import Iterable

from producers.feed.metrics import FeedCounters
from schemas.errors import InfowayError, Unreachable


class PublishError(InfowayError):
    """Records cannot reach the broker."""


class BrokerUnreachable(PublishError, Unreachable):
    """No broker answers."""

    def __init__(self, bootstrap: str, reason: str) -> None:
        super().__init__(
            f"no Kafka broker answers at {bootstrap} ({reason}): start it, or correct its "
            "address and credentials"
        )
        self.bootstrap = bootstrap
        self.reason = reason


class TopicsMissing(PublishError):
    """Topics that the producer writes do not exist."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.topics = tuple(topics)
        super().__init__(
            f"topics {', '.join(self.topics)} do not exist: create them with `infoway-streams "
            "topology apply`"
        )


class DeliveryFailed(PublishError):
    """The broker refused a record for good."""

    def __init__(self, topic: str | None, reason: str) -> None:
        super().__init__(
            f"the broker refused a record for {topic} ({reason}): nothing more is published"
        )
        self.topic = topic
        self.reason = reason


class ClientFailed(PublishError, Unreachable):
    """The Kafka client has given up for good: another one can go on."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the Kafka client has given up ({reason}): start the producer again, what was on its "
            "way is on disk, or becomes a gap"
        )
        self.reason = reason


class Undelivered(PublishError):
    """Records were still unacknowledged when the time to wait was over."""

    def __init__(self, count: int, seconds: float) -> None:
        super().__init__(
            f"{count} records were not acknowledged within {seconds:g} s: check the broker, "
            "they are lost with this process"
        )
        self.count = count


class AccountsDiffer(PublishError):
    """The counts of a feed do not add up: a bug, and some record may be lost."""

    def __init__(self, counters: FeedCounters, pending: int) -> None:
        super().__init__(
            f"{counters.feed}: {counters.in_flight} records should be on their way to the "
            f"broker and {pending} are: please report this"
        )
