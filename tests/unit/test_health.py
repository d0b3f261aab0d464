"""/livez, /readyz and /metrics: what they answer, and of feeds and workers that are well, not
ready, and stuck."""

import socket
import threading
import time
from http.client import HTTPConnection

import pytest
from unit.test_running_feeds import Published, Vendor, begins, feed, running

from infra.ingest import feed_health
from infra.ingest.feed_health import FeedHealth
from infra.runtime import health, worker
from infra.runtime.health import HttpUnusable, Sample, serving
from infra.runtime.worker import WorkerHealth
from processors import starting
from processors.agents.bars.agent import Bars
from processors.decode.trades import TradeReader
from processors.engine.engine import Agent, Engine
from processors.engine.outputs import Outputs
from processors.engine.transactions.group import Member
from processors.model.event_time import EventTime
from processors.model.sessions import Calendars

MEMBER = Member("g", 3, "m")


class Well:
    why = None

    def stuck(self):
        return self.why

    def unready(self):
        return self.why

    def samples(self):
        yield Sample("infoway_feed_received", "counter", "frames", 7, {"feed": "crypto-1"})
        yield Sample("infoway_feed_received", "counter", "frames", 8, {"feed": 'a"b'})
        yield Sample("infoway_feed_spooled", "gauge", "records", 2, {"feed": "crypto-1"})


