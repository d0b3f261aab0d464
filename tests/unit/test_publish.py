"""Publishing: nothing is dropped, everything is counted, failures stop the producer."""

import threading
from dataclasses import fields

import pytest
from confluent_kafka import KafkaError, KafkaException
from fakes import ProducerQueue

from producers.delivery.backlog import Backlog
from producers.delivery.client import open_producer, raw_partitions
from producers.delivery.errors import (
    AccountsDiffer,
    BrokerUnreachable,
    ClientFailed,
    DeliveryFailed,
    TopicsMissing,
    Undelivered,
)
from producers.delivery.publisher import Publisher
from producers.delivery.spool import Spool
from producers.feed.metrics import METRICS, FeedCounters
from producers.feed.outputs import ControlPublication, Publication
from schemas.control import Control, read_control
from schemas.errors import Cause
from schemas.records import DeadLetterRecord, RawTradeRecord
from schemas.topics import DEAD_LETTER, Topology, load_schema
from schemas.wire import compile_decoder, schema_id_of

TOPOLOGY = Topology(prefix="t.")
IDS = {topic.name: number for number, topic in enumerate(TOPOLOGY.topics(), 1) if topic.schema}
TRADE = Publication(
    "infoway.raw.trade",
    "X",
    RawTradeRecord(
        "X", 1, "1", "2", None, 0, None, False, "crypto", "crypto-1", "c", 1, 5, "simulated", None
    ),
)
LETTER = Publication(
    DEAD_LETTER,
    "crypto-1",
    DeadLetterRecord(
        "", None, None, None, b"junk", "NotJson", "not JSON", "crypto-1", "c", 5, "simulated"
    ),
)
MARK = ControlPublication(
    "infoway.raw.depth", None, 3, Control("mark", "crypto-1", "crypto", "c", "simulated", 7, 7000)
)


def opened(folder):
    def report(fields):
        raise AssertionError("nothing is lost")

    spool = Spool(folder, 1 << 30, "me")
    return Backlog(spool, "simulated", report, {}, lambda topics, oldest: {})


def publisher(producer, stop=None):
    return Publisher(producer, TOPOLOGY, IDS, stop or threading.Event())


def test_records_are_encoded_with_the_topics_schema_and_keyed_by_symbol():
    producer = ProducerQueue(delivers=True)
    publisher(producer).publish([TRADE], FeedCounters("crypto-1"))
    (sent,) = producer.queue
    assert (sent.name, sent.message["key"]) == ("t.infoway.raw.trade", "X")
    assert schema_id_of(sent.message["value"]) == IDS["t.infoway.raw.trade"]
    assert compile_decoder(load_schema("raw_trade"))(sent.message["value"])["ts_recv"] == 5


def test_mark_goes_to_its_partition_with_headers_and_neither_key_nor_value():
    producer = ProducerQueue(delivers=True)
    publisher(producer).publish([MARK], FeedCounters("crypto-1"))
    (sent,) = producer.queue
    assert (sent.message["partition"], sent.message["key"], sent.message.get("value")) == (
        3,
        None,
        None,
    )
    assert read_control(sent.message["headers"]) == MARK.control


def test_received_is_acknowledged_and_dead_lettered_and_in_flight():
    producer = ProducerQueue(delivers=True)
    counters = FeedCounters("crypto-1", received=3)
    target = publisher(producer)
    target.publish([TRADE, LETTER, MARK], counters)
    assert counters.in_flight == 3
    producer.deliver()
    target.publish([TRADE], counters)
    assert (counters.acknowledged, counters.dead_lettered, counters.in_flight) == (1, 1, 1)
    target.flush()
    assert (counters.acknowledged, counters.dead_lettered, counters.in_flight) == (2, 1, 0)


def test_counts_that_do_not_add_up_end_the_producer(monkeypatch):
    monkeypatch.setattr("producers.delivery.publisher._ACCOUNTED", 1)
    counters = FeedCounters("crypto-1", received=1)
    target = publisher(ProducerQueue(delivers=True))
    target.publish([TRADE], counters)
    with pytest.raises(
        AccountsDiffer, match="crypto-1: 0 records should be on their way to the broker and 1 are"
    ):
        counters.received -= 1
        target.account(counters)
    counters.received += 5  # frames that became no record
    with pytest.raises(AccountsDiffer):
        target.publish([TRADE], counters)


def test_every_count_is_a_metric_with_its_own_value():
    names = [metric.name for metric in METRICS]
    counters = FeedCounters("crypto-1", **{name: number for number, name in enumerate(names)})
    assert [(metric.name, value) for metric, value in counters.values()] == [
        (name, number) for number, name in enumerate(names)
    ]
    assert set(names) == {each.name for each in fields(FeedCounters)} - {
        "feed",
        "calls",
        "turned_at",
    }


def test_the_counts_of_every_feed_are_checked_however_they_take_turns(monkeypatch):
    monkeypatch.setattr("producers.delivery.publisher._ACCOUNTED", 2)
    well, wrong = FeedCounters("crypto-1"), FeedCounters("rest", received=5)
    target = publisher(ProducerQueue(delivers=True))
    with pytest.raises(AccountsDiffer, match="rest: "):
        for _ in range(2):
            target.publish([TRADE], wrong)
            well.received += 1
            target.publish([TRADE], well)


