"""Faults by script: what the simulator does, and that our own feed lives through each with the loss
on record."""

import asyncio
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
from unit.test_running_feeds import Published, feed, is_status
from unit.test_simulator_server import connect
from unit.test_websocket import TOPICS, AtOnce
from websocket import WebSocketBadStatusException

from infra.simulator import running_simulator
from infra.simulator.script import BadScript, Fault, read_script
from producers.feed import protocol as protocol_module
from producers.feed.outputs import ControlPublication
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.transport.endpoint import Endpoint, FeedRefused
from producers.transport.feed_group import RunningFeeds


def test_a_script_is_read_in_the_order_of_its_times(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text(
        "- {at: 5, do: stall, seconds: 2.5}\n- {at: 1, do: error, code: 513}\n- {at: 7, do: "
        "reset}\n"
    )
    assert read_script(path) == [
        Fault(1, "error", code=513),
        Fault(5, "stall", seconds=2.5),
        Fault(7, "reset"),
    ]


def test_every_mistake_of_a_script_is_told_at_once(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text(
        "- {at: 5, do: explode}\n- {at: -1, do: reset}\n- {at: 1, do: stall}\n- {at: 1, do: "
        "refuse, seconds: 1, status: 200}\n- 7\n"
        "- {at: 1, do: error, code: 5.5}\n- {at: 1, do: reset, now: yes}\n"
    )
    with pytest.raises(BadScript) as refused:
        read_script(path)
    said = str(refused.value)
    for part in (
        "'explode' is none of error",
        "at: -1 is no number",
        "stall takes at, do, seconds, not at, do",
        "status: 200",
        "7 is no",
    ):
        assert part in said
    assert "code: 5.5 is no whole number" in said
    assert "line 7: reset takes at, do" in said
    for text, part in (("at: 1", "no list"), ("[", "no YAML")):
        path.write_text(text)
        with pytest.raises(BadScript, match=part):
            read_script(path)
    with pytest.raises(BadScript, match="name a YAML file"):
        read_script(tmp_path / "absent")


def strike(simulator, *faults):
    """Begin a script now, whenever the simulator was started; from any thread."""

    async def begin():
        simulator._faults._script = faults
        simulator._tasks.append(asyncio.create_task(simulator._faults.run()))

    asyncio.run_coroutine_threadsafe(begin(), simulator._loop).result(60)


@contextmanager
def fed(published, *script, limits=None, **settings):
    """Our feed of BTCUSDT at a simulator with these faults: those of a later time than 0 count from
    when it is subscribed, which may take long."""
    first, later = ([fault for fault in script if bool(fault.at) is late] for late in (False, True))
    with running_simulator(rate=100, limits=limits, script=first) as simulator:

        def make(feed, counters):
            return FeedProtocol(
                feed, FeedSettings("simulated", **settings), TOPICS, counters, AtOnce(1)
            )

        endpoint = Endpoint(simulator.url, "key")
        with RunningFeeds(
            [feed("crypto-1", "BTCUSDT")], make, endpoint, published, threading.Event(), AtOnce(1)
        ) as found:
            if later:
                wait_until(lambda: not found.not_subscribed)
                strike(simulator, *later)
            yield found


def unseen(published):
    """The begins that say since when their symbol was not seen: the gap of a connection that was
    lost."""
    begins = [
        output
        for _, output in published.all_seen()
        if isinstance(output, ControlPublication) and output.control.kind == "begin"
    ]
    return [output for output in begins if output.control.ts_from is not None]


CUTS = [
    Fault(1, "disconnect"),
    Fault(1, "reset"),
    Fault(1, "half_frame"),
    Fault(1, "stall", seconds=2.0),
    *(Fault(1, "error", code=code) for code in (500, 513, 599)),
]


@pytest.mark.parametrize("fault", CUTS, ids=lambda fault: f"{fault.do}{fault.code or ''}")
def test_a_connection_that_is_cut_is_made_anew_and_the_loss_is_a_gap(monkeypatch, fault):
    # of a stalled connection pings go unanswered
    monkeypatch.setattr(protocol_module, "SILENCE", 1_000_000)
    published = Published()
    with fed(published, fault) as feeds:
        published.wait_for_each(is_status("healthy", "crypto-1"))
        published.wait_for_each(is_status("healthy", "crypto-1"))
        assert feeds.counters[0].losses >= 1
    assert {"infoway.raw.trade", "infoway.raw.depth", "infoway.raw.kline"} == {
        output.topic for output in unseen(published)
    }


@pytest.mark.parametrize("code", [429, 501, 503, 504, 505, 506, 507, 515, 516])
def test_an_error_that_cuts_nothing_leaves_the_connection(code):
    published = Published()
    with fed(published, Fault(0.5, "error", code=code)) as feeds:
        published.wait_for_each(is_status("healthy", "crypto-1"))
        wait_until(lambda: feeds.counters[0].refusals == 1)
        before = feeds.counters[0].trades
        wait_until(lambda: feeds.counters[0].trades > before)
        assert (feeds.counters[0].connections, feeds.counters[0].losses) == (1, 0)


@pytest.mark.parametrize("code", [502, 508, 509, 510, 511, 514, 517, 518, 519, 520])
def test_an_error_that_no_retry_mends_ends_the_feed_by_name(code):
    published = Published()
    with fed(published, Fault(0.3, "error", code=code)) as feeds:
        wait_until(lambda: feeds.failure is not None)
        with pytest.raises(FeedRefused, match=str(code)):
            feeds.check()
        assert feeds.counters[0].connections == 1


@pytest.mark.parametrize(
    "fault",
    [Fault(0.5, "burst", seconds=1.0), Fault(0.5, "slow", seconds=1.0, delay=0.1)],
    ids=lambda fault: fault.do,
)
def test_pushes_that_come_late_are_no_loss(fault):
    published = Published()
    with fed(published, fault) as feeds:
        published.wait_for_each(is_status("healthy", "crypto-1"))
        # more than come until the fault begins
        enough = feeds.counters[0].trades + 100
        wait_until(lambda: feeds.counters[0].trades > enough)
        assert feeds.counters[0].losses == 0
    assert unseen(published) == []


def test_refused_handshakes_are_tried_again():
    published = Published()
    with fed(published, Fault(0, "refuse", seconds=1.5, status=503)):
        published.wait_for_each(is_status("healthy", "crypto-1"))


def test_rest_fails_by_script():
    # of those that last, each takes the place of the ones before it
    script = {
        "truncated": Fault(0, "rest_truncated", seconds=600),
        500: Fault(0, "rest_error", seconds=600, ret=500),
        502: Fault(0, "rest_status", seconds=600, status=502),
    }
    with (
        running_simulator() as simulator,
        httpx.Client(base_url=simulator.rest_url, headers={"apiKey": "k"}) as http,
    ):

        def asked():
            answer = http.get("/package/info", timeout=60)
            if not answer.is_success:
                return answer.status_code
            return answer.json()["ret"] if answer.text.endswith("}") else "truncated"

        for what, fault in script.items():
            strike(simulator, fault)
            wait_until(lambda: simulator._faults.active(fault.do))  # noqa: B023
            assert asked() == what
        now = time.monotonic()
        simulator._faults._lasting = [(now, fault) for fault in script.values()]
        assert asked() == 200


def test_a_refused_handshake_shows_its_status():
    with running_simulator(script=[Fault(0, "refuse", seconds=60, status=429)]) as simulator:
        wait_until(lambda: simulator._faults.active("refuse"))
        with pytest.raises(WebSocketBadStatusException, match="429"), connect(simulator):
            pass


def wait_until(condition):
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)
