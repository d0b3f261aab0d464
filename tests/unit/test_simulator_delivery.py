"""Slow, burst and stalled delivery, and clients that do not read: each concerns whom it concerns,
and holds up nothing else."""

import json
import socket as sockets
import time

import httpx
import pytest
import websocket
from unit.test_simulator_faults import strike, wait_until
from unit.test_simulator_server import ask, connect, receive, stop_reading, to_end, until, vast

from infra.simulator import running_simulator
from infra.simulator.protocol import ClientSession, Limits
from infra.simulator.script import Fault
from infra.simulator.synthetic import MadeUpMarket

__all__ = ["vast"]


def subscribed(socket):
    ask(socket, 10000, {"codes": "BTCUSDT"})
    until(socket, 10001)


def test_a_stall_holds_up_no_later_step_and_no_later_connection():
    with running_simulator(rate=50) as simulator, connect(simulator) as stalled:
        subscribed(stalled)
        # however late the other comes, a step is still to be carried out
        steps = (Fault(second, "error", code=500) for second in range(1, 61))
        strike(simulator, Fault(0, "stall", seconds=60), *steps)
        wait_until(lambda: simulator._faults._stalled)
        with connect(simulator) as other:
            subscribed(other)
            until(other, 10002)
            assert until(other, 500)["msg"] == "by script"
            until(other, 10002)


def test_a_stalled_connection_reads_nothing_and_loses_pushes_until_the_longest_stall_is_over():
    with running_simulator(rate=50) as simulator:
        with connect(simulator) as socket:
            subscribed(socket)
            strike(simulator, Fault(0, "stall", seconds=1.5), Fault(0.1, "stall", seconds=0.1))
            wait_until(lambda: len(simulator._faults._lasting) == 2)
            end = max(until for until, _ in simulator._faults._lasting)
            ask(socket, 11000, {"codes": "BTCUSDT"})
            pushed = []
            while (frame := receive(socket))["code"] != 11010:
                pushed.append(frame["data"]["t"] / 1000)
            assert time.monotonic() >= end
            end += time.time() - time.monotonic()
            assert [each for each in pushed if end - 1.2 < each < end - 0.2] == []


@pytest.mark.parametrize(
    "fault",
    [Fault(0.4, "burst", seconds=1.0), Fault(0.4, "slow", seconds=1.0, delay=0.1)],
    ids=lambda fault: fault.do,
)
def test_pushes_that_come_late_come_all_and_in_order(fault):
    with running_simulator(rate=50) as simulator, connect(simulator) as socket:
        subscribed(socket)
        strike(simulator, fault)
        came = [until(socket, 10002)["data"] for _ in range(100)]
    market = MadeUpMarket("BTCUSDT", "crypto")
    for trade in came:
        assert market.trade(trade["t"]) == trade
        market.book(trade["t"])


def test_pushes_of_a_burst_wait_and_a_step_within_it_does_not():
    with running_simulator(rate=50) as simulator, connect(simulator) as socket:
        subscribed(socket)
        strike(simulator, Fault(0, "burst", seconds=3.0))
        (client,) = simulator._clients.values()
        wait_until(lambda: len(client.outbox._pushes) > 10)
        behind = [json.loads(push) for push in list(client.outbox._pushes)[:10]]
        strike(simulator, Fault(0, "error", code=500))
        before = []
        while (frame := receive(socket))["code"] != 500:
            before.append(frame)
        assert [frame for frame in before if frame in behind] == []
        assert [receive(socket) for _ in behind] == behind


def test_a_market_goes_on_while_its_pushes_are_slow():
    with (
        running_simulator(rate=50, script=[Fault(0, "slow", seconds=60, delay=60)]) as simulator,
        connect(simulator) as socket,
    ):
        subscribed(socket)
        with httpx.Client(
            base_url=simulator.rest_url, headers={"apiKey": "k"}, trust_env=False
        ) as http:

            def last():
                answer = http.get("/crypto/batch_trade/BTCUSDT").json()
                return answer["data"][0]["t"] if answer["ret"] == 200 else 0

            first = last()
            wait_until(lambda: last() > first + 100)


def test_a_client_that_does_not_read_takes_no_push_from_the_others(monkeypatch):
    class VastMarket(MadeUpMarket):
        def trade(self, now_ms):
            return {**super().trade(now_ms), "padding": "x" * 300_000}

    monkeypatch.setattr("infra.simulator.server.MadeUpMarket", VastMarket)
    monkeypatch.setattr("infra.simulator.server.GOODBYE", 0.2)
    with (
        running_simulator(rate=100) as simulator,
        connect(simulator) as stuck,
        connect(simulator) as reader,
    ):
        stuck.sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        subscribed(stuck)
        subscribed(reader)
        assert len([until(reader, 10002) for _ in range(60)]) == 60


def test_what_waits_for_a_client_that_does_not_read_is_bounded(monkeypatch, caplog):
    monkeypatch.setattr("infra.simulator.outbox.MOST", 20)
    with (
        running_simulator(rate=200, script=[Fault(0, "slow", seconds=60, delay=60)]) as simulator,
        connect(simulator) as socket,
    ):
        subscribed(socket)
        wait_until(lambda: "reads too slowly: with 20 pushes waiting" in caplog.text)
        (client,) = simulator._clients.values()
        assert len(client.outbox._pushes) == 20


def test_a_client_that_takes_no_goodbye_holds_up_no_other_heartbeat_check(vast, monkeypatch):
    with (
        running_simulator([vast], speed=0, limits=Limits(heartbeat=5.0)) as simulator,
        connect(simulator) as stuck,
    ):
        with monkeypatch.context() as patient:
            patient.setattr("infra.simulator.server.GOODBYE", 60.0)
            stop_reading(stuck)
            wait_until(lambda: next(iter(simulator._clients.values())).session.closing)
            with connect(simulator) as other:
                assert to_end(other) == [200, 513]


def test_a_session_that_ends_by_a_failure_is_counted_no_more(monkeypatch):
    def fail(self, text, now):
        raise ArithmeticError("a bug")

    with running_simulator(limits=Limits(connections=1)) as simulator:
        with monkeypatch.context() as broken:
            broken.setattr(ClientSession, "receive", fail)
            with connect(simulator) as socket:
                assert receive(socket)["code"] == 200
                ask(socket, 10010, None)
                assert to_end(socket) == []
        with connect(simulator) as socket:
            assert receive(socket)["code"] == 200


def test_a_client_that_breaks_off_within_a_frame_is_counted_no_more():
    with running_simulator(limits=Limits(connections=1)) as simulator:
        with connect(simulator) as socket:
            assert receive(socket)["code"] == 200
            socket.sock.sendall(b"\x81\xfe\x10\x00half")
        wait_until(lambda: not simulator._clients)
        with connect(simulator) as socket:
            assert receive(socket)["code"] == 200
            with pytest.raises(websocket.WebSocketTimeoutException):
                socket.settimeout(0.2)
                socket.recv()
