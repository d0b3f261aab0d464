"""An old event proves nothing about a feed's delay: gaps cover what was lost, and no more, whatever
a subscription is answered by."""

import random

import pytest
from unit.test_protocol_feed import (
    SECOND,
    START,
    TRADES,
    controls,
    depth,
    protocol,
    subscribed,
    trade,
)

from producers.feed.coverage import SNAPSHOT_US
from schemas.control import HELD_BACK_MS

MS = 1_000
MINUTE = 60 * SECOND
MARGIN = 2 * SECOND
"""What may be lost before a begin's `from`: the producer's LOSS_BEFORE_LAST_ALIVE_MS. Agents take
off 1 s of it."""
JITTER = 100 * MS
HELD_BACK = HELD_BACK_MS * MS


def ack(core, now, channels=(10001, 10004, 10007)):
    return [output for code in channels for output in core.receive(b'{"code":%d}' % code, now)]


def at(now):
    return now // MS


def test_snapshot_of_an_hour_ago_moves_neither_the_next_gap_nor_the_end():
    core = subscribed()
    core.receive(trade(t=at(START + 5 * SECOND)), START + 5 * SECOND + 50 * MS)
    core.pong(START + 60 * MINUTE)
    core.disconnected(START + 60 * MINUTE, "lost", START + 60 * MINUTE)
    again = START + 61 * MINUTE
    core.connected(again)
    ack(core, again)
    core.receive(trade(t=at(START + 5 * SECOND)), again + SECOND)
    core.receive(depth(t=at(START + 5 * SECOND)), again + SECOND)
    core.pong(again + 10 * SECOND)
    core.disconnected(again + 10 * SECOND, "lost", again + 10 * SECOND)
    last = again + 20 * SECOND
    core.connected(last)
    begin = controls(ack(core, last), "begin")[0].control
    # since its begin nothing new was pushed
    assert (begin.ts_from, begin.ts) == (at(again - 50 * MS), at(last))
    core.receive(trade(t=at(START + 5 * SECOND)), last + SECOND)
    core.pong(last + 30 * SECOND)
    outputs, _ = core.ended(last + 30 * SECOND)
    assert {each.control.ts for each in controls(outputs, "end")} == {
        at(last + 30 * SECOND - 50 * MS)
    }


@pytest.mark.parametrize(
    "later", [0, 1, 600], ids=["at once", "after a second", "after ten minutes"]
)
def test_first_snapshot_of_a_feed_is_no_delay(later):
    core = subscribed()
    now = START + later * SECOND
    core.receive(trade(t=at(START - 25 * MINUTE)), now)
    core.pong(now + 5 * SECOND)
    core.disconnected(now + 5 * SECOND, "lost", now + 5 * SECOND)
    core.connected(now + 9 * SECOND)
    begin = controls(ack(core, now + 9 * SECOND), "begin")[0].control
    assert begin.ts_from == at(max(START, now + 5 * SECOND - HELD_BACK))


def test_the_same_old_event_again_and_again_is_no_delay():
    core = subscribed()
    for minute in range(20):
        core.receive(depth(t=at(START - 5 * SECOND)), START + minute * MINUTE)
    core.disconnected(START + 19 * MINUTE, "lost", START + 19 * MINUTE)
    core.connected(START + 20 * MINUTE)
    begin = controls(ack(core, START + 20 * MINUTE), "begin")[0].control
    assert begin.ts_from == at(START + 19 * MINUTE - HELD_BACK)


def test_what_the_vendor_holds_back_while_it_answers_pings_lies_within_the_gap():
    core = subscribed()
    core.receive(trade(t=at(START + SECOND)), START + SECOND)
    for second in range(2, 40):
        core.pong(START + second * SECOND)
    core.disconnected(START + 40 * SECOND, "lost", START + 40 * SECOND)
    core.connected(START + 41 * SECOND)
    begin = controls(ack(core, START + 41 * SECOND), "begin")[0].control
    assert begin.ts_from == at(START + SECOND)


def test_of_a_quiet_market_no_more_than_a_minute_is_held_to_be_lost():
    core = subscribed()
    core.receive(trade(t=at(START + SECOND)), START + SECOND)
    core.pong(START + 30 * MINUTE)
    core.disconnected(START + 30 * MINUTE, "lost", START + 30 * MINUTE)
    core.connected(START + 31 * MINUTE)
    begin = controls(ack(core, START + 31 * MINUTE), "begin")[0].control
    assert begin.ts_from == at(START + 30 * MINUTE - HELD_BACK)


def test_delay_of_a_slow_feed_is_known_from_what_comes_live():
    core = subscribed()
    delay = 15 * MINUTE
    for second in range(0, 30, 5):
        core.receive(trade(t=at(START + second * SECOND - delay)), START + second * SECOND)
    core.disconnected(START + 30 * SECOND, "lost", START + 30 * SECOND)
    core.connected(START + 40 * SECOND)
    begin = controls(ack(core, START + 40 * SECOND), "begin")[0].control
    assert (begin.ts_from, begin.ts) == (at(START + 25 * SECOND - delay), at(START + 40 * SECOND))


def test_old_snapshot_of_a_symbol_that_is_added_moves_nothing():
    core = protocol(symbols=("BTCUSDT",))
    core.connected(START)
    ack(core, START)
    core.receive(trade(t=at(START + SECOND)), START + SECOND)
    core.pong(START + 30 * MINUTE)
    core.change_symbols(("BTCUSDT", "ETHUSDT"), {}, START + 30 * MINUTE)
    core.receive(trade("ETHUSDT", t=at(START + 10 * MINUTE)), START + 30 * MINUTE + SECOND)
    core.pong(START + 31 * MINUTE)
    outputs, _ = core.ended(START + 31 * MINUTE)
    assert {each.control.ts for each in controls(outputs, "end")} == {at(START + 31 * MINUTE)}


