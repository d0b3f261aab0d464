"""The producer of a deployment while its symbols change: counters, healing, market hours; Kafka is
a stand-in."""

import json
import time

import pytest
from fakes import ProducerQueue
from unit.test_publish import IDS, TOPOLOGY
from unit.test_websocket import TOPICS

from infra.dashboard.board import Board
from infra.ingest import healing as healing_module
from infra.ingest import producer_process as feeding_module
from infra.ingest.choice import FeedChoice
from infra.ingest.producer_process import BadSilence, Feeding, silence_ms
from infra.runtime.deployment import Deployment
from infra.simulator import running_simulator
from producers.delivery.backlog import Backlog
from producers.delivery.errors import AccountsDiffer, PublishError
from producers.delivery.spool import Spool
from producers.feed.coverage import LOSS_BEFORE_LAST_ALIVE_MS
from producers.feed.metrics import FeedCounters
from producers.healing.healer import Healer
from producers.transport import feed_group as running_module
from producers.transport.endpoint import Endpoint, FeedRefused
from schemas.control import HELD_BACK_MS, Control, read_control
from schemas.partition import partition_of
from schemas.topics import load_schema
from schemas.wire import compile_encoder

TOPOLOGY_PARTITIONS = next(
    topic.partitions for topic in TOPOLOGY.topics() if topic.name == "t.infoway.raw.trade"
)


@pytest.fixture
def deployment(monkeypatch):
    monkeypatch.setattr(running_module, "RELEASE", 0.0)
    producer = ProducerQueue(room=10**6, delivers=True)
    monkeypatch.setattr(feeding_module, "open_producer", lambda bootstrap: producer)
    monkeypatch.setattr(feeding_module, "raw_partitions", lambda *_: TOPICS)
    found = Deployment("none", "none", TOPOLOGY, IDS, embedded=False)
    return found, producer


def planned(symbols, running=()):
    return FeedChoice(None, None, None, None, "", live=False).planned(symbols, running)


def wait_until(done):
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until
        time.sleep(0.02)


def controls(producer, symbol):
    sent = [
        each
        for each in [*producer.delivered, *producer.queue]
        if each.name == "t.infoway.raw.trade" and each.message["value"] is None
    ]
    found = [
        read_control(each.message["headers"]) for each in sent if each.message["key"] == symbol
    ]
    return [(control.kind, control.feed) for control in found]


def test_a_changed_list_is_carried_whole_counted_and_checked(deployment):
    described, producer = deployment
    with running_simulator(rate=50) as simulator:
        with Feeding(
            described, planned("BTCUSDT,00700.HK"), Endpoint(simulator.url, "key"), "simulated"
        ) as feeding:
            wait_until(lambda: all(each.trades for each in feeding.counters))
            feeding.change(planned("BTCUSDT,ETHUSDT,USDJPY", feeding.feeds))
            assert [(feed.name, feed.symbols) for feed in feeding.feeds] == [
                ("crypto-1", ("BTCUSDT", "ETHUSDT")),
                ("common-1", ("USDJPY",)),
            ]
            wait_until(
                lambda: (
                    [each.feed for each in feeding.wanted_counters if each.trades]
                    == ["crypto-1", "common-1"]
                )
            )
            wait_until(lambda: ("begin", "crypto-1") in controls(producer, "ETHUSDT"))
            feeding.check()
            assert feeding.counters[0].connections == 1
        assert [each.feed for each in feeding.counters] == ["crypto-1", "stock-1", "common-1"]
        assert all(each.in_flight == 0 for each in feeding.counters)
    assert controls(producer, "BTCUSDT") == [("begin", "crypto-1"), ("end", "crypto-1")]
    assert controls(producer, "00700.HK") == [("begin", "stock-1"), ("end", "stock-1")]
    assert controls(producer, "USDJPY") == [("begin", "common-1"), ("end", "common-1")]


