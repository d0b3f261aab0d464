"""`infoway-streams status`: in one screen what runs where, the feeds, the lag and the newest
bars."""

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from infra.cli.checks import reached_cluster_mistakes, topology_mistakes
from infra.cli.command import Command
from infra.cli.commands.topics import group
from infra.cli.options import add_topology
from infra.dashboard.board import shown
from infra.embedded.running import Found, NoRun, find
from infra.kafka.group import GroupFound, group_found
from infra.kafka.reader import HELD_BACK_S, ValueReader, read_to_end
from infra.runtime.deployment import named_cluster
from schemas.clients.registry import Registry, UnknownSchema
from schemas.decimals import to_text
from schemas.printable import printable, utc_text
from schemas.topics import FEED_STATUS, RAW, Topology, load_schema
from schemas.wire import Fields, UnreadableValue

NEWEST = 500
"""Records of each partition that are looked through."""
_CLOCK = "%Y-%m-%dT%H:%M:%SZ"
_OTHER_LINES = 9
_DAY_MS = 86_400_000
_LEAST_FIRST = ("open", "low", "high", "rev", "volume")
_LEFT = ("symbol", "state")


@dataclass(frozen=True, slots=True)
class StatusOptions:
    """What `status` was given."""

    topology: Topology
    data: Path
    json: bool


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a deployment now."""

    bootstrap: str
    registry_url: str
    stack: Found | None
    """The run whose broker that is; None for another cluster."""
    group: GroupFound
    feeds: tuple[Fields, ...]
    """The last record of each feed."""
    interval: str
    bars: tuple[Fields, ...]
    """The newest bar of each symbol, by symbol."""
    held: tuple[str, ...] = ()
    """What says of each partition that was not read to its end, why."""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("--json", action="store_true", help="print one JSON object")
    add_topology(command)


def status(options: StatusOptions) -> int:
    """Print what runs. Raises NoSuchTopic, NotAllowed and RegistryError."""
    found = asked(options)
    if options.json:
        print(json.dumps(as_json(found)))
        return 0
    screen = shutil.get_terminal_size((100, 40)) if os.isatty(1) else None
    for line in lines(found, screen):
        print(printable(line))
    return 0


COMMAND = Command(
    "status",
    "print what runs where, feeds, lag and newest bars",
    "status --json",
    add_options,
    StatusOptions,
    status,
    (topology_mistakes, reached_cluster_mistakes),
    asks_cluster=True,
    reads_back=True,
)


def asked(options: StatusOptions) -> Status:
    """Ask the cluster for everything that the command shows."""
    names = options.topology
    bootstrap, registry_url = named_cluster()
    interval = names.intervals[0]
    read = ValueReader(Registry(registry_url))
    held: list[str] = []
    feeds = _newest(bootstrap, names.name(FEED_STATUS), "feed_status", "feed", read, held)
    bars = _newest(bootstrap, names.name(f"infoway.bars.{interval}"), "bar", "symbol", read, held)
    found = group_found(bootstrap, group.processors_group(names), map(names.name, RAW))
    stack = _stack(options.data, bootstrap)
    return Status(bootstrap, registry_url, stack, found, feeds, interval, bars, tuple(held))


def lines(found: Status, screen: os.terminal_size | None = None) -> Iterator[str]:
    """Yield the status for people, with `screen` in no more lines than it has."""
    if found.stack is not None:
        page = found.stack.run.page_url
        yield (
            f"{found.stack.source} data: process {found.stack.run.pid} over {found.stack.folder}"
            f"{f'   page {page}' if page else ''}"
        )
    yield f"broker {found.bootstrap}   registry {found.registry_url}"
    members = len(found.group.members)
    workers = f"{members} worker{'s' * (members != 1)}, {found.group.state}"
    if not members:
        workers = f"no worker is in the group ({found.group.state})"
    lag = group.seconds_text(found.group.seconds)
    yield f"processors: {workers}; lag {found.group.lag} records, {lag}"
    states = () if found.stack is None else found.stack.run.workers
    for each in states:
        yield f"  worker {each.slot} {each.text}"
    for feed in found.feeds:
        since = utc_text(feed["ts_from"], _CLOCK)
        yield f"feed {feed['feed']}: {feed['state']} since {since} ({feed['reason']})"
    if not found.feeds:
        yield "feeds: none has said anything yet"
    for text in found.held:
        yield from text.splitlines()
    yield f"newest bars of {found.interval}: {len(found.bars)} symbols"
    room = len(found.bars)
    if screen is not None:
        room = max(
            1, screen.lines - _OTHER_LINES - len(states) - len(found.feeds) - len(found.held)
        )
    if found.bars:
        yield from _table(found.bars[:room], None if screen is None else screen.columns)
    if len(found.bars) > room:
        yield f"  and {len(found.bars) - room} more: --json has them all"


def _table(bars: Sequence[Fields], width: int | None) -> Iterator[str]:
    """Yield bars as lines of a table under a heading, without the columns that the width has no
    room for."""
    now_ms = time.time_ns() // 1_000_000
    today = all(abs(now_ms - bar["ts_start"]) < _DAY_MS for bar in bars)
    clock = "%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S"
    columns = {
        "symbol": [str(bar["symbol"]) for bar in bars],
        "UTC": [utc_text(bar["ts_start"], clock) for bar in bars],
        **{
            name: [shown(bar[name]) for bar in bars]
            for name in ("open", "high", "low", "close", "volume")
        },
        "rev": [str(bar["revision"]) for bar in bars],
        "state": [_state(bar) for bar in bars],
    }
    lengths = {name: max(map(len, (name, *cells))) for name, cells in columns.items()}
    for name in _LEAST_FIRST:
        if width is not None and sum(lengths.values()) + 1 + len(columns) > width:
            del columns[name], lengths[name]
    for cells in (tuple(columns), *zip(*columns.values(), strict=True)):
        yield (
            "  "
            + " ".join(
                cell.ljust(lengths[name]) if name in _LEFT else cell.rjust(lengths[name])
                for name, cell in zip(columns, cells, strict=True)
            ).rstrip()
        )


def _state(bar: Fields) -> str:
    said = "closed" if bar["is_closed"] else "open"
    return said if bar["completeness"] == "complete" else f"{said}, {bar['completeness']}"


def as_json(found: Status) -> dict[str, Any]:
    """Return the status for machines: decimals as text, times in ms UTC."""
    stack = found.stack
    return {
        "broker": found.bootstrap,
        "registry": found.registry_url,
        "stack": None
        if stack is None
        else {"folder": str(stack.folder), "source": stack.source, **_run(stack)},
        "group": group.as_json(found.group),
        "held_back": list(found.held),
        "feeds": [{name: feed[name] for name in _OF_FEED} for feed in found.feeds],
        "interval": found.interval,
        "bars": [
            {
                **{name: bar[name] for name in _OF_BAR},
                **{name: to_text(bar[name]) for name in _DECIMALS},
            }
            for bar in found.bars
        ],
    }


_OF_FEED = ("feed", "business", "state", "reason", "ts_from", "ts_to")
_OF_BAR = ("symbol", "ts_start", "revision", "is_closed", "cause", "completeness", "provenance")
_DECIMALS = ("open", "high", "low", "close", "volume")


def _run(stack: Found) -> dict[str, Any]:
    return {
        "pid": stack.run.pid,
        "prefix": stack.run.prefix,
        "page": stack.run.page_url,
        "workers": [
            {"slot": each.slot, "state": each.text, "well": each.well} for each in stack.run.workers
        ],
    }


def _stack(data: Path, bootstrap: str) -> Found | None:
    """Return the run over the folder if it is the one whose broker is asked."""
    try:
        found = find(data)
    except NoRun:
        return None
    return found if found.run.bootstrap == bootstrap else None


def _newest(
    bootstrap: str, topic: str, schema: str, key: str, read: ValueReader, held: list[str]
) -> tuple[Fields, ...]:
    """Return the last record of each key among the newest of each partition, by key. What cannot be
    read as the topic's is passed over, as workers dead-letter it; so is what an open transaction
    holds back, and `held` gets why."""
    found: dict[str, Fields] = {}
    for message in read_to_end(
        bootstrap,
        topic,
        last=NEWEST,
        patience_s=HELD_BACK_S,
        on_held=lambda error: held.append(str(error)),
    ):
        if (value := message.value()) is None:
            continue
        try:
            record = read(value, load_schema(schema))[1]
        except (UnknownSchema, UnreadableValue):
            continue
        found[cast(str, record[key])] = record
    return tuple(found[each] for each in sorted(found))
