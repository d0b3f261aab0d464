"""`infoway-streams logs`: what broker, registry, workers and a detached run have logged."""

import argparse
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from infra.cli.cluster import DATA
from infra.cli.command import Command
from infra.cli.options import whole
from infra.embedded.running import SOURCES, NoRun, find
from infra.runtime.signals import stop_on_signals
from schemas.errors import SettingsWrong
from schemas.printable import printable

PERIOD = 0.2
_CHUNK = 65_536


class NoLogs(SettingsWrong):
    """There is no log of that name, or none at all."""


@dataclass(frozen=True, slots=True)
class LogsOptions:
    """What `logs` was given."""

    names: list[str]
    data: Path
    lines: int
    follow: bool


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "names", nargs="*", metavar="NAME", help="kafka, registry, processors-0, up (default: all)"
    )
    command.add_argument(
        "--data", type=Path, default=DATA, help="data folder of the run (default: data)"
    )
    command.add_argument(
        "--lines",
        type=whole(0, 1_000_000),
        default=20,
        help="how many lines of each at first (default: 20)",
    )
    command.add_argument(
        "--follow", "-f", action="store_true", help="go on with what is logged, until Ctrl-C"
    )


def logs(options: LogsOptions) -> int:
    """Print the end of each log, each line after the name of its log. Raises NoLogs and NoRun."""
    files = _chosen(_folder(options.data), options.names)
    stop = stop_on_signals() if options.follow else threading.Event()
    opened = [(name, path.open("rb")) for name, path in files.items()]
    try:
        for name, file in opened:
            for line in last_lines(file, options.lines):
                print(f"{name} | {printable(line)}")
        print(end="", flush=True)
        while options.follow and not stop.wait(PERIOD):
            for name, file in opened:
                for line in file.read().decode(errors="replace").splitlines():
                    print(f"{name} | {printable(line)}", flush=True)
    finally:
        for _, file in opened:
            file.close()
    return 0


def last_lines(file: BinaryIO, count: int) -> Sequence[str]:
    """Return the last lines of a file, and leave it at its end; reads no more of it than these
    need."""
    end = place = file.seek(0, 2)
    found = b""
    # one more than asked for: the first may be cut
    while place > 0 and found.count(b"\n") <= count:
        length = min(_CHUNK, place)
        place -= length
        file.seek(place)
        found = file.read(length) + found
    file.seek(end)
    lines = found.decode(errors="replace").splitlines()
    return lines[max(0, len(lines) - count) :]


def _folder(data: Path) -> Path:
    """Return the folder of what runs, else the one folder that has logs."""
    try:
        return find(data).folder
    except NoRun as error:
        if error.several:
            raise
    there = [folder for folder in (data, *(data / each for each in SOURCES)) if _logs(folder)]
    if not there:
        raise NoLogs(f"no logs in {data}: name the folder of a run by --data")
    if len(there) > 1:
        names = " or ".join(f"--data {folder}" for folder in there)
        raise NoLogs(f"more than one run has left logs in {data}: name one by {names}")
    return there[0]


def _logs(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((folder / "logs").glob("*.log"))}


def _chosen(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    there = _logs(folder)
    # a name chooses among what is there: it is never a path
    if unknown := [name for name in names if name not in there]:
        raise NoLogs(f"no log {', '.join(map(repr, unknown))}: there are {', '.join(there)}")
    return {name: there[name] for name in dict.fromkeys(names or there)}


COMMAND = Command(
    "logs",
    "print what broker, registry and workers have logged",
    "logs processors-0 --follow",
    add_options,
    LogsOptions,
    logs,
)
