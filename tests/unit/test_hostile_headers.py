"""A record whose header has a name that is not UTF-8: Kafka takes it, librdkafka's binding cannot
give its headers."""

import ctypes
import time
from pathlib import Path

import confluent_kafka as ck
import pytest
from unit.raw_records import raw_trade

from processors.decode.raw_records import trade_of
from processors.decode.reader import RawReader
from processors.engine.plane.reading import _redriven
from processors.model.records import Unreadable
from schemas.control import UNREADABLE_HEADERS, headers_of
from schemas.topics import load_example, load_schema
from schemas.wire import compile_encoder

RAW_TRADE = load_schema("raw_trade")
TOPIC, VALUE, HEADERS, END = 1, 4, 10, 0
"""librdkafka's rd_kafka_vtype_t."""
pointer, size, text, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int


class Broker:
    """A producer below the binding, which takes no such name; without an address, of librdkafka's
    own mock broker."""

    def __init__(self, bootstrap=None):
        self.lib = ctypes.CDLL(
            str(next(Path(ck.__file__).parent.with_suffix(".libs").glob("librdkafka*")))
        )
        for name in ("conf_new", "new", "handle_mock_cluster", "headers_new"):
            getattr(self.lib, f"rd_kafka_{name}").restype = pointer
        self.lib.rd_kafka_mock_cluster_bootstraps.restype = text
        conf, said = pointer(self.lib.rd_kafka_conf_new()), ctypes.create_string_buffer(512)
        broker = (
            (b"bootstrap.servers", bootstrap.encode())
            if bootstrap
            else (b"test.mock.num.brokers", b"1")
        )
        for name, value in (broker, (b"log_level", b"0")):
            assert self.lib.rd_kafka_conf_set(conf, name, value, said, size(512)) == 0, said.value
        self.producer = pointer(self.lib.rd_kafka_new(0, conf, said, size(512)))
        if bootstrap:
            return
        cluster = pointer(self.lib.rd_kafka_handle_mock_cluster(self.producer))
        self.bootstrap = self.lib.rd_kafka_mock_cluster_bootstraps(cluster).decode()

    def write(self, value, header, topic="t"):
        headers = pointer(self.lib.rd_kafka_headers_new(size(1)))
        self.lib.rd_kafka_header_add(
            headers, text(header), ctypes.c_ssize_t(len(header)), text(b"mark"), ctypes.c_ssize_t(4)
        )
        length = size(0 if value is None else len(value))
        what = (TOPIC, text(topic.encode())), (VALUE, text(value), length), (HEADERS, headers)
        arguments = [argument for kind, *rest in what for argument in (number(kind), *rest)]
        assert self.lib.rd_kafka_producev(self.producer, *arguments, number(END)) == 0
        assert self.lib.rd_kafka_flush(self.producer, number(10_000)) == 0

    def read(self):
        consumer = ck.Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "g", "log_level": 0}
        )
        consumer.assign([ck.TopicPartition("t", partition, 0) for partition in range(4)])
        until = time.monotonic() + 20
        while time.monotonic() < until:
            for message in consumer.consume(1, 0.2):
                if message.error() is None:
                    consumer.close()
                    return message
        raise AssertionError("no record within 20 s")


@pytest.fixture
def broker():
    made = Broker()
    yield made
    made.lib.rd_kafka_destroy(made.producer)


class Schemas:
    def schema(self, schema_id):
        return RAW_TRADE


def test_a_null_value_with_such_a_header_is_a_dead_letter(broker):
    broker.write(None, b"\xff\xfe")
    record = RawReader(Schemas(), RAW_TRADE, trade_of)(broker.read())
    assert isinstance(record, Unreadable)
    assert record.headers == (UNREADABLE_HEADERS,)
    assert record.error_class == "UnreadableControl"


def test_a_trade_with_such_a_header_counts(broker):
    example = load_example("raw_trade")
    broker.write(
        compile_encoder(RAW_TRADE, 5)(*(example[field["name"]] for field in RAW_TRADE["fields"])),
        b"\xc3\x28",
    )
    message = broker.read()
    assert not _redriven(message)
    assert RawReader(Schemas(), RAW_TRADE, trade_of)(message) == trade_of(
        message.offset(), raw_trade(example)
    )


def test_the_headers_can_be_asked_for_again_and_other_ones_are_as_they_were_written(broker):
    broker.write(None, b"\xff")
    message = broker.read()
    assert headers_of(message) == headers_of(message) == [UNREADABLE_HEADERS]


def test_a_process_that_has_read_many_headers_finds_such_a_header_too(broker):
    """The interpreter specialises a call that is made often, and checks less in it."""
    broker.write(None, "größe".encode())
    readable = broker.read()
    for _ in range(1_000):
        assert headers_of(readable) == [("größe", b"mark")]
    unreadable = Broker()
    try:
        unreadable.write(None, b"\xff")
        assert headers_of(unreadable.read()) == [UNREADABLE_HEADERS]
    finally:
        unreadable.lib.rd_kafka_destroy(unreadable.producer)


def test_other_headers_are_as_they_were_written(broker):
    broker.write(None, "größe".encode())
    assert headers_of(broker.read()) == [("größe", b"mark")]