def test_a_failure_of_a_feed_that_a_change_began_ends_the_producer(deployment):
    described, _ = deployment
    with running_simulator(rate=50) as simulator:
        with Feeding(
            described, planned("BTCUSDT"), Endpoint(simulator.url, "key"), "simulated"
        ) as feeding:
            wait_until(lambda: feeding.counters[0].trades)
            feeding.change(planned("BTCUSDT,USDJPY", feeding.feeds))
            wait_until(lambda: len(feeding.counters) == 2 and feeding.counters[1].trades)
            simulator.send_raw(json.dumps({"code": 509, "msg": "key invalid"}))
            wait_until(lambda: feeding.failure is not None)
            with pytest.raises(FeedRefused, match="the vendor says 509"):
                feeding.check()


class Still(Healer):
    """A healer without a thread, that asks nobody."""

    def __init__(self, sink):
        self.counters, self.failure = FeedCounters("rest"), None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_a_moved_symbol_is_healed_over_its_move_and_one_that_is_new_is_not(deployment):
    described, producer = deployment
    told = []

    class Told(Still):
        def report_outage(self, symbol, business, feed, ts_from, ts_to):
            told.append((symbol, feed, ts_from is not None))

    with running_simulator(rate=50) as simulator:
        endpoint = Endpoint(simulator.url, "key")
        with Feeding(
            described, planned("BTCUSDT,XAUUSD:common"), endpoint, "simulated", healing=Told
        ) as feeding:
            wait_until(lambda: all(each.klines for each in feeding.wanted_counters))
            feeding.change(planned("BTCUSDT:common,XAUUSD:common,ETHUSDT", feeding.feeds))
            wait_until(
                lambda: (
                    ("gap", "common-1") in controls(producer, "BTCUSDT")
                    and controls(producer, "ETHUSDT")
                )
            )
    assert sorted(told) == [
        ("BTCUSDT", "common-1", True),
        ("BTCUSDT", "crypto-1", False),
        ("XAUUSD", "common-1", False),
    ]


def test_the_board_shows_other_symbols_and_keeps_what_it_knows_of_those_that_stay(deployment):
    described, _ = deployment
    board = Board(described, ("A", "B"))
    board.symbols["B"].last = "5"
    board.show(["B", "C"])
    assert list(board.symbols) == ["B", "C"]
    assert (board.symbols["B"].last, board.symbols["C"].last) == ("5", None)


class FakeRegistry:
    def __init__(self, schemas):
        self._schemas = schemas

    def schema(self, schema_id):
        return self._schemas[schema_id]


class Logged:
    """A control record as a consumer meets it."""

    def __init__(self, key, kind, feed, second):
        self._key, self._headers = (
            key,
            Control(kind, feed, "stock", "c", "live", second * 1000, second * 1_000_000).headers(),
        )

    def partition(self):
        return partition_of(b"A", TOPOLOGY_PARTITIONS)

    def key(self):
        return self._key

    def value(self):
        return None

    def headers(self):
        return self._headers


def test_after_a_restart_a_symbol_is_healed_from_the_feed_that_carried_it_last(
    deployment, monkeypatch, tmp_path
):
    described, _ = deployment
    log = [
        Logged(b"A", "begin", "stock-1", 10),
        Logged(b"A", "end", "stock-1", 20),
        Logged(b"A", "begin", "stock-2", 21),
        Logged(None, "mark", "stock-2", 30),
        Logged(None, "mark", "stock-1", 99),
    ]
    monkeypatch.setattr(healing_module, "read_to_end", lambda *_, **__: log)
    with running_simulator() as simulator:
        healer = healing_module.healing(
            described, simulator.rest_url, "key", tmp_path / "healing.json"
        )(None)
        healer.report_outage("A", "stock", "stock-1", None, 200_000)
        outage = healer._outages.next(lambda: 1 << 60)
    assert (outage.ts_from, outage.ts_to) == (
        30_000 - HELD_BACK_MS - LOSS_BEFORE_LAST_ALIVE_MS,
        200_000,
    )


