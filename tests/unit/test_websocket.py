"""The transport against a small WebSocket server on loopback: connecting, reconnecting, refusals,
the orderly end."""

import json
import logging
import queue
import random
import threading
from contextlib import contextmanager

import pytest
from fakes import Published
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from producers.delivery.errors import Undelivered
from producers.feed.metrics import FeedCounters
from producers.feed.outputs import ControlPublication, Publication
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.feed.states import State
from producers.transport import websocket as transport
from producers.transport.endpoint import BadAddress, Endpoint, FeedRefused, KeyRefused
from producers.transport.feed_group import RunningFeeds
from producers.transport.websocket import run_feed
from producers.vendor.symbols import Feed

KEY = "s3cret/key+1"
TOPICS = {"infoway.raw.trade": 6, "infoway.raw.depth": 6, "infoway.raw.kline": 6}
TRADE = {"s": "BTCUSDT", "t": 1752826113546, "p": "98.150", "v": "1", "vw": "98.15", "td": 1}


class AtOnce(random.Random):
    """Chance without any wait between connections."""

    def uniform(self, a, b):
        return a


class SecondTry(AtOnce):
    """Chance that sets `stop` when the second connection is lost or not made."""

    def __init__(self, stop):
        super().__init__(1)
        self.stop = stop
        self.tries = 0

    def uniform(self, a, b):
        self.tries += 1
        if self.tries == 2:
            self.stop.set()
        return a


class Server:
    """A vendor that greets, acks, pushes one trade on a trade subscription, and does what `script`
    says of a request."""

    def __init__(self, status=None, script=None, page=f"key {KEY} is not known"):
        self.status = status
        self.page = page
        self.script = script or {}
        self.paths = []
        self.requests = queue.Queue()
        self.connections = 0
        self.counting = threading.Lock()
        self.location = None

    def refuse(self, connection, request):
        self.paths.append(request.path)
        if self.status is None:
            return None
        response = connection.respond(self.status, self.page)
        if self.location:
            response.headers["Location"] = self.location
        return response

    def converse(self, connection):
        with self.counting:
            self.connections += 1
            number = self.connections
        try:
            connection.send("You have permission to subscribe to all market data")
            connection.send('{"code":200,"msg":"ws connect success"}')
            for text in connection:
                request = json.loads(text)
                self.requests.put(request)
                answer = self.script.get((number, request["code"]))
                if answer == "drop":
                    connection.socket.close()
                elif answer is not None:
                    connection.send(answer)
                elif request["code"] in (10000, 10003, 10006):
                    connection.send(
                        json.dumps({"code": request["code"] + 1, "trace": request["trace"]})
                    )
                if request["code"] == 10000 and answer is None:
                    connection.send(json.dumps({"code": 10002, "data": TRADE}))
        except ConnectionClosed:
            pass


@contextmanager
def serving(server):
    with serve(server.converse, "127.0.0.1", 0, process_request=server.refuse) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{running.socket.getsockname()[1]}/ws"
        finally:
            running.shutdown()
            thread.join()


def protocol(business="stock", n=1):
    feed = Feed(f"{business}-{n}", business, ("BTCUSDT",))
    return FeedProtocol(
        feed,
        FeedSettings("simulated", mark_period_ms=200),
        TOPICS,
        FeedCounters(feed.name),
        AtOnce(1),
    )


@contextmanager
def running(url, core, published):
    """Run a feed in a thread; the thread's failure, if any, is raised at the end."""
    stop = threading.Event()
    failures = []

    def run():
        try:
            run_feed(core, Endpoint(url, KEY), published, stop, AtOnce(1))
        except Exception as error:  # noqa: BLE001 raised again below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


def is_trade(output):
    return isinstance(output, Publication) and output.topic == "infoway.raw.trade"


def is_control(kind):
    return lambda output: isinstance(output, ControlPublication) and output.control.kind == kind


def is_state(state):
    return lambda output: (
        isinstance(output, Publication)
        and output.topic == "infoway.feed.status"
        and output.record.state == state
    )


def test_feed_subscribes_publishes_and_ends_in_order_within_two_seconds():
    server, published, core = Server(), Published(), protocol()
    with serving(server) as url:
        with running(url, core, published):
            assert published.wait_for(is_control("begin")).key == "BTCUSDT"
            assert published.wait_for(is_trade).record.price == "98.150"
            published.wait_for(is_state("healthy"))
        # by its own clocks: how long a busy machine takes beside them says nothing
        assert transport._DRAIN < transport._END
        assert transport._READ_TIMEOUT + transport._END < 2
        published.wait_for(is_control("end"))
        published.wait_for(is_state("ended"))
        codes = [server.requests.get(timeout=60)["code"] for _ in range(6)]
    assert codes == [10000, 10003, 10006, 11000, 11001, 11002]
    assert core.state is State.ENDED
    assert server.paths == ["/ws?business=stock&apikey=s3cret%2Fkey%2B1"]


