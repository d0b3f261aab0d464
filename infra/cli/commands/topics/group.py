"""`infoway-streams group`: the processors' group, its members, and how far each partition is
behind."""

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cli.checks import reached_cluster_mistakes, topology_mistakes
from infra.cli.command import Command
from infra.cli.options import add_topology
from infra.kafka.group import GroupFound, Progress, group_found
from infra.runtime.deployment import named_cluster
from schemas.printable import printable
from schemas.topics import RAW, Topology


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """What `group` was given."""

    topology: Topology
    json: bool


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("--json", action="store_true", help="print one JSON object")
    add_topology(command)


def group(options: GroupOptions) -> int:
    """Print members, partitions and lag of the processors' group. Raises NoSuchTopic and
    NotAllowed."""
    names = options.topology
    bootstrap, _ = named_cluster()
    found = group_found(bootstrap, processors_group(names), map(names.name, RAW))
    if options.json:
        print(json.dumps(as_json(found)))
        return 0
    console = Console(highlight=False, soft_wrap=True, width=None if os.isatty(1) else 200)
    for line in summary(found):
        console.print(Text(line))
    if found.partitions:
        console.print(table(found))
    return 0


COMMAND = Command(
    "group",
    "print the workers' group: members, partitions, lag",
    "group --json",
    add_options,
    GroupOptions,
    group,
    (topology_mistakes, reached_cluster_mistakes),
    asks_cluster=True,
    reads_back=True,
)


def processors_group(names: Topology) -> str:
    """Return the name of the group of a namespace's workers."""
    return f"{names.prefix}infoway-processors"


def summary(found: GroupFound) -> Iterator[str]:
    """Yield the group and its members, a line each."""
    count = len(found.members)
    yield (
        f"{printable(found.name)}: {found.state}, {count} member{'s' * (count != 1)}, "
        f"lag {found.lag} records, {seconds_text(found.seconds)}"
    )
    for member in found.members:
        held = Counter(topic for topic, _ in member.partitions)
        parts = ", ".join(f"{topic} ({number})" for topic, number in sorted(held.items()))
        yield printable(f"  {member.client_id} at {member.host}: {parts or 'no partitions'}")


def table(found: GroupFound) -> Table:
    """Return the partitions as a table; text of others is never markup."""
    grid = Table(box=None, pad_edge=False)
    for heading in ("topic", "partition", "committed", "stable", "high", "lag", "seconds"):
        grid.add_column(heading, justify="left" if heading == "topic" else "right", no_wrap=True)
    for each in found.partitions:
        cells = (
            each.topic, str(each.partition),
            "–" if each.committed is None else str(each.committed),
            _stable(each), str(each.high), str(each.lag), seconds_text(each.seconds),
        )  # fmt: skip
        grid.add_row(*(Text(printable(cell)) for cell in cells))
    return grid


def seconds_text(seconds: float | None) -> str:
    """Return a lag in seconds for people; it is not known where the record could not be read."""
    return "? s" if seconds is None else f"{seconds:.1f} s"


def as_json(found: GroupFound) -> dict[str, Any]:
    """Return the group for machines."""
    return {
        "group": found.name,
        "state": found.state,
        "lag_records": found.lag,
        "lag_seconds": found.seconds,
        "members": [
            {
                "member": member.member_id,
                "client": member.client_id,
                "host": member.host,
                "partitions": [list(each) for each in member.partitions],
            }
            for member in found.members
        ],
        "partitions": [
            {
                "topic": each.topic,
                "partition": each.partition,
                "committed": each.committed,
                "stable": each.stable,
                "high": each.high,
                "lag_records": each.lag,
                "lag_seconds": each.seconds,
            }
            for each in found.partitions
        ],
    }


def _stable(each: Progress) -> str:
    held = each.high - each.stable
    return f"{each.stable} ({held} held back)" if held > 0 else str(each.stable)
