"""An agent of several source topics: the same partition of each, an offset of its own for each."""

import asyncio

import pytest

from processors.engine import assigned
from processors.engine import engine as module
from processors.engine.engine import Agent, Engine
from processors.engine.outputs import Outputs
from processors.engine.state import APPLIED
from processors.engine.transactions.exits import Exit
from processors.engine.transactions.group import Member

ME = Member("g", 1, "me")


class Left(Exception):
    """What ending the worker is here."""


class Nothing:
    name = "both"

    def load(self, partition, entries):
        return partition, dict(entries)


@pytest.fixture
def engine(monkeypatch):
    def leave(code, text):
        raise Left(code, text)

    for part in (module, assigned):
        monkeypatch.setattr(part, "leave", leave)
    monkeypatch.setattr(module, "log_starts", lambda bootstrap, places: dict.fromkeys(places, 5))
    monkeypatch.setattr(module, "topic_ids", lambda bootstrap, topics: dict.fromkeys(topics, "id"))
    made = Engine(
        "",
        "t",
        (Agent(Nothing(), ("klines", "bars"), "state", True),),
        Outputs({}),
        membership=lambda: ME,
    )
    stored = {b"mine": b"1", APPLIED + b"bars": b"9"}
    monkeypatch.setattr(
        made, "load", lambda partitions, still: {place: dict(stored) for place in partitions}
    )
    return made


def test_each_source_goes_on_from_an_offset_of_its_own(engine):
    starts = asyncio.run(engine.assign(ME, [("klines", 0), ("bars", 0)]))
    assert starts == {("klines", 0): 5, ("bars", 0): 9}
    assert engine.assigned["both", 0].state == (0, {b"mine": b"1"}), (
        "the engine's own keys are not the agent's"
    )


def test_sources_that_are_not_dealt_out_together_end_the_worker_with_what_to_do(engine):
    with pytest.raises(Left) as left:
        asyncio.run(engine.assign(ME, [("klines", 0), ("bars", 0), ("klines", 1)]))
    assert left.value.args[0] is Exit.SETUP_WRONG
    assert "partition 1 of bars went to another worker" in left.value.args[1]
    assert "same number of partitions" in left.value.args[1]


def test_a_source_whose_unread_records_were_deleted_ends_the_worker(engine, monkeypatch):
    monkeypatch.setattr(module, "log_starts", lambda bootstrap, places: dict.fromkeys(places, 10))
    with pytest.raises(Left) as left:
        asyncio.run(engine.assign(ME, [("klines", 0), ("bars", 0)]))
    assert "offsets 9 to 9 of bars[0] were deleted" in left.value.args[1]