def get(place, path):
    connection = HTTPConnection(place, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_probes_and_metrics_are_answered_and_other_paths_are_not():
    health = Well()
    with serving({"INFOWAY_HTTP": "127.0.0.1:0"}, health) as place:
        assert get(place, "/livez") == get(place, "/readyz?verbose") == (200, "ok\n")
        health.why = "no turn for 60 s: crypto-1"
        assert (
            get(place, "/livez") == get(place, "/readyz") == (503, "no turn for 60 s: crypto-1\n")
        )
        status, text = get(place, "/metrics")
        assert status == 200
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert lines == [
            'infoway_feed_received_total{feed="crypto-1"} 7.0',
            'infoway_feed_received_total{feed="a\\"b"} 8.0',
            'infoway_feed_spooled{feed="crypto-1"} 2.0',
        ]
        assert "# TYPE infoway_feed_received_total counter" in text
        assert get(place, "/")[0] == 404
    with pytest.raises(OSError):
        get(place, "/livez")


def test_nothing_is_served_unless_asked_for():
    with serving({}, Well()) as place:
        assert place is None


@pytest.mark.parametrize(
    "place", ["8080", ":8080", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536"]
)
def test_a_wrong_address_is_refused(place):
    with (
        pytest.raises(HttpUnusable, match="expected host:port"),
        serving({"INFOWAY_HTTP": place}, Well()),
    ):
        pass


def test_an_address_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(HttpUnusable, match=f"INFOWAY_HTTP='{place}'.*in use"),
            serving({"INFOWAY_HTTP": place}, Well()),
        ):
            pass


class Stalling(Published):
    """Holds whoever publishes while `going` is not set, and keeps how ready the producer was at
    each turn."""

    def __init__(self):
        super().__init__()
        self.going = threading.Event()
        self.going.set()
        self.health = None
        self.unready = set()

    def publish(self, outputs, counters):
        self.going.wait()
        if self.health:
            self.unready.add(self.health.unready())
        super().publish(outputs, counters)

    serve = property(lambda self: self.going.wait)


def wait_until(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_producer_is_ready_while_subscribed_and_not_alive_once_a_feed_is_stuck(monkeypatch):
    vendor, published = Vendor(), Stalling()
    with running(vendor, [feed("crypto-1", "X")], published) as feeds:
        feeds.unanswered_for = 0.0  # of the publisher, which is a stand-in here
        health = FeedHealth(feeds)
        published.wait_for_each(begins("X", "crypto-1"))
        wait_until(lambda: health.unready() is None)
        assert {sample.name: sample.value for sample in health.samples()}[
            "infoway_feed_connections"
        ] == 1
        feeds.counters[0].spooled = 3
        assert (health.stuck(), health.unready()) == (
            None,
            "records wait on disk for the broker: crypto-1",
        )
        feeds.counters[0].spooled = 0
        feeds.unanswered_for = feed_health.UNANSWERED + 2
        assert (health.stuck(), health.unready()) == (
            None,
            "the broker has acknowledged nothing for 12 s",
        )
        feeds.unanswered_for = 0.0
        published.health = health
        vendor.drop()
        published.wait_for_each(begins("X", "crypto-1"))
        wait_until(lambda: health.unready() is None)
        assert "not subscribed: crypto-1" in published.unready
        # not before: a busy machine keeps a feed from its turn for so long, too
        monkeypatch.setattr(feed_health, "STUCK", 0.5)
        published.going.clear()
        wait_until(lambda: health.stuck() == "no turn for 0 s: crypto-1")
        assert health.unready() == health.stuck()
        published.going.set()
        wait_until(lambda: health.stuck() is None)


def test_a_producer_whose_feed_has_failed_is_not_alive():
    class Failing(Published):
        def publish(self, outputs, counters):
            raise LookupError("a secret")

    with pytest.raises(LookupError), running(Vendor(), [feed("crypto-1", "X")], Failing()) as feeds:
        health = FeedHealth(feeds)
        wait_until(lambda: health.stuck() == "ended: LookupError")
        assert health.unready() == health.stuck()


def healthy_worker():
    health = WorkerHealth()
    health.engine = Engine("unused:1", "t", (), Outputs({}), membership=lambda: MEMBER)
    health.engine.turned_at = time.monotonic()
    health.engine.ready = MEMBER
    return health


def test_a_worker_is_ready_once_it_has_the_states_of_its_assignment():
    health = WorkerHealth()
    assert (health.stuck(), health.unready()) == (None, "starting: broker and registry are asked")
    assert [(sample.name, sample.value) for sample in health.samples()] == [
        ("infoway_worker_ready", 0)
    ]
    health = healthy_worker()
    engine = health.engine
    assert (health.stuck(), health.unready()) == (None, None)
    assert {sample.name: sample.value for sample in health.samples()}["infoway_worker_ready"] == 1
    health.trades = TradeReader(Calendars())
    health.trades.outside_sessions = 5
    assert {sample.name: sample.value for sample in health.samples()}[
        "infoway_trades_outside_sessions"
    ] == 5
    bars = Bars(("1m",), Calendars(), EventTime())
    engine.agents = (Agent(bars, ("trades",), "state", True),)
    bars.forgotten.heals, bars.forgotten.gaps = 3, 4
    values = {sample.name: sample.value for sample in health.samples()}
    assert (
        values["infoway_heals_of_forgotten_bars"],
        values["infoway_gaps_of_forgotten_bars"],
    ) == (3, 4)
    engine.ready = None
    assert health.unready().startswith("recovering")
    engine.ready, engine.membership = MEMBER, lambda: Member("g", 4, "m")
    assert health.unready().startswith("recovering")
    engine.membership = lambda: Member("g", -1, "")
    assert health.unready() == "not in the group"
    assert health.stuck() is None


def test_a_worker_that_waits_is_alive_not_ready_and_names_what_for(monkeypatch):
    health = healthy_worker()
    health.engine.wait_for("watch", "the broker for 7 s: no answer")
    health.engine.turned_at -= 2 * worker.STUCK_S
    assert (health.stuck(), health.unready()) == (None, "waiting for the broker for 7 s: no answer")
    health.engine = None
    monkeypatch.setattr(starting, "waiting_for", "the schema registry for 2 s: no answer")
    assert (health.stuck(), health.unready()) == (
        None,
        "waiting for the schema registry for 2 s: no answer",
    )


def test_a_worker_whose_loop_stands_still_is_not_alive():
    health = healthy_worker()
    health.engine.turned_at -= worker.STUCK_S + 1
    assert health.stuck() == health.unready() == "the event loop has not turned for 61 s"


def test_whoever_hangs_up_leaves_no_traceback_and_any_other_error_does(capsys):
    def fails(*_):
        raise errors.pop()

    errors = [ValueError("a bug"), ConnectionResetError(), BrokenPipeError()]
    with health._Server(("127.0.0.1", 0), fails) as server:
        server.daemon_threads = False  # closing waits for them, and so for what they print
        while errors:
            before = len(errors)
            with socket.create_connection(server.server_address):
                server.handle_request()
                wait_until(lambda before=before: len(errors) < before)
    said = capsys.readouterr().err
    assert said.count("Traceback") == 1
    assert "a bug" in said
