"""The C library's consumer and its binding's fetch the same records, the one without an object for
each."""

import ctypes
import logging
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise

import confluent_kafka as ck
import drill
import psutil
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec
from unit.test_hostile_headers import Broker

from processors.engine.plane.binding import BindingClient
from processors.engine.plane.fetch import Fetch
from processors.engine.plane.native import NativeClient
from processors.kernels.librdkafka import LIBRARY
from schemas.clients.kafka_logs import LIBRDKAFKA
from schemas.control import UNREADABLE_HEADERS, headers_of

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no kernels here, or no library for them")
STRANGE = "fetched.strange"
KINDS = (BindingClient, NativeClient)
BOTH = pytest.mark.parametrize("kind", KINDS)


def configuration(bootstrap, **settings):
    return {
        "bootstrap.servers": bootstrap,
        "group.id": "unused",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        **settings,
    }


def ends_of(bootstrap, places):
    asked = {ck.TopicPartition(*place): OffsetSpec.latest() for place in places}
    admin = AdminClient({"bootstrap.servers": bootstrap})  # kept until it has answered
    found = admin.list_offsets(asked)
    return {(at.topic, at.partition): each.result(60).offset for at, each in found.items()}


def read_to_end(consumer, offsets, most, bootstrap):
    """What a consumer says of every record up to each partition's end, and where they go on."""
    consumer.assign(offsets)
    found, goes_on = {place: [] for place in offsets}, {}
    until = time.monotonic() + 60
    ends = ends_of(bootstrap, offsets)
    while goes_on != ends and time.monotonic() < until:
        with consumer.consume(most, 0.1, 0.01) as records:
            for place, come in records.by_partition().items():
                messages, goes_on[place] = come
                records.keep(come, range(len(messages)))
                found[place] += taken(messages)
    assert goes_on == ends
    return found, goes_on


def taken(messages):
    """What is known of each message, both by columns and by itself."""
    return [
        (
            int(messages.offsets[at]),
            messages.value(at),
            messages[at].offset(),
            messages[at].topic(),
            messages[at].partition(),
            messages[at].key(),
            messages[at].value(),
            headers_of(messages[at]),
            messages[at].error(),
        )
        for at in range(len(messages))
    ]


