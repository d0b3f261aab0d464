"""Options that several commands share, and how an option's text is read."""

import argparse
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from infra.cli.hold import HOLD
from schemas.numbers import whole_number
from schemas.topics import DEFAULT_INTERVALS, DEFAULT_WINDOWS, Topology

MOST_PARTITIONS = 1_000_000
MOST_WORKERS = 256
HIGHEST_RATE = 100_000.0
LONGEST_S = 31_536_000.0
_AGO = re.compile(r"([1-9][0-9]{0,6})([smhd])", re.ASCII)
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_MOMENT = "a time such as 2026-11-20T01:30Z, with its offset, or 90s, 10m, 2h, 3d for so long ago"
_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?", re.ASCII)


class Wrong(NamedTuple):
    """What an option got instead of a value: it is reported with all other mistakes."""

    text: str
    expected: str


def whole(least: int, most: int) -> Callable[[str], int | Wrong]:
    """Return a function that reads a whole number."""

    def read(text: str) -> int | Wrong:
        number = whole_number(text, least, most)
        return Wrong(text, f"a whole number from {least} to {most}") if number is None else number

    return read


def decimal(most: float, zero: bool = False) -> Callable[[str], float | Wrong]:
    """Return a function that reads a plain decimal above 0, or with `zero` from 0 on."""

    def read(text: str) -> float | Wrong:
        value = float(text) if _DECIMAL.fullmatch(text) else math.nan
        if value > most or not (value >= 0 if zero else value > 0):
            return Wrong(
                text, f"a number {'from 0' if zero else 'above 0'} to {most:g}, such as 0.5 or 20"
            )
        return value

    return read


def moment(text: str) -> int | Wrong:
    """Return the time of a text in ms UTC: ISO 8601 with an offset, or `10m` for so long ago."""
    if match := _AGO.fullmatch(text):
        return time.time_ns() // 1_000_000 - int(match[1]) * _UNITS_MS[match[2]]
    try:
        found = datetime.fromisoformat(text)
        ms = int(found.timestamp() * 1000)
    except (ValueError, OverflowError):
        return Wrong(text, _MOMENT)
    return Wrong(text, _MOMENT) if found.tzinfo is None or ms < 0 else ms


def add_symbols(command: argparse.ArgumentParser) -> None:
    """Add the options that name what is subscribed to; a command takes one of them."""
    options = command.add_mutually_exclusive_group()
    options.add_argument(
        "--symbols", help="comma-separated symbols, each to its business; SYMBOL:BUSINESS overrules"
    )
    options.add_argument(
        "--symbols-file",
        type=Path,
        help="file of symbols in place of --symbols; read again when it changes and on SIGHUP",
    )


def add_url(command: argparse.ArgumentParser) -> None:
    """Add the address of the feed."""
    command.add_argument(
        "--url", help="the vendor's WebSocket, or a simulator's (default: the vendor's)"
    )


def add_rest_url(command: argparse.ArgumentParser) -> None:
    """Add the address of the vendor's REST."""
    command.add_argument(
        "--rest-url",
        help="where the package of the key is asked for (default: the vendor's REST, with --url "
        "that host's)",
    )


def add_seconds(command: argparse.ArgumentParser) -> None:
    """Add how long a command runs."""
    command.add_argument("--seconds", type=decimal(LONGEST_S), help="end by itself after this long")


def add_workers(command: argparse.ArgumentParser) -> None:
    """Add the number of workers."""
    command.add_argument(
        "--workers", type=whole(1, MOST_WORKERS), default=1, help="processor workers (default: 1)"
    )


def add_hold(command: argparse.ArgumentParser) -> None:
    """Add what keeps a container from being restarted in vain (infra/cli/hold.py)."""
    command.add_argument(
        HOLD,
        action="store_true",
        help="stay alive and unready after an end that no restart mends, for containers, until "
        "SIGTERM",
    )


def add_topology(command: argparse.ArgumentParser) -> None:
    """Add the options of topics; without an option INFOWAY_PREFIX and so on count."""
    command.add_argument("--prefix", help="prefix of every topic and group (default: none)")
    command.add_argument(
        "--intervals", help=f"bar intervals (default: {','.join(DEFAULT_INTERVALS)})"
    )
    command.add_argument(
        "--activity", help="activity bars: tick-1000,volume-50000,turnover-1000000 (default: none)"
    )
    command.add_argument("--windows", help=f"VWAP windows (default: {','.join(DEFAULT_WINDOWS)})")
    command.add_argument(
        "--partitions",
        type=whole(1, MOST_PARTITIONS),
        help="partitions of every topic (default: as in topics.yaml)",
    )


def topology_of(options: argparse.Namespace) -> Topology:
    """Return the topology of a command's options, and of the settings if there is no option."""
    intervals, windows, activity = (
        _names(given(options, name)[1]) for name in ("intervals", "windows", "activity")
    )
    partitions = options.partitions
    if partitions is None:
        partitions = whole_number(os.environ.get("INFOWAY_PARTITIONS", ""), 1, MOST_PARTITIONS)
    elif isinstance(partitions, Wrong):
        partitions = None
    return Topology(given(options, "prefix")[1], intervals, windows, partitions, activity)


def is_given(options: argparse.Namespace, name: str) -> bool:
    """Return whether an option or the environment says something of a part of the topology."""
    return getattr(options, name, None) is not None or bool(
        os.environ.get(f"INFOWAY_{name.upper()}")
    )


def filled_in(options: argparse.Namespace, parts: Mapping[str, str]) -> Topology:
    """Return the topology of a command's options, with `parts`, texts by name, in place of what
    neither an option nor the environment says."""
    used = {name: text for name, text in parts.items() if text and not is_given(options, name)}
    lists = {name: _names(text) for name, text in used.items() if name != "partitions"}
    names = replace(topology_of(options), **lists)  # type: ignore[arg-type]
    number = whole_number(used.get("partitions", ""), 1, MOST_PARTITIONS)
    return names if number is None else replace(names, partitions=number)


def given(options: argparse.Namespace, name: str) -> tuple[str, str]:
    """Return how a part of the topology was set, for people, and its text."""
    value, variable = getattr(options, name), f"INFOWAY_{name.upper()}"
    if value is not None:
        return f"--{name} {value!r}", value
    text = os.environ.get(variable, "")
    defaults = {"intervals": ",".join(DEFAULT_INTERVALS), "windows": ",".join(DEFAULT_WINDOWS)}
    return f"{variable}={text!r}", text or defaults.get(name, "")


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if text))
