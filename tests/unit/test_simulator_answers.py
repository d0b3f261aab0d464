"""Requests that are answered by script: every code in every shape, to a plain client, and what our
own feed makes of each."""

import itertools
import json
from contextlib import ExitStack

import httpx
import pytest
from unit.test_running_feeds import Published, is_status
from unit.test_simulator_faults import fed, wait_until
from unit.test_simulator_server import ask, connect, receive, until

from infra.simulator import running_simulator
from infra.simulator.script import BadScript, Fault, read_script
from producers.vendor import subscriptions as requests_module
from producers.vendor.codes import ERRORS, Verdict
from producers.vendor.rest import Rest, RestError

TRADE, BOOK, KLINE = 10000, 10003, 10006
UNSUBSCRIBE_BOOK = 11001
LATER, REPORTED = (
    [code for code, known in ERRORS.items() if known.verdict is verdict]
    for verdict in (Verdict.ASK_LATER, Verdict.REPORT)
)
STOPPED = [code for code, known in ERRORS.items() if known.verdict is Verdict.STOP]
RET = [400, *range(500, 515)]
"""Every code of REST that the official client lists."""


@pytest.fixture
def scripted():
    """Return a client of a simulator with a script."""
    with ExitStack() as opened:
        yield lambda *script: opened.enter_context(
            connect(opened.enter_context(running_simulator(rate=100, script=script)))
        )


@pytest.mark.parametrize("code", [*ERRORS, 599])
def test_the_next_request_is_answered_by_an_error_with_its_trace_and_the_one_after_as_ever(
    scripted, code
):
    socket = scripted(Fault(0, "next_error", code=code))
    for trace in ("first", "second"):
        ask(socket, BOOK, {"codes": "BTCUSDT"}, trace=trace)
    assert receive(socket)["code"] == 200
    refused, taken = receive(socket), receive(socket)
    assert (refused["code"], refused["trace"], taken["code"], taken["trace"]) == (
        code,
        "first",
        10004,
        "second",
    )


def test_a_refused_request_changes_nothing(scripted):
    socket = scripted(
        Fault(0, "next_error", code=505, request=BOOK),
        Fault(0, "next_error", code=500, request=UNSUBSCRIBE_BOOK),
    )
    ask(socket, BOOK, {"codes": "BTCUSDT"})
    ask(socket, TRADE, {"codes": "BTCUSDT"})
    until(socket, 10001)
    assert {receive(socket)["code"] for _ in range(20)} == {10002}
    ask(socket, BOOK, {"codes": "BTCUSDT"})
    until(socket, 10004)
    ask(socket, UNSUBSCRIBE_BOOK, {"codes": "BTCUSDT"})
    until(socket, 500)
    until(socket, 10005)


def test_a_subscription_can_fail_as_json_after_words_and_in_words_alone(scripted):
    socket = scripted(Fault(0, "next_fail", code=516), Fault(0, "next_prose"))
    assert receive(socket)["code"] == 200
    for trace in ("first", "second"):
        ask(socket, TRADE, {"codes": "BTCUSDT"}, trace=trace)
    words, _, frame = socket.recv().partition("{")
    assert (words, json.loads("{" + frame)) == (
        "Subscribe fail: ",
        {"code": 516, "msg": "by script", "trace": "first"},
    )
    assert socket.recv() == "Subscribe fail: by script"


@pytest.mark.parametrize(
    ("code", "ack"), [(TRADE, 10001), (BOOK, 10004), (KLINE, 10007), (UNSUBSCRIBE_BOOK, 11010)]
)
def test_an_ack_by_script_echoes_its_trace_and_nothing_follows(scripted, code, ack):
    socket = scripted(Fault(0, "next_ack"))
    ask(socket, code, {"codes": "BTCUSDT", "arr": [{"type": 1, "codes": "BTCUSDT"}]}, trace="mine")
    assert (receive(socket)["code"], receive(socket)) == (
        200,
        {"code": ack, "msg": "ok", "trace": "mine"},
    )
    other = TRADE if code != TRADE else BOOK
    ask(socket, other, {"codes": "ETHUSDT"})
    until(socket, other + 1)
    assert {receive(socket)["data"]["s"] for _ in range(20)} == {"ETHUSDT"}


def test_an_answer_waits_for_the_request_with_its_symbol_and_code(scripted):
    socket = scripted(Fault(0, "next_error", code=505, request=KLINE, symbol="ETHUSDT"))
    assert receive(socket)["code"] == 200
    answers = []
    for code, symbol in (
        (KLINE, "BTCUSDT"),
        (TRADE, "ETHUSDT"),
        (KLINE, "BTCUSDT,ETHUSDT"),
        (KLINE, "ETHUSDT"),
    ):
        trace = f"{code} {symbol}"
        ask(
            socket,
            code,
            {"arr": [{"type": 1, "codes": symbol}]} if code == KLINE else {"codes": symbol},
            trace=trace,
        )
        while (answer := receive(socket)).get("trace") != trace:
            pass
        answers.append(answer["code"])
    assert answers == [10007, 10001, 505, 10007]


