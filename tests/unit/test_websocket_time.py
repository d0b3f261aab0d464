"""The transport's time: a wall clock that is set back or forward disturbs no connection, and counts
from the next one on."""

import random
import threading
import time

import pytest
from unit.test_websocket import (
    KEY,
    AtOnce,
    Published,
    Server,
    is_state,
    is_trade,
    protocol,
    serving,
)

from producers.transport.clock import FeedTime
from producers.transport.endpoint import Endpoint
from producers.transport.websocket import run_feed
from producers.vendor.codes import HEARTBEAT

SECOND = 1_000_000
NOW = 1_752_826_113_000_000


class Clocks:
    """A wall clock and a steady one, which go on by themselves and can be put on."""

    def __init__(self):
        self.began = time.monotonic_ns()
        self.step = 0
        self.passed = 0

    def steady(self):
        return (time.monotonic_ns() - self.began) // 1000 + self.passed

    def wall(self):
        return NOW + self.steady() + self.step


class Feed:
    """A feed that runs by given clocks until the end of `with`."""

    def __init__(self, url, published, clocks, chance=None):
        self.stop = threading.Event()
        arguments = (
            protocol("crypto"),
            Endpoint(url, KEY),
            published,
            self.stop,
            chance or AtOnce(1),
            clocks.wall,
            clocks.steady,
        )
        self.thread = threading.Thread(target=run_feed, args=arguments)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


def next_heartbeat(server):
    while (request := server.requests.get(timeout=60))["code"] != HEARTBEAT:
        pass
    return request


def test_heartbeats_go_on_while_the_clock_is_set_back():
    server, published, clocks = Server(), Published(), Clocks()
    with serving(server) as url, Feed(url, published, clocks):
        published.wait_for(is_state("healthy"))
        clocks.step = -300 * SECOND
        for _ in range(3):
            clocks.passed += 30 * SECOND
            assert next_heartbeat(server)
    assert server.connections == 1


@pytest.mark.parametrize("step", [61 * SECOND, -61 * SECOND])
def test_a_step_of_the_clock_is_neither_a_silence_nor_a_free_budget(step):
    wall, steady = [NOW], [5]
    now = FeedTime(lambda: wall[0], lambda: steady[0])
    assert now() == NOW
    wall[0] += step
    steady[0] += 10
    assert now() == NOW + 10


def test_next_connection_goes_by_the_wall_clock_again_but_not_back_behind_the_last():
    wall, steady = [NOW], [5]
    now = FeedTime(lambda: wall[0], lambda: steady[0])
    wall[0] += 61 * SECOND
    assert now() == NOW
    now.set()
    assert now() == NOW + 61 * SECOND
    wall[0] -= 300 * SECOND
    steady[0] += SECOND
    assert now() == NOW + 62 * SECOND
    now.set()
    assert now() == NOW + 62 * SECOND
    steady[0] += SECOND
    assert now() == NOW + 63 * SECOND


def test_connection_after_a_loss_begins_at_the_time_that_the_clock_was_set_to():
    server, published, clocks = Server(script={(1, 10006): "drop"}), Published(), Clocks()

    class Set(random.Random):
        """Sets the clock an hour forward before the second connection."""

        def uniform(self, a, b):
            clocks.step = 3600 * SECOND
            return 0

    with serving(server) as url, Feed(url, published, clocks, Set(1)):
        first = published.wait_for(is_trade).record.ts_recv
        assert published.wait_for(is_trade).record.ts_recv - first >= 3600 * SECOND


def test_backoff_is_short_again_after_a_connection_that_has_lasted():
    clocks, ranges = Clocks(), []

    class Spy(random.Random):
        def uniform(self, a, b):
            ranges.append((a, b))
            if len(ranges) == 4:
                feed.stop.set()
            return 0

    class Lasting(Server):
        """Drops every connection at once, but the third after more than a minute of the steady
        clock."""

        def converse(self, connection):
            if self.connections == 2:
                clocks.passed += 61 * SECOND
            super().converse(connection)

    server = Lasting(script={(number, 10000): "drop" for number in range(1, 5)})
    with serving(server) as url, Feed(url, Published(), clocks, Spy(1)) as feed:
        feed.thread.join(60)
    assert ranges == [(0, 1), (0, 2), (0, 1), (0, 2)]
