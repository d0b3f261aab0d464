"""The consumer group as a transaction needs it: which member of which generation this worker is; no
fetching.

librdkafka takes a group's metadata as bytes of its own private format, so that a group kept by
another client (Faust's aiokafka) can fence its transactions. The format is checked against a real
consumer's at every start.
"""

import struct
from dataclasses import dataclass
from typing import Any

import confluent_kafka as ck

from schemas.errors import InfowayError

_NO_INSTANCE = b"\x01"


class MetadataFormatChanged(InfowayError):
    """The installed librdkafka writes group metadata in another format than this module."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of one generation of a consumer group."""

    group: str
    generation: int
    member_id: str

    @property
    def valid(self) -> bool:
        """Whether it names a real member: the broker would accept -1 and an empty member, and fence
        nothing."""
        return self.generation >= 0 and bool(self.member_id)


def metadata_bytes(member: Member) -> bytes:
    """Return the member as librdkafka's `consumer_group_metadata()` writes it."""
    generation = struct.pack("<i", member.generation)
    return (
        b"CGMDv2:"
        + generation
        + member.group.encode()
        + b"\0"
        + member.member_id.encode()
        + b"\0"
        + _NO_INSTANCE
    )


def check_metadata_format() -> None:
    """Compare our bytes with those of a consumer that has joined nothing; raises
    MetadataFormatChanged."""
    consumer = ck.Consumer(
        {"group.id": "format-check", "bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    )
    try:
        theirs: Any = consumer.consumer_group_metadata()
    finally:
        consumer.close()
    ours = metadata_bytes(Member("format-check", -1, ""))
    if theirs != ours:
        raise MetadataFormatChanged(
            f"librdkafka {ck.libversion()[0]} writes group metadata as {theirs!r}, expected "
            f"{ours!r}: install the pinned confluent-kafka"
        )
