"""`infoway-streams up`: broker, registry, feed, producer, processors and live view on one machine, all ended together."""

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.live import Live

from infra import view
from infra.backfill import healing
from infra.board import Board
from infra.deployment import Deployment, deployed
from infra.feed_health import FeedHealth
from infra.feeding import Feeding, api_key, endpoint_of
from infra.health import serving
from infra.planning import feeds_to_run
from infra.signals import stop_on_signals
from infra.simulator import running_simulator
from infra.spooling import open_backlog
from infra.supervisor import Supervisor
from infra.symbols_file import read_symbols, watch
from producers.rest import LIVE_REST
from producers.symbols import Feed
from producers.websocket import Endpoint
from schemas.topics import Topology

REFRESH = 0.5
PLAIN_PERIOD = 5.0


def up(
    names: Topology,
    symbols: str | None,
    data: Path,
    workers: int,
    ports: tuple[int, int],
    rate: float,
    seconds: float | None,
    rest_url: str | None,
    symbols_file: Path | None = None,
) -> int:
    """Run everything until Ctrl-C, SIGTERM or `seconds` have passed; returns the exit code."""
    console = Console()
    key = api_key()
    source = "live" if key else "simulated"
    live = endpoint_of(key, None) if key else None

    def planned(chosen: str | None, running: Sequence[Feed] = ()) -> list[Feed]:
        return feeds_to_run(chosen, bool(key), key, None, rest_url, running)

    feeds = planned(read_symbols(symbols_file) if symbols_file else symbols)
    banner = (
        "LIVE data of Infoway"
        if key
        else "SIMULATED DATA: synthetic markets, no real prices (set INFOWAY_API_KEY for live data)"
    )
    console.print(f"{banner}; starting broker and registry", highlight=False)
    with ExitStack() as running:
        deployment = running.enter_context(
            deployed(_separate(names, source), data / source, *ports)
        )
        # from here on an orderly end; a Ctrl-C before, during downloads or the start of the servers, interrupts at once
        stop = stop_on_signals()
        supervisor = running.enter_context(
            Supervisor(deployment.environment, workers, data / source / "logs")
        )
        if live:
            endpoint, address = live, rest_url or LIVE_REST
        else:
            simulator = running.enter_context(running_simulator(rate=rate))
            endpoint, address = Endpoint(simulator.url, "simulator"), simulator.rest_url
        backlog = open_backlog(deployment, source, data / source / "spool")
        # markets that are made up begin with this run: nothing was missed before
        heals = healing(deployment, address, endpoint.api_key, backlog.memory if key else None)
        feeding = running.enter_context(
            Feeding(deployment, feeds, endpoint, source, healing=heals, backlog=backlog)
        )
        running.enter_context(serving(os.environ, FeedHealth(feeding)))
        board = running.enter_context(
            Board(deployment, tuple(symbol for feed in feeds for symbol in feed.symbols))
        )

        def change(changed: Sequence[Feed]) -> None:
            feeding.change(changed)
            board.show(symbol for feed in changed for symbol in feed.symbols)

        take_up = watch(symbols_file, lambda chosen: planned(chosen, feeding.feeds), change)
        _show(console, board, deployment, feeding, supervisor, banner, stop, seconds, take_up)
        console.print("ending: feed, processors, registry, broker", highlight=False)
    return 0


def _separate(names: Topology, source: str) -> Topology:
    # on a named cluster a prefix keeps simulated data apart; the embedded stack has a data folder of each source
    if source == "simulated" and not names.prefix and os.environ.get("INFOWAY_BOOTSTRAP"):
        return replace(names, prefix="simulated.")
    return names


def _show(
    console: Console,
    board: Board,
    deployment: Deployment,
    feeding: Feeding,
    supervisor: Supervisor,
    banner: str,
    stop: threading.Event,
    seconds: float | None,
    take_up: Callable[[], None],
) -> None:
    ends_at = time.monotonic() + seconds if seconds else math.inf

    def going_on(period: float) -> bool:
        until = min(time.monotonic() + period, ends_at)
        stopped = False
        while not stopped and (left := until - time.monotonic()) > 0:
            stopped = stop.wait(min(left, REFRESH))
            for part in (feeding, supervisor, board):
                part.check()
            take_up()
        return not stopped and time.monotonic() < ends_at

    if console.is_terminal:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while going_on(REFRESH):
                live.update(
                    view.table(board, deployment, feeding.wanted_counters, banner), refresh=True
                )
        return
    console.print(view.addresses(deployment), highlight=False, soft_wrap=True)
    while going_on(PLAIN_PERIOD):
        for line in (banner, *view.lines(board, deployment, feeding.wanted_counters)):
            console.print(line, highlight=False, soft_wrap=True)
