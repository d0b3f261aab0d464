"""The file of symbols: reading it, and taking up its changes."""

import itertools
import signal
import threading

import pytest
from unit.test_websocket import Published, Server, is_control, is_state, protocol, running, serving

from infra.cli.commands.feed.record import RecordOptions, record
from infra.ingest import symbols_file
from infra.ingest.planning import chosen_feeds
from infra.ingest.symbols_file import SymbolsFile, SymbolsFileUnreadable, read_symbols, watch
from infra.simulator import running_simulator
from producers.recording.reader import RecordedEvent, read_recordings
from producers.vendor.answers import RestError


@pytest.fixture(autouse=True)
def hangup():
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def planned(symbols):
    return chosen_feeds(symbols, live=True)


def test_symbols_stand_by_line_or_comma_with_comments(tmp_path):
    path = tmp_path / "symbols"
    path.write_text("# mine\n00700.HK, AAPL.US # two\n\nXYZ:common\n")
    assert [(feed.business, feed.symbols) for feed in planned(read_symbols(path))] == [
        ("stock", ("00700.HK", "AAPL.US")),
        ("common", ("XYZ",)),
    ]
    path.write_text("# none\n")
    with pytest.raises(SymbolsFileUnreadable, match="names no symbol"):
        read_symbols(path)
    with pytest.raises(SymbolsFileUnreadable):
        read_symbols(tmp_path / "absent")


def test_file_is_taken_up_on_sighup_and_on_change_and_a_bad_one_changes_nothing(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(symbols_file, "PERIOD", 0)
    path, taken = tmp_path / "symbols", []
    path.write_text("BTCUSDT")
    file = SymbolsFile(path, planned, lambda feeds: taken.append(feeds[0].symbols))
    file.poll()
    assert taken == []
    signal.raise_signal(signal.SIGHUP)
    file.poll()
    path.write_text("BTCUSDT\nETHUSDT")
    file.poll()
    file.poll()
    assert taken == [("BTCUSDT",), ("BTCUSDT", "ETHUSDT")]
    path.write_text("5.HK")
    file.poll()
    file.poll()
    assert len(taken) == 2
    assert len(caplog.records) == 1
    assert "5.HK" in caplog.text


class Time:
    """A clock that a test moves, and a file that is polled by it."""

    def __init__(self, path, plan):
        self.now, self.taken = 100.0, []
        self.file = SymbolsFile(path, plan, self.taken.append, lambda: self.now)

    def passes(self, seconds):
        for _ in range(round(seconds * 4)):
            self.now += 0.25
            self.file.poll()


def test_file_that_is_being_written_is_read_when_it_is_whole(tmp_path):
    path = tmp_path / "symbols"
    path.write_text("A\nB\nC\n")
    time = Time(path, str.split)
    for text in ("A", "A\nB\n", "A\nB\nC\nD\n"):
        path.write_text(text)
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
            time.passes(0.25)
    assert time.taken == []
    time.passes(2)
    assert time.taken == [["A,B,C,D"]]


def test_file_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "symbols"
    path.write_text("A")
    time = Time(path, str.split)
    path.write_text("A,B")
    texts = iter(["A", "A,B,C"])

    def read_and_write(read):
        symbols = read_symbols(read)
        if text := next(texts, ""):
            read.write_text(text)
        return symbols

    monkeypatch.setattr(symbols_file, "read_symbols", read_and_write)
    time.passes(9)
    assert time.taken == [["A,B,C"]]


def test_sighup_reads_a_file_at_once_that_stands_as_it_stood(tmp_path):
    path = tmp_path / "symbols"
    path.write_text("A")
    time = Time(path, str.split)
    signal.raise_signal(signal.SIGHUP)
    time.passes(0.25)
    assert time.taken == [["A"]]
    time.passes(60)
    assert time.taken == [["A"]]


def test_change_is_planned_again_while_rest_fails_for_a_moment_and_not_where_it_refuses(
    tmp_path, caplog
):
    path, planned_at = tmp_path / "symbols", []
    failures = [RestError("timed out", retryable=True)] * 6 + [RestError("refused", refused=True)]
    path.write_text("A")

    def plan(symbols):
        planned_at.append(time.now)
        if failures:
            raise failures.pop(0)
        return [symbols]

    time = Time(path, plan)
    path.write_text("A,B")
    time.passes(600)
    delays = [later - earlier for earlier, later in itertools.pairwise(planned_at)]
    assert delays == [5, 10, 20, 40, 60, 60]
    assert [record.message for record in caplog.records] == [
        *(
            f"the symbols stay as they are: timed out; planned again in {seconds} s"
            for seconds in (5, 10, 20, 40, 60, 60)
        ),
        "the symbols stay as they are: refused",
    ]
    failures[:] = [RestError("timed out", retryable=True)]
    path.write_text("A,B,C")
    time.passes(9)
    assert time.taken == [["A,B,C"]]


def test_sighup_without_a_file_is_answered_in_one_line_and_changes_nothing(caplog):
    poll = watch(None, str.split, pytest.fail)
    poll()
    signal.raise_signal(signal.SIGHUP)
    poll()
    poll()
    assert [record.message for record in caplog.records] == [
        "SIGHUP: no --symbols-file to read anew"
    ]


def test_transport_takes_up_wanted_symbols_on_the_living_connection():
    server, published, core = Server(), Published(), protocol()
    with serving(server) as url, running(url, core, published):
        published.wait_for(is_state("healthy"))
        core.wanted_symbols = ("ETHUSDT",)
        assert published.wait_for(is_control("end")).key == "BTCUSDT"
        assert published.wait_for(is_control("begin")).key == "ETHUSDT"
    assert server.connections == 1


def test_record_takes_up_a_changed_file_and_writes_the_change(tmp_path, monkeypatch):
    monkeypatch.setattr(symbols_file, "PERIOD", 0)
    monkeypatch.delenv("INFOWAY_API_KEY", raising=False)
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    path, out = tmp_path / "symbols", tmp_path / "out"
    path.write_text("BTCUSDT")

    def drive():
        changed, recording = False, None
        while (
            recording is None
            or ("crypto-1", "connected") not in recording
            or ("common-1", "connected") not in recording
        ):
            entries = read_recordings(sorted(out.glob("*"))).entries
            recording = {
                (entry.feed, entry.event) for entry in entries if isinstance(entry, RecordedEvent)
            }
            if not changed and ("crypto-1", "subscribed") in recording:
                path.write_text("BTCUSDT, ETHUSDT, USDJPY")
                changed = True
            if ended.wait(0.05):
                return
        signal.raise_signal(signal.SIGINT)

    ended = threading.Event()
    driver = threading.Thread(target=drive)
    try:
        with running_simulator(rate=50) as simulator:
            driver.start()
            options = RecordOptions(out, symbols_file=path, url=simulator.url, seconds=240)
            assert record(options) == 0
    finally:
        ended.set()
        driver.join()
        for number, handler in before:
            signal.signal(number, handler)
    events = [
        entry
        for entry in read_recordings(sorted(out.iterdir())).entries
        if isinstance(entry, RecordedEvent) and entry.event != "pong"
    ]
    changes = {event.feed: event.symbols for event in events if event.event == "changed"}
    assert changes == {"crypto-1": ("BTCUSDT", "ETHUSDT"), "common-1": ("USDJPY",)}
    assert {event.feed for event in events if event.event == "ended"} == {"crypto-1", "common-1"}
