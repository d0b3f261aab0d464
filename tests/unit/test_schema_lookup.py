"""When a schema id is asked for, when it is unknown for good, and what the worker does while nobody
answers."""

import asyncio
import json
import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from raw_message import Message
from unit.raw_records import raw_trade

from processors.decode.lookup import DENIED_S, REMEMBERED_S, SchemaLookup
from processors.decode.raw_records import trade_of
from processors.decode.reader import RawReader
from processors.engine.engine import Engine
from processors.engine.outputs import Outputs
from processors.engine.plane import reading
from processors.engine.plane.reading import wait_for_schemas
from processors.engine.transactions.group import Member
from processors.model.records import Unreadable
from schemas.clients.registry import MOST_BYTES, Registry, RegistryError, UnknownSchema
from schemas.foreign.types import UnreadableSchema
from schemas.topics import load_example, load_schema
from schemas.wire import compile_encoder

TRADE = load_schema("raw_trade")
VALUE = compile_encoder(TRADE, 5)(*load_example("raw_trade").values())
FOUND = httpx.Response(200, json={"schema": json.dumps(TRADE)})
DENIED = httpx.Response(404, json={"error_code": 40403, "message": "no"})


class Asked:
    """A registry that answers as it is set to, and the clock of whoever asks."""

    def __init__(self, answer=FOUND):
        self.now, self.answer, self.questions = 1000.0, answer, []
        registry = Registry("http://registry.invalid/apis/ccompat/v7")
        registry._http = httpx.Client(
            base_url=registry.url, transport=httpx.MockTransport(self._respond)
        )
        self.lookup = SchemaLookup(registry, lambda: self.now)

    def _respond(self, request):
        self.questions.append(request.url.path.rpartition("/")[2])
        if isinstance(self.answer, Exception):
            raise self.answer
        return httpx.Response(self.answer.status_code, content=self.answer.content)

    def ask(self, after=0.0):
        self.now += after
        return self.lookup.ask(self.lookup.lacking([VALUE]))


def message(value=VALUE, offset=7, headers=None):
    return Message(offset, value, b"A", headers)


def test_an_id_is_asked_for_once_for_all_its_records():
    asked = Asked()
    assert asked.lookup.lacking([VALUE] * 4000 + [None, b"", b"\1noise"]) == {5}
    assert asked.ask() is None
    assert asked.lookup.lacking([VALUE] * 4000) == set()
    assert asked.questions == ["5"]


def test_an_id_is_unknown_once_it_was_denied_for_30_s_and_then_for_5_min():
    asked = Asked(DENIED)
    assert "no schema of id 5 yet" in asked.ask()
    assert asked.ask(DENIED_S - 0.1) is not None
    assert asked.ask(0.2) is None
    reader = RawReader(asked.lookup, TRADE, trade_of)
    assert reader(message()).error_class == "UnknownSchema"
    assert asked.lookup.lacking([VALUE]) == set()
    asked.now += REMEMBERED_S - 1
    assert asked.lookup.lacking([VALUE]) == set()
    asked.now += 2
    # it has been denied for long: one question is enough
    assert asked.ask() is None
    assert len(asked.questions) == 4
    asked.now += REMEMBERED_S + 1
    asked.answer = FOUND
    assert asked.ask() is None
    assert not isinstance(reader(message()), Unreadable)


def test_the_letter_of_an_unknown_id_names_no_address():
    """Replayed by way of another address of the registry, the log gives the same bytes."""
    asked = Asked(DENIED)
    while asked.ask(after=DENIED_S) is not None:
        pass
    letter = RawReader(asked.lookup, TRADE, trade_of)(message())
    assert letter.error_text == "the schema registry knows no schema of id 5"


def test_a_redriven_record_is_asked_for_again_once_and_without_a_wait():
    asked = Asked(DENIED)
    while asked.ask(after=DENIED_S) is not None:
        pass
    before = len(asked.questions)

    def run(*messages):
        assert asyncio.run(wait_for_schemas(engine(), asked.lookup, messages, lambda: True))
        return RawReader(asked.lookup, TRADE, trade_of)(messages[-1])

    redriven = message(headers=[("dead-letter-attempts", b"1")])
    assert run(message(headers=[("trace", b"1")])).error_class == "UnknownSchema"
    assert len(asked.questions) == before
    assert run(*[redriven] * 3).error_class == "UnknownSchema"
    assert len(asked.questions) == before + 1
    asked.answer = FOUND
    assert run(redriven) == trade_of(7, raw_trade(load_example("raw_trade")))
    assert len(asked.questions) == before + 2


