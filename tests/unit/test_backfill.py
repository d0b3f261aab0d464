"""Klines of the past: paged without a hole, final ones only, published with their heals; and gaps healed while feeds run."""

import threading
import time
from bisect import bisect_right

import orjson
import pytest

from infra.backfill import BackfillRunning, BadPeriod, _Done, backfill
from producers.answers import Kline, RestError
from producers.backfill import (
    LATENCY,
    LONGEST,
    LONGEST_RETRY,
    MINUTE,
    RETRY,
    SETTLED,
    Healer,
    final_until,
    heals,
    pages,
    raw_klines,
)
from producers.outages import Outage, Outages, OutagesUnreadable
from producers.rest import MAX_KLINES
from schemas.topics import load_schema
from schemas.wire import compile_encoder

T = 1_722_902_400_000


class Vendor:
    """Answers klines of a market that is closed in the second half of each hour; fails as often as told."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.asked = []
        self.package = None

    def package_info(self):
        if self.package:
            raise self.package

    def klines(self, business, symbol, interval, count, until_ms):
        self.asked.append((symbol, until_ms))
        if self.errors:
            raise self.errors.pop(0)
        assert count <= MAX_KLINES
        starts = [
            start
            for start in range(T - 2_000 * MINUTE, T + 3_000 * MINUTE, MINUTE)
            if start // MINUTE % 60 < 30
        ]
        chosen = starts[: bisect_right(starts, until_ms)][-count:]
        return [
            Kline(symbol, interval, start, "1", "2", "0.5", "1.5", "10", "12.5", None, "0%")
            for start in chosen
        ]


class Sink:
    def __init__(self):
        self.outputs = []
        self.behind = False
        self.changed = threading.Condition()

    def publish(self, outputs, counters):
        with self.changed:
            self.outputs += outputs
            self.changed.notify()

    def serve(self):
        pass

    def minutes(self, topic, count):
        """The minutes of the records of a topic, waited for."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self._of(topic)) >= count, 5)
            return self._of(topic)

    def _of(self, topic):
        return [
            ((o.fields[2] if topic == "infoway.raw.kline" else o.control.ts - MINUTE) - T) // MINUTE
            for o in self.outputs
            if o.topic == topic
        ]


def test_pages_follow_each_other_without_a_hole_or_a_repeat():
    found = [
        kline.ts_start
        for _, klines in pages(Vendor(), "crypto", "A", "1m", T + 1, T + 1_900 * MINUTE)
        for kline in klines
    ]
    assert found == [
        start for start in range(T, T + 1_900 * MINUTE, MINUTE) if start // MINUTE % 60 < 30
    ]


def test_a_period_within_a_closed_market_has_no_klines():
    assert [
        klines
        for _, klines in pages(Vendor(), "crypto", "A", "1m", T + 40 * MINUTE, T + 50 * MINUTE)
    ] == [[]]


def test_an_interval_without_a_time_is_refused():
    with pytest.raises(ValueError, match="1m, 5m"):
        next(pages(Vendor(), "crypto", "A", "1d", T, T + 1))


def test_a_kline_counts_as_final_only_some_seconds_after_its_end():
    assert final_until(T + SETTLED - 1, "1m") == T - MINUTE
    assert final_until(T + SETTLED, "1m") == T


def test_records_fit_their_schema_and_the_heal_says_the_kline_as_the_vendor_wrote_it():
    klines = Vendor().klines("crypto", "A", "5m", 2, T)
    records = raw_klines(klines, "crypto-1", "crypto", "rest-1", 7, 99)
    encode, names = (
        compile_encoder(load_schema("raw_kline"), 1),
        [field["name"] for field in load_schema("raw_kline")["fields"]],
    )
    rows = [
        dict(zip(names, record.fields, strict=True)) for record in records if encode(*record.fields)
    ]
    assert [
        (row["sequence"], row["source"], row["connection"], row["turnover"]) for row in rows
    ] == [
        (7, "rest", "rest-1", "12.5"),
        (8, "rest", "rest-1", "12.5"),
    ]
    last = heals(klines, "crypto-1", "crypto", "rest-1", 99)[-1]
    assert (last.key, last.control.kind, last.control.ts, last.control.source) == (
        "A",
        "heal",
        T + 5 * MINUTE,
        "rest",
    )
    assert orjson.loads(last.control.kline) == {
        "interval": "5m", "ts_start": T, "open": "1", "high": "2", "low": "0.5", "close": "1.5", "volume": "10", "turnover": "12.5",
    }  # fmt: skip


