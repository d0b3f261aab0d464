"""`infoway-streams up`: broker, registry, feed, producer, processors and live view on one machine,
all ended together."""

import argparse
import math
import os
import threading
import time
import webbrowser
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live

from infra.cli.checks import (
    cluster_mistakes,
    feed_mistakes,
    folder,
    folder_mistakes,
    serving_mistakes,
    spool_mistakes,
    topology_mistakes,
    worker_mistakes,
)
from infra.cli.command import Command
from infra.cli.options import (
    HIGHEST_RATE,
    add_rest_url,
    add_seconds,
    add_symbols,
    add_topology,
    add_workers,
    decimal,
    filled_in,
    topology_of,
    whole,
)
from infra.dashboard import view
from infra.dashboard.board import Board
from infra.dashboard.keys import Keys
from infra.dashboard.selection import Selection
from infra.embedded.running import noted
from infra.ingest.choice import FeedChoice
from infra.ingest.delivered import delivered_before
from infra.ingest.feed_health import FeedHealth
from infra.ingest.healing import healing
from infra.ingest.producer_process import Feeding, api_key, endpoint_of
from infra.ingest.spooling import open_backlog
from infra.page.child import PageProcess
from infra.page.running import DEFAULT_PORT, READY
from infra.runtime.deployment import Deployment, deployed, settings_of_workers
from infra.runtime.detached import DETACH, STATUS_ONLY, detached, this_run
from infra.runtime.exit_codes import Code
from infra.runtime.health import serving
from infra.runtime.made_with import MadeWith
from infra.runtime.signals import stop_on_signals
from infra.runtime.supervisor import Supervisor
from infra.simulator import running_simulator
from processors.settings import name_mistakes
from producers.transport.endpoint import Endpoint
from producers.vendor.rest import LIVE_REST
from producers.vendor.symbols import Feed
from schemas.topics import Topology

NO_PAGE = "no live page"
REFRESH = 0.5
PLAIN_PERIOD = 5.0
STATUS_PERIOD = 60.0
KEY_PERIOD = 0.1
"""Seconds that a key is waited for before the end is looked for again."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `up` was given."""

    topology: Topology
    symbols: str | None
    symbols_file: Path | None
    data: Path
    workers: int
    kafka_port: int
    registry_port: int
    rate: float
    seconds: float | None
    rest_url: str | None
    detach: bool
    status_only: bool
    arguments: tuple[str, ...]
    """The command line, to be started again in the background."""
    page_port: int | None
    no_page: bool
    open: bool


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_symbols(command)
    command.add_argument(
        "--data",
        type=Path,
        default=Path("data"),
        help="folder of the embedded broker's data (default: data)",
    )
    add_workers(command)
    command.add_argument(
        "--kafka-port",
        type=whole(0, 65_535),
        default=0,
        help="the broker's port (default: that of the last start, else a free one)",
    )
    command.add_argument(
        "--registry-port",
        type=whole(0, 65_535),
        default=0,
        help="the registry's port (default: that of the last start, else a free one)",
    )
    command.add_argument(
        "--rate",
        type=decimal(HIGHEST_RATE),
        default=5.0,
        help="the simulator's trades a second and symbol (default: 5)",
    )
    command.add_argument(
        "--page-port",
        type=whole(0, 65_535),
        help=f"the live page's port (default: {DEFAULT_PORT}, or a free one)",
    )
    command.add_argument("--no-page", action="store_true", help="serve no live page")
    command.add_argument("--open", action="store_true", help="open the live page in a browser")
    add_seconds(command)
    command.add_argument(
        DETACH,
        action="store_true",
        help="go on in the background, and return once it runs; `down` ends it",
    )
    command.add_argument(
        STATUS_ONLY,
        action="store_true",
        help="print a line a minute in place of the view, as --detach does into its log",
    )
    command.set_defaults(arguments=())
    add_rest_url(command)
    add_topology(command)


def made_with_mistakes(options: argparse.Namespace) -> Iterator[str]:
    """Yield how the data folder of an embedded stack differs from the settings, and what is wrong
    with its note."""
    if os.environ.get("INFOWAY_BOOTSTRAP") or any(folder_mistakes("--data", options.data)):
        return
    names = topology_over(options)
    folder, note = _folder_of(options), topology_of(options) != names
    for name, mistake in name_mistakes(names) if note else ():
        yield f"{folder / 'made-with.json'}: {name}: {mistake}"
    yield from MadeWith(folder, names).mistakes()


