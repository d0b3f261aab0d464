"""The transport where the network fails: no name, no trust, silence, half-open sockets, proxies;
and the end by a signal."""

import base64
import hashlib
import json
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager, suppress

import pytest
from unit.test_websocket import (
    KEY,
    TRADE,
    AtOnce,
    Published,
    Server,
    is_state,
    is_trade,
    protocol,
    running,
    serving,
)
from websockets.exceptions import ConnectionClosed

from infra.runtime.signals import stop_on_signals
from producers.transport.endpoint import Endpoint
from producers.transport.websocket import run_feed

TRADE_FRAME = json.dumps({"code": 10002, "data": TRADE})


@contextmanager
def listening(converse):
    """Run `converse` on each connection made to a loopback port, one after the other; yields the
    port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        over = threading.Event()

        def accept():
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                connection.settimeout(60)
                with connection:
                    with suppress(OSError):
                        converse(connection, over)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join(60)


def down_reasons(published, count):
    return [published.wait_for(is_state("down")).record.reason for _ in range(count)]


def headers(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(1024)
        if not received:
            return data
        data += received
    return data


def shake_hands(connection, more=b""):
    """Answer a handshake, with more headers; return what was asked."""
    asked = headers(connection)
    nonce = next(
        line for line in asked.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
    )
    digest = hashlib.sha1(nonce.split(b": ")[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n" + more + b"\r\n"
    )
    return asked


def test_name_that_does_not_resolve_is_tried_again(caplog):
    published, core = Published(), protocol()
    with running("wss://feed.invalid/ws", core, published):
        (reason,) = down_reasons(published, 1)
        deadline = time.monotonic() + 30
        while caplog.text.count("next try in") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert reason.startswith("no connection to wss://feed.invalid/ws")
    assert caplog.text.count("next try in") >= 2
    assert "s3cret" not in caplog.text


def test_certificate_that_nobody_vouches_for_is_refused_and_the_key_not_sent(tmp_path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
            "-days", "2", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    requests = []

    def converse(connection, _):
        with context.wrap_socket(connection, server_side=True) as encrypted:
            requests.append(encrypted.recv(1024))

    published = Published()
    with listening(converse) as port, running(f"wss://localhost:{port}/ws", protocol(), published):
        (reason,) = down_reasons(published, 1)
    assert "CERTIFICATE_VERIFY_FAILED" in reason
    assert not any(requests)


def test_server_that_accepts_and_says_nothing_is_given_up_and_tried_again(monkeypatch):
    monkeypatch.setattr("producers.transport.connecting._STEP", 0.3)
    accepted = threading.Semaphore(0)

    def converse(connection, over):
        accepted.release()
        # until the client gives up
        while connection.recv(4096):
            pass

    published = Published()
    with listening(converse) as port, running(f"ws://127.0.0.1:{port}/ws", protocol(), published):
        assert accepted.acquire(timeout=60)
        assert "timed out" in down_reasons(published, 1)[0]
        assert accepted.acquire(timeout=60)


def test_half_open_connection_is_noticed_by_its_missing_pongs_and_made_again(monkeypatch):
    monkeypatch.setattr("producers.feed.protocol.SILENCE", 1_000_000)
    connections = threading.Semaphore(0)

    def converse(connection, over):
        shake_hands(connection)
        connections.release()
        while connection.recv(1024):
            pass

    published, core = Published(), protocol()
    with listening(converse) as port, running(f"ws://127.0.0.1:{port}/ws", core, published):
        assert "no sign of life" in down_reasons(published, 1)[0]
        assert connections.acquire(timeout=60)
        assert connections.acquire(timeout=60)
    assert core.counters.losses >= 1


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_proxy_gets_a_tunnel_to_ask_for_and_never_the_key(monkeypatch, name):
    for other in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
    seen, tunnelled = [], threading.Event()

    def converse(connection, _):
        seen.append(headers(connection))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        seen.append(connection.recv(4096))
        tunnelled.set()

    published = Published()
    with listening(converse) as port:
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        with running("wss://feed.invalid/ws", protocol(), published):
            assert tunnelled.wait(60)
            down_reasons(published, 1)
    request, inside = seen[:2]
    assert request.startswith(b"CONNECT feed.invalid:443 HTTP/1.1\r\n")
    assert inside[:1] == b"\x16", "a TLS handshake"
    assert not any(b"s3cret" in data or b"apikey" in data for data in seen)


def test_proxy_that_refuses_does_not_count_as_a_refused_key(monkeypatch):
    for other in ("https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(other, raising=False)

    def converse(connection, _):
        headers(connection)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    published = Published()
    with listening(converse) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with running("wss://feed.invalid/ws", protocol(), published):
            assert "proxy" in down_reasons(published, 1)[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_received_before_a_signal_is_published_before_the_end(number):
    class Flooding(Server):
        def converse(self, connection):
            ending = threading.Event()

            def flood():
                while not ending.is_set():
                    connection.send(TRADE_FRAME)

            thread = threading.Thread(target=lambda: _until_closed(flood))
            thread.start()
            super().converse(connection)
            ending.set()
            thread.join(60)

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    stop, published, core = stop_on_signals(), Published(), protocol()
    try:
        with serving(Flooding()) as url:
            feed = threading.Thread(
                target=run_feed, args=(core, Endpoint(url, KEY), published, stop, AtOnce(1))
            )
            feed.start()
            first = [published.wait_for(is_trade) for _ in range(11)]
            signal.raise_signal(number)
            feed.join(60)
            assert not feed.is_alive()
    finally:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)
    rest = published.unseen()
    trades = [*first, *(output for output in rest if is_trade(output))]
    assert len(trades) == core.counters.trades > 10
    assert [output.record.sequence for output in trades] == list(range(1, len(trades) + 1))
    assert is_state("ended")(rest[-1])


def _until_closed(send):
    with suppress(ConnectionClosed, OSError):
        send()
