"""Feeds: watermarks, lateness and completeness of one partition."""

from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.model.event_time import EventTime, Feeds
from processors.model.observation import FOREVER
from processors.model.records import Book, ControlRecord, SourcesMixed, Trade
from processors.model.spans import Spans
from schemas.control import HELD_BACK_MS, Control

T = 1_700_000_000_000
LONG_AGO, FAR = T - 10**9, T + 10**9


def feeds(reach_ms=60_000, entries=None, **settings):
    return Feeds(EventTime(**settings), 0, reach_ms, entries or {})


def trade(ts, symbol="A", feed="f", connection="c1", recv=None, repeat=False, source="live"):
    return Trade(
        0, symbol, ts, 1, 1, 0, None, repeat, "stock", feed, connection, (recv or ts) * 1000, source
    )


def control(kind, ts, symbol="A", feed="f", connection="c1", ts_from=None, source="live"):
    return ControlRecord(
        0, symbol, Control(kind, feed, "stock", connection, source, ts, ts * 1000, ts_from)
    )


def restored(state, reach_ms=60_000):
    return feeds(reach_ms, dict(state.dirty()))


def test_the_watermark_is_the_greatest_event_time_of_the_feed_less_the_delay():
    state = feeds()
    state.accept(trade(T))
    state.accept(trade(T - 5_000))
    assert state.watermark("f") == T - 2_000
    state.control(control("mark", T + 9_000, symbol=None))
    assert state.watermark("f") == T + 7_000
    state.observe(Book(0, "A", T + 10_000, [], [], "stock", "f", "c1", T * 1000, "live"))
    assert state.watermark("f") == T + 8_000


def test_feeds_of_a_partition_have_watermarks_of_their_own():
    state = feeds()
    state.accept(trade(T))
    state.accept(trade(T + 50_000, symbol="B", feed="g"))
    assert (state.watermark("f"), state.watermark("g")) == (T - 2_000, T + 48_000)


def test_a_trade_is_too_late_once_the_log_before_it_has_passed_the_horizon():
    state = feeds(watermark_delay_ms=2_000, revision_horizon_ms=10_000)
    assert state.accept(trade(T))
    assert state.accept(trade(T - 12_000))
    assert not state.accept(trade(T - 12_001))
    assert state.accept(trade(T + 500_000)), (
        "a trade is judged by the log before it, never by its own time"
    )
    assert not state.accept(trade(T))


def test_begin_end_and_gap_do_not_move_event_time():
    state = feeds()
    state.accept(trade(T))
    for kind in ("begin", "gap", "end"):
        state.control(control(kind, T + 100_000, ts_from=T))
    assert state.watermark("f") == T - 2_000


def test_repeats_count_nowhere_but_show_that_the_feed_lives():
    state = feeds(feed_latency_ms=0)
    state.control(control("begin", T))
    state.accept(trade(T))
    assert not state.accept(trade(T + 90_000, repeat=True))
    assert state.watermark("f") == T - 2_000
    state.control(control("begin", T + 95_000, connection="c2", ts_from=T + 91_000))
    assert state.completeness("A", T + 89_000, T + 90_000) == "complete"
    assert state.completeness("A", T + 90_000, T + 90_001) == "gap"


@pytest.mark.parametrize(
    "record", [trade(T, source="replay"), trade(T, source="replay", repeat=True)]
)
def test_another_source_is_refused(record):
    state = feeds()
    state.accept(trade(T))
    with pytest.raises(SourcesMixed):
        state.accept(record)
    with pytest.raises(SourcesMixed):
        state.control(control("mark", T, symbol=None, source="replay"))
    with pytest.raises(SourcesMixed):
        restored(state).accept(record)


def test_before_its_first_begin_a_symbol_is_partial():
    state = feeds()
    state.control(control("begin", T))
    assert state.completeness("A", T - 1, T + 1) == "partial"
    assert state.completeness("A", LONG_AGO, T) == "partial"
    assert state.completeness("A", T, FAR) == "complete"


