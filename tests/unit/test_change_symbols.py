"""A feed's list of symbols changes while it is connected."""

import json
import random
from collections import deque

from producers.feed.metrics import FeedCounters
from producers.feed.outputs import ControlPublication, Publication
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.feed.states import State
from producers.vendor.frame_budget import FRAMES
from producers.vendor.subscriptions import ANSWER, PATIENCE
from producers.vendor.symbols import Feed

START = 1752826113_000_000
SECOND = 1_000_000
PARTITIONS = {"infoway.raw.trade": 6, "infoway.raw.depth": 6, "infoway.raw.kline": 6}


def protocol():
    core = FeedProtocol(
        Feed("crypto-1", "crypto", ("A", "B")),
        FeedSettings("live"),
        PARTITIONS,
        FeedCounters("crypto-1"),
        random.Random(1),
    )
    core.connected(START)
    return core


def sent(core, now=START):
    return [json.loads(send.payload) for send in core.frames_to_send(now) if send.opcode == "text"]


def subscribed():
    core = protocol()
    answer(core, sent(core))
    return core


def answer(core, requests, now=START):
    return [
        output
        for request in requests
        if request["code"] in (10000, 10003, 10006)
        for output in core.receive(
            json.dumps({"code": request["code"] + 1, "trace": request["trace"]}).encode(), now
        )
    ]


def topics(outputs):
    return [each.topic for each in outputs if isinstance(each, Publication)]


def controls(outputs, kind):
    return sorted(
        (each.topic[12:], each.key)
        for each in outputs
        if isinstance(each, ControlPublication) and each.control.kind == kind
    )


