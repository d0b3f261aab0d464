"""Feeds that run while their symbols change: connections that stay, that come and that go, and what
moves between them."""

import json
import select
import threading
import time
from contextlib import contextmanager

import pytest
from fakes import Published
from unit.test_websocket import TOPICS, AtOnce
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.sync.server import serve

from processors.model import records
from processors.model.event_time import EventTime, Feeds
from producers.feed.coverage import LOSS_BEFORE_LAST_ALIVE_MS
from producers.feed.outputs import ControlPublication, Publication
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.recording.player import Player
from producers.recording.reader import read_recordings
from producers.recording.writer import RecordedFeed, Recorder
from producers.transport import feed_group as running_module
from producers.transport.endpoint import Endpoint
from producers.transport.feed_group import RunningFeeds
from producers.vendor import subscriptions
from producers.vendor.symbols import Feed
from schemas.topics import FEED_STATUS

SUBSCRIBE, UNSUBSCRIBE = (
    {10000: "trade", 10003: "depth", 10006: "kline"},
    {11000: "trade", 11001: "depth", 11002: "kline"},
)
RAW = ("infoway.raw.trade", "infoway.raw.depth", "infoway.raw.kline")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(running_module, "RELEASE", 0.0)


@pytest.fixture
def unanswered(monkeypatch):
    """However long the vendor withholds an answer, it is waited for."""
    monkeypatch.setattr(subscriptions, "ANSWER", 600_000_000)


