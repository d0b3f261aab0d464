"""The simulator over a real socket, by websocket-client: handshake, rules that need a clock,
playback, made-up markets."""

import json
import socket as sockets
import time
from contextlib import contextmanager

import pytest
import websocket

from infra.simulator import running_simulator
from infra.simulator.protocol import Limits
from infra.simulator.synthetic import MadeUpMarket


@pytest.fixture(scope="module")
def simulator():
    with running_simulator(rate=50) as running:
        yield running


@contextmanager
def connect(simulator, business="crypto", key="a-key"):
    socket = websocket.create_connection(
        f"{simulator.url}?business={business}&apikey={key}", timeout=60
    )
    try:
        yield socket
    finally:
        # close() leaves TCP open where the server has said goodbye first
        socket.shutdown()


def ask(socket, code, data, trace="t-1"):
    socket.send(json.dumps({"code": code, "trace": trace, "data": data}))


def receive(socket):
    return json.loads(socket.recv())


def until(socket, code):
    """Return the next frame with this code."""
    while True:
        frame = receive(socket)
        if frame["code"] == code:
            return frame


def to_end(socket):
    """Return the codes of the frames up to the end of the connection."""
    codes = []
    try:
        while text := socket.recv():
            codes.append(json.loads(text)["code"])
    except websocket.WebSocketConnectionClosedException:
        pass
    return codes


def recorded(path, frames):
    path.write_text(
        "".join(
            json.dumps({"recv_ms": received, "frame": frame}) + "\n" for received, frame in frames
        )
    )
    return path


def trade(symbol, number):
    return {
        "code": 10002,
        "data": {
            "s": symbol,
            "t": number,
            "p": "98.150",
            "v": "1",
            "vw": "98.150",
            "td": 0,
            "unknown": [number],
        },
    }


def book(symbol, number):
    return {"code": 10005, "data": {"s": symbol, "t": number, "a": None, "b": [["98.10"], ["5"]]}}


@pytest.mark.parametrize(
    "query", ["business=crypto&apikey=bad-key", "business=crypto&apikey=", "business=crypto"]
)
def test_a_refused_or_missing_key_is_http_401_at_the_handshake(simulator, query):
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(f"{simulator.url}?{query}", timeout=10)
    assert refused.value.status_code == 401


def test_an_unknown_business_is_refused_at_the_handshake(simulator):
    with (
        pytest.raises(websocket.WebSocketBadStatusException) as refused,
        connect(simulator, "stocks"),
    ):
        pass
    assert refused.value.status_code == 400


def test_stock_greets_in_plain_text_first(simulator):
    with connect(simulator, "stock") as socket:
        assert not socket.recv().startswith("{")
        assert receive(socket)["code"] == 200


@pytest.mark.parametrize(
    ("business", "symbol"),
    [
        ("stock", "00700.HK"),
        ("stock", "002594.SZ"),
        ("crypto", "BTCUSDT"),
        ("common", "USDJPY"),
        ("japan", "7203.JP"),
    ],
)
def test_every_channel_is_acked_with_its_trace_and_pushed(simulator, business, symbol):
    requests = {
        10000: {"codes": symbol},
        10003: {"codes": symbol},
        10006: {"arr": [{"type": 1, "codes": symbol}]},
    }
    with connect(simulator, business) as socket:
        if business == "stock":
            socket.recv()
        for code, data in requests.items():
            ask(socket, code, data, trace=f"trace-{code}")
            assert until(socket, code + 1)["trace"] == f"trace-{code}"
            assert until(socket, code + 2)["data"]["s"] == symbol


def test_event_times_are_now_in_milliseconds_and_klines_start_in_seconds(simulator):
    with connect(simulator) as socket:
        ask(socket, 10000, {"codes": "BTCUSDT"})
        ask(socket, 10006, {"arr": [{"type": 1, "codes": "BTCUSDT"}]})
        assert abs(until(socket, 10002)["data"]["t"] / 1000 - time.time()) < 10
        started = until(socket, 10008)["data"]["t"]
        assert started % 60 == 0
        assert abs(started - time.time()) < 70


def test_the_trade_type_comes_only_where_it_was_asked_for(simulator):
    with connect(simulator, "stock") as typed, connect(simulator, "stock") as plain:
        ask(typed, 10000, {"codes": "AAPL.US", "includeTy": True})
        ask(plain, 10000, {"codes": "AAPL.US"})
        typed.recv(), plain.recv()
        assert "ty" in until(typed, 10002)["data"]
        assert "ty" not in until(plain, 10002)["data"]