class Fatal(ProducerQueue):
    """A client that gives up at its first poll."""

    def poll(self, timeout):
        error = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "rewound", fatal=True)
        raise KafkaException(error)


def test_a_client_that_gives_up_ends_the_producer_with_a_code_that_is_restarted():
    target = publisher(Fatal())
    with pytest.raises(ClientFailed, match=r"rewound.*start the producer again") as failed:
        target.publish([TRADE], FeedCounters("crypto-1"))
    assert failed.value.cause is Cause.CLUSTER
    with pytest.raises(ClientFailed):
        target.close(0)


@pytest.mark.parametrize("code", [KafkaError._FATAL, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER])
def test_what_a_client_gives_back_that_has_given_up_waits_on_disk_in_its_order(tmp_path, code):
    producer, counters = ProducerQueue(), FeedCounters("crypto-1", received=3)
    backlog = opened(tmp_path / "s")
    target = Publisher(producer, TOPOLOGY, IDS, threading.Event(), backlog)
    target.publish([TRADE, MARK, LETTER, TRADE], counters)
    producer.error = KafkaError(code)
    producer.deliver(2)
    with pytest.raises(ClientFailed):
        target.publish([], counters)
    assert target.close(0) == 4
    assert (counters.spooled, counters.lost, counters.in_flight) == (3, 0, 0)
    kinds = [entry.kind for entry in opened(tmp_path / "s").waiting()]
    assert kinds == ["raw", "mark", "dead", "raw"]


def test_a_broker_that_does_not_answer_is_told_from_one_that_has_nothing_to_answer(monkeypatch):
    producer, now = ProducerQueue(delivers=True), [100.0]
    monkeypatch.setattr("producers.delivery.publisher.time.monotonic", lambda: now[0])
    target = publisher(producer)
    target.publish([TRADE] * 2, FeedCounters("crypto-1"))
    now[0] += 60
    assert target.unanswered_for == 60
    sent = producer.queue.pop()
    sent.message["on_delivery"](None, sent)
    now[0] += 2
    assert target.unanswered_for == 2
    producer.deliver()
    assert target.unanswered_for == 0
    now[0] += 60
    target.serve()
    target.publish([TRADE], FeedCounters("crypto-1"))
    now[0] += 1
    assert target.unanswered_for == 1


def test_full_queue_waits_and_drops_nothing():
    producer = ProducerQueue(room=2, delivers=True)
    target = publisher(producer)
    target.publish([TRADE] * 7, FeedCounters("crypto-1"))
    target.flush()
    assert len(producer.delivered) == 7
    assert 0.1 in producer.polls


def test_full_queue_gives_up_only_when_told_to_stop(monkeypatch):
    monkeypatch.setattr("producers.delivery.publisher.GRACE", 0.05)
    producer = ProducerQueue(room=2, delivers=True)
    producer.delivers = False
    stop = threading.Event()
    stop.set()
    with pytest.raises(Undelivered, match="2 records"):
        publisher(producer, stop).publish([TRADE] * 3, FeedCounters("crypto-1"))


def test_failed_delivery_stops_everything_after_it():
    producer = ProducerQueue(delivers=True)
    target = publisher(producer)
    counters = FeedCounters("crypto-1", received=1)
    producer.error = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    target.publish([TRADE], counters)
    producer.deliver()
    for call in (lambda: target.publish([TRADE], counters), target.serve, target.flush):
        with pytest.raises(DeliveryFailed, match=r"t\.infoway\.raw\.trade"):
            call()
    assert counters.in_flight == 1


def test_flush_says_how_many_records_are_left():
    producer = ProducerQueue(delivers=True)
    producer.delivers = False
    target = publisher(producer)
    target.publish([TRADE, TRADE], FeedCounters("crypto-1"))
    with pytest.raises(Undelivered) as raised:
        target.flush(1)
    assert raised.value.count == 2


def test_broker_out_of_reach_is_one_line_that_says_what_to_do():
    with pytest.raises(BrokerUnreachable) as raised:
        raw_partitions(open_producer("127.0.0.1:1"), TOPOLOGY, "127.0.0.1:1", timeout=0.3)
    assert "127.0.0.1:1" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_broker_error_without_metadata_is_unreachable():
    class Refusing:
        def list_topics(self, timeout):
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

        def poll(self, timeout):
            return 0

    with pytest.raises(BrokerUnreachable):
        raw_partitions(Refusing(), TOPOLOGY, "b:1")


def test_missing_topics_are_named():
    class Empty:
        def list_topics(self, timeout):
            class Metadata:
                brokers = {1: None}  # noqa: RUF012
                topics = {}  # noqa: RUF012

            return Metadata

    with pytest.raises(TopicsMissing, match=r"t\.infoway\.raw\.trade"):
        raw_partitions(Empty(), TOPOLOGY, "b:1")


def test_every_counter_has_a_type_a_unit_and_a_meaning():
    counters = FeedCounters("f", trades=2)
    assert {metric.name: value for metric, value in counters.values()}["trades"] == 2
    assert all(
        metric.unit and metric.meaning and metric.kind in ("counter", "gauge") for metric in METRICS
    )