class Vendor:
    """Acks, sends a symbol's last trade when it is subscribed, and counts an account's connections
    and symbols; acks may be withheld."""

    def __init__(self):
        self.lock = threading.Lock()
        self.subscribed = {}
        self.requests = []
        self.most_connections = self.most_symbols = self.connections = 0
        self.answers = threading.Event()
        self.answers.set()

    def converse(self, connection):
        business = connection.request.path.partition("business=")[2].partition("&")[0]
        with self.lock:
            self.connections += 1
            mine = self.subscribed[connection] = {channel: set() for channel in SUBSCRIBE.values()}
            others = [each for each in self.subscribed if each is not connection]
            open_now = 1 + sum(map(is_open, others))
            self.most_connections = max(self.most_connections, open_now)
        try:
            for text in connection:
                self.answer(connection, business, mine, json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            with self.lock:
                del self.subscribed[connection]

    def answer(self, connection, business, mine, request):
        code, data = request["code"], request.get("data", {})
        codes = (data.get("codes") or data.get("arr", [{}])[0].get("codes", "")).split(",")
        with self.lock:
            self.requests.append((business, code, codes))
            if code in SUBSCRIBE:
                mine[SUBSCRIBE[code]].update(codes)
            elif code in UNSUBSCRIBE and self.answers.is_set():
                mine[UNSUBSCRIBE[code]].difference_update(codes)
            self.most_symbols = max(
                self.most_symbols, sum(len(each["trade"]) for each in self.subscribed.values())
            )
        if code in UNSUBSCRIBE:
            self.answers.wait(60)
            with self.lock:
                mine[UNSUBSCRIBE[code]].difference_update(codes)
            connection.send(json.dumps({"code": 11010, "trace": request["trace"]}))
        elif code in SUBSCRIBE:
            connection.send(json.dumps({"code": code + 1, "trace": request["trace"]}))
            for symbol in codes if code == 10000 else ():
                trade = {"s": symbol, "t": 1752826113546, "p": "9", "v": "1", "vw": "9", "td": 1}
                connection.send(json.dumps({"code": 10002, "data": trade}))

    def drop(self):
        with self.lock:
            for connection in self.subscribed:
                connection.socket.close()


def is_open(connection):
    """Whether the client has not closed a connection, though its thread may not know yet."""
    try:
        unread = select.select([connection.socket], [], [], 0)[0]
    except (OSError, ValueError):
        return False
    return connection.state is State.OPEN and not unread


@contextmanager
def running(vendor, feeds, published, recorder=None, **settings):
    delivered, stop = {}, threading.Event()
    source = "replay" if recorder else "simulated"
    chosen = FeedSettings(source, has_acks=True, **{"delivered_before": delivered.get, **settings})

    def make(feed, counters):
        if recorder:
            return RecordedFeed(recorder, feed, chosen, TOPICS, counters, AtOnce(1))
        return FeedProtocol(feed, chosen, TOPICS, counters, AtOnce(1))

    with serve(vendor.converse, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = Endpoint(f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws", "key")
        try:
            with RunningFeeds(
                feeds, make, endpoint, published, stop, AtOnce(1), delivered
            ) as found:
                yield found
            found.check()
        finally:
            vendor.answers.set()
            server.shutdown()
            thread.join()


def feed(name, *symbols):
    return Feed(name, name.rpartition("-")[0], symbols)


def begins(symbol, on):
    """The begin of a symbol's klines, which are asked for last."""
    return lambda name, output: (
        isinstance(output, ControlPublication)
        and (output.control.kind, output.key, name, output.topic) == ("begin", symbol, on, RAW[2])
    )


def is_status(state, on, reason=None):
    return lambda name, output: (
        isinstance(output, Publication)
        and (output.topic, name) == (FEED_STATUS, on)
        and output.record.state == state
        and reason in (None, output.record.reason)
    )


def controls(outputs, symbol=None, topic="infoway.raw.trade"):
    found = [
        output
        for _, output in outputs
        if isinstance(output, ControlPublication) and output.topic == topic
    ]
    return [
        (each.control.kind, each.control.feed, each.key)
        for each in found
        if each.key and symbol in (None, each.key)
    ]


def test_only_the_difference_is_asked_for_and_the_connections_stay():
    vendor, published = Vendor(), Published()
    with running(vendor, [feed("stock-1", "A", "B"), feed("crypto-1", "X")], published) as feeds:
        published.wait_for_each(begins("B", "stock-1"), begins("X", "crypto-1"))
        feeds.change([feed("stock-1", "A", "C"), feed("crypto-1", "X")])
        published.wait_for_each(begins("C", "stock-1"))
    assert vendor.connections == 2
    assert controls(published.all_seen(), "A") == [
        ("begin", "stock-1", "A"),
        ("end", "stock-1", "A"),
    ]
    assert controls(published.seen, "X") == [("begin", "crypto-1", "X"), ("end", "crypto-1", "X")]
    changed = [
        (code, codes) for business, code, codes in vendor.requests if codes in (["B"], ["C"])
    ]
    assert sorted(changed) == sorted(
        [*((code, ["B"]) for code in UNSUBSCRIBE), *((code, ["C"]) for code in SUBSCRIBE)]
    )


def is_trade(symbol, repeat):
    return lambda _, output: (
        isinstance(output, Publication)
        and (output.topic, output.key) == (RAW[0], symbol)
        and output.record.repeat is repeat
    )


@pytest.mark.parametrize("others", [("B",), ()])
def test_a_symbol_that_comes_back_is_answered_by_a_trade_that_was_counted(others):
    vendor, published = Vendor(), Published()
    stays = feed("stock-1", "S")
    without = [feed("crypto-1", *others)] if others else []
    with running(vendor, [feed("crypto-1", "A", *others), stays], published) as feeds:
        published.wait_for_each(
            is_trade("A", repeat=False), begins("A", "crypto-1"), begins("S", "stock-1")
        )
        feeds.change([*without, stays])
        # the same feed goes on without it, or ends and is made again
        published.wait_for_each(
            is_status("healthy", "crypto-1", "other symbols")
            if others
            else is_status("ended", "crypto-1")
        )
        give_up = time.monotonic() + 60
        while feeds._handovers or ("crypto-1" in feeds._running) != bool(others):
            assert time.monotonic() < give_up
            time.sleep(0.005)
        feeds.change([feed("crypto-1", "A", *others), stays])
        published.wait_for_each(is_trade("A", repeat=True), begins("A", "crypto-1"))


def test_a_feed_no_longer_needed_ends_in_order_before_a_new_one_begins():
    vendor, published = Vendor(), Published()
    with running(vendor, [feed("stock-1", "A"), feed("crypto-1", "X")], published) as feeds:
        published.wait_for_each(begins("A", "stock-1"), begins("X", "crypto-1"))
        feeds.change([feed("stock-1", "A"), feed("common-1", "M")])
        published.wait_for_each(begins("M", "common-1"))
        assert [each.feed for each in feeds.wanted_counters] == ["stock-1", "common-1"]
        assert [each.feed for each in feeds.counters] == ["stock-1", "crypto-1", "common-1"]
    assert vendor.most_connections == 2
    assert controls(published.all_seen(), "X") == [
        ("begin", "crypto-1", "X"),
        ("end", "crypto-1", "X"),
    ]
    order = [
        (name, output.record.state)
        for name, output in published.seen
        if output.topic == FEED_STATUS
    ]
    assert order.index(("crypto-1", "ended")) < order.index(("common-1", "connecting"))


def test_a_new_connection_waits_until_the_vendor_may_have_released_the_old_one(monkeypatch):
    monkeypatch.setattr(running_module, "RELEASE", 0.5)
    published_at = {}

    class Stamped(Published):
        def publish(self, outputs, counters):
            for output in outputs:
                if output.topic == FEED_STATUS:
                    at = time.monotonic()
                    published_at.setdefault((counters.feed, output.record.state), at)
            super().publish(outputs, counters)

    vendor, published = Vendor(), Stamped()
    with running(vendor, [feed("crypto-1", "X")], published) as feeds:
        published.wait_for_each(begins("X", "crypto-1"))
        feeds.change([feed("common-1", "M")])
        published.wait_for_each(is_status("ended", "crypto-1"))
        published.wait_for_each(is_status("connecting", "common-1"))
    ended, began = published_at["crypto-1", "ended"], published_at["common-1", "connecting"]
    assert began - ended > 0.4


def test_nothing_is_subscribed_until_the_vendor_has_answered_what_others_let_go(
    unanswered,
):
    vendor, published = Vendor(), Published()
    with running(
        vendor, [feed("stock-1", "A", "B", "C"), feed("stock-2", "D")], published
    ) as feeds:
        published.wait_for_each(begins("C", "stock-1"), begins("D", "stock-2"))
        vendor.answers.clear()
        feeds.change([feed("stock-1", "A"), feed("stock-2", "D", "E", "F")])
        published.wait_for_each(is_status("healthy", "stock-1", "other symbols"))
        time.sleep(0.5)  # a wrong subscription would come within this
        assert not [
            codes for _, code, codes in vendor.requests if code in SUBSCRIBE and "E" in codes
        ]
        vendor.answers.set()
        published.wait_for_each(begins("F", "stock-2"))
    assert vendor.most_symbols == 4


def test_a_moved_symbol_ends_begins_and_has_a_gap_between_and_its_last_trade_is_a_repeat():
    vendor, published, unseen = Vendor(), Published(), []
    with running(
        vendor,
        [feed("stock-1", "A"), feed("stock-2", "B", "C")],
        published,
        report_outage=lambda *told: unseen.append(told),
    ) as feeds:
        published.wait_for_each(begins("A", "stock-1"), begins("C", "stock-2"))
        feeds.change([feed("stock-1", "A", "B", "C")])
        published.wait_for_each(begins("C", "stock-1"))
    for topic in RAW:
        assert controls(published.all_seen(), "B", topic) == [
            ("begin", "stock-2", "B"), ("end", "stock-2", "B"), ("begin", "stock-1", "B"),
            ("gap", "stock-1", "B"), ("end", "stock-1", "B"),
        ]  # fmt: skip
    of_b = [
        (name, output)
        for name, output in published.seen
        if (output.topic, output.key) == (RAW[0], "B")
    ]
    by_kind = {
        (name, output.control.kind): output.control
        for name, output in of_b
        if isinstance(output, ControlPublication)
    }
    ended, begun, gap = (
        by_kind["stock-2", "end"],
        by_kind["stock-1", "begin"],
        by_kind["stock-1", "gap"],
    )
    assert (gap.ts_from, gap.ts) == (ended.ts - LOSS_BEFORE_LAST_ALIVE_MS, begun.ts)
    trades = [
        (name, output.record.repeat) for name, output in of_b if isinstance(output, Publication)
    ]
    assert trades == [("stock-2", False), ("stock-1", True)]
    assert [told for told in unseen if told[0] == "B"] == [
        ("B", "stock", "stock-2", None, by_kind["stock-2", "begin"].ts),
        ("B", "stock", "stock-1", ended.ts, begun.ts),
    ]


def test_agents_take_a_move_for_a_gap_and_nothing_for_one_on_what_stays():
    vendor, published = Vendor(), Published()
    with running(vendor, [feed("stock-1", "A"), feed("stock-2", "B", "C")], published) as feeds:
        published.wait_for_each(begins("A", "stock-1"), begins("C", "stock-2"))
        feeds.change([feed("stock-1", "A", "B"), feed("stock-2", "C")])
        published.wait_for_each(begins("B", "stock-1"))
    state, offset = Feeds(EventTime(), 0, 60_000, {}), 0
    marked = {}
    for _, output in published.all_seen():
        if isinstance(output, ControlPublication) and output.topic == RAW[0] and output.key:
            offset += 1
            # the ends of all, at last, may be in the same millisecond as the begin that is asked
            # about
            if output.control.kind != "end" or (output.key, output.control.feed) == (
                "B",
                "stock-2",
            ):
                state.control(records.ControlRecord(offset, output.key, output.control))
            marked[output.control.kind, output.control.feed, output.key] = output.control.ts
    moved, back = marked["end", "stock-2", "B"], marked["begin", "stock-1", "B"]
    assert state.completeness("B", moved, back + 1) == "gap"
    assert (
        state.completeness(
            "B", moved - LOSS_BEFORE_LAST_ALIVE_MS - 100, moved - LOSS_BEFORE_LAST_ALIVE_MS
        )
        != "gap"
    )
    assert state.completeness("B", back, back + 1) == "complete"
    for stayed, name in (("A", "stock-1"), ("C", "stock-2")):
        assert (
            state.completeness(stayed, marked["begin", name, stayed], marked["end", name, stayed])
            == "complete"
        )


def test_a_symbol_that_comes_back_later_is_no_gap_and_heals_nothing():
    vendor, published, unseen = Vendor(), Published(), []
    with running(
        vendor,
        [feed("stock-1", "A", "B")],
        published,
        report_outage=lambda *told: unseen.append(told),
    ) as feeds:
        published.wait_for_each(begins("B", "stock-1"))
        feeds.change([feed("stock-1", "A")])
        published.wait_for_each(is_status("healthy", "stock-1", "other symbols"))
        drained(lambda: not feeds._running["stock-1"].protocol.released and not feeds._handovers)
        feeds.change([feed("stock-1", "A", "B", "N")])
        published.wait_for_each(begins("N", "stock-1"))
    assert (
        controls(published.all_seen(), "B")
        == [("begin", "stock-1", "B"), ("end", "stock-1", "B")] * 2
    )
    assert sorted(told[0] for told in unseen) == ["A", "B"]


def test_a_later_change_takes_the_place_of_one_that_is_under_way(unanswered):
    vendor, published = Vendor(), Published()
    with running(vendor, [feed("stock-1", "A", "B")], published) as feeds:
        published.wait_for_each(begins("B", "stock-1"))
        vendor.answers.clear()
        feeds.change([feed("stock-1", "A"), feed("crypto-1", "X")])
        published.wait_for_each(is_status("healthy", "stock-1", "other symbols"))
        feeds.change([feed("stock-1", "A"), feed("common-1", "M")])
        vendor.answers.set()
        published.wait_for_each(begins("M", "common-1"))
    assert {business for business, _, _ in vendor.requests} == {"stock", "common"}
    assert list(published.by_feed) == ["stock-1", "common-1"]


def test_a_feed_whose_end_is_under_way_comes_back_under_its_name():
    vendor, published = Vendor(), Published()
    with running(vendor, [feed("stock-1", "A"), feed("crypto-1", "X")], published) as feeds:
        published.wait_for_each(begins("A", "stock-1"), begins("X", "crypto-1"))
        feeds.change([feed("stock-1", "A")])
        published.wait_for_each(is_status("ended", "crypto-1"))
        feeds.change([feed("stock-1", "A"), feed("crypto-1", "X")])
        published.wait_for_each(begins("X", "crypto-1"))
        assert [each.feed for each in feeds.counters] == ["stock-1", "crypto-1"]
        assert feeds.counters[1].connections == 2
    assert vendor.most_connections == 2


def test_symbols_change_while_a_feed_has_no_connection():
    published, stop = Published(), threading.Event()
    settings = FeedSettings("simulated")

    class Later(AtOnce):
        def uniform(self, a, b):
            return 60.0

    def make(found, counters):
        return FeedProtocol(found, settings, TOPICS, counters, AtOnce(1))

    with RunningFeeds(
        [feed("stock-1", "A")],
        make,
        Endpoint("ws://127.0.0.1:9/ws", "k"),
        published,
        stop,
        Later(1),
    ) as feeds:
        published.wait_for_each(is_status("down", "stock-1"))
        feeds.change([feed("stock-1", "B"), feed("crypto-1", "X")])
        published.wait_for_each(is_status("down", "crypto-1"))
        drained(lambda: feeds._running["stock-1"].protocol.feed.symbols == ("B",))


def test_what_is_recorded_of_changes_plays_alike(tmp_path):
    vendor, published = Vendor(), Published()
    with Recorder(tmp_path, rotate_mib=0.002) as recorder:
        with running(
            vendor, [feed("stock-1", "A", "B"), feed("stock-2", "C", "D")], published, recorder
        ) as feeds:
            published.wait_for_each(begins("B", "stock-1"), begins("D", "stock-2"))
            feeds.change([feed("stock-1", "A", "C", "N"), feed("crypto-1", "X")])
            published.wait_for_each(begins("X", "crypto-1"), begins("N", "stock-1"))
            vendor.drop()
            published.wait_for_each(
                *(is_status("healthy", name, "subscribed") for name in ("stock-1", "crypto-1"))
            )
            feeds.change([feed("stock-1", "A"), feed("stock-2", "C", "B")])
            published.wait_for_each(begins("B", "stock-2"))
    recording = read_recordings(sorted(tmp_path.iterdir()))
    assert len(recorder.files) > 1
    assert recording.broken == []
    replayed = Published()
    player = Player(recording, TOPICS, replayed)
    for entry in recording.entries:
        player.play(entry)
    player.end()
    assert replayed.by_feed == published.by_feed
    assert {kind for kind, _, _ in controls(replayed.all_seen())} == {"begin", "end", "gap"}


def drained(done):
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)
