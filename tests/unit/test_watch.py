"""The watch ends a worker that does nothing while records, or the group, wait and the broker
answers; and no other."""

import time

import pytest

from processors.engine.engine import Engine
from processors.engine.outputs import Outputs
from processors.engine.plane import watch as module
from processors.engine.plane.watch import LONGEST_TURN_S, QUIET_S, Watch
from processors.engine.transactions.exits import Exit
from processors.engine.transactions.group import Member

ME = Member("g", 1, "me")
PATIENCE_S = 30


class Left(Exception):
    """What ending the worker is here."""


class Watched:
    """A worker of which each fact can be set."""

    def __init__(self):
        self.engine = Engine("", "t", (), Outputs({}), membership=lambda: ME)
        self.engine.ready, self.engine.turned_at = ME, time.monotonic()
        self.answers, self.done = True, False
        self.watch = Watch(
            self.engine, lambda: {} if self.answers else None, lambda ends: self.done, PATIENCE_S
        )

    def turns(self, seconds, each=lambda: None):
        for _ in range(int(seconds / QUIET_S)):
            each()
            self.watch.turn(QUIET_S)


@pytest.fixture
def watched(monkeypatch):
    def leave(code, text):
        raise Left(code, text)

    monkeypatch.setattr(module, "leave", leave)
    return Watched()


def test_a_worker_that_leaves_records_waiting_is_ended_restartably(watched):
    watched.turns(PATIENCE_S)
    with pytest.raises(Left) as left:
        watched.turns(2 * QUIET_S)
    code, text = left.value.args
    assert code is Exit.STUCK
    assert code.restart
    assert "the broker answers and nothing was done for 33 s" in text


def test_a_worker_that_has_nothing_to_do_is_left_alone(watched):
    watched.done = True
    watched.turns(10 * PATIENCE_S)


def test_a_worker_that_goes_on_however_slowly_is_left_alone(watched):
    def moves():
        watched.engine.progress_at += 1

    watched.turns(5 * PATIENCE_S, moves)


def test_an_agent_that_does_not_come_back_is_noticed_while_another_goes_on(watched):
    watched.engine.busy_since["slow"] = 1.0

    def moves():
        watched.engine.progress_at += 1

    with pytest.raises(Left) as left:
        watched.turns(2 * PATIENCE_S, moves)
    assert "slow did not come back from a batch" in left.value.args[1]


def test_a_broker_that_does_not_answer_is_named_and_waited_for(watched):
    watched.answers = False
    watched.turns(10 * PATIENCE_S)
    assert watched.engine.waiting_for.startswith("the broker for")
    watched.answers = True
    watched.turns(PATIENCE_S)
    assert watched.engine.waiting_for is None
    with pytest.raises(Left):
        watched.turns(2 * QUIET_S)


def test_what_somebody_else_waits_for_is_not_counted_and_stays_named(watched):
    watched.engine.wait_for("schemas", "the schema registry")
    watched.turns(10 * PATIENCE_S)
    assert watched.engine.waiting_for == "the schema registry"


def test_a_load_of_states_has_the_time_that_it_ends_itself_after(watched):
    watched.engine.loading = True
    watched.turns(PATIENCE_S + module.LOAD_TIMEOUT)
    with pytest.raises(Left):
        watched.turns(2 * QUIET_S)


def test_a_process_that_was_frozen_was_not_stuck_meanwhile():
    assert LONGEST_TURN_S < PATIENCE_S / 4


@pytest.mark.parametrize("fails", ["the question", "the tick"])
def test_a_watch_that_fails_ends_its_worker_which_nobody_would_look_after(
    watched, monkeypatch, fails
):
    left = []
    monkeypatch.setattr(module, "leave", lambda code, text: left.append((code, text)))
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    monkeypatch.setattr(module, "QUIET_S", 0.0)

    def failing(*_):
        raise ValueError("odd")

    watched.watch._ask = failing
    watched.watch._run(failing if fails == "the tick" else lambda: None)
    ((code, text),) = left
    assert code.restart
    assert "ValueError('odd')" in text
