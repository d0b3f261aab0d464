"""`infoway-streams dead-letter list`: what could not be read."""

import argparse
import json
from dataclasses import dataclass
from typing import Any

from infra.cli.checks import reached_cluster_mistakes, topology_mistakes
from infra.cli.command import Command
from infra.cli.commands.repair.dead_letter_choice import LetterChoice, add_choice, chosen
from infra.cli.options import add_topology
from infra.kafka.dead_letters import DeadLetters, Letter
from infra.runtime.deployment import named_cluster
from schemas.printable import printable, utc_text
from schemas.topics import Topology


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What `dead-letter list` was given."""

    topology: Topology
    json: bool
    last: int | None
    since: int | None
    symbol: str | None
    reason: str | None


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `dead-letter list`."""
    command.add_argument("--json", action="store_true", help="one JSON object a line, bytes as hex")
    add_choice(command)
    add_topology(command)


def list_letters(options: ListOptions) -> int:
    """Print the chosen dead letters that retention has left, the redriven ones too. Raises
    NoSuchTopic and NotAllowed."""
    choice = LetterChoice(options.last, options.since, options.symbol, options.reason)
    for letter in chosen(DeadLetters(options.topology, *named_cluster()).letters(), choice):
        print(
            json.dumps(_as_json(letter)) if options.json else printable(_line(letter)), flush=True
        )
    return 0


COMMAND = Command(
    "dead-letter list",
    "print dead letters",
    "dead-letter list --since 1h --reason undecodable",
    add_options,
    ListOptions,
    list_letters,
    (topology_mistakes, reached_cluster_mistakes),
    asks_cluster=True,
    reads_back=True,
)


def _line(letter: Letter) -> str:
    record = letter.record
    written = utc_text(letter.written_ms, "%Y-%m-%dT%H:%M:%SZ")
    raw = f"{record['source_topic']}[{record['source_partition']}] offset {record['source_offset']}"
    origin = raw if record["source_topic"] else f"feed {record['feed']}"
    tried = f", redriven {letter.attempts} times before" if letter.attempts else ""
    state = "handled" if letter.handled else "waits"
    return (
        f"{letter.position} {written} {origin}: {record['error_class']}: {record['error_text']} "
        f"({len(record['value'])} bytes{tried}; {state})"
    )


def _as_json(letter: Letter) -> dict[str, Any]:
    record = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in letter.record.items()
    }
    headers = [[name, None if value is None else value.hex()] for name, value in letter.headers]
    position = {
        "partition": letter.partition,
        "offset": letter.offset,
        "written_ms": letter.written_ms,
    }
    return {
        **position,
        "attempts": letter.attempts,
        "handled": letter.handled,
        "headers": headers,
        **record,
    }
