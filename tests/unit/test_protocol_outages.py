"""What a feed tells of its outages, and of requests that the vendor refuses, limits or never
answers."""

import json

import pytest
from unit.test_protocol_feed import (
    SECOND,
    START,
    SYMBOLS,
    controls,
    protocol,
    requests_of,
    states,
    subscribed,
    trade,
)

from producers.feed.states import State
from producers.feed.subscribing import WAITS


def refuse(core, request, code, now):
    return core.receive(
        json.dumps({"code": code, "msg": "no", "trace": request["trace"]}).encode(), now
    )


def take(core, request, now):
    return core.receive(
        json.dumps({"code": request["code"] + 1, "trace": request["trace"]}).encode(), now
    )


def downs(outputs):
    """(reason, from, to) of each outage that is told, in seconds after START."""
    rows = [
        output.record
        for output in outputs
        if output.topic == "infoway.feed.status" and output.record.state == "down"
    ]
    return [
        (row[4], (row[5] - START // 1000) / 1000, row[6] and (row[6] - START // 1000) / 1000)
        for row in rows
    ]


@pytest.mark.parametrize("wrong", [None, 16_900, 30_000, 69_000])
def test_what_came_after_the_last_time_that_all_was_read_may_be_lost_from_the_last_pushes_on(wrong):
    core = subscribed()
    core.receive(trade(t=START // 1000 + 8_000), START + 8 * SECOND)
    # read 32 s late, out of a socket that was full: by then the vendor had closed it
    for event in (15_300, 15_400, 15_500):
        core.receive(trade(t=START // 1000 + event), START + 40 * SECOND)
    if wrong is not None:  # at one time the vendor's is not right
        core.receive(trade(t=START // 1000 + wrong), START + 40 * SECOND)
    core.disconnected(START + 40 * SECOND, "lost", START + 8 * SECOND)
    core.connected(START + 41 * SECOND)
    (begin,) = controls(core.receive(b'{"code":10001}', START + 41 * SECOND), "begin")[:1]
    found = begin.control.ts_from - START // 1000
    # with a time ahead of its receipt the vendor's clock seems to be ahead, too: as if nothing had
    # been read then
    assert found == {None: 15_400, 16_900: 15_500, 30_000: 15_500, 69_000: 8_000}[wrong]


@pytest.mark.parametrize(("clock", "since", "until"), [(-3, 10, 16), (0, 10, 13), (3, 7, 13)])
def test_a_gap_is_as_long_by_the_vendors_time_as_by_a_wrong_clock(clock, since, until):
    # the vendor's time is START, the producer's so many seconds before or after it
    core = protocol()
    core.connected(START)
    for code in (10001, 10004, 10007):
        core.receive(b'{"code":%d}' % code, START)
    for second in (1, 10):
        core.receive(trade(t=START // 1000 + 1_000 * (second - clock)), START + second * SECOND)
    core.disconnected(START + 10 * SECOND, "lost")
    core.connected(START + 13 * SECOND)
    (begin,) = controls(core.receive(b'{"code":10001}', START + 13 * SECOND), "begin")[:1]
    found = [(ts - START // 1000) / 1000 for ts in (begin.control.ts_from, begin.control.ts)]
    assert found == [since, until]


def test_a_subscription_without_an_answer_is_said_and_asked_for_again():
    core = protocol()
    core.connected(START)
    requests = requests_of(core.frames_to_send(START))
    take(core, requests[0], START)
    take(core, requests[2], START)
    core.frames_to_send(START + 5 * SECOND)
    assert states(core.pong(START + 5 * SECOND)) == ["degraded"]
    assert states(core.pong(START + 6 * SECOND)) == []
    assert not [
        each
        for each in requests_of(core.frames_to_send(START + 64 * SECOND))
        if each["code"] != 10010
    ]
    (again,) = [
        each
        for each in requests_of(core.frames_to_send(START + 65 * SECOND))
        if each["code"] != 10010
    ]
    assert (again["code"], again["data"]) == (10003, requests[1]["data"])
    assert states(take(core, again, START + 65 * SECOND)) == ["healthy"]


def others_than_heartbeats(core, seconds):
    sent = [
        each
        for second in seconds
        for each in requests_of(core.frames_to_send(START + second * SECOND))
    ]
    return [each["code"] for each in sent if each["code"] != 10010]


def test_an_ack_that_does_not_name_its_request_is_an_answer_all_the_same():
    core = protocol()
    core.connected(START)
    core.frames_to_send(START)
    for code in (10001, 10004, 10007):
        core.receive(b'{"code":%d,"trace":"another"}' % code, START)
    assert others_than_heartbeats(core, range(1, 100)) == []


def test_an_ack_that_comes_late_is_not_asked_for_again():
    core = protocol()
    core.connected(START)
    requests = requests_of(core.frames_to_send(START))
    core.frames_to_send(START + 6 * SECOND)
    told = [output for request in requests for output in take(core, request, START + 7 * SECOND)]
    assert states(told)[-1] == "healthy"
    assert others_than_heartbeats(core, range(7, 100)) == []


def test_a_connection_on_which_no_subscription_is_answered_is_given_up():
    core = protocol(klines=())
    core.connected(START)
    for second in range(130):
        core.frames_to_send(START + second * SECOND)
        core.pong(START + second * SECOND)
    assert (core.state, core.reason) == (State.BROKEN, "the vendor has answered no subscription")


def test_an_unsubscription_that_meets_a_limit_is_sent_again_and_nothing_else():
    core = subscribed()
    core.frames_to_send(START)
    core.change_symbols(SYMBOLS[:1], {}, START)
    first, *others = requests_of(core.frames_to_send(START))
    refuse(core, first, 501, START)
    for request in others:
        core.receive(json.dumps({"code": 11010, "trace": request["trace"]}).encode(), START)
    sent = [
        (second, each)
        for second in range(62)
        for each in requests_of(core.frames_to_send(START + second * SECOND))
    ]
    again = [(second, each["code"], each["data"]) for second, each in sent if each["code"] != 10010]
    assert again == [(60, first["code"], first["data"])]


def test_what_the_vendor_refuses_for_good_is_not_asked_for_on_the_next_connection():
    core = protocol()
    core.connected(START)
    trades, depth_request, klines = requests_of(core.frames_to_send(START))
    take(core, trades, START)
    take(core, depth_request, START)
    assert states(refuse(core, klines, 503, START)) == ["degraded"]
    core.disconnected(START + SECOND, "lost")
    core.connected(START + 2 * SECOND)
    again = requests_of(core.frames_to_send(START + 2 * SECOND))
    assert [each["code"] for each in again] == [10000, 10003]
    core.change_symbols(SYMBOLS[:1], {}, START + 3 * SECOND)
    core.disconnected(START + 4 * SECOND, "lost")
    core.connected(START + 5 * SECOND)
    # with a symbol less there may be room
    assert [each["code"] for each in requests_of(core.frames_to_send(START + 5 * SECOND))] == [
        10000,
        10003,
        10006,
    ]


def test_symbols_that_were_refused_do_not_take_the_others_with_them():
    core = subscribed()
    core.frames_to_send(START)
    core.change_symbols((*SYMBOLS, "SOLUSDT"), {}, START)
    for request in requests_of(core.frames_to_send(START)):
        refuse(core, request, 505, START)
    core.disconnected(START + SECOND, "lost")
    core.connected(START + 2 * SECOND)
    assert {
        each["data"]["codes"] for each in requests_of(core.frames_to_send(START + 2 * SECOND))[:2]
    } == {",".join(SYMBOLS)}


def test_every_outage_is_told_though_a_channel_is_refused_for_good():
    core = protocol()
    told = core.connected(START)
    for number in range(3):
        at = START + (100 * number + 1) * SECOND
        for request in requests_of(core.frames_to_send(at)):
            told += (
                refuse(core, request, 503, at)
                if request["code"] == 10006 and number
                else take(core, request, at)
            )
        # trades and depth are taken, klines never will be: what the outage was is over
        assert [reason for reason, *_ in downs(told)][-1:] == ["over"] * (number > 0)
        told += core.receive(trade(t=at // 1000 + 10_000), at + 10 * SECOND)
        told += core.disconnected(at + 20 * SECOND, "lost")
        told += core.connected(at + 99 * SECOND)
    assert [(reason, since) for reason, since, until in downs(told) if until is None] == [
        ("lost", 11),
        ("lost", 111),
        ("lost", 211),
    ]
    assert [until for reason, _, until in downs(told) if reason == "over"] == [101, 201]


def test_an_outage_goes_on_over_a_connection_that_brought_nothing_and_is_the_last_that_is_said():
    core = subscribed()
    told = core.disconnected(START + 10 * SECOND, "lost") + core.connected(START + 20 * SECOND)
    told += core.disconnected(START + 21 * SECOND, "lost again") + core.disconnected(
        START + 40 * SECOND, "no connection"
    )
    assert downs(told) == [("lost", 0, None), ("lost again", 0, None)]
    assert states(told)[-1] == "down"


def test_an_outage_that_data_ended_before_every_answer_is_over_with_its_first():
    core = subscribed()
    told = core.disconnected(START + 10 * SECOND, "lost") + core.connected(START + 20 * SECOND)
    told += core.receive(trade(t=START // 1000 + 21_000), START + 21 * SECOND)
    told += core.disconnected(START + 30 * SECOND, "lost again")
    assert downs(told) == [("lost", 0, None), ("over", 0, 21), ("lost again", 21, None)]


@pytest.mark.parametrize("code", [427, 512, 521])
def test_too_many_connections_is_waited_for_after_a_loss_and_ends_the_feed_otherwise(code):
    core = subscribed()
    for _ in range(WAITS):
        core.disconnected(START + SECOND, "lost")
        core.connected(START + 2 * SECOND)
        core.receive(b'{"code":%d}' % code, START + 2 * SECOND)
        assert (core.state, core.pause_us) == (State.BROKEN, 60 * SECOND)
    core.disconnected(START + SECOND, "lost")
    core.connected(START + 2 * SECOND)
    core.receive(b'{"code":%d}' % code, START + 2 * SECOND)
    assert core.state is State.REFUSED
    first = protocol()
    first.connected(START)
    first.receive(b'{"code":%d}' % code, START)
    assert first.state is State.REFUSED


def test_a_vendor_that_says_too_many_frames_gets_fewer_pings_for_a_while():
    core = subscribed()
    (request, *_) = requests_of(core.frames_to_send(START))
    refuse(core, request, 501, START)

    def pings(since, until):
        sent = [
            send
            for second in range(since, until)
            for send in core.frames_to_send(START + second * SECOND)
        ]
        return sum(send.opcode == "ping" for send in sent)

    assert (pings(1, 60), pings(60, 119) > 20) == (5, True)


def test_a_pong_to_the_vendor_counts_as_a_frame():
    core = protocol()
    core.connected(START)
    for _ in range(51):
        core.ping(START)
    assert len(core.frames_to_send(START)) == 1
    assert core.frames_to_send(START + SECOND) == []


def test_a_heartbeat_that_is_due_goes_before_everything_else():
    core = protocol()
    core.connected(START)
    assert [each["code"] for each in requests_of(core.frames_to_send(START + 30 * SECOND))] == [
        10010,
        10000,
        10003,
        10006,
    ]


def test_the_farewell_keeps_within_the_frames_of_a_minute():
    core = subscribed()
    for _ in range(50):
        core.ping(START)
    assert [each["code"] for each in requests_of(core.ended(START)[1])] == [11000, 11001]


def test_what_was_under_way_when_a_symbol_moved_is_in_the_gap_of_its_move():
    before, after = subscribed(), protocol(symbols=("SOLUSDT",))
    before.change_symbols(SYMBOLS[:1], {}, START + 10 * SECOND)
    after.connected(START)
    after.change_symbols(
        ("SOLUSDT", SYMBOLS[1]), {SYMBOLS[1]: before.released[SYMBOLS[1]]}, START + 11 * SECOND
    )
    told = after.receive(trade(SYMBOLS[1], t=START // 1000 + 12_000), START + 12 * SECOND)
    (gap,) = controls(told, "gap")
    assert (gap.key, gap.control.ts_from, gap.control.ts) == (
        SYMBOLS[1],
        START // 1000 - 2_000,
        START // 1000 + 12_000,
    )