class Clock:
    """A time, ms UTC, that the test sets; the healer looks at it again."""

    def __init__(self, now):
        self.now = now
        self.healers = []

    def __call__(self):
        return self.now * 1000

    def set(self, now):
        self.now = now
        for healer in self.healers:
            with healer._outages._changed:
                healer._outages._changed.notify()


@pytest.fixture
def healing():
    """Makes a running healer at a time that the test sets."""
    running = []

    def make(vendor, now, last_life=lambda feed, symbol: None, memory=None, sink=None):
        clock = now if isinstance(now, Clock) else Clock(now)
        sink = sink or Sink()
        healer = Healer(vendor, sink, last_life, memory, clock).__enter__()
        clock.healers.append(healer)
        running.append(healer)
        return healer, sink

    yield make
    for healer in running:
        healer.__exit__()


def test_every_minute_that_a_gap_touches_is_healed(healing):
    healer, sink = healing(Vendor(), T + 5 * MINUTE)
    healer.unseen("A", "crypto", "crypto-1", T + MINUTE + LATENCY - 1, T + 3 * MINUTE + 1)
    assert sink.minutes("infoway.raw.trade", 4) == [0, 1, 2, 3]
    assert sink.minutes("infoway.raw.kline", 4) == [0, 1, 2, 3]
    assert {
        output.control.feed for output in sink.outputs if output.topic == "infoway.raw.trade"
    } == {"crypto-1"}


def test_a_minute_is_not_asked_for_before_it_is_final(healing):
    vendor = Vendor()
    healer, sink = healing(vendor, T + 2 * MINUTE + SETTLED - 1)
    healer.unseen("late", "crypto", "crypto-1", T, T + MINUTE + 1)
    healer.unseen("done", "crypto", "crypto-1", T, T + MINUTE)
    assert sink.minutes("infoway.raw.trade", 1) == [0]
    assert {symbol for symbol, _ in vendor.asked} == {"done"}


def test_the_first_begin_of_a_process_reaches_back_to_what_the_log_has_of_the_feed(healing):
    healer, sink = healing(
        Vendor(),
        T + 12 * MINUTE,
        lambda feed, symbol: T + 5 * MINUTE if (feed, symbol) == ("crypto-1", "A") else None,
    )
    healer.unseen("B", "crypto", "crypto-1", None, T + 10 * MINUTE)
    healer.unseen("A", "crypto", "crypto-1", None, T + 8 * MINUTE)
    assert sink.minutes("infoway.raw.trade", 4) == [4, 5, 6, 7]


def test_a_failed_request_is_made_again_until_agents_have_forgotten_the_gap(healing, caplog):
    busy = RestError("busy", 429, retryable=True)
    vendor, clock = Vendor(*[busy] * 20), Clock(T + 5 * MINUTE)
    healer, sink = healing(vendor, clock)
    healer.unseen("A", "crypto", "crypto-1", T + LATENCY, T + 1)
    waits = []
    while len(waits) < 20:
        (waiting,) = waited(healer, lambda known: known and known[0].due > clock.now)
        waits.append(waiting.due - clock.now)
        clock.set(waiting.due)
    assert waits == [
        RETRY,
        2 * RETRY,
        4 * RETRY,
        8 * RETRY,
        16 * RETRY,
        *[LONGEST_RETRY] * (len(waits) - 5),
    ]
    assert sink.minutes("infoway.raw.trade", 1) == [0]
    vendor.errors = [busy]
    clock.set(T + LONGEST + 2)
    healer.unseen("B", "crypto", "crypto-1", T, T + 1)
    healer.unseen("C", "crypto", "crypto-1", T, T + 1)
    sink.minutes("infoway.raw.trade", 2)
    assert (
        "B: the gap from 2024-08-05T23:59:58Z to 2024-08-06T00:00:00Z is not healed: busy"
        in caplog.text
    )


def test_what_the_vendor_does_not_have_is_named_and_not_asked_for_again(healing, caplog):
    vendor = Vendor(RestError("no such symbol", 508))
    healer, sink = healing(vendor, T + 5 * MINUTE)
    healer.unseen("C", "crypto", "crypto-1", T, T + 1)
    healer.unseen("D", "crypto", "crypto-1", T, T + 2)
    sink.minutes("infoway.raw.trade", 1)
    assert [symbol for symbol, _ in vendor.asked] == ["C", "D"]
    assert (
        "C: the gap from 2024-08-05T23:59:58Z to 2024-08-06T00:00:00Z is not healed: no such symbol"
        in caplog.text
    )


def test_a_failure_counts_from_when_it_was_met_and_not_from_when_the_gap_was_due(healing):
    vendor = Vendor(RestError("busy", 429, retryable=True))
    healer, _ = healing(vendor, T + 600 * MINUTE)
    healer.unseen("A", "crypto", "crypto-1", T, T + 1)
    (waiting,) = waited(healer, lambda known: known and known[0].attempts)
    assert waiting.due == T + 600 * MINUTE + RETRY


