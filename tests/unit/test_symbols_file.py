"""The file of symbols: reading it, and taking up its changes."""

import signal
import threading

import pytest
from unit.test_websocket import Published, Server, is_control, is_state, protocol, running, serving

from infra import symbols_file
from infra.planning import chosen_feeds
from infra.record import record
from infra.recordings import RecordedEvent, read_recordings
from infra.simulator import running_simulator
from infra.symbols_file import SymbolsFile, SymbolsFileUnreadable, read_symbols


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


def test_file_is_taken_up_on_sighup_and_on_change_and_a_bad_one_changes_nothing(tmp_path, monkeypatch, caplog):
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
    assert len(taken) == 2
    assert len(caplog.records) == 1
    assert "5.HK" in caplog.text


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
        while recording is None or ("crypto-1", "connected") not in recording or ("common-1", "connected") not in recording:
            entries = read_recordings(sorted(out.glob("*"))).entries
            recording = {(entry.feed, entry.event) for entry in entries if isinstance(entry, RecordedEvent)}
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
            assert record(None, out, simulator.url, None, 256, 20, path) == 0
    finally:
        ended.set()
        driver.join()
        for number, handler in before:
            signal.signal(number, handler)
    events = [
        entry for entry in read_recordings(sorted(out.iterdir())).entries if isinstance(entry, RecordedEvent) and entry.event != "pong"
    ]
    changes = {event.feed: event.symbols for event in events if event.event == "changed"}
    assert changes == {"crypto-1": ("BTCUSDT", "ETHUSDT"), "common-1": ("USDJPY",)}
    assert {event.feed for event in events if event.event == "ended"} == {"crypto-1", "common-1"}
