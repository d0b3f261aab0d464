"""Klines of the past: paged without a hole, final ones only, published with their heals; and gaps
healed while feeds run."""

import time
from bisect import bisect_right

import orjson
import pytest
from fakes import Published

from infra.cli.commands.feed.backfill import (
    BackfillOptions,
    BackfillRunning,
    BadPeriod,
    _Done,
    publish_period,
)
from producers.feed.metrics import FeedCounters
from producers.healing.healer import (
    LONGEST_OUTAGE_MS,
    LONGEST_RETRY_MS,
    LOSS_BEFORE_LAST_ALIVE_MS,
    MINUTE_MS,
    RETRY_MS,
    Healer,
)
from producers.healing.outages import Outage, Outages, OutagesUnreadable
from producers.healing.past_klines import (
    FINAL_AFTER_MS,
    final_until,
    heals,
    pages,
    publish_klines,
    raw_klines,
)
from producers.vendor.answers import BadKline, OddAnswer, RestError, RestKline
from producers.vendor.rest import MAX_KLINES
from schemas.topics import Topology, load_schema
from schemas.wire import compile_encoder

T = 1_722_902_400_000


class Vendor:
    """Answers klines of a market that is closed in the second half of each hour; fails as often as
    told."""

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
            for start in range(T - 2_000 * MINUTE_MS, T + 3_000 * MINUTE_MS, MINUTE_MS)
            if start // MINUTE_MS % 60 < 30
        ]
        chosen = starts[: bisect_right(starts, until_ms)][-count:]
        return [
            RestKline(symbol, interval, start, "1", "2", "0.5", "1.5", "10", "12.5", None, "0%")
            for start in chosen
        ]


class Sink(Published):
    def minutes(self, topic, count):
        """The minutes of the records of a topic, waited for."""
        while len(self._of(topic)) < count:
            self.next()
        return self._of(topic)

    def _of(self, topic):
        return [
            ((o.record.ts_start if topic == "infoway.raw.kline" else o.control.ts - MINUTE_MS) - T)
            // MINUTE_MS
            for o in self.outputs
            if o.topic == topic
        ]


def test_pages_follow_each_other_without_a_hole_or_a_repeat():
    found = [
        kline.ts_start
        for _, klines in pages(Vendor(), "crypto", "A", "1m", T + 1, T + 1_900 * MINUTE_MS)
        for kline in klines
    ]
    assert found == [
        start
        for start in range(T, T + 1_900 * MINUTE_MS, MINUTE_MS)
        if start // MINUTE_MS % 60 < 30
    ]


def test_a_period_within_a_closed_market_has_no_klines():
    assert [
        klines
        for _, klines in pages(
            Vendor(), "crypto", "A", "1m", T + 40 * MINUTE_MS, T + 50 * MINUTE_MS
        )
    ] == [[]]


def bad(minute, data=b"{}"):
    return BadKline(
        "A", "1m", None if minute is None else T + minute * MINUTE_MS, "o is missing", data
    )


