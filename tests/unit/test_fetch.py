"""Messages are put in order by partition, with and without ends of partitions between them."""

import subprocess
import sys

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st
from raw_message import Message

from processors.engine.plane.binding import by_partition


def message(topic, partition, offset, code=None):
    error = None if code is None else KafkaError(code)
    return Message(offset, topic=topic, partition=partition, error=error)


def in_order(places, ends):
    """Messages of these partitions, their offsets rising with gaps; after some the partition's
    end."""
    messages, offsets = [], {}
    for number, place in enumerate(places):
        offsets[place] = offsets.get(place, 0) + 1 + number % 3
        messages.append(message(*place, offsets[place]))
        if number in ends:
            offsets[place] += 2
            messages.append(message(*place, offsets[place], KafkaError._PARTITION_EOF))
    return messages


PLACES = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2)), max_size=30)


@given(PLACES, st.sets(st.integers(0, 29)))
def test_each_partition_has_its_messages_in_order_and_goes_on_behind_the_last(places, ends):
    for messages in (in_order(places, set()), in_order(places, ends)):
        found = by_partition(messages)
        for place, (run, next_offset) in found.items():
            mine = [m for m in messages if (m.topic(), m.partition()) == place]
            assert run == [m for m in mine if m.error() is None]
            last = mine[-1]
            assert next_offset == last.offset() + (last.error() is None)
        assert set(found) == {(m.topic(), m.partition()) for m in messages}


def test_an_error_that_no_waiting_mends_is_raised():
    with pytest.raises(KafkaException):
        by_partition(
            [message("a", 0, 1), message("a", 0, 2, KafkaError.TOPIC_AUTHORIZATION_FAILED)]
        )
    away = [message("a", 0, 1), message("a", 0, 2, KafkaError._TRANSPORT)]
    assert by_partition(away) == {("a", 0): ([away[0]], 2)}


@pytest.mark.parametrize(
    "without",
    [
        "import confluent_kafka; confluent_kafka.libversion = lambda: ('0.0.0', 0)",
        "import sys; sys.modules['numba'] = None",
        "from pathlib import Path; Path.glob = lambda self, pattern: iter(())",
    ],
    ids=["another-version", "no-numba", "no-library"],
)
def test_the_binding_serves_where_the_library_or_the_kernels_are_missing(without):
    code = (
        f"{without}\n"
        "from processors.engine.plane.fetch import Fetch\n"
        "from processors.kernels import messages\n"
        "from processors.kernels.compiled import KERNELS\n"
        "names = {kernel.function.__name__ for kernel in KERNELS}\n"
        "assert not {'copy_values', 'free_messages', 'read_messages'} & names, names\n"
        "fetch = Fetch('127.0.0.1:1', 1)\n"
        "print(type(fetch._consumer).__name__, fetch._next(lambda *come: [], 0))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert ended.stdout == "BindingClient {}\n", ended.stderr
