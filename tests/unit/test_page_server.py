"""The live page's server: who may ask it, what its answers let a browser do, and what it says to
clients."""

import asyncio
import json
import threading
from contextlib import contextmanager

import httpx
import pytest
from aiohttp import ClientSession, WSServerHandshakeError, web
from page_records import bar, imbalance

from infra.cli.commands.running.dashboard import is_loopback
from infra.page import clients
from infra.page.access import COOKIE, Access, TokenWrong, token_of
from infra.page.follow import Told
from infra.page.market import Market
from infra.page.running import Address
from infra.page.series import Series
from infra.page.server import HEADERS, SOCKETS, PageServer
from schemas.topics import Topology

TOKEN = "a token of this very test"
NAMES = Topology("", ("1m", "5m"), ("1m", "session"))


def past(symbol, interval, lines):
    """One bar that was there before."""
    found = Series(symbol, interval, NAMES.windows)
    found.take(f"infoway.bars.{interval}", bar(symbol, interval), 1)
    return found


class Running:
    """A server in a thread."""

    def __init__(self, token):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.port = self.do(self._start(token))
        self.url = f"http://127.0.0.1:{self.port}"

    async def _start(self, token):
        self.market = Market(NAMES, past)
        self.server = PageServer(self.market, Access((), 0))
        app = self.server.app()
        app[SOCKETS] = set()
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        port = self.runner.addresses[0][1]
        self.server.access = Address("127.0.0.1", 0, ("page.example",), token).access(port)
        return port

    def do(self, coroutine):
        """Run something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    async def take(self, *batch):
        """Give the market a batch."""
        self.market.take(batch)

    def stop(self):
        """End the server."""
        self.do(self.runner.cleanup())
        self.do(self.market.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@contextmanager
def serving(token=""):
    """A running server."""
    running = Running(token)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def page():
    """A server without a token."""
    with serving() as running:
        yield running


@pytest.fixture
def guarded():
    """A server with a token."""
    with serving(TOKEN) as running:
        yield running


def get(running, path, **headers):
    return httpx.get(f"{running.url}{path}", headers=headers)


def test_every_answer_keeps_a_browser_to_this_server(page):
    for path, code in (("/", 200), ("/bokeh/bokeh.min.js", 200), ("/none", 404), ("/live", 403)):
        answer = get(page, path)
        assert answer.status_code == code
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe-eval" not in HEADERS["Content-Security-Policy"]
    assert "http" not in HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:{port}", "127.0.0.1:1", "page.example:1", ""]
)
def test_a_host_of_another_name_is_refused(page, host):
    answer = get(page, "/", Host=host.format(port=page.port))
    assert answer.status_code in (400, 403)
    assert "<html" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "LOCALHOST:{port}", "page.example:{port}"])
def test_a_host_of_ours_is_answered(page, host):
    assert get(page, "/", Host=host.format(port=page.port)).status_code == 200


def test_another_sites_page_gets_nothing(page):
    assert get(page, "/", Origin="http://evil.example").status_code == 403
    assert get(page, "/", Origin="null").status_code == 403
    assert get(page, "/", Origin=f"http://localhost:{page.port}").status_code == 403
    assert get(page, "/", Origin=page.url).status_code == 200
    assert httpx.post(f"{page.url}/login", data={"token": "x"}).status_code == 403


def handshake(running, **headers):
    async def ask():
        async with (
            ClientSession() as session,
            session.ws_connect(f"{running.url}/live", headers=headers) as socket,
        ):
            return (await socket.receive_json(timeout=10))["hello"]

    return asyncio.run(ask())


def test_a_websocket_needs_the_origin_of_the_page(page):
    for origin in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        with pytest.raises(WSServerHandshakeError) as refused:
            handshake(page, **origin)
        assert refused.value.status == 403
    assert handshake(page, Origin=page.url)["intervals"] == ["1m", "5m"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/bokeh/../../../LICENSE.txt",
        "/static//etc/passwd",
        "/static/",
        "/bokeh/bokeh.js",
    ],
)
def test_no_request_becomes_a_path(page, path):
    assert get(page, path).status_code == 404


def test_the_token_opens_the_page_and_is_in_no_answer(guarded):
    assert get(guarded, "/").headers["Location"] == "/login"
    assert get(guarded, "/static/main.js").status_code == 401
    with pytest.raises(WSServerHandshakeError) as refused:
        handshake(guarded, Origin=guarded.url)
    assert refused.value.status == 401
    with httpx.Client(base_url=guarded.url, headers={"Origin": guarded.url}) as browser:
        assert browser.get("/login").status_code == 200
        assert browser.post("/login", data={"token": "wrong"}).status_code == 403
        assert browser.get("/static/main.js").status_code == 401
        opened = browser.post("/login", data={"token": TOKEN})
        assert (opened.status_code, opened.headers["Location"]) == (303, "/")
        cookie = opened.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in str(opened.headers) + opened.text
        assert browser.get("/").status_code == 200
        shown = f"{COOKIE}={browser.cookies[COOKIE]}"
    assert handshake(guarded, Origin=guarded.url, Cookie=shown)
    assert get(guarded, "/", Authorization=f"Bearer {TOKEN}").status_code == 200
    assert get(guarded, "/?token=" + TOKEN).status_code == 303
    assert get(guarded, "/", Authorization="Bearer wrong").status_code == 303


def test_a_cookie_that_was_made_up_opens_nothing(monkeypatch):
    access = Access(("localhost",), 80, TOKEN)
    good = access.cookie()
    until, _, signature = good.partition(".")
    assert access.may_see("", good)
    for made_up in (
        "",
        ".",
        until,
        f"{int(until) + 1}.{signature}",
        f"{until}.{'0' * 64}",
        f"²{until}.{signature}",
    ):
        assert not access.may_see("", made_up)
    assert not Access(("localhost",), 80, "another token entirely").may_see("", good)
    monkeypatch.setattr("infra.page.access.time.time", lambda: int(until) + 1)
    assert not access.may_see("", good)


def test_a_token_is_long_and_comes_from_the_environment_or_a_file(tmp_path):
    assert token_of({}) == ""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert token_of({"INFOWAY_PAGE_TOKEN_FILE": str(file)}) == TOKEN
    for wrong in ({"INFOWAY_PAGE_TOKEN": "short"}, {"INFOWAY_PAGE_TOKEN_FILE": str(tmp_path)}):
        with pytest.raises(TokenWrong) as error:
            token_of(wrong)
        assert "short" not in str(error.value).replace("too short", "")


def test_only_loopback_is_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "localhost.evil.example")))


def talk(running, messages, until):
    """Send messages and return what came until `until` is true of one."""

    async def ask():
        found = []
        async with (
            ClientSession() as session,
            session.ws_connect(f"{running.url}/live", headers={"Origin": running.url}) as socket,
        ):
            for message in messages:
                await socket.send_str(message)
            while not found or not until(found[-1]):
                received = await socket.receive(timeout=10)
                if received.data is None or not isinstance(received.data, str):
                    return found, socket.close_code
                found.append(json.loads(received.data))
        return found, None

    return asyncio.run(ask())


SHOW = json.dumps({"show": {"symbol": "BTCUSDT", "interval": "1m"}})


def test_a_client_gets_what_is_there_and_what_was_before(page):
    page.do(page.take(Told("infoway.depth.imbalance", imbalance(), 5)))
    found, _ = talk(page, [SHOW], lambda each: each.get("series", {}).get("loaded"))
    assert [row["symbol"] for each in found for row in each.get("rows", ())] == ["BTCUSDT"]
    assert found[-1]["series"]["bars"][0]["vwap"] == "100.500000000000000001"
    assert found[-1]["status"]["newest_ms"] == 5


def test_a_symbol_that_no_topic_has_is_not_read(page):
    assert talk(page, [SHOW], lambda each: "status" in each)[1] is None
    assert not page.market._series


@pytest.mark.parametrize("message", ["{", '{"show": 1}', '"' + "x" * 5_000 + '"'])
def test_what_is_no_request_ends_the_connection(page, message):
    _, code = talk(page, [message], lambda each: False)
    assert code in (1008, 1009)


def test_a_client_that_asks_without_end_is_cut_off(page):
    _, code = talk(page, [SHOW] * (clients.MOST_REQUESTS + 1), lambda each: False)
    assert code == 1008


def test_only_so_many_clients_are_served(page, monkeypatch):
    monkeypatch.setattr("infra.page.server.MOST_CLIENTS", 0)
    with pytest.raises(WSServerHandshakeError) as refused:
        handshake(page, Origin=page.url)
    assert refused.value.status == 503
    monkeypatch.undo()
    assert handshake(page, Origin=page.url)


class SlowSocket:
    """A browser that takes each message after the market has changed a hundred times."""

    closed = False

    def __init__(self, market):
        self.market, self.sent = market, []

    async def send_str(self, text):
        self.sent.append(json.loads(text))
        for number in range(100):
            self.market.take([Told("infoway.depth.imbalance", imbalance(ts=number), number)])
        self.closed = len(self.sent) > 5


def test_a_slow_client_gets_the_newest_once_and_queues_nothing(monkeypatch):
    async def serve():
        monkeypatch.setattr(clients, "PERIOD_S", 0)
        market = Market(NAMES, past)
        socket = SlowSocket(market)
        await clients.PageClient(market, socket)._send_changes()
        await market.close()
        return socket.sent

    sent = asyncio.run(serve())
    assert [len(each.get("rows", ())) for each in sent] == [0, 1, 1, 1, 1, 1]


def test_notices_of_what_is_served_are_served(page):
    notices = get(page, "/third-party.txt").text
    assert "Bokeh Contributors" in notices
    assert "Redistributions in binary form" in notices
    assert "Underscore" in notices