def test_a_replica_that_lags_makes_no_dead_letter():
    asked = Asked(DENIED)
    assert asked.ask() is not None
    asked.answer = FOUND
    assert asked.ask(20) is None
    assert RawReader(asked.lookup, TRADE, trade_of)(message()) == trade_of(
        7, raw_trade(load_example("raw_trade"))
    )


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(503),
        httpx.Response(401),
        httpx.Response(404),
        httpx.ReadTimeout("slow"),
    ],
    ids=str,
)
def test_no_other_answer_ever_makes_one(answer):
    asked = Asked(answer)
    for _ in range(10):
        assert "schema registry" in asked.ask(after=DENIED_S)
    # nor do two denials with an error between them
    asked.answer = DENIED
    assert asked.ask() is not None
    asked.answer = answer
    assert asked.ask(DENIED_S / 2) is not None
    asked.answer = DENIED
    assert asked.ask(DENIED_S / 2) is not None


def test_ids_that_are_made_up_are_forgotten():
    asked = Asked(DENIED)
    for number in range(300):
        asked.now += 10
        asked.lookup.ask([number])
    assert len(asked.lookup._denied_at) <= 2 * REMEMBERED_S / 10 + 1
    assert len(asked.lookup._denied_since) <= 2 * REMEMBERED_S / 10 + 1


def engine():
    return Engine("", "", (), Outputs({}), membership=lambda: Member("g", 1, "m"))


def test_a_worker_waits_for_a_registry_that_is_away_names_it_and_goes_on(monkeypatch, caplog):
    """The loop turns, one line is logged at each change; nothing is decoded and nobody ends."""
    monkeypatch.setattr(reading, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(reading, "TURN_S", 0.01)
    asked, waiting, turns = Asked(httpx.ReadTimeout("slow")), engine(), []

    async def run():
        waits = asyncio.ensure_future(
            wait_for_schemas(waiting, asked.lookup, [message()] * 3, lambda: True)
        )
        while len(asked.questions) < 4:
            assert not waits.done()
            turns.append(1)
            await asyncio.sleep(0.005)
        assert waiting.waiting_for.startswith("the schema registry for")
        asked.answer = FOUND
        return await waits

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(run())
    assert waiting.waiting_for is None
    assert turns
    said, over = (record.getMessage() for record in caplog.records)
    assert said.startswith("waiting for the schema registry for 0 s: ")
    assert over.startswith("the schema registry is there again after")


def test_a_wait_ends_with_the_assignment(monkeypatch):
    monkeypatch.setattr(reading, "TURN_S", 0.01)
    asked, waiting = Asked(httpx.ReadTimeout("slow")), engine()
    assert not asyncio.run(
        wait_for_schemas(waiting, asked.lookup, [message()], lambda: not asked.questions)
    )
    assert waiting.waiting_for is None


class Hostile(BaseHTTPRequestHandler):
    """A registry that answers without end."""

    def do_GET(self):
        self.send_response(200)
        if self.path.endswith("/3"):
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if self.path.endswith("/1"):
            self.pour(b"x" * 65536, 0)
        elif self.path.endswith("/2"):
            self.pour(b" ", 0.05)
        elif self.path.endswith("/4"):
            self.wfile.write(b"[" * 200_000)
        elif self.path.endswith("/5"):
            self.wfile.write(json.dumps({"schema": "[" * 100_000}).encode())
        elif self.path.endswith("/6"):
            self.wfile.write(json.dumps({"schema": "[" * 60_000}).encode())
        elif self.path.endswith("/7"):
            self.wfile.write(b'["schema"]')

    def pour(self, piece, pause):
        try:
            while True:
                self.wfile.write(piece)
                self.server.ending.wait(pause)
                if self.server.ending.is_set():
                    return
        except OSError:
            self.server.broken.set()

    def log_message(self, *_):
        pass


@pytest.fixture
def hostile():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    server.ending, server.broken = threading.Event(), threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.ending.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("schema_id", "why"),
    [
        (1, f"more than {MOST_BYTES} bytes"),
        (2, "not whole after 1 s"),
        (3, "packs"),
        (4, "no schema registry's API"),
        (7, "which its API does not"),
    ],
)
def test_an_answer_without_end_is_an_error(hostile, schema_id, why):
    # the one whose answer is to come too late, and those whose answer is to be looked at
    timeout = 1.0 if schema_id == 2 else 30.0
    registry = Registry(f"http://127.0.0.1:{hostile.server_port}", timeout=timeout)
    for _ in range(2):  # a second call finds a client that works
        # who may register may register what is too large: it is unreadable, and nothing to wait for
        with pytest.raises(UnreadableSchema if schema_id == 1 else RegistryError, match=why):
            registry.schema(schema_id)
    if schema_id in (1, 2):
        assert hostile.broken.wait(60)
    registry.close()