def test_without_a_begin_coverage_starts_with_the_first_trade():
    state = feeds()
    state.accept(trade(T))
    assert state.completeness("A", T - 1, FAR) == "partial"
    assert state.completeness("A", T, FAR) == "complete"


def test_after_an_orderly_end_the_time_until_the_next_begin_is_partial():
    state = feeds()
    state.control(control("begin", T))
    assert list(state.control(control("end", T + 10_000))) == ["A"]
    assert state.ended("A")
    # what was under way at the end may be lost with it
    assert state.completeness("A", T, T + 9_000) == "complete"
    assert state.completeness("A", T, T + 9_001) == "partial"
    assert state.completeness("A", FAR, FAR + 1) == "partial"
    state.control(control("begin", T + 20_000, connection="c2"))
    assert not state.ended("A")
    assert state.completeness("A", T + 19_999, FAR) == "partial"
    assert state.completeness("A", T + 20_000, FAR) == "complete"


def test_a_gap_reported_after_the_end_leaves_the_end_open_until_the_begin():
    state = feeds()
    state.control(control("begin", T))
    state.control(control("end", T + 10_000))
    state.control(control("gap", T + 6_000, ts_from=T + 5_000))
    state.control(control("begin", T + 20_000))
    assert state.completeness("A", T + 20_000, FAR) == "complete"
    assert state.completeness("A", T + 10_000, T + 20_000) == "partial"
    assert state.completeness("A", T, T + 10_000) == "gap"


def test_a_begin_while_running_is_a_gap_from_the_last_push_less_the_latency():
    state = feeds(feed_latency_ms=1_000)
    state.control(control("begin", T))
    state.accept(trade(T + 5_000, recv=T + 5_200))
    # of a pong: what the vendor holds back meanwhile is lost with the producer
    state.control(control("mark", T + 8_000, symbol=None))
    state.control(control("begin", T + 60_000, connection="c2"))
    assert state.completeness("A", T, T + 4_000) == "complete"
    assert state.completeness("A", T, T + 4_001) == "gap"
    assert state.completeness("A", T + 59_999, FAR) == "gap"
    assert state.completeness("A", T + 60_000, FAR) == "complete"


def test_of_a_quiet_market_a_killed_feed_has_a_gap_of_a_minute_before_its_last_sign_of_life():
    state = feeds(feed_latency_ms=1_000)
    state.control(control("begin", T))
    state.accept(trade(T + 5_000))
    state.control(control("mark", T + 600_000, symbol=None))
    state = restored(state)
    state.control(control("begin", T + 610_000, connection="c2"))
    since = T + 600_000 - HELD_BACK_MS - 1_000
    assert state.completeness("A", T, since) == "complete"
    assert state.completeness("A", T, since + 1) == "gap"


def test_the_gap_of_a_killed_feed_begins_no_earlier_than_the_symbol_was_wanted():
    state = feeds(feed_latency_ms=1_000)
    state.control(control("begin", T))
    state.control(control("mark", T + 8_000, symbol=None))
    state.control(control("begin", T + 20_000, connection="c2"))
    assert state.completeness("A", T - 60_000, T - 1_000) == "partial"
    assert state.completeness("A", T, T + 1) == "gap"


def test_a_state_of_the_version_before_has_a_push_where_it_had_an_event_time():
    def entries(*known):
        feed = {"f": ["stock", "c", T + 5_000, T + 5_200, *known]}
        return {b"\0feeds": orjson.dumps({"source": "simulated", "feeds": feed})}

    pushed = Feeds(EventTime(), 0, 0, entries(True)).feed("f")
    assert pushed.latest_push_ms == T + 5_000
    assert Feeds(EventTime(), 0, 0, entries(False)).feed("f").latest_push_ms < 0
    assert Feeds(EventTime(), 0, 0, entries(T)).feed("f").latest_push_ms == T