def test_a_wrong_business_and_an_unknown_code_are_acked_and_silent(simulator):
    with connect(simulator) as socket:
        assert receive(socket)["code"] == 200
        ask(socket, 10000, {"codes": "AAPL.US,nonsense"})
        assert receive(socket)["code"] == 10001
        ask(socket, 10000, {"codes": "BTCUSDT"})
        assert receive(socket)["code"] == 10001
        assert {receive(socket)["data"]["s"] for _ in range(20)} == {"BTCUSDT"}


def test_after_an_unsubscription_nothing_more_comes(simulator):
    with connect(simulator) as socket:
        ask(socket, 10000, {"codes": "BTCUSDT"})
        until(socket, 10002)
        ask(socket, 11000, {"codes": "BTCUSDT"}, trace="off")
        assert until(socket, 11010)["trace"] == "off"
        ask(socket, 10003, {"codes": "BTCUSDT"})
        # what was on its way may still arrive; after it books alone
        assert receive_codes(socket, 30)[-20:] == [10005] * 20


def receive_codes(socket, count):
    return [receive(socket)["code"] for _ in range(count)]


def test_a_websocket_ping_is_answered_and_a_heartbeat_is_not(simulator):
    with connect(simulator) as socket:
        receive(socket)
        ask(socket, 10010, None)
        socket.ping("now")
        opcode, frame = socket.recv_data_frame(control_frame=True)
        assert (opcode, frame.data) == (websocket.ABNF.OPCODE_PONG, b"now")


def test_a_client_without_heartbeats_is_told_513_and_closed():
    with running_simulator(limits=Limits(heartbeat=0.2)) as simulator, connect(simulator) as socket:
        assert to_end(socket) == [200, 513]


def test_a_client_that_sends_too_much_is_told_501_and_closed():
    with running_simulator(limits=Limits(frames=3)) as simulator, connect(simulator) as socket:
        for _ in range(4):
            ask(socket, 10010, None)
        assert to_end(socket) == [200, 501]