def test_pongs_of_a_silent_feed_make_marks():
    published = Published()
    with serving(Server()) as url, running(url, protocol(), published):
        first = published.wait_for(is_control("mark"))
        assert published.wait_for(is_control("mark")).control.ts >= first.control.ts


@pytest.mark.parametrize("status", [401, 403])
def test_refused_key_is_one_line_and_never_retried(status, caplog):
    caplog.set_level(logging.DEBUG)
    server, published, stop = Server(status=status), Published(), threading.Event()
    with serving(server) as url, pytest.raises(KeyRefused) as raised:
        run_feed(protocol(), Endpoint(url, KEY), published, stop, SecondTry(stop))
    assert len(server.paths) == 1
    assert "\n" not in str(raised.value)
    assert "INFOWAY_API_KEY" in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    published.wait_for(is_state("down"))
    for text in (
        str(raised.value),
        caplog.text.replace("GET /ws?business=stock&apikey=s3cret%2Fkey%2B1", ""),
    ):
        assert "s3cret" not in text


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [(400, 508, "renew"), (404, 509, "check"), (403, 521, "close"), (401, 502, "tomorrow")],
)
def test_handshake_that_is_answered_with_a_fatal_code_is_never_retried(status, code, advice):
    server, stop, published = (
        Server(status=status, page=f'{{"code":{code},"msg":"not with\\n{KEY}"}}'),
        threading.Event(),
        Published(),
    )
    with (
        serving(server) as url,
        pytest.raises(
            FeedRefused,
            match=rf"the vendor says {code} not with \*\*\* \(HTTP {status}\): .*{advice}",
        ) as raised,
    ):
        run_feed(protocol(), Endpoint(url, KEY), published, stop, SecondTry(stop))
    assert len(server.paths) == 1
    assert raised.value.code == code
    assert raised.value.__suppress_context__
    assert f"the vendor says {code}" in published.wait_for(is_state("down")).record.reason
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "page"),
    [
        (404, "not found"),
        (429, '{"code":501,"msg":"too many"}'),
        (403, '{"code":500,"msg":"server error"}'),
        (502, '{"code":502,"msg":"Bad Gateway"}'),
        (400, '{"code":10001}'),
        (400, '[{"code":508}]'),
    ],
)
def test_handshake_that_is_answered_with_anything_else_is_tried_again(status, page):
    server, stop = Server(status=status, page=page), threading.Event()
    with serving(server) as url:
        run_feed(protocol(), Endpoint(url, KEY), Published(), stop, SecondTry(stop))
    assert len(server.paths) == 2


@pytest.mark.parametrize("page", ['{"code":403,"msg":"forbidden"}', '{"code":"508"}', ""])
def test_forbidden_without_a_code_of_the_vendors_is_a_refused_key(page):
    with serving(Server(status=403, page=page)) as url, pytest.raises(KeyRefused):
        stop = threading.Event()
        run_feed(protocol(), Endpoint(url, KEY), Published(), stop, SecondTry(stop))


def test_reason_of_the_servers_close_is_told_without_the_key():
    class Closing(Server):
        def converse(self, connection):
            connection.close(1008, f"key {KEY} is known elsewhere")

    published = Published()
    with serving(Closing()) as url, running(url, protocol(), published):
        assert (
            published.wait_for(is_state("down")).record.reason
            == "closed by the server 1008 key *** is known elsewhere"
        )


def test_lost_connection_is_made_again_and_the_repeat_is_marked():
    server, published, core = Server(script={(1, 10006): "drop"}), Published(), protocol()
    with serving(server) as url, running(url, core, published):
        assert published.wait_for(is_trade).record.repeat is False
        published.wait_for(is_state("down"))
        assert published.wait_for(is_control("begin")).control.ts_from is not None
        assert published.wait_for(is_trade).record.repeat is True
        published.wait_for(is_state("healthy"))
    assert server.connections == 2
    assert core.counters.losses == 1


def test_server_error_code_leads_to_a_new_connection():
    server, published = (
        Server(script={(1, 10003): '{"code":500,"msg":"server error"}'}),
        Published(),
    )
    with serving(server) as url, running(url, protocol(), published):
        assert "server error" in published.wait_for(is_state("down")).record.reason
        published.wait_for(is_state("healthy"))
    assert server.connections == 2


def test_fatal_code_stops_the_feed_without_another_try():
    server, published = (
        Server(script={(1, 10000): f'{{"code":509,"msg":"invalid key {KEY}"}}'}),
        Published(),
    )
    with serving(server) as url, pytest.raises(FeedRefused, match="check the API key") as raised:
        run_feed(protocol(), Endpoint(url, KEY), published, threading.Event(), AtOnce(1))
    assert server.connections == 1
    assert raised.value.code == 509
    assert KEY not in str(raised.value)
    assert KEY not in str(published.outputs)


