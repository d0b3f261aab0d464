"""What the protocol wants published: records of the contract and control records, before encoding; no Kafka."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from schemas.control import Control

DEAD_LETTER = "infoway.dead-letter"
FEED_STATUS = "infoway.feed.status"


class Record(NamedTuple):
    """A record of a topic of the contract: its key and its fields in the order of the topic's schema."""

    topic: str
    key: str
    fields: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """A null value with headers: keyed by a symbol, or without a key in an explicit partition."""

    topic: str
    key: str | None
    partition: int | None
    control: Control


Output = Record | ControlRecord
