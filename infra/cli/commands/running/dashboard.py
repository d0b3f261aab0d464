"""`infoway-streams dashboard`: the live page of a cluster, served to browsers."""

import argparse
import ipaddress
import os
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass

from infra.cli.checks import reached_cluster_mistakes, topology_mistakes
from infra.cli.command import Command
from infra.cli.options import add_topology, whole
from infra.page.access import TOKEN, TokenWrong, token_of
from infra.page.running import DEFAULT_PORT, Address, run
from infra.runtime.deployment import named_cluster
from infra.runtime.signals import stop_on_signals
from schemas.printable import printable
from schemas.topics import Topology


@dataclass(frozen=True, slots=True)
class DashboardOptions:
    """What `dashboard` was given."""

    topology: Topology
    host: str
    port: int
    name: list[str]
    open: bool


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at (default: 127.0.0.1); any but loopback needs INFOWAY_PAGE_TOKEN",
    )
    command.add_argument(
        "--port",
        type=whole(0, 65_535),
        default=DEFAULT_PORT,
        help=f"port to listen at, 0 for any that is free (default: {DEFAULT_PORT})",
    )
    command.add_argument(
        "--name",
        action="append",
        default=[],
        help="a name by which browsers may ask for the page, HOST or HOST:PORT; once for each",
    )
    command.add_argument("--open", action="store_true", help="open the page in a browser")
    add_topology(command)


def page_mistakes(options: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with the page's address and token."""
    try:
        token = token_of(os.environ)
    except TokenWrong as error:
        yield str(error)
        return
    if not is_loopback(options.host) and not token:
        yield (
            f"--host {options.host!r}: others can reach it: set {TOKEN}, or {TOKEN}_FILE, to a "
            "token that the page will ask for"
        )


def is_loopback(host: str) -> bool:
    """Return whether an address is of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def dashboard(options: DashboardOptions) -> int:
    """Serve the page until Ctrl-C or SIGTERM. Raises ClusterUnnamed and PageUnusable."""
    bootstrap, registry_url = named_cluster()
    address = Address(options.host, options.port, tuple(options.name), token_of(os.environ))
    stop = stop_on_signals()

    def ready(url: str) -> None:
        print(printable(f"page {url}"), flush=True)
        if options.open:
            webbrowser.open(url)

    run(bootstrap, registry_url, options.topology, address, stop, ready)
    return 0


COMMAND = Command(
    "dashboard",
    "serve the live page of a cluster to browsers",
    "dashboard --open",
    add_options,
    DashboardOptions,
    dashboard,
    (topology_mistakes, reached_cluster_mistakes, page_mistakes),
    asks_cluster=True,
    reads_back=True,
)