def topology_over(options: argparse.Namespace) -> Topology:
    """Return the topology of the options; what they leave open is as the data folder was made."""
    if os.environ.get("INFOWAY_BOOTSTRAP"):
        return topology_of(options)
    made = MadeWith(_folder_of(options), topology_of(options))
    return filled_in(options, made.settings())


def _folder_of(options: argparse.Namespace) -> Path:
    has_key = any(os.environ.get(name) for name in ("INFOWAY_API_KEY", "INFOWAY_API_KEY_FILE"))
    return Path(options.data) / ("live" if has_key else "simulated")


def up(options: UpOptions) -> int:
    """Run everything until Ctrl-C, SIGTERM or `seconds` have passed; returns the exit code."""
    key = api_key()
    data = options.data / ("live" if key else "simulated")
    if options.detach:
        return detached(data, options.arguments, () if options.no_page else (READY, NO_PAGE))
    try:
        return _run(options, key, data)
    except KeyboardInterrupt:
        # it came while servers were fetched or started: what had begun has ended in order
        print("ended before it ran", flush=True)
        return Code.DONE


def _run(options: UpOptions, key: str, data: Path) -> int:
    console, source = Console(), data.name
    live = endpoint_of(key, None) if key else None
    choice = FeedChoice(
        options.symbols, options.symbols_file, None, options.rest_url, key, live=bool(key)
    )
    feeds = choice.feeds()
    banner = (
        "LIVE data of Infoway"
        if key
        else "SIMULATED DATA: synthetic markets, no real prices (set INFOWAY_API_KEY for live data)"
    )
    named = os.environ.get("INFOWAY_BOOTSTRAP")
    console.print(
        f"{banner}; {f'using the broker {named}' if named else 'starting broker and registry'}",
        highlight=False,
        # lines of a pipe are of any length
        soft_wrap=not console.is_terminal,
    )
    advice = "" if named else "; or name another folder by --data"
    with ExitStack() as running:
        deployment = running.enter_context(
            deployed(
                _separate(options.topology, source),
                data,
                options.kafka_port,
                options.registry_port,
            )
        )
        if not named:
            MadeWith(data, options.topology).note()
        note = running.enter_context(noted(data, this_run(deployment)))
        # from here on an orderly end; a Ctrl-C before, during downloads or the start of the
        # servers, interrupts at once
        stop = stop_on_signals()
        environment = deployment.environment | settings_of_workers(source)
        page = (
            None
            if options.no_page
            else running.enter_context(PageProcess(environment, data, options.page_port))
        )
        if page is not None:
            note.change(page_port=page.port)
        supervisor = running.enter_context(
            Supervisor(environment, options.workers, data / "logs", advice)
        )
        if live:
            endpoint, address = live, options.rest_url or LIVE_REST
        else:
            simulator = running.enter_context(running_simulator(rate=options.rate))
            endpoint, address = Endpoint(simulator.url, "simulator"), simulator.rest_url
        backlog = open_backlog(deployment, source, data / "spool")
        # markets that are made up begin with this run: nothing was missed before
        heals = healing(deployment, address, endpoint.api_key, backlog.memory if key else None)
        symbols_now = [symbol for feed in feeds for symbol in feed.symbols] if key else []
        delivered = delivered_before(deployment, symbols_now, source, backlog.waiting())
        feeding = running.enter_context(
            Feeding(
                deployment,
                feeds,
                endpoint,
                source,
                healing=heals,
                backlog=backlog,
                delivered=delivered,
            )
        )
        running.enter_context(serving(os.environ, FeedHealth(feeding)))
        board = running.enter_context(
            Board(deployment, tuple(symbol for feed in feeds for symbol in feed.symbols))
        )

        def change(changed: Sequence[Feed]) -> None:
            feeding.change(changed)
            board.show(symbol for feed in changed for symbol in feed.symbols)

        take_up = choice.watch(lambda: feeding.feeds, change)

        def check() -> None:
            # the view ends nothing
            deployment.look_after()
            if page is not None:
                page.look_after()
            feeding.check()
            supervisor.check()
            note.change(workers=supervisor.states())
            take_up()

        shown = _ShownRun(board, deployment, feeding, supervisor, banner, page.url if page else "")
        announce = partial(_announce, console, page, options.open)
        _show(console, shown, check, stop, options, announce)
        console.print(
            f"ending: feed, processors{'' if named else ', registry, broker'}", highlight=False
        )
    return Code.RECORDS_LOST if feeding.records_lost else Code.DONE


