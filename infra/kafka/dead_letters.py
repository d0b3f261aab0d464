"""Reads the dead letters of a namespace, and which of them a redrive has come by.

A redrive says in the topic itself how far it has come, in the transaction of what it publishes: a
record of null value and key in each partition that it handled, with the header `redriven-to`, the
offset to go on at. It is younger than the letters that it covers, so retention takes it after them,
and each letter is redriven once, over kills too. The offsets of a consumer group would not do:
Kafka forgets them after seven days without a member, and letters live longer. `redriven` names
single letters, redriven by `--only`.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import confluent_kafka as ck

from infra.kafka.reader import ValueReader, read_to_end
from schemas.clients.registry import Registry, UnknownSchema
from schemas.control import ATTEMPTS, headers_of
from schemas.printable import printable
from schemas.topics import DEAD_LETTER, Topology, load_schema
from schemas.wire import Fields, UnreadableValue

REDRIVEN_TO = "redriven-to"
REDRIVEN = "redriven"
"""Headers of a redrive's own records: the offset to go on at, and one for each letter that was
named; decimal digits."""

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and its place."""

    partition: int
    offset: int
    written_ms: int
    record: Fields
    headers: Headers
    handled: bool
    """Whether a redrive has come by it."""
    stays: str = ""
    """Why no raw record can be made of it, where it is a frame."""

    @property
    def position(self) -> str:
        """PARTITION:OFFSET."""
        return f"{self.partition}:{self.offset}"

    @property
    def attempts(self) -> int:
        """How often it was redriven before; a header that is no number of ours counts as never."""
        return next(iter(_numbers(self.headers, ATTEMPTS)), 0)


class DeadLetters:
    """The dead-letter topic of one namespace."""

    def __init__(self, names: Topology, bootstrap: str, registry_url: str) -> None:
        self.topic = names.name(DEAD_LETTER)
        self._bootstrap = bootstrap
        self._read = ValueReader(Registry(registry_url))

    def letters(self) -> Iterator[Letter]:
        """Yield every letter up to the topic's end now, partition after partition; null values are
        none."""
        come_to, named = self._handled()
        for message in read_to_end(self._bootstrap, self.topic):
            value, partition, offset = (
                message.value(),
                cast(int, message.partition()),
                cast(int, message.offset()),
            )
            if value is not None:
                handled = offset < come_to[partition] or (partition, offset) in named
                try:
                    record = self._read(value, load_schema("dead_letter"))[1]
                except (UnknownSchema, UnreadableValue) as error:
                    print(
                        printable(f"{partition}:{offset} is no dead letter of ours: {error}"),
                        file=sys.stderr,
                        flush=True,
                    )
                    continue
                yield Letter(
                    partition, offset, message.timestamp()[1], record, _headers(message), handled
                )

    def _handled(self) -> tuple[dict[int, int], set[tuple[int, int]]]:
        """Return up to which offset redrives have come in each partition, and the places of letters
        that they were given by name.

        Null values of anybody else say nothing.
        """
        come_to: dict[int, int] = defaultdict(int)
        named: set[tuple[int, int]] = set()
        for message in read_to_end(self._bootstrap, self.topic):
            if message.value() is None:
                headers, partition = _headers(message), cast(int, message.partition())
                come_to[partition] = max(come_to[partition], *_numbers(headers, REDRIVEN_TO), 0)
                named |= {(partition, offset) for offset in _numbers(headers, REDRIVEN)}
        return come_to, named


def _headers(message: ck.Message) -> Headers:
    return tuple(cast(list[tuple[str, bytes | None]], headers_of(message)))


def _numbers(headers: Headers, name: str) -> list[int]:
    """Return the numbers of a header, which may occur more than once; what is no number is left
    out."""
    return [
        int(value)
        for each, value in headers
        if each == name and value is not None and value.isdigit()
    ]