def test_outages_that_one_request_can_heal_are_one(healing):
    vendor, clock = Vendor(), Clock(T)
    healer, sink = healing(vendor, clock)
    for minute in (1, 3, 5):
        healer.unseen(
            "A",
            "crypto",
            "crypto-1",
            T + minute * MINUTE + LATENCY,
            T + minute * MINUTE + LATENCY + 1,
        )
    healer.unseen("A", "crypto", "crypto-2", T + 3 * MINUTE + LATENCY, T + 3 * MINUTE + LATENCY + 1)
    healer.unseen("A", "crypto", "crypto-1", T + 2_000 * MINUTE, T + 2_000 * MINUTE + 1)
    clock.set(T + 6 * MINUTE + SETTLED)
    # the whole of the three and the other feed's, of which klines are another record's cause
    assert sorted(sink.minutes("infoway.raw.kline", 6)) == [1, 2, 3, 3, 4, 5]
    assert len(vendor.asked) == 2
    (waiting,) = waited(healer, lambda known: len(known) == 1)
    assert waiting.ts_to == T + 2_000 * MINUTE + 1


def test_of_outages_that_became_one_no_minute_is_asked_for_before_it_is_final(healing):
    vendor, clock = Vendor(), Clock(T)
    healer, sink = healing(vendor, clock)
    healer.unseen("A", "crypto", "crypto-1", T + LATENCY, T + LATENCY + 1)
    healer.unseen("A", "crypto", "crypto-1", T + 2 * MINUTE + LATENCY, T + 2 * MINUTE + LATENCY + 1)
    clock.set(T + MINUTE + SETTLED)
    assert sink.minutes("infoway.raw.kline", 1) == [0]
    (waiting,) = waited(healer, lambda known: len(known) == 1 and known[0].ts_from == T + MINUTE)
    assert waiting.due == T + 3 * MINUTE + SETTLED
    clock.set(waiting.due)
    assert sink.minutes("infoway.raw.kline", 3) == [0, 1, 2]


def test_what_was_not_healed_is_healed_by_the_next_process(healing, tmp_path):
    memory, clock = tmp_path / "healing.json", Clock(T + 5 * MINUTE)
    vendor = Vendor(RestError("busy", 429, retryable=True))
    healer, sink = healing(vendor, clock, memory=memory)
    healer.unseen("A", "crypto", "crypto-1", T + LATENCY, T + 1)
    healer.unseen("B", "crypto", "crypto-1", T + 6 * MINUTE + LATENCY, T + 6 * MINUTE + LATENCY + 1)
    waited(healer, lambda known: len(known) == 2 and known[0].attempts + known[1].attempts == 1)
    healer.__exit__()
    again, sink = healing(Vendor(), Clock(T + 9 * MINUTE), memory=memory)
    assert sorted(sink.minutes("infoway.raw.trade", 2)) == [0, 6]
    waited(again, lambda known: memory.read_bytes() == b"[]")


def test_a_process_that_is_killed_while_it_heals_has_not_healed(tmp_path):
    outages = Outages(tmp_path / "o.json", 1)
    outages.put(Outage(1, 0, 1, "A", "crypto", "crypto-1"))
    assert outages.next(lambda: 1) is not None
    outages.put(Outage(2, 0, 1, "B", "crypto", "crypto-1"))
    again = Outages(tmp_path / "o.json", 1)
    for due, symbol in ((1, "A"), (2, "B")):
        assert again.next(lambda: 2) == Outage(due, 0, 1, symbol, "crypto", "crypto-1")
        again.done()
    assert (tmp_path / "o.json").read_bytes() == b"[]"


@pytest.mark.parametrize("text", ["", "{}5", '[["x"]]', "7"])
def test_a_file_that_holds_no_outages_is_named(tmp_path, text):
    (tmp_path / "o.json").write_text(text)
    with pytest.raises(
        OutagesUnreadable, match=r"o\.json should hold the gaps that wait .* remove it, and heal by"
    ):
        Outages(tmp_path / "o.json", 1)


def test_a_disk_that_takes_nothing_is_said_and_the_gap_is_healed_all_the_same(tmp_path, caplog):
    outages = Outages(tmp_path / "missing" / "o.json", 1)
    outages.put(Outage(1, 0, 1, "A", "crypto", "crypto-1"))
    assert outages.next(lambda: 1) is not None
    assert "gaps that wait to be healed are forgotten with this process" in caplog.text