class Holed(Vendor):
    """A vendor that answers minute by minute, each answer changed by a function."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def klines(self, *arguments):
        return self.change(super().klines(*arguments))


def with_bad(*more):
    return Holed(
        lambda klines: (
            [bad(3) if kline.ts_start == T + 3 * MINUTE_MS else kline for kline in klines]
            + list(more)
        )
    )


def test_a_kline_that_cannot_be_read_does_not_poison_its_page():
    ((_, page),) = pages(with_bad(bad(None)), "crypto", "A", "1m", T, T + 6 * MINUTE_MS)
    assert [each.ts_start for each in page] == [
        T + 3 * MINUTE_MS,
        None,
        *(T + minute * MINUTE_MS for minute in (0, 1, 2, 4, 5)),
    ]


@pytest.mark.parametrize("error", [OddAnswer("no list"), RestError("timestamp limit error", 513)])
def test_a_page_that_cannot_be_read_does_not_poison_those_behind_it(error):
    vendor = Vendor(error)
    first, second = pages(vendor, "crypto", "A", "1m", T, T + 600 * MINUTE_MS)
    assert first == (T + 500 * MINUTE_MS, [BadKline("A", "1m", T, str(error), None)])
    assert [kline.ts_start for kline in second[1]] == [
        T + minute * MINUTE_MS for minute in range(500, 600) if minute % 60 < 30
    ]


@pytest.mark.parametrize(
    "error",
    [
        RestError("refused", 401, refused=True),
        RestError("busy", 429, retryable=True),
        RestError("no", 508),
    ],
)
def test_an_error_that_is_of_every_page_ends_the_asking(error):
    with pytest.raises(RestError):
        list(pages(Vendor(error), "crypto", "A", "1m", T, T + 600 * MINUTE_MS))


def test_bad_klines_are_dead_letters_and_the_counts_add_up():
    sink, counters = Sink(), FeedCounters("rest")
    page = [bad(3, b'{"o":null}'), bad(None, None), *Vendor().klines("crypto", "A", "1m", 2, T)]
    publish_klines(sink, counters, page, "crypto-1", "crypto", "rest-1", 99)
    assert [output.topic for output in sink.outputs] == ["infoway.raw.kline"] * 2 + [
        "infoway.raw.trade"
    ] * 2 + ["infoway.dead-letter"]
    letter = sink.outputs[-1]
    fields = (
        "",
        None,
        None,
        None,
        b'{"o":null}',
        "BadKline",
        "o is missing",
        "crypto-1",
        "rest-1",
        99,
        "rest",
    )
    assert (letter.key, letter.record) == ("A", fields)
    compile_encoder(load_schema("dead_letter"), 1)(*letter.record)
    assert (counters.received, counters.klines, counters.unreadable) == (3, 2, 1)


def test_an_interval_without_a_time_is_refused():
    with pytest.raises(ValueError, match="1m, 5m"):
        next(pages(Vendor(), "crypto", "A", "1d", T, T + 1))


def test_a_kline_counts_as_final_only_some_seconds_after_its_end():
    assert final_until(T + FINAL_AFTER_MS - 1, "1m") == T - MINUTE_MS
    assert final_until(T + FINAL_AFTER_MS, "1m") == T


def test_records_fit_their_schema_and_the_heal_says_the_kline_as_the_vendor_wrote_it():
    klines = Vendor().klines("crypto", "A", "5m", 2, T)
    records = raw_klines(klines, "crypto-1", "crypto", "rest-1", 7, 99)
    encode, names = (
        compile_encoder(load_schema("raw_kline"), 1),
        [field["name"] for field in load_schema("raw_kline")["fields"]],
    )
    rows = [
        dict(zip(names, record.record, strict=True)) for record in records if encode(*record.record)
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
        T + 5 * MINUTE_MS,
        "rest",
    )
    assert orjson.loads(last.control.kline) == {
        "interval": "5m", "ts_start": T, "open": "1", "high": "2", "low": "0.5", "close": "1.5",
        "volume": "10", "turnover": "12.5",
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
    healer, sink = healing(Vendor(), T + 5 * MINUTE_MS)
    healer.report_outage(
        "A",
        "crypto",
        "crypto-1",
        T + MINUTE_MS + LOSS_BEFORE_LAST_ALIVE_MS - 1,
        T + 3 * MINUTE_MS + 1,
    )
    assert sink.minutes("infoway.raw.trade", 4) == [0, 1, 2, 3]
    assert sink.minutes("infoway.raw.kline", 4) == [0, 1, 2, 3]
    assert {
        output.control.feed for output in sink.outputs if output.topic == "infoway.raw.trade"
    } == {"crypto-1"}


def test_the_good_klines_of_an_answer_heal_and_the_bad_one_is_named(healing, caplog):
    healer, sink = healing(with_bad(), T + 60 * MINUTE_MS)
    healer.report_outage(
        "A", "crypto", "crypto-1", T + LOSS_BEFORE_LAST_ALIVE_MS, T + 6 * MINUTE_MS
    )
    healer.report_outage(
        "B",
        "crypto",
        "crypto-1",
        T + 10 * MINUTE_MS + LOSS_BEFORE_LAST_ALIVE_MS,
        T + 11 * MINUTE_MS,
    )
    assert sink.minutes("infoway.raw.trade", 6) == [0, 1, 2, 4, 5, 10]
    assert (
        "A: of the gap from 2024-08-06T00:00:00Z to 2024-08-06T00:06:00Z is not healed: the 1m "
        "kline of 2024-08-06T00:03:00Z" in caplog.text
    )
    assert (healer.counters.unreadable, healer.failure) == (1, None)


def test_a_page_that_cannot_be_read_is_named_and_the_next_heals(healing, caplog):
    healer, sink = healing(Vendor(OddAnswer("data is 'x'")), T + 700 * MINUTE_MS)
    healer.report_outage(
        "A", "crypto", "crypto-1", T + LOSS_BEFORE_LAST_ALIVE_MS, T + 520 * MINUTE_MS
    )
    assert sink.minutes("infoway.raw.trade", 10) == list(range(500, 510))
    assert (
        "is not healed: a page of klines (data is 'x'); for another try: infoway-streams backfill"
        in caplog.text
    )


def test_a_minute_is_not_asked_for_before_it_is_final(healing):
    vendor = Vendor()
    healer, sink = healing(vendor, T + 2 * MINUTE_MS + FINAL_AFTER_MS - 1)
    healer.report_outage("late", "crypto", "crypto-1", T, T + MINUTE_MS + 1)
    healer.report_outage("done", "crypto", "crypto-1", T, T + MINUTE_MS)
    assert sink.minutes("infoway.raw.trade", 1) == [0]
    assert {symbol for symbol, _ in vendor.asked} == {"done"}


def test_the_first_begin_of_a_process_reaches_back_to_what_the_log_has_of_the_feed(healing):
    healer, sink = healing(
        Vendor(),
        T + 12 * MINUTE_MS,
        lambda feed, symbol: T + 5 * MINUTE_MS if (feed, symbol) == ("crypto-1", "A") else None,
    )
    healer.report_outage("B", "crypto", "crypto-1", None, T + 10 * MINUTE_MS)
    healer.report_outage("A", "crypto", "crypto-1", None, T + 8 * MINUTE_MS)
    assert sink.minutes("infoway.raw.trade", 4) == [4, 5, 6, 7]


def test_a_failed_request_is_made_again_until_agents_have_forgotten_the_gap(healing, caplog):
    busy = RestError("busy", 429, retryable=True)
    vendor, clock = Vendor(*[busy] * 20), Clock(T + 5 * MINUTE_MS)
    healer, sink = healing(vendor, clock)
    healer.report_outage("A", "crypto", "crypto-1", T + LOSS_BEFORE_LAST_ALIVE_MS, T + 1)
    waits = []
    while len(waits) < 20:
        (waiting,) = waited(healer, lambda known: known and known[0].due > clock.now)
        waits.append(waiting.due - clock.now)
        clock.set(waiting.due)
    assert waits == [
        RETRY_MS,
        2 * RETRY_MS,
        4 * RETRY_MS,
        8 * RETRY_MS,
        16 * RETRY_MS,
        *[LONGEST_RETRY_MS] * (len(waits) - 5),
    ]
    assert sink.minutes("infoway.raw.trade", 1) == [0]
    vendor.errors = [busy]
    clock.set(T + LONGEST_OUTAGE_MS + 2)
    healer.report_outage("B", "crypto", "crypto-1", T, T + 1)
    healer.report_outage("C", "crypto", "crypto-1", T, T + 1)
    sink.minutes("infoway.raw.trade", 2)
    assert (
        "B: the gap from 2024-08-05T23:59:58Z to 2024-08-06T00:00:00Z is not healed: busy"
        in caplog.text
    )


def test_what_the_vendor_does_not_have_is_named_and_not_asked_for_again(healing, caplog):
    vendor = Vendor(RestError("no such symbol", 508))
    healer, sink = healing(vendor, T + 5 * MINUTE_MS)
    healer.report_outage("C", "crypto", "crypto-1", T, T + 1)
    healer.report_outage("D", "crypto", "crypto-1", T, T + 2)
    sink.minutes("infoway.raw.trade", 1)
    assert [symbol for symbol, _ in vendor.asked] == ["C", "D"]
    assert (
        "C: the gap from 2024-08-05T23:59:58Z to 2024-08-06T00:00:00Z is not healed: no such symbol"
        in caplog.text
    )


def test_a_failure_counts_from_when_it_was_met_and_not_from_when_the_gap_was_due(healing):
    vendor = Vendor(RestError("busy", 429, retryable=True))
    healer, _ = healing(vendor, T + 600 * MINUTE_MS)
    healer.report_outage("A", "crypto", "crypto-1", T, T + 1)
    (waiting,) = waited(healer, lambda known: known and known[0].attempts)
    assert waiting.due == T + 600 * MINUTE_MS + RETRY_MS


def test_outages_that_one_request_can_heal_are_one(healing):
    vendor, clock = Vendor(), Clock(T)
    healer, sink = healing(vendor, clock)
    for minute in (1, 3, 5):
        healer.report_outage(
            "A",
            "crypto",
            "crypto-1",
            T + minute * MINUTE_MS + LOSS_BEFORE_LAST_ALIVE_MS,
            T + minute * MINUTE_MS + LOSS_BEFORE_LAST_ALIVE_MS + 1,
        )
    healer.report_outage(
        "A",
        "crypto",
        "crypto-2",
        T + 3 * MINUTE_MS + LOSS_BEFORE_LAST_ALIVE_MS,
        T + 3 * MINUTE_MS + LOSS_BEFORE_LAST_ALIVE_MS + 1,
    )
    healer.report_outage(
        "A", "crypto", "crypto-1", T + 2_000 * MINUTE_MS, T + 2_000 * MINUTE_MS + 1
    )
    clock.set(T + 6 * MINUTE_MS + FINAL_AFTER_MS)
    # the whole of the three and the other feed's, of which klines are another record's cause
    assert sorted(sink.minutes("infoway.raw.kline", 6)) == [1, 2, 3, 3, 4, 5]
    assert len(vendor.asked) == 2
    (waiting,) = waited(healer, lambda known: len(known) == 1)
    assert waiting.ts_to == T + 2_000 * MINUTE_MS + 1


def test_of_outages_that_became_one_no_minute_is_asked_for_before_it_is_final(healing):
    vendor, clock = Vendor(), Clock(T)
    healer, sink = healing(vendor, clock)
    healer.report_outage(
        "A", "crypto", "crypto-1", T + LOSS_BEFORE_LAST_ALIVE_MS, T + LOSS_BEFORE_LAST_ALIVE_MS + 1
    )
    healer.report_outage(
        "A",
        "crypto",
        "crypto-1",
        T + 2 * MINUTE_MS + LOSS_BEFORE_LAST_ALIVE_MS,
        T + 2 * MINUTE_MS + LOSS_BEFORE_LAST_ALIVE_MS + 1,
    )
    clock.set(T + MINUTE_MS + FINAL_AFTER_MS)
    assert sink.minutes("infoway.raw.kline", 1) == [0]
    (waiting,) = waited(healer, lambda known: len(known) == 1 and known[0].ts_from == T + MINUTE_MS)
    assert waiting.due == T + 3 * MINUTE_MS + FINAL_AFTER_MS
    clock.set(waiting.due)
    assert sink.minutes("infoway.raw.kline", 3) == [0, 1, 2]


def test_what_was_not_healed_is_healed_by_the_next_process(healing, tmp_path):
    memory, clock = tmp_path / "healing.json", Clock(T + 5 * MINUTE_MS)
    vendor = Vendor(RestError("busy", 429, retryable=True))
    healer, sink = healing(vendor, clock, memory=memory)
    healer.report_outage("A", "crypto", "crypto-1", T + LOSS_BEFORE_LAST_ALIVE_MS, T + 1)
    healer.report_outage(
        "B",
        "crypto",
        "crypto-1",
        T + 6 * MINUTE_MS + LOSS_BEFORE_LAST_ALIVE_MS,
        T + 6 * MINUTE_MS + LOSS_BEFORE_LAST_ALIVE_MS + 1,
    )
    waited(healer, lambda known: len(known) == 2 and known[0].attempts + known[1].attempts == 1)
    healer.__exit__()
    again, sink = healing(Vendor(), Clock(T + 9 * MINUTE_MS), memory=memory)
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
    vendor, clock, sink = Vendor(), Clock(T + 5 * MINUTE_MS), Sink()
    sink.behind = True
    healer, _ = healing(vendor, clock, sink=sink)
    healer.report_outage("A", "crypto", "crypto-1", T + LOSS_BEFORE_LAST_ALIVE_MS, T + 1)
    (waiting,) = waited(healer, lambda known: known and known[0].due > clock.now)
    assert (vendor.asked, waiting.attempts) == ([], 0)
    sink.behind = False
    clock.set(waiting.due)
    assert sink.minutes("infoway.raw.trade", 1) == [0]


def test_what_nobody_expected_ends_the_producer(healing):
    vendor = Vendor(AssertionError("a bug"))
    healer, _ = healing(vendor, T + 5 * MINUTE_MS)
    healer.report_outage("A", "crypto", "crypto-1", T, T + 1)
    healer._thread.join(60)
    assert isinstance(healer.failure, AssertionError)


def waited(healer, holds):
    """The outages that wait, once something holds of them."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        with healer._outages._changed:
            known = [*healer._outages._waiting]
            if healer._outages._taken is None and holds(known):
                return known
        time.sleep(0.005)
    raise AssertionError(known)


def test_a_refused_key_is_never_tried_again(healing, caplog):
    vendor = Vendor(RestError("refused", 401, refused=True))
    healer, _ = healing(vendor, T + 5 * MINUTE_MS)
    healer.report_outage("A", "crypto", "crypto-1", T, T + 1)
    healer.report_outage("B", "crypto", "crypto-1", T, T + 1)
    healer._thread.join(60)
    assert not healer._thread.is_alive()
    assert len(vendor.asked) == 1
    assert caplog.text.count("gaps will not be healed: refused") == 1
    assert healer.failure is None


def test_an_address_without_rest_heals_nothing_and_says_so_once(healing, caplog):
    vendor = Vendor()
    vendor.package = RestError("there is no REST", 404, missing=True)
    healer, _ = healing(vendor, T)
    healer._thread.join(60)
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
        publish_period(
            None,
            BackfillOptions(Topology(), "BTCUSDT", *period, interval, tmp_path),
            "http://127.0.0.1:1",
            "k",
        )


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
