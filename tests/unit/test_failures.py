"""Where an agent fails: counted at the same record, found within its batch, and stopped at the
third time."""

import pytest

from processors.engine import assigned
from processors.engine.batch import Batch, parts_of
from processors.engine.failures import Failure
from processors.engine.journal import PREFIX
from processors.engine.state import APPLIED, FAILED, LOG
from processors.engine.transactions.group import Member
from processors.model.records import Unreadable

ERROR = ValueError("no")


def batch(first, last):
    records = [Unreadable(offset, None, b"", "", "") for offset in range(first, last + 1)]
    return Batch(("t", 0), Member("g", 1, "m"), first, records, last + 2)


def cut(parts):
    return [
        (part.continues, [record.offset for record in part.pieces], part.next_offset)
        for part in parts
    ]


def test_failures_are_counted_on_within_the_records_of_the_one_before():
    first = Failure.at(10, 19, ERROR, None)
    second = Failure.at(15, 15, ERROR, first)
    third = Failure.at(15, 15, ERROR, second)
    assert [each.count for each in (first, second, third)] == [1, 2, 3]
    assert [each.stops for each in (first, second, third)] == [False, False, True]
    assert Failure.decoded(third.encoded()) == third
    assert Failure.at(16, 16, ERROR, second).count == 1
    assert Failure.at(9, 15, ERROR, first).count == 1
    assert not Failure(10, 19, 3, "").stops, "which record it is has to be known"


def test_a_batch_that_failed_is_applied_one_record_at_a_time_and_the_rest_at_once():
    failure = Failure.at(11, 12, ERROR, None)
    assert cut(parts_of(batch(10, 14), failure)) == [
        (10, [10], 11),
        (11, [11], 12),
        (12, [12], 13),
        (13, [13, 14], 16),
    ]
    assert cut(parts_of(batch(10, 12), failure)) == [
        (10, [10], 11),
        (11, [11], 12),
        (12, [12], 13),
        (13, [], 14),
    ]
    assert cut(parts_of(batch(13, 14), failure)) == [(13, [13, 14], 16)]
    assert cut(parts_of(batch(13, 14), None)) == [(13, [13, 14], 16)]


def test_an_agent_that_is_stopped_gets_what_lies_before_and_nothing_more():
    stopped = Failure(12, 12, 3, "")
    assert cut(parts_of(batch(10, 14), stopped)) == [(10, [10, 11], 12)]
    assert cut(parts_of(batch(13, 14), stopped)) == [(13, [], 12)]


def test_a_state_that_a_newer_version_wrote_ends_the_worker_for_good_and_names_the_version(
    monkeypatch,
):
    monkeypatch.setattr(assigned, "leave", lambda code, text: pytest.fail(f"{code.name}: {text}"))
    stored = {APPLIED + b"t": b"7", LOG + b"t": b"id", PREFIX + b"0": b"\x02" + bytes(16)}
    agent = assigned.Agent(Loads(), ("t",), "state", True)
    said = r"SETUP_WRONG: a: state\[0\] cannot be used: .* this version reads version 1: run the"
    with pytest.raises(pytest.fail.Exception, match=said):
        assigned.restored(agent, 0, stored, {("t", 0): 0}, {"t": "id"})


class Loads:
    name = "a"

    def load(self, partition, entries):
        return entries


def restored_at(monkeypatch, applied, starts):
    """What an agent that is stopped at offset 57 goes on from, the log beginning at `starts`; or
    how its worker ends."""
    monkeypatch.setattr(assigned, "leave", lambda code, text: pytest.fail(f"{code.name}: {text}"))
    stored = {
        APPLIED + b"t": b"%d" % applied,
        LOG + b"t": b"id",
        FAILED + b"t": Failure(57, 57, 3, "").encoded(),
    }
    agent = assigned.Agent(Loads(), ("t",), "state", True)
    return assigned.restored(agent, 0, stored, {("t", 0): starts}, {"t": "id"}).applied


def test_what_retention_deletes_before_the_record_at_which_an_agent_is_stopped_is_a_loss(
    monkeypatch,
):
    assert restored_at(monkeypatch, 57, 100) == {"t": 57}
    # its next batch would not continue there: the worker would end restartably at every start
    with pytest.raises(pytest.fail.Exception, match="SETUP_WRONG: a: offsets 55 to 99 of t"):
        restored_at(monkeypatch, 55, 100)