def test_a_recording_is_played_from_its_first_frame_in_order_and_unchanged(tmp_path):
    frames = [
        (1000 + number // 3, (trade, book)[number % 2]("AAPL.US", number + 1))
        for number in range(500)
    ]
    path = recorded(tmp_path / "a.jsonl", frames)
    with running_simulator([path], speed=0) as simulator, connect(simulator, "stock") as socket:
        socket.recv(), socket.recv()
        ask(socket, 10000, {"codes": "AAPL.US"})
        assert receive(socket)["code"] == 10001
        # nothing is played before everything in it is subscribed, so no frame is missed
        assert not simulator.finished.is_set()
        ask(socket, 10003, {"codes": "AAPL.US"})
        assert receive(socket)["code"] == 10004
        assert [receive(socket) for _ in frames] == [frame for _, frame in frames]
        assert simulator.finished.wait(60)


def test_several_files_and_connections_share_one_playback(tmp_path):
    coins = recorded(tmp_path / "coins.jsonl", [(1, trade("BTCUSDT", 1)), (3, trade("BTCUSDT", 3))])
    pairs = recorded(tmp_path / "pairs.jsonl", [(2, trade("USDJPY", 2)), (4, trade("USDJPY", 4))])
    with (
        running_simulator([coins, pairs], speed=0) as simulator,
        connect(simulator) as one,
        connect(simulator, "common") as other,
    ):
        ask(one, 10000, {"codes": "BTCUSDT"})
        ask(other, 10000, {"codes": "USDJPY"})
        assert [until(one, 10002)["data"]["t"] for _ in range(2)] == [1, 3]
        assert [until(other, 10002)["data"]["t"] for _ in range(2)] == [2, 4]


def test_a_speed_stretches_the_recorded_times(tmp_path):
    path = recorded(
        tmp_path / "a.jsonl", [(1000, trade("BTCUSDT", 1)), (7000, trade("BTCUSDT", 2))]
    )
    with running_simulator([path], speed=20) as simulator, connect(simulator) as socket:
        began = time.monotonic()
        ask(socket, 10000, {"codes": "BTCUSDT"})
        until(socket, 10002)
        until(socket, 10002)
        assert time.monotonic() - began > 0.25


def test_a_dropped_connection_ends_without_a_goodbye_and_a_new_one_is_served():
    with running_simulator() as simulator:
        with connect(simulator) as socket:
            receive(socket)
            simulator.drop_connections()
            with pytest.raises((ConnectionError, websocket.WebSocketConnectionClosedException)):
                socket.recv()
        with connect(simulator) as socket:
            assert receive(socket)["code"] == 200


def test_a_text_reaches_the_others_where_a_client_has_just_been_cut_off():
    with running_simulator() as simulator, connect(simulator) as gone:
        receive(gone)
        simulator.drop_connections()
        # the connection is cut, and its session mostly not yet gone
        simulator.send_raw("anybody?")
        with connect(simulator) as there:
            receive(there)
            simulator.send_raw("hello")
            assert there.recv() == "hello"


def test_any_text_can_be_sent_to_the_clients():
    with running_simulator() as simulator, connect(simulator) as socket:
        receive(socket)
        simulator.send_raw("Subscribe fail: not bought")
        assert socket.recv() == "Subscribe fail: not bought"


@pytest.fixture
def vast(tmp_path):
    """A recording of one frame that no buffer of a connection holds."""
    return recorded(
        tmp_path / "vast.jsonl",
        [(1, {"code": 10002, "data": {"s": "BTCUSDT", "padding": "x" * 24_000_000}})],
    )


def stop_reading(socket):
    """Subscribe, and read no more once the first byte of the vast frame is there."""
    assert receive(socket)["code"] == 200
    ask(socket, 10000, {"codes": "BTCUSDT"})
    assert receive(socket)["code"] == 10001
    assert socket.sock.recv(1, sockets.MSG_PEEK)


def test_a_client_that_does_not_read_keeps_no_other_from_its_heartbeat_timeout(vast):
    with (
        running_simulator([vast], speed=0, limits=Limits(heartbeat=5.0)) as simulator,
        connect(simulator) as stuck,
    ):
        stop_reading(stuck)
        with connect(simulator) as other:
            assert to_end(other) == [200, 513]


def test_a_client_that_does_not_read_does_not_hold_up_the_end(vast, monkeypatch):
    monkeypatch.setattr("infra.simulator.server.GOODBYE", 0.2)
    with running_simulator([vast], speed=0) as simulator:
        stuck = websocket.create_connection(
            f"{simulator.url}?business=crypto&apikey=a-key", timeout=10
        )
        stop_reading(stuck)
    stuck.shutdown()


def test_the_refused_keys_can_be_chosen_and_a_missing_one_always_is():
    with running_simulator(refused_keys={"expired"}) as simulator:
        for key in ("expired", ""):
            with (
                pytest.raises(websocket.WebSocketBadStatusException) as refused,
                connect(simulator, key=key),
            ):
                pass
            assert refused.value.status_code == 401
        with connect(simulator, key="bad-key") as socket:
            assert receive(socket)["code"] == 200


def test_a_recording_can_be_played_without_waiting_for_subscribers(tmp_path):
    path = recorded(tmp_path / "a.jsonl", [(1, trade("BTCUSDT", 1))])
    with running_simulator([path], speed=0, wait_for_subscribers=False) as simulator:
        assert simulator.finished.wait(60)


def test_broken_lines_are_reported_by_file_and_number_and_the_rest_is_played(tmp_path, caplog):
    path = recorded(tmp_path / "a.jsonl", [(1, trade("BTCUSDT", 1)), (2, trade("BTCUSDT", 2))])
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(f"{first}nonsense\n{second}")
    with running_simulator([path], speed=0) as simulator, connect(simulator) as socket:
        assert [record.getMessage().startswith(f"{path}:2: ") for record in caplog.records] == [
            True
        ]
        ask(socket, 10000, {"codes": "BTCUSDT"})
        assert [until(socket, 10002)["data"]["t"] for _ in range(2)] == [1, 2]
        assert len(simulator.recording.broken) == 1


def test_the_seed_chooses_the_tape():
    def first_trades(seed):
        with running_simulator(rate=50, seed=seed) as simulator, connect(simulator) as socket:
            ask(socket, 10000, {"codes": "BTCUSDT"})
            return [
                [until(socket, 10002)["data"][name] for name in ("p", "v", "td")] for _ in range(5)
            ]

    assert first_trades(1) == first_trades(1)
    assert first_trades(1) != first_trades(2)


def test_a_market_that_fails_is_told_at_the_end(monkeypatch):
    class FailingMarket(MadeUpMarket):
        def trade(self, now_ms):
            raise ArithmeticError(f"{self.symbol} failed")

    monkeypatch.setattr("infra.simulator.server.MadeUpMarket", FailingMarket)
    with (
        pytest.raises(ArithmeticError, match="BTCUSDT failed"),
        running_simulator(rate=1000) as simulator,
        connect(simulator) as socket,
    ):
        ask(socket, 10000, {"codes": "BTCUSDT"})
        assert until(socket, 10001)
        # the ack comes before the market is made
        while not simulator._markets or not all(
            market.done() for market in simulator._markets.values()
        ):
            socket.ping()
            socket.recv_data_frame(control_frame=True)
