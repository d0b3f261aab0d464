"""`infoway-streams simulate`: serves the vendor's WebSocket and REST on this machine."""

import argparse
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.cli.command import Command
from infra.cli.options import HIGHEST_RATE, Wrong, decimal, whole
from infra.runtime.signals import stop_on_signals
from infra.simulator import running_simulator
from infra.simulator.protocol import PACKAGES
from infra.simulator.script import read_script

FASTEST = 1_000_000.0


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """What `simulate` was given."""

    files: Sequence[Path]
    host: str
    port: int
    speed: float
    rate: float
    package: str
    script: Path | None


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="recordings to play; none: synthetic markets",
    )
    command.add_argument(
        "--port", type=whole(0, 65_535), default=0, help="port (default: a free one)"
    )
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    command.add_argument(
        "--speed",
        type=decimal(FASTEST, zero=True),
        default=1.0,
        help="speed of a recording; 0: as fast as possible (default: 1)",
    )
    command.add_argument(
        "--rate",
        type=decimal(HIGHEST_RATE),
        default=5.0,
        help="trades a second and symbol of synthetic markets (default: 5)",
    )
    command.add_argument(
        "--package", choices=PACKAGES, default="pro", help="whose quotas hold (default: pro)"
    )
    command.add_argument(
        "--script",
        type=Path,
        help="YAML: what goes wrong and when, as `- {at: 5, do: stall, seconds: 10}`",
    )


def listening_mistakes(options: argparse.Namespace) -> Iterator[str]:
    """Yield why nothing can listen at the host and port."""
    if isinstance(options.port, Wrong):
        return
    try:
        with socket.create_server(
            (options.host, options.port),
            family=socket.AF_INET6 if ":" in options.host else socket.AF_INET,
        ):
            pass
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        yield f"--host {options.host!r} --port {options.port}: {reason}: name another address"


def simulate(options: SimulateOptions) -> int:
    """Serve the vendor's WebSocket and REST until Ctrl-C or SIGTERM."""
    stop = stop_on_signals()
    with running_simulator(
        files=options.files,
        host=options.host,
        port=options.port,
        speed=options.speed,
        rate=options.rate,
        limits=PACKAGES[options.package],
        script=read_script(options.script) if options.script else [],
    ) as simulator:
        print(
            f"simulator at {simulator.url}, REST at {simulator.rest_url}; any key but 'bad-key' "
            "is taken",
            flush=True,
        )
        stop.wait()
    return 0


COMMAND = Command(
    "simulate",
    "serve the vendor's WebSocket and REST on this machine",
    "simulate --port 8765 --rate 20",
    add_options,
    SimulateOptions,
    simulate,
    (listening_mistakes,),
)
