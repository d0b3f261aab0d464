"""The simulator against code that is not ours: the vendor's own client, infoway-sdk."""

import asyncio
import json
import re
from decimal import Decimal

import pytest
from infoway import InfowayAuthError, InfowayRateLimitError, WsErrorCode
from infoway.ws import InfowayWebSocket

from infra.simulator import running_simulator
from infra.simulator.protocol import Limits
from infra.simulator.script import Fault
from infra.simulator.synthetic import MadeUpMarket

WITHIN = 20.0


@pytest.fixture(scope="module")
def simulator():
    with running_simulator(rate=20) as running:
        yield running


class Heard:
    """What a client's callbacks were given; a test waits for it."""

    def __init__(self, client):
        self.frames = {"trade": asyncio.Queue(), "depth": asyncio.Queue(), "kline": asyncio.Queue()}
        self.errors = []
        self.failed = asyncio.Event()
        client.on_trade, client.on_depth, client.on_kline = (
            self._keep(channel) for channel in self.frames
        )
        client.on_error = self._fail

    def _keep(self, channel):
        async def keep(data):
            self.frames[channel].put_nowait(data)

        return keep

    async def _fail(self, error):
        self.errors.append(error)
        self.failed.set()

    async def next(self, channel):
        return await asyncio.wait_for(self.frames[channel].get(), WITHIN)

    async def error(self):
        """Return the first error."""
        await asyncio.wait_for(self.failed.wait(), WITHIN)
        return self.errors[0]


def client_of(simulator, business, **options):
    return InfowayWebSocket(
        "a-key", business, base_url=simulator.url, max_reconnect_attempts=1, **options
    )


@pytest.mark.parametrize(
    ("business", "symbol"),
    [("stock", "00700.HK"), ("stock", "AAPL.US"), ("crypto", "BTCUSDT"), ("common", "USDJPY")],
)
def test_it_receives_the_trades_books_and_klines_that_it_subscribes_to(simulator, business, symbol):
    async def converse():
        client = client_of(simulator, business)
        heard = Heard(client)
        await client.subscribe_trade(symbol)
        await client.subscribe_depth(symbol)
        await client.subscribe_kline(symbol)
        running = asyncio.create_task(client.connect())
        try:
            received = {channel: await heard.next(channel) for channel in heard.frames}
        finally:
            await client.close()
            await asyncio.wait_for(running, WITHIN)
        return received, heard.errors

    received, errors = asyncio.run(converse())
    assert errors == []
    assert {data["s"] for data in received.values()} == {symbol}
    assert received["trade"].keys() == {"s", "t", "p", "v", "vw", "td"}
    assert received["depth"].keys() == {"s", "t", "a", "b"}
    assert received["kline"].keys() == {"s", "o", "h", "l", "c", "v", "vw", "pca", "pfr", "t", "ty"}


def test_it_parses_what_it_receives_into_its_own_types(simulator):
    async def converse():
        client = client_of(simulator, "crypto", parse=True)
        heard = Heard(client)
        await client.subscribe_trade(["BTCUSDT", "ETHUSDT"])
        running = asyncio.create_task(client.connect())
        try:
            return await heard.next("trade")
        finally:
            await client.close()
            await asyncio.wait_for(running, WITHIN)

    trade = asyncio.run(converse())
    assert isinstance(trade["p"], Decimal)
    assert isinstance(trade["v"], Decimal)
    assert trade["t"].tzinfo is not None


def test_it_hears_no_trade_after_unsubscribing(simulator):
    async def converse():
        client = client_of(simulator, "crypto")
        heard, frames = Heard(client), asyncio.Queue()
        client.on_frame = frames.put_nowait
        await client.subscribe_trade("BTCUSDT")
        await client.subscribe_depth("BTCUSDT")
        running = asyncio.create_task(client.connect())
        try:
            await heard.next("trade")
            await client.unsubscribe_trade("BTCUSDT")
            while '"code":11010' not in await asyncio.wait_for(frames.get(), WITHIN):
                pass
            while not heard.frames["trade"].empty():
                heard.frames["trade"].get_nowait()
            for _ in range(10):
                await heard.next("depth")
            return heard.frames["trade"].qsize()
        finally:
            await client.close()
            await asyncio.wait_for(running, WITHIN)

    # one trade may have been on its way
    assert asyncio.run(converse()) <= 1


