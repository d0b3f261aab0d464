"""Schedules: the same seed draws the same faults, a file gives them back, and shrinking finds the
faults that matter."""

import pytest
from schedule import (
    KINDS,
    Fault,
    FreezeWorker,
    KillWorker,
    Schedule,
    Vendor,
    draw,
    in_order,
)
from shrink import shrink
from strikes import strike


def test_a_seed_draws_the_same_schedule_again_and_another_seed_another():
    assert draw(7, 600, 3) == draw(7, 600, 3)
    assert draw(7, 600, 3) != draw(8, 600, 3)


def test_every_kind_of_fault_is_drawn_and_comes_back_from_its_file():
    schedule = draw(7, 3600, 3)
    assert {type(fault).__name__ for fault in schedule.faults} == set(KINDS)
    assert Schedule.load(schedule.dump()) == schedule
    assert Schedule.load(draw(7, 1, 3).dump()).faults == ()


def test_no_two_faults_strike_one_target_at_a_time():
    until = {}
    for fault in draw(7, 3600, 2).faults:
        assert fault.at >= until.get(fault.struck, 0)
        until[fault.struck] = fault.at + fault.seconds


def test_a_file_that_is_no_schedule_is_refused_with_what_is_wrong():
    head = '{"seed": 1, "seconds": 9, "faults": ['
    assert Schedule.load(head + "]}").faults == ()
    for text in ("[]", "{}", head + '{"kind": "Flood", "at": 1}]}', head + '{"at": 1}]}'):
        with pytest.raises(ValueError):
            Schedule.load(text)


def test_shrinking_finds_the_two_faults_that_fail_together():
    guilty = {
        KillWorker(at=100.0, slot="w1"),
        FreezeWorker(at=200.0, slot="w2", seconds=9.0),
    }
    drawn = draw(7, 900, 4)
    schedule = drawn.with_faults([*drawn.faults, *guilty])
    tries = []

    def fails(tried):
        tries.append(tried)
        return guilty <= set(tried.faults)

    found = shrink(schedule, fails, tries=400)
    assert set(found.faults) == guilty
    assert found.seconds == 219.0
    assert len(tries) <= 400


def test_shrinking_stops_after_so_many_tries_with_what_still_fails():
    schedule = draw(7, 900, 4)
    tries = []
    found = shrink(schedule, lambda tried: tries.append(tried) or len(tried.faults) > 3, tries=5)
    assert len(tries) == 5
    assert len(found.faults) > 3


def test_a_schedule_is_in_the_order_of_time():
    later, sooner = Vendor(at=2, do="reset"), Vendor(at=1, do="reset")
    assert in_order([later, sooner]) == (sooner, later)


def test_every_kind_of_fault_is_carried_out_by_something():
    nothing = strike.dispatch(Fault)
    assert [name for name, kind in KINDS.items() if strike.dispatch(kind) is nothing] == []
