"""Quotas by package, of a connection and of a key: what is refused, what frees it again, and the
ban that floods of frames bring."""

import json

import httpx
import pytest
import websocket
from unit.test_simulator_faults import wait_until
from unit.test_simulator_rest import request
from unit.test_simulator_server import ask, connect, receive, to_end, until

from infra.simulator import running_simulator
from infra.simulator.history import MadeUp
from infra.simulator.protocol import PACKAGES, ClientSession, Limits
from infra.simulator.rest import RestService
from infra.simulator.synthetic import MadeUpMarket


def session(**quotas):
    return ClientSession("crypto", 0.0, Limits(**quotas))


def subscribe(session, code, codes):
    data = {"arr": [{"type": 1, "codes": codes}]} if code == 10006 else {"codes": codes}
    return [
        json.loads(reply)["code"]
        for reply in session.receive(json.dumps({"code": code, "trace": "t", "data": data}), 1.0)
    ]


def test_symbols_over_the_connections_quota_are_refused_whole():
    one = session(a_connection=2)
    assert subscribe(one, 10000, "A,B") == [10001]
    assert subscribe(one, 10003, "A,B") == [10004]
    assert subscribe(one, 10003, "A,C") == [505]
    assert one.symbols() == {"A", "B"}
    assert one.receive(
        json.dumps(
            {
                "code": 10006,
                "data": {"arr": [{"type": 1, "codes": "A,B"}, {"type": 2, "codes": "A"}]},
            }
        ),
        1.0,
    ) == ['{"code":503,"msg":"more than 2 klines on a connection"}']


def test_symbols_over_the_accounts_quota_are_516_and_connections_512():
    limits = Limits(connections=2, symbols=2)
    with (
        running_simulator(limits=limits) as simulator,
        connect(simulator) as one,
        connect(simulator) as two,
    ):
        ask(one, 10000, {"codes": "BTCUSDT"})
        until(one, 10001)
        ask(two, 10000, {"codes": "ETHUSDT"})
        until(two, 10001)
        ask(two, 10003, {"codes": "SOLUSDT"})
        until(two, 516)
        with connect(simulator) as three:
            assert json.loads(three.recv())["code"] == 512
            assert not three.recv()
        with connect(simulator, key="another") as other:
            assert json.loads(other.recv())["code"] == 200


def test_more_requests_than_the_package_has_are_501():
    with (
        running_simulator(limits=PACKAGES["free"]) as simulator,
        httpx.Client(base_url=simulator.rest_url, headers={"apiKey": "k"}) as http,
    ):
        asked = (http.get(f"{simulator.rest_url}/package/info").json()["ret"] for _ in range(20))
        assert next(asked) == 200
        # between two requests the second may be over
        assert next(ret for ret in asked if ret != 200) == 501


def test_symbols_count_against_the_connections_quota_on_klines_too():
    one = session(a_connection=2)
    assert subscribe(one, 10006, "A,B,C") == [505]
    assert subscribe(one, 10006, "A,B") == [10007]
    assert subscribe(one, 10000, "C") == [505]
    assert one.symbols() == {"A", "B"}


@pytest.mark.parametrize(("code", "off"), [(10000, 11000), (10003, 11001), (10006, 11002)])
def test_an_unsubscription_frees_its_symbols(code, off):
    one = session(a_connection=2)
    subscribe(one, code, "A,B")
    assert subscribe(one, code, "C") == [505]
    one.receive(json.dumps({"code": off, "trace": "t", "data": {"codes": "A"}}), 1.0)
    assert subscribe(one, code, "C") == [10000 + code % 100 + 1]
    assert one.symbols() == {"B", "C"}


def test_a_symbol_that_another_channel_still_has_is_not_freed():
    one = session(a_connection=1)
    subscribe(one, 10000, "A")
    subscribe(one, 10003, "A")
    one.receive(json.dumps({"code": 11000, "trace": "t", "data": {"codes": "A"}}), 1.0)
    assert subscribe(one, 10000, "B") == [505]


def test_stock_has_words_before_its_quota_errors():
    one = ClientSession("stock", 0.0, Limits(a_connection=2, symbols=1))
    refused = [
        one.receive(json.dumps({"code": 10000, "trace": "t", "data": {"codes": codes}}), 1.0)[0]
        for codes in ("A,B,C", "A,B")
    ]
    assert [reply.partition("{")[0] for reply in refused] == ["Subscribe fail: "] * 2
    assert [json.loads(reply.removeprefix("Subscribe fail: "))["code"] for reply in refused] == [
        505,
        516,
    ]


def test_the_accounts_quota_is_a_keys_own_and_free_again_with_a_connection_and_an_unsubscription():
    with (
        running_simulator(limits=Limits(symbols=2)) as simulator,
        connect(simulator) as one,
        connect(simulator, key="another") as other,
    ):
        ask(other, 10000, {"codes": "ADAUSDT,XRPUSDT"})
        until(other, 10001)
        with connect(simulator) as two:
            ask(two, 10003, {"codes": "ETHUSDT"})
            until(two, 10004)
            ask(one, 10000, {"codes": "BTCUSDT,SOLUSDT"})
            until(one, 516)
        wait_until(lambda: len(simulator._clients) == 2)
        ask(one, 10000, {"codes": "BTCUSDT,SOLUSDT"})
        until(one, 10001)
        ask(one, 10003, {"codes": "BTCUSDT"})
        until(one, 10004)
        with connect(simulator) as two:
            ask(two, 10003, {"codes": "ETHUSDT"})
            until(two, 516)
            ask(one, 11000, {"codes": "SOLUSDT"})
            until(one, 11010)
            ask(two, 10003, {"codes": "ETHUSDT"})
            until(two, 10004)


def test_a_connection_that_ends_frees_its_place():
    with running_simulator(limits=Limits(connections=1)) as simulator:
        with connect(simulator) as one, connect(simulator) as two:
            assert (receive(one)["code"], receive(two)["code"]) == (200, 512)
        wait_until(lambda: not simulator._clients)
        with connect(simulator) as one:
            assert receive(one)["code"] == 200


def test_rest_has_so_many_requests_of_a_key_in_any_second():
    service = RestService(MadeUp(MadeUpMarket), (), Limits(requests=2))

    def ret(now_ms, key="one"):
        return json.loads(service.answer(request("GET", "/package/info", key=key), now_ms)[1])[
            "ret"
        ]

    assert [ret(now) for now in (0, 900, 999, 1000, 1500, 1899, 1900)] == [
        200,
        200,
        501,
        200,
        501,
        501,
        200,
    ]
    assert ret(1900, key="two") == 200


def flood(socket):
    for _ in range(10):
        ask(socket, 10010, None)
    return to_end(socket)


def test_a_key_is_banned_once_enough_of_its_connections_were_closed_for_too_many_frames():
    with (
        running_simulator(limits=Limits(frames=5, closures=2)) as simulator,
        connect(simulator) as quiet,
        connect(simulator, key="third") as third,
    ):
        assert receive(quiet)["code"] == 200
        with connect(simulator, key="another") as other, connect(simulator, key="another") as more:
            assert [flood(socket)[:2] for socket in (other, more)] == [[200, 501], [200, 501]]
        for number in range(2):
            with connect(simulator) as socket:
                assert flood(socket) == [200, 501], number
        assert to_end(quiet) == [511]
        for key in ("a-key", "another"):
            with (
                pytest.raises(websocket.WebSocketBadStatusException) as refused,
                connect(simulator, key=key),
            ):
                pass
            assert refused.value.status_code == 401
        ask(third, 10000, {"codes": "BTCUSDT"})
        until(third, 10002)