def test_the_producers_own_knowledge_of_the_last_life_counts_where_it_is_earlier():
    state = feeds(feed_latency_ms=1_000)
    state.control(control("begin", T))
    state.accept(trade(T + 5_000))
    state.control(control("begin", T + 60_000, connection="c2", ts_from=T + 3_000))
    assert state.completeness("A", T, T + 2_001) == "gap"
    other = feeds(feed_latency_ms=1_000)
    other.control(control("begin", T))
    other.accept(trade(T + 5_000))
    other.control(control("begin", T + 60_000, connection="c2", ts_from=T + 30_000))
    assert other.completeness("A", T + 4_000, T + 4_001) == "gap"
    assert other.completeness("A", T, T + 4_000) == "complete"


def test_each_symbol_has_the_whole_gap_though_others_lived_on_the_new_connection_before():
    state = feeds(feed_latency_ms=1_000)
    for symbol in ("A", "B"):
        state.control(control("begin", T, symbol=symbol))
    state.accept(trade(T + 5_000))
    state.control(control("begin", T + 60_000, symbol="A", connection="c2"))
    state.accept(trade(T + 61_000, symbol="A", connection="c2"))
    state = restored(state)
    state.control(control("begin", T + 62_000, symbol="B", connection="c2"))
    assert state.completeness("A", T + 60_000, FAR) == "complete"
    assert state.completeness("B", T + 4_000, T + 4_001) == "gap"
    assert state.completeness("B", T + 61_999, FAR) == "gap"


def test_a_known_loss_is_a_gap_for_its_symbol_or_for_all_of_the_feed():
    state = feeds()
    for symbol, feed in (("B", "f"), ("A", "f"), ("C", "g")):
        state.control(control("begin", T, symbol=symbol, feed=feed))
    assert list(state.control(control("gap", T + 9_000, ts_from=T + 8_000))) == ["A"]
    assert state.completeness("B", T, FAR) == "complete"
    assert list(state.control(control("gap", T + 20_000, symbol=None, ts_from=T + 10_000))) == [
        "A",
        "B",
    ]
    assert state.completeness("B", T + 19_999, FAR) == "gap"
    assert state.completeness("C", T, FAR) == "complete"


def test_a_gap_wins_over_partial_and_touching_is_not_overlapping():
    state = feeds()
    state.control(control("begin", T))
    state.control(control("gap", T + 9_000, ts_from=T + 8_000))
    assert state.completeness("A", T - 1, FAR) == "gap"
    assert state.completeness("A", T, T + 8_000) == "complete"
    assert state.completeness("A", T + 9_000, FAR) == "complete"
    state.control(control("end", T + 10_000))
    assert state.completeness("A", T, FAR) == "gap"


def test_a_symbol_moves_to_the_feed_that_it_begins_on_and_its_watermark_never_goes_back():
    state = feeds()
    state.control(control("begin", T))
    state.accept(trade(T + 50_000))
    state.accept(trade(T, symbol="B", feed="g", connection="d1"))
    state.control(control("begin", T + 50_500, feed="g", connection="d1"))
    assert state.feed_of("A").name == "g"
    assert state.symbols_of("g") == ["A", "B"]
    assert state.watermark("g") == T - 2_000
    assert state.watermark_of("A") == T + 48_000
    state = restored(state)
    assert state.accept(trade(T - 552_000, feed="g", connection="d1"))
    assert not state.accept(trade(T - 552_001, feed="g", connection="d1"))
    state.control(control("end", T + 51_000))
    assert not state.ended("A"), "the end on the feed that it left does not end it"


def test_interruptions_out_of_reach_are_forgotten():
    state = feeds(reach_ms=60_000, revision_horizon_ms=10_000)
    state.control(control("begin", T))
    for minute in range(1, 200):
        state.accept(trade(T + minute * 60_000))
        state.control(control("gap", T + minute * 60_000, ts_from=T + minute * 60_000 - 10))
    stored = b"".join(value for key, value in state.dirty() if key.startswith(b"\0lost:") and value)
    assert 1 <= stored.count(b"gap") <= 3


def test_what_did_not_change_is_not_written_again():
    state = feeds()
    state.control(control("begin", T))
    assert {key for key, _ in state.dirty()} == {b"\0feeds", b"\0symbol:A"}
    assert list(state.dirty()) == []
    state.accept(trade(T + 1))
    assert {key for key, _ in state.dirty()} == {b"\0feeds"}


