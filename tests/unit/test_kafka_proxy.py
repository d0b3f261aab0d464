"""The proxy of the fault tests, before a server that answers every request with its own bytes."""

import socket
import struct
import threading

import drill
import pytest
from kafka_proxy import Api, KafkaProxy, Listeners

from infra.embedded.ports import free_ports


class Server:
    """Answers a request with its correlation id and body, and keeps what it got."""

    def __init__(self):
        self.got = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            while body := read(connection):
                _, _, correlation, length = struct.unpack(">hhih", body[:10])
                self.got.append(body[10 + length :])
                write(connection, struct.pack(">i", correlation) + body[10 + length :])

    def close(self):
        self._listening.close()


class Client:
    """Asks as a Kafka client does."""

    def __init__(self, port, name="c"):
        self.connection = socket.create_connection(("127.0.0.1", port), 60)
        self.connection.settimeout(60)
        self.name, self.correlation = name.encode(), 0

    def send(self, api, body):
        self.correlation += 1
        write(
            self.connection,
            struct.pack(">hhih", api, 0, self.correlation, len(self.name)) + self.name + body,
        )

    def answer(self):
        """The next answer's body, None at the end of the connection."""
        try:
            frame = read(self.connection)
        except ConnectionError:
            return None
        return frame and frame[4:]

    def ask(self, api, body):
        self.send(api, body)
        return self.answer()

    def silent(self):
        """Whether no answer comes for a moment."""
        self.connection.settimeout(0.2)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.connection.settimeout(60)


def write(connection, body):
    connection.sendall(struct.pack(">i", len(body)) + body)


def read(connection):
    head = read_exactly(connection, 4)
    return head and read_exactly(connection, struct.unpack(">i", head)[0])


def read_exactly(connection, length):
    found = b""
    while len(found) < length:
        part = connection.recv(length - len(found))
        if not part:
            return None
        found += part
    return found


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture
def port():
    return free_ports(0)[0]


@pytest.fixture
def proxy(server, port):
    with KafkaProxy(port, server.port) as running:
        yield running


def test_what_no_fault_is_for_passes(proxy, server, port):
    client = Client(port)
    assert [
        client.ask(Api.METADATA, b"one"),
        client.ask(99, b"two"),
        client.ask(Api.PRODUCE, b"x" * 200_000),
    ] == [
        b"one",
        b"two",
        b"x" * 200_000,
    ]
    assert proxy.seen == {"METADATA": 1, "99": 1, "PRODUCE": 1}


def test_a_held_request_cuts_its_client_and_comes_later(proxy, server, port):
    held = proxy.hold(Api.END_TXN, nth=2)
    client = Client(port)
    assert client.ask(Api.END_TXN, b"first") == b"first"
    assert client.ask(Api.END_TXN, b"second") is None
    held.wait_struck()
    assert Client(port).ask(Api.END_TXN, b"second again") == b"second again"
    assert server.got == [b"first", b"second again"]
    held.deliver()
    assert held.answer[4:] == b"second"
    assert server.got[-1] == b"second"


def test_a_request_held_on_an_open_connection_is_overtaken_by_other_connections_alone(
    proxy, server, port
):
    held = proxy.hold(Api.PRODUCE, cut=False)
    client = Client(port)
    client.send(Api.PRODUCE, b"late")
    client.send(Api.METADATA, b"behind it")
    held.wait_struck()
    assert Client(port).ask(Api.PRODUCE, b"overtakes") == b"overtakes"
    assert client.silent()
    held.deliver()
    assert [client.answer(), client.answer()] == [b"late", b"behind it"]
    assert server.got == [b"overtakes", b"late", b"behind it"]


def test_a_fault_may_be_for_one_client(proxy, server, port):
    held = proxy.hold(Api.PRODUCE, client="other")
    assert Client(port).ask(Api.PRODUCE, b"x") == b"x"
    assert not held.struck
    assert Client(port, "other").ask(Api.PRODUCE, b"y") is None


@pytest.mark.parametrize("before", [False, True])
def test_an_answer_is_cut_off(proxy, server, port, before):
    cut = proxy.cut_answer(Api.END_TXN, before=before)
    assert Client(port).ask(Api.END_TXN, b"x") is None
    assert cut.wait_answered()[4:] == b"x"
    assert server.got == [b"x"]
    assert Client(port).ask(Api.END_TXN, b"y") == b"y"


def test_an_answer_is_dropped_on_a_connection_that_goes_on(proxy, server, port):
    dropped = proxy.drop_answer(Api.END_TXN)
    client = Client(port)
    client.send(Api.END_TXN, b"x")
    dropped.wait_answered()
    assert client.ask(Api.END_TXN, b"y") == b"y"


def test_connections_are_cut_and_refused(proxy, server, port):
    client = Client(port)
    assert client.ask(Api.METADATA, b"x") == b"x"
    proxy.cut()
    assert client.answer() is None
    client = Client(port)
    assert client.ask(Api.METADATA, b"x") == b"x"
    proxy.refuse()
    assert client.answer() is None
    assert Client(port).answer() is None
    proxy.restore()
    assert Client(port).ask(Api.METADATA, b"x") == b"x"


def test_a_frozen_connection_stays_open_and_passes_on_what_it_held_up(proxy, server, port):
    client = Client(port)
    proxy.freeze()
    client.send(Api.METADATA, b"x")
    assert client.silent()
    assert server.got == []
    proxy.restore()
    assert client.answer() == b"x"


def test_requests_and_answers_are_delayed(proxy, server, port):
    client = Client(port)
    proxy.delay_s = 0.3
    client.send(Api.METADATA, b"x")
    assert client.silent()
    assert client.answer() == b"x"


def test_a_proxy_ends_with_what_it_holds(server, port):
    with KafkaProxy(port, server.port) as proxy:
        proxy.hold(Api.PRODUCE, cut=False)
        client = Client(port)
        client.send(Api.PRODUCE, b"never")
        proxy.freeze()
    assert client.answer() is None
    assert drill.wait_until(
        lambda: not any(each.name.startswith("kafka-proxy") for each in threading.enumerate()), 10
    )


def test_the_broker_advertises_the_proxy(server):
    listeners = Listeners(2)
    changed = listeners.properties(
        {
            "listeners": "A://h:1",
            "advertised.listeners": "A://h:1",
            "listener.security.protocol.map": "A:P",
        }
    )
    assert changed["listener.security.protocol.map"] == "A:P,PROXIED0:PLAINTEXT,PROXIED1:PLAINTEXT"
    for number in (0, 1):
        proxy = listeners.proxy(number)
        assert f",PROXIED{number}://{proxy.address}" in changed["advertised.listeners"]
        assert f",PROXIED{number}://{proxy.address}" not in changed["listeners"]
