"""Recordings played by themselves: whose business a symbol is, and what another process of a feed
knows of the one before."""

import json

import pytest

from infra.cli.commands.feed.replay import Summary
from infra.ingest.planning import businesses_of
from producers.delivery.sink import Unpublished
from producers.feed.outputs import Publication
from producers.recording.player import Player
from producers.recording.reader import RecordedEvent, RecordedFrame, Recording
from producers.vendor.symbols import BadSymbols

T = 1_795_140_000_000
HOUR = 3_600_000
TOPICS = {"infoway.raw.trade": 6, "infoway.raw.depth": 6, "infoway.raw.kline": 6}


class Kept(Unpublished):
    """Keeps the trades that are published."""

    def __init__(self):
        self.trades = []

    def publish(self, outputs, counters):
        self.trades += [
            output.record
            for output in outputs
            if isinstance(output, Publication) and output.topic == "infoway.raw.trade"
        ]


def frame(ms, symbol="BTCUSDT", t=T, p="98.150", feed=""):
    data = {"s": symbol, "t": t, "p": p, "v": "1", "td": 0}
    return RecordedFrame(ms * 1000, json.dumps({"code": 10002, "data": data}).encode(), feed)


def event(ms, name, feed="crypto-1", symbols=("BTCUSDT",), **more):
    return RecordedEvent(ms * 1000, feed, name, feed.rpartition("-")[0], symbols, **more)


def played(*entries, **options):
    """The player, and whether each trade was a repeat."""
    kept = Kept()
    player = Player(
        Recording(
            list(entries), [entry for entry in entries if isinstance(entry, RecordedFrame)], []
        ),
        TOPICS,
        kept,
        **options,
    )
    for entry in entries:
        player.play(entry)
    player.end()
    return player, [fields[7] for fields in kept.trades], [fields[8] for fields in kept.trades]


@pytest.mark.parametrize("lost", ["disconnected", "ended", None])
def test_another_process_counts_no_trade_of_the_one_before_again(lost):
    ends = [event(T + 1, lost)] if lost else []
    _, repeats, _ = played(
        event(T, "connected"),
        frame(T, feed="crypto-1"),
        *ends,
        event(T + 5 * HOUR, "connected"),
        frame(T + 5 * HOUR, p="98.15", feed="crypto-1"),
        frame(T + 5 * HOUR, p="98.15", feed="crypto-1"),
    )
    # a recording without an end of the connection was killed: another process made the next
    assert repeats == [False, True, False]


def test_a_symbol_that_another_process_has_put_on_another_feed_is_known():
    _, repeats, _ = played(
        event(T, "connected"),
        frame(T, feed="crypto-1"),
        event(T + 1, "ended"),
        event(T + HOUR, "connected", feed="crypto-2"),
        frame(T + HOUR, p="98.15", feed="crypto-2"),
    )
    assert repeats == [False, True]


def test_a_symbol_is_played_as_the_business_that_its_name_says():
    player, _, businesses = played(
        frame(T, "币安人生USDT"), frame(T, "USDJPY"), frame(T, "600519.SH")
    )
    assert businesses == ["crypto", "common", "stock"]
    assert player.guessed == []


def test_a_symbol_whose_business_nothing_says_is_named():
    player, _, businesses = played(
        frame(T, "币安人生"), frame(T, "A.XX"), frame(T, "weird one"), frame(T, "X", feed="odd-1")
    )
    assert businesses == ["common"] * 4
    assert sorted(player.guessed) == ["A.XX", "X", "weird one", "币安人生"]
    lines = Summary(4, 0, (), {}, 1.0, tuple(player.guessed)).lines()
    assert any(
        "4 symbols taken for `common`" in line
        and "币安人生" in line
        and "--symbols SYMBOL:BUSINESS" in line
        for line in lines
    )


def test_what_a_symbol_could_do_to_a_terminal_is_not_shown():
    lines = Summary(1, 0, (), {}, 1.0, ("\x1b[2J\n" + "x" * 100,)).lines()
    assert all(line.isprintable() and len(line) < 200 for line in lines)


def test_a_named_business_wins_and_is_no_guess():
    player, _, businesses = played(
        frame(T, "币安人生"),
        frame(T, "AAPL.US"),
        businesses={"币安人生": "crypto", "AAPL.US": "japan"},
    )
    assert businesses == ["crypto", "japan"]
    assert player.guessed == []


def test_businesses_are_named_as_for_the_other_commands():
    assert businesses_of(None) == {}
    assert businesses_of("币安人生:crypto, N\u0303A:korea,BTCUSDT") == {
        "币安人生": "crypto",
        "ÑA": "korea",
    }
    with pytest.raises(BadSymbols, match="unknown business 'coins'"):
        businesses_of("BTCUSDT:coins")
