"""What fetches the records of assigned partitions, by librdkafka's binding here, and joins no
group."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import methodcaller
from typing import Any, NamedTuple, Protocol, cast

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from processors.decode.messages import Messages
from processors.engine.sources import SourcePartition
from processors.engine.state import is_away
from processors.engine.transactions.exits import Exit, leave

_ERROR, _TOPIC, _PARTITION = map(methodcaller, ("error", "topic", "partition"))


class Come(NamedTuple):
    """What has come of a partition."""

    messages: Messages
    next_offset: int
    """Where the partition goes on: at its end, behind the markers of transactions."""


class Records(Protocol):
    """What was fetched at once."""

    def __len__(self) -> int:
        """Return how many messages there are, errors and ends of partitions included."""
        ...

    def by_partition(self) -> dict[SourcePartition, Come]:
        """Return the messages of each partition in order. Raises KafkaException for an error that
        no waiting mends."""
        ...

    def keep(self, come: Come, places: Sequence[int]) -> None:
        """Have the messages at these places when the others are gone."""
        ...


class FetchClient(Protocol):
    """Reads partitions."""

    def assign(self, offsets: Mapping[SourcePartition, int]) -> None:
        """Read these partitions and no others from now on."""
        ...

    def consume(self, most: int, first_s: float, more_s: float) -> Any:
        """Return, as a context in which they are there, the Records that come: the first within
        `first_s`, and `most` - 1 more within `more_s` of it."""
        ...


def end_of(message: ck.Message) -> int | None:
    """Return the offset of a partition's end, None for an error that waiting may mend.

    Ends the worker where the log lacks the offset; raises KafkaException for other errors.
    """
    error = cast(KafkaError, message.error())
    if error.code() == KafkaError._PARTITION_EOF:
        return message.offset()
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        leave(
            Exit.SETUP_WRONG,
            f"{message.topic()}[{message.partition()}]: the log no longer has the offset "
            f"that the state names: {error.str()}",
        )
    if not is_away(error):
        raise KafkaException(error)
    return None


class BindingClient:
    """librdkafka's binding: an object for each message."""

    def __init__(self, configuration: Mapping[str, Any], logger: logging.Logger) -> None:
        self._consumer = ck.Consumer(dict(configuration), logger=logger)

    def assign(self, offsets: Mapping[SourcePartition, int]) -> None:
        """Read these partitions and no others from now on."""
        self._consumer.assign([TopicPartition(*place, at) for place, at in offsets.items()])

    @contextmanager
    def consume(self, most: int, first_s: float, more_s: float) -> Iterator["BindingRecords"]:
        """Return what comes."""
        messages = self._consumer.consume(1, first_s)
        if messages and most > 1:
            messages += self._consumer.consume(most - 1, more_s)
        yield BindingRecords(messages)


class BindingRecords:
    """Messages of the binding."""

    def __init__(self, messages: list[ck.Message]) -> None:
        self._messages = messages

    def __len__(self) -> int:
        return len(self._messages)

    def by_partition(self) -> dict[SourcePartition, Come]:
        """Return the messages of each partition."""
        return {
            place: Come(Messages.of(run), next_offset)
            for place, (run, next_offset) in by_partition(self._messages).items()
        }

    def keep(self, come: Come, places: Sequence[int]) -> None:
        """Do nothing: all of them stay."""


def by_partition(messages: list[ck.Message]) -> dict[SourcePartition, tuple[list[ck.Message], int]]:
    """Return the records of each partition and the offset at which it goes on: at its end, behind
    the markers of transactions."""
    if not any(map(_ERROR, messages)):
        return _without_errors(messages)
    runs: dict[SourcePartition, tuple[list[ck.Message], int]] = {}
    for message in messages:
        source_partition = cast(str, message.topic()), cast(int, message.partition())
        run = runs.get(source_partition, ([], 0))[0]
        if message.error() is None:
            run.append(message)
            runs[source_partition] = run, cast(int, message.offset()) + 1
        elif (end := end_of(message)) is not None:
            runs[source_partition] = run, end
    return runs


def _without_errors(
    messages: Sequence[ck.Message],
) -> dict[SourcePartition, tuple[list[ck.Message], int]]:
    """Do it by what Python has in C: a loop over the messages takes three times as long, and as
    long as it takes to fetch them."""
    runs: dict[SourcePartition, tuple[list[ck.Message], int]] = {}
    places: list[SourcePartition] = list(
        zip(map(_TOPIC, messages), map(_PARTITION, messages), strict=True)
    )
    first = 0
    for source_partition, same in groupby(places):
        after = first + sum(1 for _ in same)
        run = runs[source_partition][0] if source_partition in runs else []
        run += messages[first:after]
        runs[source_partition] = run, cast(int, messages[after - 1].offset()) + 1
        first = after
    return runs