def trade(symbol, t=START // 1000):
    data = {"s": symbol, "t": t, "p": "1", "v": "1", "vw": "1", "td": 1}
    return json.dumps({"code": 10002, "data": data}).encode()


def asked(requests):
    return [
        (request["code"], request["data"].get("codes") or request["data"]["arr"][0]["codes"])
        for request in requests
        if "data" in request
    ]


def of_each_channel(codes):
    return [(code, codes) for code in (10000, 10003, 10006)]


def of(symbol):
    return [("depth", symbol), ("kline", symbol), ("trade", symbol)]


def test_removed_symbol_ends_and_added_one_begins_at_its_ack_while_the_others_go_on():
    core = subscribed()
    assert controls(core.change_symbols(("B", "C", "D"), {}, START), "end") == of("A")
    requests = sent(core)
    assert asked(requests) == [
        (11000, "A"),
        (11001, "A"),
        (11002, "A"),
        (10000, "C,D"),
        (10003, "C,D"),
        (10006, "C,D"),
    ]
    assert requests[2]["data"]["klineTypes"] == "1"
    begun = controls(answer(core, requests), "begin")
    assert begun == sorted([*of("C"), *of("D")])
    assert sent(core) == []
    assert controls(core.ended(START)[0], "end") == sorted([*of("B"), *of("C"), *of("D")])


def test_late_push_of_a_removed_symbol_is_published_and_begins_nothing():
    core = subscribed()
    core.change_symbols(("B",), {}, START)
    (record,) = core.receive(trade("A"), START)
    assert isinstance(record, Publication)
    assert controls(core.ended(START)[0], "end") == of("B")


def test_what_comes_of_a_symbol_that_was_never_let_go_is_a_dead_letter_until_it_is_back():
    # another feed may carry it by then, and gets the same trades
    core = subscribed()
    core.wanted_symbols = ("A",)
    core.apply_wanted_symbols(START)
    assert asked(sent(core)) == [(11000, "B"), (11001, "B"), (11002, "B")]
    in_time, late = START + ANSWER - 1, START + ANSWER
    sent(core, in_time)
    assert topics(core.receive(trade("B"), in_time)) == ["infoway.raw.trade"]
    sent(core, late)
    assert core.is_up_to_date
    letter, *_ = core.receive(trade("B"), late)
    assert letter.topic == "infoway.dead-letter"
    assert letter.record.value == trade("B")
    assert letter.record.error_class == "NoMoreAskedFor"
    assert topics(core.receive(trade("A"), late)) == ["infoway.raw.trade"]
    core.change_symbols(("A", "B"), {}, late)
    answer(core, sent(core, late), late)
    assert topics(core.receive(trade("B"), late)) == ["infoway.raw.trade"]


def test_a_connection_on_which_a_symbol_is_never_let_go_is_broken_after_a_minute():
    core = subscribed()
    core.change_symbols(("A",), {}, START)
    for late in (PATIENCE - 1, PATIENCE):
        assert core.state is State.OPEN
        assert topics(core.receive(trade("B"), START + late)) == ["infoway.dead-letter"]
    assert core.state is State.BROKEN
    assert core.reason == "the vendor goes on with 'B', 60 s after it was taken out"
    core.disconnected(START + PATIENCE, core.reason)
    core.connected(START + PATIENCE + 1)
    assert asked(sent(core, START + PATIENCE + 1))[0] == (10000, "A")


def test_an_added_symbol_does_not_wait_with_one_that_was_not_answered():
    # pushes of its old subscription may have begun it: what it waits is lost, and no gap says so
    core = subscribed()
    core.change_symbols(("A", "B", "C"), {}, START)
    sent(core)
    assert sent(core, START + ANSWER) == []
    core.change_symbols(("A", "B", "C", "D"), {}, START + ANSWER)
    assert asked(sent(core, START + ANSWER)) == of_each_channel("D")
    core.change_symbols(("A", "B", "D"), {}, START + ANSWER)
    core.change_symbols(("A", "B", "D", "C"), {}, START + ANSWER)
    # taken out and back: it waits no longer either
    assert asked(sent(core, START + ANSWER)) == of_each_channel("C")


def test_what_met_a_quota_waits_its_minute_though_a_symbol_is_added():
    core = protocol()
    for request in sent(core):
        core.receive(json.dumps({"code": 516, "trace": request["trace"]}).encode(), START)
    core.change_symbols(("A", "B", "C"), {}, START + SECOND)
    assert asked(sent(core, START + SECOND)) == of_each_channel("C")
    assert asked(sent(core, START + PATIENCE - 1)) == []
    assert asked(sent(core, START + PATIENCE)) == of_each_channel("A,B,C")


def test_nothing_is_asked_for_while_the_vendor_has_too_many_frames():
    core = subscribed()
    core.receive(json.dumps({"code": 501}).encode(), START)
    core.change_symbols(("A", "B", "C"), {}, START + SECOND)
    assert asked(sent(core, START + PATIENCE - 1)) == []
    # which request was meant nobody said
    assert asked(sent(core, START + PATIENCE)) == of_each_channel("A,B,C")


def test_a_refused_unsubscription_counts_as_not_answered():
    core = subscribed()
    core.wanted_symbols = ("A",)
    core.apply_wanted_symbols(START)
    for request in sent(core):
        refusal = {"code": 506, "msg": "no", "trace": request["trace"]}
        core.receive(json.dumps(refusal).encode(), START + 1)
    sent(core, START + ANSWER)
    assert not core.is_up_to_date
    sent(core, START + ANSWER + 1)
    assert core.is_up_to_date


def test_what_the_vendor_may_still_subscribe_is_unsubscribed_though_it_is_asked_for_again():
    core = protocol()
    first = sent(core)
    assert sent(core, START + ANSWER) == []
    core.wanted_symbols = ("A",)
    core.apply_wanted_symbols(START + ANSWER)
    assert asked(sent(core, START + ANSWER)) == [(11000, "B"), (11001, "B"), (11002, "B")]
    assert not core.is_up_to_date
    # the vendor takes both after all: what it answers for B is not published as new for long
    answer(core, first, START + ANSWER)
    assert topics(core.receive(trade("B"), START + 2 * ANSWER)) == ["infoway.dead-letter"]


def test_a_symbol_that_never_began_hands_on_what_still_comes_of_it():
    core = protocol()
    first = sent(core)
    core.change_symbols(("A",), {}, START)
    assert core.released["B"].observed_until_us == {}
    answer(core, first)
    core.receive(trade("B"), START)
    assert len(core.released["B"].delivered) == 1


def test_the_newest_of_what_is_known_of_a_symbol_is_what_its_subscription_brings_again():
    newer = deque([(START + 2 * SECOND, (START // 1000 + 9, "1", "1", 1))])
    core = FeedProtocol(
        Feed("crypto-1", "crypto", ("A", "B")),
        FeedSettings("live", delivered_before={"B": newer}.get),
        PARTITIONS,
        FeedCounters("crypto-1"),
        random.Random(1),
    )
    core.connected(START)
    answer(core, sent(core))
    core.receive(trade("B"), START + SECOND)
    # another feed carried B meanwhile, and nobody since
    core.change_symbols(("A",), {}, START + SECOND)
    core.change_symbols(("A", "B"), {}, START + 3 * SECOND)
    push = trade("B", START // 1000 + 9)
    (record,) = [
        each.record
        for each in core.receive(push, START + 3 * SECOND)
        if isinstance(each, Publication)
    ]
    assert record.repeat


def test_ack_of_the_first_request_does_not_begin_what_was_added_or_removed_since():
    core = protocol()
    first = sent(core)
    core.change_symbols(("B", "C"), {}, START)
    assert controls(answer(core, first), "begin") == of("B")
    assert controls(answer(core, sent(core)), "begin") == of("C")


def test_change_before_the_first_request_goes_out_with_it():
    core = protocol()
    core.change_symbols(("B", "C"), {}, START)
    assert asked(sent(core)) == [(code, "B,C") for code in (10000, 10003, 10006)]


def test_changes_that_were_not_sent_are_merged_and_what_comes_back_is_not_dropped():
    core = subscribed()
    core.change_symbols(("B", "C"), {}, START)
    core.change_symbols(("B", "D"), {}, START)
    core.change_symbols(("A", "B", "D", "E"), {}, START)
    assert asked(sent(core)) == [
        (11000, "C"), (11001, "C"), (11002, "C"), (10000, "D,A,E"), (10003, "D,A,E"),
        (10006, "D,A,E"),
    ]  # fmt: skip


def test_changes_keep_within_the_budget_of_a_minute():
    core = subscribed()
    frames = 3
    for number in range(50):
        core.change_symbols((f"S{number}",), {}, START)
        frames += len(core.frames_to_send(START + number))
    assert frames <= FRAMES


def test_added_symbols_over_a_quota_are_asked_for_again_and_no_others():
    core = subscribed()
    core.change_symbols(("A", "B", "C"), {}, START)
    refused, *others = sent(core)
    core.receive(json.dumps({"code": 516, "trace": refused["trace"]}).encode(), START)
    for request in others:
        core.receive(
            json.dumps({"code": request["code"] + 1, "trace": request["trace"]}).encode(), START
        )
    assert asked(sent(core, START + 20 * SECOND)) == []
    again = [request for request in sent(core, START + 60 * SECOND) if request["code"] != 10010]
    assert asked(again) == [(10000, "C")]


def test_change_while_the_connection_is_lost_ends_the_removed_and_the_next_one_asks_for_the_rest():
    core = subscribed()
    core.disconnected(START + SECOND, "lost")
    assert controls(core.change_symbols(("B",), {}, START + SECOND), "end") == of("A")
    core.connected(START + 2 * SECOND)
    assert asked(sent(core, START + 2 * SECOND)) == [(code, "B") for code in (10000, 10003, 10006)]
    assert controls(core.ended(START + 3 * SECOND)[0], "end") == of("B")


def test_a_change_is_taken_up_once_what_was_asked_before_is_answered_or_has_waited_long():
    core = protocol()
    first = sent(core)
    core.wanted_symbols = ("B",)
    assert core.apply_wanted_symbols(START) == []
    assert not core.is_up_to_date
    answer(core, first)
    assert controls(core.apply_wanted_symbols(START), "end") == of("A")
    unsubscribed = sent(core)
    assert not core.is_up_to_date
    for request in unsubscribed[:2]:
        core.receive(json.dumps({"code": 11010, "trace": request["trace"]}).encode(), START)
    assert not core.is_up_to_date
    sent(core, START + 5 * SECOND)
    assert core.is_up_to_date


def test_a_feed_may_lose_every_symbol_for_a_moment_and_asks_for_no_empty_list():
    core = protocol()
    core.change_symbols((), {}, START)
    assert sent(core) == []
    assert core.ended(START)[1] == []
    core = protocol()
    core.change_symbols((), {}, START)
    core.change_symbols(("C",), {}, START)
    assert asked(sent(core)) == [(code, "C") for code in (10000, 10003, 10006)]


def test_a_change_is_a_feed_status_with_the_new_symbols_in_the_state_that_was():
    core = subscribed()
    (status,) = [
        output
        for output in core.change_symbols(("B", "C"), {}, START + SECOND)
        if output.topic == "infoway.feed.status"
    ]
    assert (status.record.state, status.record.reason) == ("healthy", "other symbols")
    assert status.record.symbols == ["B", "C"]
    core.disconnected(START + 2 * SECOND, "lost")
    (status,) = [
        output
        for output in core.change_symbols(("B",), {}, START + 3 * SECOND)
        if output.topic == "infoway.feed.status"
    ]
    assert status.record.state == "down"


def test_what_a_feed_took_over_and_never_saw_is_handed_on():
    first = subscribed()
    first.change_symbols(("B",), {}, START + SECOND)
    second = FeedProtocol(
        Feed("crypto-2", "crypto", ()),
        FeedSettings("live"),
        PARTITIONS,
        FeedCounters("crypto-2"),
        random.Random(1),
    )
    second.change_symbols(("A",), {"A": first.released["A"]}, START + 2 * SECOND)
    assert controls(second.ended(START + 3 * SECOND)[0], "end") == []
    assert second.released["A"].observed_until_us == first.released["A"].observed_until_us


def test_silence_and_its_count_follow_the_symbols():
    core = subscribed()
    for second in range(400):
        core.pong(START + second * SECOND)
    assert core.counters.silent == 2
    core.change_symbols(("B", "C"), {}, START + 400 * SECOND)
    assert core.counters.silent == 1
    answer(core, sent(core, START + 400 * SECOND), START + 400 * SECOND)
    found = [
        output
        for second in range(401, 800)
        for output in core.pong(START + second * SECOND)
        if isinstance(output, Publication)
    ]
    assert [(status.record.state, status.record.symbols) for status in found] == [
        ("degraded", ["C"])
    ]
