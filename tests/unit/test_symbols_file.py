"""The file of symbols: reading it, and taking up its changes."""

import signal

import pytest
from unit.test_websocket import Published, Server, is_control, is_state, protocol, running, serving

from infra import symbols_file
from infra.planning import chosen_feeds
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