def test_headers_that_dribble_end_too():
    """Each read gets its byte in time, and the answer would take for ever."""
    ending = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def dribble():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                while not ending.wait(0.05):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        threading.Thread(target=dribble, daemon=True).start()
        registry = Registry(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5)
        with pytest.raises(RegistryError, match="not whole after"):
            registry.schema(1)
        ending.set()


def test_a_request_that_is_left_without_an_answer_is_made_once_more():
    """Apicurio on a busy machine leaves one with a body without an answer now and then."""
    asked = []

    class Forgetful(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            if len(asked) != 1:
                answer = b'{"id": 7}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            else:
                forgotten.wait(10)

        def do_GET(self):
            asked.append(None)
            forgotten.wait(10)

        def log_message(self, *_):
            pass

    forgotten = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Forgetful) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        registry = Registry(f"http://127.0.0.1:{server.server_port}", timeout=2.0)
        assert registry.id_of("infoway.late-value", TRADE) == 7
        assert len(asked) == 2
        asked.clear()
        with pytest.raises(RegistryError, match="not whole after"):
            registry.schema(1)
        assert asked == [None]  # whoever waits for a schema asks again by itself
        forgotten.set()
        server.shutdown()


@pytest.mark.parametrize("schema_id", [5, 6])
def test_a_schema_that_is_no_schema_is_a_dead_letter_and_no_error(hostile, schema_id):
    registry = Registry(f"http://127.0.0.1:{hostile.server_port}")
    lookup = SchemaLookup(registry)
    assert lookup.ask({schema_id}) is None
    record = RawReader(lookup, TRADE, trade_of)(message(b"\0\0\0\0" + bytes([schema_id])))
    assert record.error_class == "UnreadableSchema"
    with pytest.raises(UnknownSchema):
        lookup.schema(8)
    registry.close()


def test_a_subject_is_one_part_of_a_path():
    asked = []
    registry = Registry("http://registry.invalid/api")
    registry._http = httpx.Client(
        base_url=registry.url,
        transport=httpx.MockTransport(
            lambda request: asked.append(request.url.raw_path) or httpx.Response(404)
        ),
    )
    for call in (registry.compatibility, registry.latest_version):
        with pytest.raises(RegistryError):
            call("../../admin?x=1#y")
    assert asked == [
        b"/api/config/..%2F..%2Fadmin%3Fx%3D1%23y",
        b"/api/subjects/..%2F..%2Fadmin%3Fx%3D1%23y/versions",
    ]


def test_the_loop_is_free_while_the_registry_is_asked(monkeypatch):
    """4,000 records of ids that nobody knows are one question each id, in a thread."""
    monkeypatch.setattr(reading, "TURN_S", 0.01)
    loop_thread, threads = threading.get_ident(), set()
    asked = Asked(DENIED)
    ask = asked.lookup.ask

    def watched(ids):
        threads.add(threading.get_ident())
        time.sleep(0.05)
        asked.now += DENIED_S
        return ask(ids)

    asked.lookup.ask = watched
    monkeypatch.setattr(reading, "FIRST_PAUSE_S", 0.01)
    run = [message(b"\0\0\0\0" + bytes([number % 3]) + b"x", number) for number in range(4000)]
    assert asyncio.run(wait_for_schemas(engine(), asked.lookup, run, lambda: True))
    assert sorted(asked.questions) == ["0", "0", "1", "1", "2", "2"]
    assert loop_thread not in threads
