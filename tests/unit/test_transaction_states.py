"""The states of a transaction: drawn as they are checked, and no call comes in a wrong one."""

from itertools import product
from pathlib import Path

import pytest

from processors.engine.transactions.group import Member
from processors.engine.transactions.states import (
    TRANSITIONS,
    IllegalStep,
    TransactionState,
    check,
    page,
)
from processors.engine.transactions.transactions import Transactions

MEMBER = Member("g", 3, "m")
PAGE = Path(__file__).parents[2] / "docs" / "states-transaction.md"


class Producer:
    """Stands for the TransactionalProducer and its librdkafka client; every call succeeds."""

    def __init__(self, suspect=False):
        self.client, self.suspect = self, suspect
        self.calls = []

    def begin(self):
        self.calls.append("begin")

    def produce(self, *record, headers=None):
        self.calls.append("produce")

    def flush(self, timeout):
        self.calls.append("flush")
        return 0

    def send_offsets_to_transaction(self, *offsets):
        self.calls.append("send offsets")

    def commit_transaction(self, timeout):
        self.calls.append("commit")

    def renew_if_suspect(self):
        self.calls += ["renew"] * self.suspect
        return self.suspect


def transactions(suspect=False):
    """Transactions that write down each state that they enter."""
    made = Transactions("broker", Producer(suspect), "id")
    states = []
    enter = made._enter

    def entered(state):
        enter(state)
        states.append(state)

    made._enter = entered
    return made, states


def test_the_page_draws_the_transitions_that_are_checked():
    assert PAGE.read_text() == page()


@pytest.mark.parametrize(("before", "after"), product(TransactionState, TransactionState))
def test_a_transition_that_is_not_in_the_table_is_refused(before, after):
    if (before, after) in TRANSITIONS:
        check(before, after)
    else:
        with pytest.raises(IllegalStep, match=f"{before.value}.*{after.value}"):
            check(before, after)


def test_every_state_is_reached_and_only_a_refused_transaction_ends_the_worker():
    assert {after for _, after in TRANSITIONS} == set(TransactionState)
    assert set(TransactionState) - {before for before, _ in TRANSITIONS} == {
        TransactionState.ABORTED
    }


@pytest.mark.parametrize("suspect", [False, True])
def test_a_commit_goes_through_its_steps_in_order(suspect):
    made, states = transactions(suspect)
    for _ in range(2):
        states.clear()
        made.producer.calls.clear()
        made.begin(MEMBER)
        made.produce("topic", 0, b"k", b"v")
        made.offsets["source", 0] = 7
        made.commit()
        assert made.producer.calls == [
            "begin", "produce", "flush", "send offsets", "commit", *["renew"] * suspect
        ]  # fmt: skip
        assert states == [
            TransactionState.BEGINNING, TransactionState.OPEN, TransactionState.FLUSHING,
            TransactionState.SENDING_OFFSETS, TransactionState.COMMITTING,
            TransactionState.COMMITTED, *[TransactionState.RENEWING] * suspect,
            TransactionState.NONE,
        ]  # fmt: skip


def test_a_begin_within_a_commit_is_a_bug_that_shows():
    made, _ = transactions()
    made.begin(MEMBER)
    made.at_step = lambda step: (
        made._enter(TransactionState.BEGINNING) if step == "after flush" else None
    )
    with pytest.raises(IllegalStep, match="from 'flush' to 'begin'"):
        made.commit()