def test_while_records_wait_on_disk_no_klines_come_behind_them(healing):
    vendor, clock, sink = Vendor(), Clock(T + 5 * MINUTE), Sink()
    sink.behind = True
    healer, _ = healing(vendor, clock, sink=sink)
    healer.unseen("A", "crypto", "crypto-1", T + LATENCY, T + 1)
    (waiting,) = waited(healer, lambda known: known and known[0].due > clock.now)
    assert (vendor.asked, waiting.attempts) == ([], 0)
    sink.behind = False
    clock.set(waiting.due)
    assert sink.minutes("infoway.raw.trade", 1) == [0]


def test_what_nobody_expected_ends_the_producer(healing):
    vendor = Vendor(AssertionError("a bug"))
    healer, _ = healing(vendor, T + 5 * MINUTE)
    healer.unseen("A", "crypto", "crypto-1", T, T + 1)
    healer._thread.join(5)
    assert isinstance(healer.failure, AssertionError)


def waited(healer, holds):
    """The outages that wait, once something holds of them."""
    give_up = time.monotonic() + 5
    while time.monotonic() < give_up:
        with healer._outages._changed:
            known = [*healer._outages._waiting]
            if healer._outages._taken is None and holds(known):
                return known
        time.sleep(0.005)
    raise AssertionError(known)


def test_a_refused_key_is_never_tried_again(healing, caplog):
    vendor = Vendor(RestError("refused", 401, refused=True))
    healer, _ = healing(vendor, T + 5 * MINUTE)
    healer.unseen("A", "crypto", "crypto-1", T, T + 1)
    healer.unseen("B", "crypto", "crypto-1", T, T + 1)
    healer._thread.join(5)
    assert not healer._thread.is_alive()
    assert len(vendor.asked) == 1
    assert caplog.text.count("gaps will not be healed: refused") == 1
    assert healer.failure is None


def test_an_address_without_rest_heals_nothing_and_says_so_once(healing, caplog):
    vendor = Vendor()
    vendor.package = RestError("there is no REST", 404, missing=True)
    healer, _ = healing(vendor, T)
    healer._thread.join(5)
    assert not healer._thread.is_alive()
    assert "gaps will not be healed: there is no REST" in caplog.text


@pytest.mark.parametrize(
    ("period", "interval", "says"),
    [
        (("2026-11-20T01:30", None), "1m", "2026-11-20T01:30Z for UTC"),
        (("yesterday", None), "1m", "write a time like"),
        (("0001-01-01T00:00+09:00", None), "1m", "a time after 1970"),
        (("2026-11-20T02:00Z", "2026-11-20T01:30Z"), "1m", "is not before --to 2026-11-20T01:30Z"),
        (("2126-11-20T02:00Z", None), "1m", "is not before --to now"),
        (("2026-11-20T02:00Z", None), "1d", "--interval 1d: the vendor takes a time only for"),
        (("2026-11-20T02:00Z", None), "7m", "--interval 7m"),
    ],
)
def test_a_period_that_cannot_be_backfilled_says_what_to_write(period, interval, says, tmp_path):
    with pytest.raises(BadPeriod, match=says.replace("+", r"\+")):
        backfill(None, "BTCUSDT", period, interval, "http://127.0.0.1:1", "k", tmp_path)


def test_a_page_that_is_done_is_known_to_the_next_run_of_the_same_command_alone(tmp_path):
    with _Done(tmp_path / "new", ["broker", 1], "1m", 5) as done:
        assert done.until("A") == 5
        done.note("A", 7)
    with (
        _Done(tmp_path / "new", ["broker", 1], "1m", 5) as again,
        _Done(tmp_path / "new", ["other", 1], "1m", 5) as other,
    ):
        assert (again.until("A"), again.until("B"), other.until("A")) == (7, 5, 5)
        again.forget()
    assert not list((tmp_path / "new").iterdir())


def test_the_same_command_runs_once_at_a_time(tmp_path):
    with (
        _Done(tmp_path, ["a"], "1m", 5),
        pytest.raises(BackfillRunning, match="wait for it, or end it"),
    ):
        _Done(tmp_path, ["a"], "1m", 5)


@pytest.mark.parametrize("text", ["", "[]", '{"A": "x"}', '{"A": 7'])
def test_what_tells_nothing_of_pages_done_is_said_and_all_is_done_anew(tmp_path, text, caplog):
    with _Done(tmp_path, ["a"], "1m", 5) as done:
        done.note("A", 7)
    (path,) = tmp_path.glob("*.json")
    path.write_text(text)
    with _Done(tmp_path, ["a"], "1m", 5) as done:
        assert done.until("A") == 5
    assert "the whole period is published anew" in caplog.text