def test_a_feed_that_a_busy_one_has_left_no_place_in_the_log_is_healed_from_its_last_status(
    deployment, monkeypatch, tmp_path
):
    described, _ = deployment
    encode, registry = (
        compile_encoder(load_schema("feed_status"), 1),
        FakeRegistry({1: load_schema("feed_status")}),
    )
    monkeypatch.setattr(healing_module, "Registry", lambda url: registry)

    class Status:
        def __init__(self, *fields):
            self._value = encode(*fields)

        def value(self):
            return self._value

    rows = [
        Status("stock-1", "c", "stock", "healthy", "", 10_000, None, ["B"], 0),
        Status("stock-1", "c", "stock", "down", "lost", 40_000, 50_000, ["A", "B"], 7),
        Status("stock-2", "c", "stock", "healthy", "", 60_000, None, ["A"], 0),
    ]
    busy = [Logged(b"A", "begin", "crypto-1", 99)]
    logs = {"t.infoway.feed.status": rows, "t.infoway.raw.trade": busy}
    monkeypatch.setattr(healing_module, "read_to_end", lambda _, topic, **__: logs[topic])
    with running_simulator() as simulator:
        healer = healing_module.healing(
            described, simulator.rest_url, "key", tmp_path / "healing.json"
        )(None)
        found = {}
        for symbol in ("B", "C"):  # C is new
            healer.report_outage(symbol, "stock", "stock-1", None, 200_000)
            outage = healer._outages.next(lambda: 1 << 60)
            found[symbol] = outage.ts_from
    assert found == {
        "B": 50_000 - HELD_BACK_MS - LOSS_BEFORE_LAST_ALIVE_MS,
        "C": 50_000 - HELD_BACK_MS - LOSS_BEFORE_LAST_ALIVE_MS,
    }


def test_what_ends_the_healer_ends_no_feed_but_what_ends_all_publishing_does(
    deployment, tmp_path, caplog
):
    described, _ = deployment

    class Failing(Still):
        def report_outage(self, symbol, business, feed, ts_from, ts_to):
            self.failure = {
                "LOST": LookupError("of the healer"),
                "ALL": PublishError("of all"),
            }.get(symbol)

    backlog = Backlog(Spool(tmp_path, 1 << 20, "me"), "simulated", None, TOPICS, lambda *_: {})
    with running_simulator(rate=50) as simulator:
        endpoint = Endpoint(simulator.url, "key")
        with Feeding(
            described, planned("BTCUSDT"), endpoint, "simulated", healing=Failing, backlog=backlog
        ) as feeding:
            assert [each.feed for each in feeding.counters] == ["crypto-1", "rest", "earlier"]
            wait_until(lambda: feeding.counters[0].trades)
            feeding.check()
            backlog.report_outage("LOST", "crypto", "crypto-1", 1, 2)
            feeding.check()
            feeding.check()
            said = [record.message for record in caplog.records if "not healed" in record.message]
            assert said == [
                "gaps are not healed until the next start: LookupError('of the healer')"
            ]
            assert feeding.failure is None
            backlog.report_outage("ALL", "crypto", "crypto-1", 1, 2)
            with pytest.raises(PublishError, match="of all"):
                feeding.check()


def test_counts_that_do_not_add_up_at_the_end_are_an_error(deployment):
    described, _ = deployment
    with running_simulator(rate=50) as simulator:
        with pytest.raises(AccountsDiffer, match="crypto-1"):
            with Feeding(
                described, planned("BTCUSDT"), Endpoint(simulator.url, "key"), "simulated"
            ) as feeding:
                wait_until(lambda: feeding.counters[0].trades)
                feeding.counters[0].received += 1


def test_the_silence_after_which_a_symbol_is_reported_is_a_setting(deployment, monkeypatch):
    described, _ = deployment
    monkeypatch.setenv("INFOWAY_SILENCE_S", "1")
    with running_simulator(rate=50) as simulator:
        with Feeding(
            described,
            planned("BTCUSDT,AAPL.US:crypto"),
            Endpoint(simulator.url, "key"),
            "simulated",
        ) as feeding:
            wait_until(lambda: feeding.counters[0].silent == 1)
    assert silence_ms({}) == 300_000
    for wrong in ("0", "-1", "1.5", "five"):
        with pytest.raises(BadSilence, match="a whole number of seconds"):
            silence_ms({"INFOWAY_SILENCE_S": wrong})
