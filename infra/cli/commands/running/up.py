"""`infoway-streams up`: broker, registry, feed, producer, processors and live view on one machine,
all ended together."""

import argparse
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

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
from infra.cli.commands.running.live_view import (
    NO_PAGE,
    ShownRun,
    announce_page,
    show_lines,
    show_screen,
)
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
from infra.dashboard.board import Board
from infra.embedded.running import noted
from infra.ingest.choice import FeedChoice
from infra.ingest.delivered import delivered_before
from infra.ingest.feed_health import FeedHealth
from infra.ingest.healing import healing
from infra.ingest.producer_process import Feeding, api_key, endpoint_of
from infra.ingest.spooling import open_backlog
from infra.page.child import PageProcess
from infra.page.running import DEFAULT_PORT, READY
from infra.runtime.deployment import deployed, settings_of_workers
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

        shown = ShownRun(board, deployment, feeding, supervisor, banner, page.url if page else "")
        ends_at = time.monotonic() + options.seconds if options.seconds else math.inf

        def ended() -> bool:
            check()
            return stop.is_set() or time.monotonic() >= ends_at

        announce = partial(announce_page, console, page, options.open)
        if console.is_terminal and not options.status_only:
            announce()
            show_screen(console, shown, ended)
        else:
            show_lines(console, shown, ended, stop, options.status_only, announce)
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