def test_heartbeats_and_codes_that_are_none_use_up_no_answer(scripted):
    socket = scripted(Fault(0, "next_error", code=505))
    ask(socket, 10010, None)
    ask(socket, 12345, {"codes": "BTCUSDT"})
    ask(socket, TRADE, {"codes": "BTCUSDT"})
    assert [receive(socket)["code"] for _ in range(3)] == [200, 506, 505]


def test_answers_are_read_with_the_requests_that_they_are_for(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text(
        "- {at: 0, do: next_error, code: 516, request: 10003, symbol: BTCUSDT}\n- {at: 1, do: "
        "next_rest, ret: 502}\n"
    )
    assert read_script(path) == [
        Fault(0, "next_error", code=516, request=10003, symbol="BTCUSDT"),
        Fault(1, "next_rest", ret=502),
    ]
    path.write_text(
        "- {at: 0, do: next_ack, request: 10010}\n- {at: 0, do: next_prose, symbol: 700}\n- "
        "{at: 0, do: next_rest, ret: 1, symbol: A}\n"
    )
    with pytest.raises(BadScript) as refused:
        read_script(path)
    assert "request: 10010 is none of 10000, 10003, 10006, 11000, 11001, 11002" in str(
        refused.value
    )
    assert "line 2: symbol: 700 is no symbol: write it in quotes" in str(refused.value)
    assert "line 3: next_rest takes at, do, ret, not at, do, ret, symbol" in str(refused.value)


@pytest.mark.parametrize("ret", RET)
def test_the_next_request_of_rest_is_answered_with_a_ret_and_the_one_after_as_ever(ret):
    with running_simulator(script=[Fault(0, "next_rest", ret=ret)]) as simulator:
        with httpx.Client(
            base_url=simulator.rest_url, headers={"apiKey": "k"}, trust_env=False
        ) as http:
            answers = [http.get("/package/info") for _ in range(2)]
    assert [(answer.status_code, answer.json()["ret"]) for answer in answers] == [
        (200, ret),
        (200, 200),
    ]


@pytest.mark.parametrize("ret", RET)
def test_our_client_of_rest_tries_again_what_may_succeed_and_raises_the_rest(ret):
    with running_simulator(script=[Fault(0, "next_rest", ret=ret)]) as simulator:
        with Rest(simulator.rest_url, "secret-key", sleep=lambda seconds: None) as rest:
            if ret in (500, 501):
                assert rest.package_info().requests == 20
                return
            with pytest.raises(RestError) as raised:
                rest.package_info()
    assert (raised.value.code, raised.value.refused) == (ret, ret in (509, 514))


def books(feeds):
    return feeds.counters[0].depth


@pytest.mark.parametrize(
    ("do", "code"), [*itertools.product(["next_error"], LATER), ("next_fail", 516)]
)
def test_our_feed_asks_again_later_on_the_same_connection_what_met_a_quota(monkeypatch, do, code):
    monkeypatch.setattr(requests_module, "PATIENCE", 300_000)
    published = Published()
    with fed(published, Fault(0, do, code=code, request=BOOK)) as feeds:
        published.wait_for_each(is_status("degraded", "crypto-1"))
        published.wait_for_each(is_status("healthy", "crypto-1"))
        wait_until(lambda: books(feeds) > 0)
        assert (feeds.counters[0].connections, feeds.counters[0].refusals) == (1, 1)


@pytest.mark.parametrize(
    ("do", "code"), [*itertools.product(["next_error", "next_fail"], REPORTED), ("next_prose", 0)]
)
def test_our_feed_reports_what_no_repeat_mends_and_keeps_the_rest(monkeypatch, do, code):
    monkeypatch.setattr(requests_module, "PATIENCE", 0)
    published = Published()
    with fed(published, Fault(0, do, code=code, request=BOOK)) as feeds:
        published.wait_for_each(is_status("degraded", "crypto-1"))
        wait_until(lambda: feeds.counters[0].trades > 20)
        assert (feeds.counters[0].connections, feeds.counters[0].refusals, books(feeds)) == (
            1,
            1,
            0,
        )


@pytest.mark.parametrize("code", [500, 513, 599])
def test_our_feed_makes_a_new_connection_after_an_error_of_the_server(code):
    published = Published()
    with fed(published, Fault(0, "next_error", code=code, request=BOOK)) as feeds:
        published.wait_for_each(is_status("healthy", "crypto-1"))
        wait_until(lambda: books(feeds) > 0)
        assert feeds.counters[0].connections == 2


@pytest.mark.parametrize("code", STOPPED)
def test_our_feed_ends_at_an_answer_that_forbids_another_try(code):
    with fed(Published(), Fault(0, "next_error", code=code)) as feeds:
        wait_until(lambda: feeds.failure is not None)
        assert str(code) in str(feeds.failure)
        assert feeds.counters[0].connections == 1


def test_our_feed_reports_a_symbol_that_is_acked_and_silent():
    published = Published()
    with fed(
        published, *(Fault(0, "next_ack", symbol="BTCUSDT") for _ in range(3)), silence_ms=500
    ) as feeds:
        published.wait_for_each(is_status("healthy", "crypto-1"))
        published.wait_for_each(
            lambda name, output: (
                is_status("degraded", name)(name, output)
                and "acked, but no data" in output.record.reason
            )
        )
        assert (feeds.counters[0].received, feeds.counters[0].silent) == (0, 1)