@pytest.fixture(scope="module")
def log(stack):
    """A topic with every kind of record; partition 0 ends with markers of transactions, 2 is
    empty."""
    topic = "fetched.alike"
    drill.create_topics(stack.bootstrap, [NewTopic(topic, 3, 1), NewTopic(STRANGE, 1, 1)])
    producer = ck.Producer(
        {"bootstrap.servers": stack.bootstrap, "transactional.id": topic, "linger.ms": 5}
    )
    producer.init_transactions(60)
    for commit in (True, False):
        producer.begin_transaction()
        for number in range(300):
            producer.produce(
                topic,
                (None, b"", b"v" * number, bytes(range(256)))[number % 4],
                (None, b"", b"key", "ÄÖ".encode())[number // 4 % 4],
                number % 5 % 2,
                headers=(None, [("a", b"1"), ("ä", None), ("a", b"")], [("mark", b"\xff")])[
                    number % 3
                ],
            )
        assert producer.flush(60) == 0
        producer.commit_transaction(60) if commit else producer.abort_transaction(60)
    strange = Broker(stack.bootstrap)
    for value in (b"x", None):
        strange.write(value, b"\xff\xfe", STRANGE)
    strange.lib.rd_kafka_destroy(strange.producer)
    return topic


@pytest.mark.parametrize("most", [1, 7, 10_000])
@pytest.mark.parametrize("level", ["read_committed", "read_uncommitted"])
def test_both_give_the_same_records_and_ends(stack, log, most, level):
    offsets = {(log, 0): 0, (log, 1): 17, (log, 2): 0, (STRANGE, 0): 0}
    found, goes_on = {}, {}
    for kind in KINDS:
        settings = configuration(stack.bootstrap, **{"isolation.level": level})
        consumer = kind(settings, logging.getLogger("alike"))
        found[kind], goes_on[kind] = read_to_end(consumer, offsets, most, stack.bootstrap)
    assert found[NativeClient] == found[BindingClient]
    assert goes_on[NativeClient] == goes_on[BindingClient]
    read = found[NativeClient]
    assert not read[log, 2] and goes_on[NativeClient][log, 2] == 0
    assert read[log, 1][0][0] == 17
    assert [each[7] for each in read[STRANGE, 0]] == [[UNREADABLE_HEADERS]] * 2
    # behind the markers of the transactions
    for place in ((log, 0), (log, 1)):
        assert goes_on[NativeClient][place] > read[place][-1][0] + 1


@BOTH
def test_a_record_behind_its_partitions_end_is_there(stack, namespace, kind):
    topic = f"{namespace}behind"
    drill.create_topics(stack.bootstrap, [NewTopic(topic, 1, 1)])
    consumer = kind(configuration(stack.bootstrap), logging.getLogger("alike"))
    consumer.assign({(topic, 0): 0})
    producer, found, goes_on = ck.Producer({"bootstrap.servers": stack.bootstrap}), [], []
    sent = threading.Timer(2, lambda: [producer.produce(topic, b"later"), producer.flush(60)])
    sent.start()
    try:
        # the end comes at once, and the record while more is waited for
        while goes_on[-1:] != [1]:
            with consumer.consume(1_000, 30, 5) as records:
                for come in records.by_partition().values():
                    found += [come.messages.value(at) for at in range(len(come.messages))]
                    goes_on.append(come.next_offset)
    finally:
        sent.join()
    assert found == [b"later"]


@BOTH
def test_what_is_kept_is_there_when_the_rest_is_gone(stack, log, kind):
    consumer = kind(configuration(stack.bootstrap), logging.getLogger("alike"))
    consumer.assign({(log, 0): 0})
    kept, wanted = [], []
    while len(kept) < 50:
        with consumer.consume(10_000, 0.5, 0.1) as records:
            for come in records.by_partition().values():
                places = range(0, len(come.messages), 2)
                records.keep(come, places)
                wanted += taken_at(come.messages, places)
                kept += [(come.messages, place) for place in places]
    for _ in range(20):  # what was freed is used again
        with consumer.consume(10_000, 0.01, 0.01):
            consumer.assign({(log, 0): 0, (log, 1): 0})
    assert [taken_at(messages, [place])[0] for messages, place in kept] == wanted


def taken_at(messages, places):
    return [
        (
            messages.value(at),
            messages[at].value(),
            messages[at].key(),
            headers_of(messages[at]),
            messages[at].offset(),
        )
        for at in places
    ]


def test_records_are_given_back(stack):
    topic = "fetched.much"
    drill.create_topics(stack.bootstrap, [NewTopic(topic, 1, 1)])
    producer = ck.Producer({"bootstrap.servers": stack.bootstrap})
    for _ in range(10_000):
        producer.produce(topic, b"v" * 1_000, partition=0)
        producer.poll(0)
    assert producer.flush(60) == 0
    consumer = NativeClient(configuration(stack.bootstrap), logging.getLogger("alike"))
    process, taken_up = psutil.Process(), []
    for _ in range(12):
        found, _ = read_to_end(consumer, {(topic, 0): 0}, 5_000, stack.bootstrap)
        assert sum(len(each[1]) for each in found[topic, 0]) == 10_000_000
        del found
        taken_up.append(process.memory_info().rss)
    # ten MB a round without the giving back
    assert taken_up[-1] - taken_up[3] < 30_000_000, [b - a for a, b in pairwise(taken_up)]


def test_errors_and_log_lines_are_told_and_a_wrong_setting_is_named_without_its_value(caplog):
    told = []
    settings = configuration("127.0.0.1:1", error_cb=told.append)
    with caplog.at_level(logging.INFO, "alike"):
        consumer = NativeClient(settings, logging.getLogger("alike"))

        def both():
            with consumer.consume(10, 0.1, 0.1) as records:
                assert records.by_partition() == {}
            return told and "Connection refused" in caplog.text

        assert drill.wait_until(both, 60)
    assert {error.code() for error in told} <= {
        ck.KafkaError._TRANSPORT,
        ck.KafkaError._ALL_BROKERS_DOWN,
    }
    assert "Connect to" in told[0].str() or "brokers" in told[0].str()
    lines = [record for record in caplog.records if record.name == "alike"]
    # in the words by which what repeats itself is held back
    assert {record.msg for record in lines} == {LIBRDKAFKA}
    assert all(record.args[1].startswith("rdkafka#consumer") for record in lines)
    with pytest.raises(KafkaException) as raised:
        NativeClient({"ssl.key.pem": "secret", "no.such": "secret"}, logging.getLogger())
    assert "secret" not in str(raised.value) and "setting" in str(raised.value)


def test_a_client_that_cannot_go_on_says_so():
    consumer = NativeClient(configuration("127.0.0.1:1"), logging.getLogger("alike"))
    end_it = ctypes.CDLL(LIBRARY._name).rd_kafka_test_fatal_error
    end_it.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    assert end_it(consumer._client, ck.KafkaError.TOPIC_ALREADY_EXISTS, b"as in a test") == 0

    def ended():
        try:
            with consumer.consume(10, 0.1, 0.1):
                return False
        except KafkaException as raised:
            return raised.args[0].code() == ck.KafkaError._FATAL

    assert drill.wait_until(ended, 60)


def test_a_fetch_that_outlives_its_assignment_takes_nothing_of_the_next(stack, log):
    fetch = Fetch(stack.bootstrap, 10)
    fetch.assign({(log, 0): 0})
    assert drill.wait_until(lambda: fetch._next(lambda place, messages: [], 1), 60)
    fetch.assign({(log, 1): 0})
    assert [fetch._next(lambda place, messages: [], 1) for _ in range(20)] == [{}] * 20
    found = {}
    assert drill.wait_until(
        lambda: found.update(fetch._next(lambda place, messages: [], 2)) or found, 60
    )
    assert found[log, 1].messages.offsets[0] == 0


def test_python_reads_the_same_of_memory_as_the_kernels():
    code = (
        "import ctypes\n"
        "import numpy as np\n"
        "from processors.kernels import messages\n"
        "value = ctypes.create_string_buffer(bytes(range(200, 256)), 56)\n"
        "there = np.zeros(1, messages.MESSAGE)\n"
        "there['error'], there['partition'], there['offset'] = -191, 7, 1 << 40\n"
        "there['value'], there['size'] = ctypes.addressof(value), 56\n"
        "words = np.empty((1, messages.WORDS), np.int64)\n"
        "messages.read_messages(np.array([there.ctypes.data]), words)\n"
        "packed, ends = np.empty(56, np.uint8), np.empty(1, np.int64)\n"
        "messages.copy_values(words, np.zeros(1, np.int64), packed, ends)\n"
        "print(words.reshape(-1).view(messages.MESSAGE)[0].item() == there[0].item())\n"
        "print(packed.tobytes() == bytes(range(200, 256)), ends.tolist())\n"
    )
    for disabled in ("0", "1"):
        ended = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled},
        )
        assert ended.stdout == "True\nTrue [56]\n", ended.stderr


def test_a_worker_fetches_without_the_binding(stack):
    assert isinstance(Fetch(stack.bootstrap, 10)._consumer, NativeClient)