def test_it_hears_every_frame_of_a_recording_in_order(tmp_path):
    frames = []
    for number in range(1, 1001):
        push = (
            {"t": number, "p": "98.150", "v": "2", "vw": "196.300", "td": 0}
            if number % 2
            else {"t": number, "a": None, "b": [[], []]}
        )
        frames.append(
            {
                "code": 10002 if number % 2 else 10005,
                "data": {"s": ("AAPL.US", "00700.HK")[number % 3 == 0], **push},
            }
        )
    path = tmp_path / "made.jsonl"
    path.write_text(
        "".join(
            json.dumps({"recv_ms": 1000 + number // 7, "frame": frame}) + "\n"
            for number, frame in enumerate(frames)
        )
    )

    async def converse(simulator):
        client = client_of(simulator, "stock")
        heard, pushed, complete = Heard(client), [], asyncio.Event()

        def keep(text):
            frame = json.loads(text) if text.startswith("{") else {}
            if "data" in frame:
                pushed.append(frame)
            if len(pushed) == len(frames):
                complete.set()

        client.on_frame = keep
        await client.subscribe_trade("AAPL.US,00700.HK")
        await client.subscribe_depth("AAPL.US,00700.HK")
        running = asyncio.create_task(client.connect())
        try:
            await asyncio.wait_for(complete.wait(), WITHIN)
        finally:
            await client.close()
            await asyncio.wait_for(running, WITHIN)
        return pushed, {
            channel: [queue.get_nowait() for _ in range(queue.qsize())]
            for channel, queue in heard.frames.items()
        }

    with running_simulator([path], speed=0) as simulator:
        pushed, heard = asyncio.run(converse(simulator))
    assert pushed == frames
    assert heard["trade"] == [frame["data"] for frame in frames if frame["code"] == 10002]
    assert heard["depth"] == [frame["data"] for frame in frames if frame["code"] == 10005]


def test_a_refused_key_is_its_authentication_error_and_it_does_not_try_again(simulator):
    async def converse():
        client = InfowayWebSocket("bad-key", "crypto", base_url=simulator.url)
        retries = []
        client.on_reconnect = lambda: retries.append("reconnect")
        client.on_disconnect = lambda: retries.append("disconnect")
        with pytest.raises(InfowayAuthError, match="401"):
            # unlimited attempts are its default: that it ends at all is its not trying again
            await asyncio.wait_for(client.connect(), WITHIN)
        return retries

    assert asyncio.run(converse()) == []


def test_without_a_heartbeat_it_is_told_513_and_cut_off_and_hears_trades_again_once_it_is_back():
    async def converse(simulator):
        # a heartbeat every 30 s is too late here
        client = InfowayWebSocket("a-key", "crypto", base_url=simulator.url)
        heard, frames, back = Heard(client), asyncio.Queue(), asyncio.Event()
        client.on_frame = frames.put_nowait

        async def reconnected():
            back.set()

        client.on_reconnect = reconnected
        await client.subscribe_trade("BTCUSDT")
        running = asyncio.create_task(client.connect())
        try:
            await heard.next("trade")
            while '"code":513' not in await asyncio.wait_for(frames.get(), WITHIN):
                pass
            await asyncio.wait_for(back.wait(), WITHIN)
            while not heard.frames["trade"].empty():
                heard.frames["trade"].get_nowait()
            return await heard.next("trade")
        finally:
            await client.close()
            await asyncio.wait_for(running, WITHIN)

    with running_simulator(rate=20, limits=Limits(heartbeat=1.0)) as simulator:
        assert asyncio.run(converse(simulator))["s"] == "BTCUSDT"


async def refused(simulator, code=None):
    """Return the client's error of its subscription; after a code that ends it, it ends by
    itself."""
    client = client_of(simulator, "crypto")
    heard = Heard(client)
    await client.subscribe_trade("BTCUSDT")
    running = asyncio.create_task(client.connect())
    try:
        error = await heard.error()
        if code is not None and WsErrorCode.is_terminal(code):
            await asyncio.wait_for(running, WITHIN)
        return error
    finally:
        await client.close()
        await asyncio.wait_for(running, WITHIN)


@pytest.mark.parametrize("shape", ["next_error", "next_fail"])
@pytest.mark.parametrize("code", list(WsErrorCode), ids=lambda code: code.name)
def test_every_code_by_script_is_its_error_of_that_name_with_its_own_trace(shape, code):
    with running_simulator(script=[Fault(0, shape, code=int(code), symbol="BTCUSDT")]) as simulator:
        error = asyncio.run(refused(simulator, code))
    assert (error.ret, error.error_name, error.msg) == (code, code.name, "by script")
    assert re.fullmatch("[0-9a-f]{12}", error.trace_id)
    assert isinstance(error, InfowayRateLimitError) == (code in (501, 502))


@pytest.mark.parametrize("code", [427, 429])
def test_a_code_that_it_does_not_know_reaches_it_and_breaks_nothing(code):
    async def converse(simulator):
        client = client_of(simulator, "crypto")
        heard, frames = Heard(client), asyncio.Queue()
        client.on_frame = frames.put_nowait
        await client.subscribe_trade("BTCUSDT")
        await client.subscribe_depth("BTCUSDT")
        running = asyncio.create_task(client.connect())
        try:
            while f'"code":{code}' not in await asyncio.wait_for(frames.get(), WITHIN):
                pass
            return await heard.next("depth"), heard.errors
        finally:
            await client.close()
            await asyncio.wait_for(running, WITHIN)

    with running_simulator(
        rate=20, script=[Fault(0, "next_error", code=code, request=10000)]
    ) as simulator:
        book, errors = asyncio.run(converse(simulator))
    assert (book["s"], errors) == ("BTCUSDT", [])


def test_a_failure_in_words_is_its_error_without_a_code():
    with running_simulator(script=[Fault(0, "next_prose")]) as simulator:
        error = asyncio.run(refused(simulator))
    assert (error.ret, error.error_name, error.msg) == (0, "SUBSCRIBE_FAIL", "by script")


def test_it_subscribes_again_on_the_same_socket_after_516():
    async def converse(simulator):
        client = client_of(simulator, "crypto")
        client._subscribe_retry = 0.1  # 2 s by itself
        heard, lost = Heard(client), []
        client.on_disconnect = lambda: lost.append(True)
        await client.subscribe_trade("BTCUSDT")
        running = asyncio.create_task(client.connect())
        try:
            return await heard.next("trade"), heard.errors, lost
        finally:
            await client.close()
            await asyncio.wait_for(running, WITHIN)

    with running_simulator(rate=20, script=[Fault(0, "next_error", code=516)]) as simulator:
        trade, errors, lost = asyncio.run(converse(simulator))
    assert (trade["s"], [error.ret for error in errors], lost) == ("BTCUSDT", [516], [])


def test_it_hears_its_other_interval_after_unsubscribing_from_one():
    async def converse(simulator):
        client = client_of(simulator, "crypto")
        heard, frames = Heard(client), asyncio.Queue()
        client.on_frame = frames.put_nowait
        for number in (1, 2):
            await client.subscribe_kline("BTCUSDT", number)
        running = asyncio.create_task(client.connect())
        try:
            await heard.next("kline")
            await client.unsubscribe_kline("BTCUSDT", 1)
            while '"code":11010' not in await asyncio.wait_for(frames.get(), WITHIN):
                pass
            while not heard.frames["kline"].empty():
                heard.frames["kline"].get_nowait()
            return [(await heard.next("kline"))["ty"] for _ in range(10)]
        finally:
            await client.close()
            await asyncio.wait_for(running, WITHIN)

    with running_simulator(rate=50) as simulator:
        # one kline may have been on its way
        assert set(asyncio.run(converse(simulator))[1:]) == {2}


@pytest.mark.parametrize(
    "shape",
    [Fault(0, "burst", seconds=0.5), Fault(0, "slow", seconds=0.5, delay=0.05)],
    ids=lambda fault: fault.do,
)
def test_what_comes_late_comes_whole_and_in_order(shape):
    async def converse(simulator):
        client = client_of(simulator, "crypto")
        heard = Heard(client)
        await client.subscribe_trade("BTCUSDT")
        running = asyncio.create_task(client.connect())
        try:
            return [await heard.next("trade") for _ in range(60)], heard.errors
        finally:
            await client.close()
            await asyncio.wait_for(running, WITHIN)

    with running_simulator(rate=50, script=[shape]) as simulator:
        trades, errors = asyncio.run(converse(simulator))
    market = MadeUpMarket("BTCUSDT", "crypto")
    for trade in trades:
        assert market.trade(trade["t"]) == trade
        market.book(trade["t"])
    assert errors == []