def test_an_end_by_a_slow_clock_does_not_take_back_what_was_delivered():
    state = feeds()
    state.control(control("begin", T - 60_000))
    state.accept(trade(T, recv=T - 1_270))
    state.control(control("end", T - 1_270))
    assert state.completeness("A", T - 60_000, T) == "complete"
    assert state.completeness("A", T - 60_000, T + 1) == "partial"


@pytest.mark.parametrize(("kind", "connection"), [("begin", "c2"), ("gap", "c1"), ("gap", "c2")])
def test_what_a_killed_producer_had_not_read_yet_is_in_the_gap(kind, connection):
    state = feeds()
    state.control(control("begin", T - 60_000))
    # read 7 s after it had come: what was lost with the process came right behind it
    state.accept(trade(T, recv=T + 7_000))
    state = restored(state)
    state.control(control(kind, T + 9_000, connection=connection))
    assert state.completeness("A", T - 60_000, T - 1_000) == "complete"
    assert state.completeness("A", T - 999, T - 998) == "gap"
    assert state.completeness("A", T + 8_999, T + 9_000) == "gap"
    assert state.completeness("A", T + 9_000, FAR) == "complete"


SPAN = st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda span: (span[0], sum(span)))


@given(st.lists(SPAN, max_size=15), st.integers(-2, 32), st.integers(1, 8), st.integers(0, 40))
def test_merged_spans_answer_as_all_of_them_do(added, start, length, until):
    """Also those without length, and those that are pruned: what ends later is still answered."""
    spans = Spans()
    for begin, end in added:
        spans.add(begin, end)
    asked = [(start, start + length), (max(start, until), max(start, until) + length)]
    for begin, end in asked:
        assert spans.overlap(begin, end) == any(one < end and to > begin for one, to in added)
        spans.prune(until)
    merged = list(spans)
    assert all(before[1] < after[0] for before, after in pairwise(merged))


def test_a_wave_of_reconnects_a_minute_for_days_is_written_by_the_hour_and_leaves_with_the_reach():
    state, entries, most = feeds(reach_ms=2 * 86_400_000), {}, 0
    state.control(control("begin", T))
    for minute in range(1, 30 * 1_440):
        now = T + minute * 60_000
        state.accept(trade(now - 30_000, connection=f"c{minute - 1}"))
        state.control(control("begin", now, connection=f"c{minute}"))
        changes = dict(state.dirty())
        most = max(most, sum(len(key) + len(value or b"") for key, value in changes.items()))
        entries = {key: value for key, value in (entries | changes).items() if value is not None}
    assert most < 4_000, "bytes that one reconnect writes"
    assert len(entries) < 55
    back = feeds(2 * 86_400_000, entries)
    for start in range(now - 86_400_000, now, 7_000):
        assert state.completeness("A", start, start + 1) == back.completeness("A", start, start + 1)


def test_interruptions_that_an_older_version_wrote_are_read_and_written_in_the_new_form():
    old = [
        (T, T + 10, "gap"),
        (T + 5, T + 20, "gap"),
        (T, T + 30, "partial"),
        (T + 90, FOREVER, "partial"),
    ]
    stored = {
        b"\0feeds": orjson.dumps({"source": "live", "feeds": {"f": ["stock", "c1", T, T, True]}}),
        b"\0symbol:A": orjson.dumps(["f", True, LONG_AGO, None, old]),
    }
    state = feeds(entries=stored)
    for again in (state, feeds(entries={**stored, **dict(state.dirty())})):
        answers = [
            again.completeness("A", T + at, T + at + 1) for at in (0, 19, 20, 29, 30, 89, 90)
        ]
        assert answers == ["gap", "gap", "partial", "partial", "complete", "complete", "partial"]
        again.control(control("begin", T + 100))
        assert again.completeness("A", T + 99, T + 200) == "partial"
        assert again.completeness("A", T + 100, T + 200) == "complete"