def _separate(names: Topology, source: str) -> Topology:
    # on a named cluster a prefix keeps simulated data apart; the embedded stack has a data folder
    # of each source
    if source == "simulated" and not names.prefix and os.environ.get("INFOWAY_BOOTSTRAP"):
        return replace(names, prefix="simulated.")
    return names


COMMAND = Command(
    "up",
    "run everything on this machine, with a live view",
    "up --symbols BTCUSDT,ETHUSDT --seconds 60",
    add_options,
    UpOptions,
    up,
    (
        topology_mistakes,
        cluster_mistakes,
        feed_mistakes,
        serving_mistakes,
        spool_mistakes,
        worker_mistakes,
        folder("data"),
        made_with_mistakes,
    ),
    topology=topology_over,
)


@dataclass(frozen=True, slots=True)
class _ShownRun:
    """What the live view shows."""

    board: Board
    deployment: Deployment
    feeding: Feeding
    supervisor: Supervisor
    banner: str
    page: str
    """The live page's address, empty without one."""

    def screen(self, selection: Selection, width: int, height: int) -> RenderableType:
        """Return the view of a terminal."""
        return view.screen(self.board, self.seen(), selection, width, height)

    def lines(self) -> Iterable[str]:
        """Return the view of a log."""
        return (self.banner, *view.lines(self.board, self.seen()))

    def status(self) -> Iterable[str]:
        """Return the one line of a log that is to stay short."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (f"{now} {view.status(self.board, self.seen())}",)

    def seen(self) -> view.Seen:
        """Return what there is beside the board now."""
        return view.Seen(
            self.deployment,
            self.feeding.wanted_counters,
            self.banner,
            self.feeding.calendars_ending(datetime.now(UTC).date()),
            self.supervisor.states(),
            self.feeding.closed(time.time_ns() // 1_000_000),
            self.page,
        )


def _announce(console: Console, page: PageProcess | None, open_it: bool) -> None:
    """Print where the live page is, or why there is none, as the last line of the start."""
    if page is None:
        return
    if why_not := page.wait_ready():
        console.print(f"{NO_PAGE}: {why_not}", highlight=False, markup=False)
        return
    console.print(f"page {page.url}", highlight=False, soft_wrap=True, markup=False)
    if open_it:
        webbrowser.open(page.url)


def _show(
    console: Console,
    shown: _ShownRun,
    check: Callable[[], None],
    stop: threading.Event,
    options: UpOptions,
    announce: Callable[[], None],
) -> None:
    ends_at = time.monotonic() + options.seconds if options.seconds else math.inf

    def ended() -> bool:
        check()
        return stop.is_set() or time.monotonic() >= ends_at

    if console.is_terminal and not options.status_only:
        announce()
        _show_screen(console, shown, ended)
        return
    where = f"{view.addresses(shown.seen())}   Ctrl-C ends everything"
    console.print(where, highlight=False, soft_wrap=True, markup=False)
    announce()
    period = STATUS_PERIOD if options.status_only else PLAIN_PERIOD
    next_at = time.monotonic() + period
    while not ended():
        stop.wait(min(REFRESH, max(0.0, next_at - time.monotonic())))
        if time.monotonic() < next_at or stop.is_set():
            continue
        next_at += period
        for line in shown.status() if options.status_only else shown.lines():
            console.print(line, highlight=False, soft_wrap=True, markup=False)


def _show_screen(console: Console, shown: _ShownRun, ended: Callable[[], bool]) -> None:
    selection, drawn_at = Selection(), 0.0
    with Keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while not ended():
            width, height = console.size
            pressed = list(keys.wait(KEY_PERIOD))
            for key in pressed:
                selection.press(key, view.page_of(height))
            if pressed or time.monotonic() - drawn_at > REFRESH:
                live.update(shown.screen(selection, width, height), refresh=True)
                drawn_at = time.monotonic()