def test_marks_go_on_over_a_snapshot_and_never_back():
    core = subscribed()
    core.receive(trade(t=at(START + SECOND)), START + SECOND)
    core.pong(START + MINUTE)
    core.disconnected(START + MINUTE, "lost", START + MINUTE)
    again = START + 2 * MINUTE
    core.connected(again)
    ack(core, again)
    core.receive(trade(t=at(START + SECOND)), again)
    marks = controls(core.pong(again + 10 * SECOND), "mark")
    assert marks
    assert {each.control.ts for each in marks} == {at(again + 10 * SECOND)}


@pytest.mark.parametrize("by", [0, 3600], ids=["slow on", "set right"])
def test_clock_that_was_set_right_between_connections_moves_no_mark_ahead_of_the_vendors_time(by):
    core = subscribed(max_future_ms=7_200_000)
    hour = 3600 * SECOND
    # by a clock that is an hour slow
    core.receive(trade(t=at(START + hour + 3 * SECOND)), START + 3 * SECOND)
    core.disconnected(START + 5 * SECOND, "lost", START + 5 * SECOND)
    again = START + 10 * SECOND + by * SECOND
    core.connected(again)
    ack(core, again)
    core.receive(trade(t=at(START + hour + 3 * SECOND)), again + SECOND)
    marks = controls(core.pong(again + 10 * SECOND), "mark")
    assert marks
    assert max(each.control.ts for each in marks) <= at(START + hour + 20 * SECOND)


class World:
    """A vendor and a producer whose clocks differ by `ahead` and whose wire has `delay`; times are
    the vendor's."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.now = START
        self.ahead = self.chance.choice([0, 0, 1, -1, self.chance.randrange(-600, 600)]) * SECOND
        self.delay = self.chance.choice([20 * MS, 200 * MS, self.chance.randrange(900) * SECOND])
        self.core = protocol(symbols=("BTCUSDT", "ETHUSDT"), max_future_ms=3_600_000)
        self.last = {}
        self.pushed = 0
        self.read_here = []
        self.connected = START

    @property
    def clock(self):
        return self.now - self.ahead

    def send(self, made, at_us):
        name, symbol = made
        self.pushed = max(self.pushed, at_us)
        self.core.receive({"trade": trade, "depth": depth}[name](symbol, t=at(at_us)), self.clock)

    def live(self, made):
        jitter = self.chance.randrange(JITTER)
        self.last[made] = self.now - self.delay - jitter
        self.read_here.append(self.last[made])
        self.send(made, self.last[made])

    def happens_unseen(self):
        for made in self.last:
            if self.chance.random() < 0.4:
                self.last[made] = self.now - self.chance.randrange(10 * MINUTE) - self.delay

    def snapshot(self):
        for made, before in list(self.last.items()):
            # the last ones as they were, some of them several at once
            for back in range(self.chance.randrange(3), -1, -1):
                self.send(made, before - back * SECOND)

    def wait(self, least, most):
        self.now += self.chance.randrange(least, most)

    def connect(self):
        self.core.connected(self.clock)
        self.connected, self.read_here = self.now, []
        self.wait(10 * MS, SECOND)
        return self.now, controls(ack(self.core, self.clock), "begin")

    def lose(self):
        """Lose the connection, of which something may have come in and was not read; return until
        when its events were delivered and read, and until when the feed can know that."""
        self.core.pong(self.clock)
        unread = self.chance.choice([0, self.chance.randrange(20 * SECOND)])
        drained = max(self.now - unread, self.connected)
        self.core.disconnected(self.clock, "lost", drained - self.ahead)
        known = drained - self.delay
        return max([known, *self.read_here]), max([known, *sorted(self.read_here)[:-2]])


@pytest.mark.parametrize("seed", range(150))
def test_gap_covers_what_was_lost_and_reaches_no_further_than_the_margins(seed):
    world = World(seed)
    world.connect()
    for _ in range(5):
        world.wait(SECOND, MINUTE)
        for symbol in ("BTCUSDT", "ETHUSDT"):
            world.live(("trade", symbol))
            world.live(("depth", symbol))
    # what clock and wire make uncertain, and what may be held back since the last push
    margin = abs(world.ahead) + world.delay + JITTER + SNAPSHOT_US
    for _ in range(6):
        if world.chance.random() < 0.5:
            world.wait(SECOND, 60 * MINUTE)
            world.core.pong(world.clock)
        seen, known = world.lose()
        world.wait(SECOND, 30 * MINUTE)
        world.happens_unseen()
        begun, begins = world.connect()
        assert begins
        for begin in begins:
            if begin.topic != TRADES:
                continue
            since, until = begin.control.ts_from * MS, begin.control.ts * MS
            assert since - MARGIN <= seen
            assert until >= begun - world.delay - JITTER - MS
            assert since >= min(known, max(world.pushed, seen - HELD_BACK)) - margin
            assert until <= begun + margin
        if world.chance.random() < 0.8:
            world.wait(0, SECOND)
            world.snapshot()
        if world.chance.random() < 0.5:
            world.wait(3 * SECOND, MINUTE)
            world.live(world.chance.choice(list(world.last)))
