"""Draws the live view of a made-up board until Ctrl-C; test_terminal_view.py runs it."""

import sys
import threading
import time

from rich.console import Console

from infra.cli.commands.running.live_view import show_screen
from infra.dashboard import view
from infra.dashboard.board import Board, SymbolBoard
from infra.embedded.running import WorkerState
from infra.runtime.deployment import Deployment
from infra.runtime.signals import stop_on_signals
from producers.feed.metrics import FeedCounters
from schemas.decimals import to_units
from schemas.topics import Topology, load_example


class Fixed(Board):
    """What a test says, not what a broker does."""

    def rates(self):
        return 1234.5, 4567.8

    def trouble(self):
        return None


def board(count, deployment):
    symbols = [f"{number:05d}.HK" for number in range(count - 2)] + ["BTCUSDT", "BRK.B.US"]
    made = Fixed(deployment, tuple(symbols))
    made.lag = 12
    for place, symbol in enumerate(symbols):
        price = f"{118_499 - place}.84"
        bar = load_example("bar") | {
            name: to_units(price) for name in ("open", "high", "low", "close")
        }
        bar |= {"volume": to_units(str(1000 + place)), "ts_start": 1_795_937_220_000}
        vwaps = {"1m": to_units(price), "5m": to_units("118499.8731"), "session": None}
        if symbol == "BTCUSDT":
            vwaps["session"] = to_units("118499.901")
        made.symbols[symbol] = SymbolBoard(price, vwaps, bar, -0.5 + place / 100)
    return made


def feed(name):
    made = FeedCounters(name)
    made.last_frame = time.time_ns() // 1000 + 3_600_000_000
    return made


class Shown:
    """As the command has it."""

    def __init__(self, count):
        self.deployment = Deployment(
            "127.0.0.1:30395", "http://127.0.0.1:23391/apis/ccompat/v7", Topology(), {}, True
        )
        self.board = board(count, self.deployment)
        self.supervisor = [
            WorkerState("0", "running", True), WorkerState("1", "restarting (73)", False),
            WorkerState("2", "loading its states", False),
        ]  # fmt: skip

    def seen(self):
        closed = frozenset(each for each in self.board.symbols if each.endswith(".HK"))
        feeds = [feed(f"stock-{number}") for number in range(3)]
        return view.Seen(
            self.deployment, feeds, "SIMULATED DATA: synthetic markets, no real prices (set "
            "INFOWAY_API_KEY for live data)", ["a note"], self.supervisor, closed,
            "http://127.0.0.1:8080/",
        )  # fmt: skip

    def screen(self, selection, width, height):
        return view.screen(self.board, self.seen(), selection, width, height)


if __name__ == "__main__":
    stop: threading.Event = stop_on_signals()
    show_screen(Console(), Shown(int(sys.argv[1])), stop.is_set)
    print("ended in order")