def test_unreachable_server_is_tried_again_without_naming_the_key(caplog):
    published, core = Published(), protocol()
    with serving(Server()) as url:
        pass
    with running(url, core, published):
        assert (
            "no connection to ws://127.0.0.1" in published.wait_for(is_state("down")).record.reason
        )
    assert "s3cret" not in caplog.text
    assert core.counters.connections == 0


def test_backoff_doubles_up_to_thirty_seconds_with_full_jitter():
    class Spy(random.Random):
        def uniform(self, a, b):
            ranges.append((a, b))
            if len(ranges) == 8:
                stop.set()
            return 0

    stop, ranges = threading.Event(), []
    with serving(Server(status=503)) as url:
        run_feed(protocol(), Endpoint(url, KEY), Published(), stop, Spy(1))
    assert ranges == [(0, longest) for longest in (1, 2, 4, 8, 16, 30, 30, 30)]


def test_redirect_is_not_followed_with_the_key():
    server, other, published = Server(status=302), Server(), Published()
    with serving(other) as target, serving(server) as url:
        server.location = f"{target}?business=stock&apikey=x"
        with running(url, protocol(), published):
            published.wait_for(is_state("down"))
    assert server.paths
    assert not other.paths


def test_first_failure_of_a_feed_ends_all_of_them():
    server, published, stop = (
        Server(script={(2, 10000): '{"code":502,"msg":"daily limit"}'}),
        Published(),
        threading.Event(),
    )
    cores = {core.feed.name: core for core in (protocol("stock", 1), protocol("stock", 2))}
    feeds = [core.feed for core in cores.values()]
    with serving(server) as url:
        with RunningFeeds(
            feeds, lambda feed, _: cores[feed.name], Endpoint(url, KEY), published, stop, AtOnce(1)
        ) as running:
            assert stop.wait(60)
        with pytest.raises(FeedRefused, match="daily limit"):
            running.check()
    assert {core.state for core in cores.values()} == {State.ENDED, State.REFUSED}


def test_failure_to_publish_is_raised_and_closes_the_connection():
    class Full(Published):
        def publish(self, outputs, counters):
            raise Undelivered(1, 2.0)

    with serving(Server()) as url, pytest.raises(Undelivered):
        run_feed(protocol(), Endpoint(url, KEY), Full(), threading.Event(), AtOnce(1))


def test_endpoint_shows_no_key_and_takes_only_websocket_addresses():
    assert KEY not in repr(Endpoint("ws://127.0.0.1:1/ws", KEY))
    for address in ("http://h/ws", "ws://", "ws://h:abc/ws", "ws://h/ws?apikey=x"):
        with pytest.raises(BadAddress) as raised:
            Endpoint(address, KEY)
        assert "apikey" not in str(raised.value)


def frame_of(payload, first=0x81):
    size = len(payload)
    return (
        bytes((first, size) if size < 126 else (first, 126) if size < 65_536 else (first, 127))
        + (b"" if size < 126 else size.to_bytes(2 if size < 65_536 else 8, "big"))
        + payload
    )


@pytest.mark.parametrize("seed", range(8))
def test_every_message_comes_whole_and_in_order_however_the_bytes_are_cut(seed):
    chance = random.Random(seed)
    sizes = [0, 1, 2, 3, 125, 126, 127, 65_535, 65_536, 300_000] + [
        chance.randrange(400) for _ in range(300)
    ]
    chance.shuffle(sizes)
    # what looks like a frame inside of a frame is none
    sent = [
        (b"%d|" % number + frame_of(b"inner") * (size // 7 + 1))[:size]
        for number, size in enumerate(sizes)
    ]
    stream = b""
    for payload in sent:
        if chance.random() < 0.2:
            middle = chance.randrange(len(payload) + 1)
            ping = frame_of(b"?", 0x89) if chance.random() < 0.5 else b""
            stream += frame_of(payload[:middle], 0x01) + ping + frame_of(payload[middle:], 0x80)
        else:
            stream += frame_of(payload)
    core, published, ticked = protocol("crypto"), Published(), threading.Semaphore(0)
    tick = core.tick
    core.tick = lambda now: (tick(now), ticked.release())

    def converse(connection):
        stalls, at = 3, 0
        while at < len(stream):
            size = chance.choice((1, 2, 3, 50, 5_000, 300_000))
            connection.socket.sendall(stream[at : at + size])
            at += size
            if stalls and chance.random() < 0.1:
                # until the transport has waited in vain, maybe within a frame
                stalls -= 1
                while ticked.acquire(blocking=False):
                    pass
                assert ticked.acquire(timeout=60)
        for _ in connection:
            pass

    with serve(converse, "127.0.0.1", 0, ping_interval=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with running(f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws", core, published):
                letters = [
                    published.wait_for(
                        lambda each: (
                            isinstance(each, Publication) and each.topic == "infoway.dead-letter"
                        )
                    )
                    for _ in sent
                ]
        finally:
            server.shutdown()
            thread.join()
    assert [letter.record.value for letter in letters] == sent
    assert core.counters.connections == 1
