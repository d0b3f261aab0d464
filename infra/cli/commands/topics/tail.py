"""`infoway-streams tail`: follows topics; a table in a terminal, JSON lines in a pipe."""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import confluent_kafka as ck

from infra.cli.checks import reached_cluster_mistakes, topology_mistakes
from infra.cli.command import Command
from infra.cli.options import add_topology, moment, whole
from infra.dashboard.rows import RowPrinter
from infra.kafka.following import follow, place_of
from infra.kafka.offsets import NoSuchTopic
from infra.kafka.reader import ValueReader
from infra.runtime.deployment import ClusterUnnamed, named_cluster
from infra.runtime.signals import stop_on_signals
from schemas.clients.cluster import metadata_of
from schemas.clients.kafka import client
from schemas.clients.registry import Registry, UnknownSchema
from schemas.printable import printable
from schemas.topics import Topology
from schemas.wire import UnreadableValue


@dataclass(frozen=True, slots=True)
class TailOptions:
    """What `tail` was given."""

    topology: Topology
    topics: list[str]
    """Their names in the contract."""
    from_beginning: bool
    since: int | None
    """Milliseconds UTC."""
    max: int | None
    symbol: str | None
    json: bool


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "topics",
        nargs="+",
        metavar="TOPIC",
        help="names in the contract, such as infoway.bars.1m",
    )
    start = command.add_mutually_exclusive_group()
    start.add_argument(
        "--from-beginning", action="store_true", help="from the first record on, not only new ones"
    )
    start.add_argument(
        "--since",
        type=moment,
        help="from what was written since: 10m for ten minutes ago, or 2026-11-20T01:30Z",
    )
    command.add_argument(
        "--max", type=whole(1, 1_000_000_000), metavar="N", help="end after so many records"
    )
    command.add_argument("--symbol", help="only the records of these symbols, comma-separated")
    command.add_argument(
        "--json", action="store_true", help="JSON lines in a terminal, too, with every field"
    )
    add_topology(command)


def tail(options: TailOptions) -> int:
    """Print the topics' committed records until Ctrl-C or `max`; null values are left out,
    unreadable ones named on stderr.

    Raises ClusterUnnamed, NotAllowed and RegistryError.
    """
    bootstrap, registry_url = named_cluster()
    names = options.topology
    topics = {names.name(topic): topic for topic in options.topics}
    shown = _RecordPrinter(options, ValueReader(Registry(registry_url)), topics)
    start = ck.OFFSET_BEGINNING if options.from_beginning else ck.OFFSET_END
    if options.since is not None:
        start = options.since
    stop = stop_on_signals()
    if shown.rows is not None:
        print(f"reading {', '.join(topics)}; Ctrl-C ends", file=sys.stderr, flush=True)
    try:
        follow(bootstrap, list(topics), start, shown.take, stop)
    except NoSuchTopic as error:
        there = ", ".join(_visible(bootstrap))
        raise ClusterUnnamed(f"no topic {error.topic}: there are {there}") from None
    return 0


COMMAND = Command(
    "tail",
    "follow topics: a table in a terminal, JSON lines in a pipe",
    "tail infoway.bars.1m --since 10m",
    add_options,
    TailOptions,
    tail,
    (topology_mistakes, reached_cluster_mistakes),
    asks_cluster=True,
    reads_back=True,
)


class _RecordPrinter:
    """Prints records as they come."""

    def __init__(self, options: TailOptions, read: ValueReader, topics: dict[str, str]) -> None:
        self._read = read
        self._topics = topics
        self._left = options.max
        self._symbols = frozenset(_names(options.symbol or ""))
        terminal = sys.stdout.isatty() and not options.json
        self.rows = RowPrinter(lambda: shutil.get_terminal_size().columns) if terminal else None

    def take(self, message: ck.Message) -> bool:
        """Print a record if it is one of those asked for; return whether another is wanted."""
        value = message.value()
        if value is None:
            return True
        try:
            record = self._read.shown(value)
        except (UnknownSchema, UnreadableValue) as unreadable:
            # raw topics have what workers dead-letter
            said = printable(f"{place_of(message)}: {unreadable}")
            print(said, file=sys.stderr, flush=True)
            return True
        if self._symbols and _symbol_of(record, message) not in self._symbols:
            return True
        for line in self._lines(self._topics[cast(str, message.topic())], record):
            print(line, flush=True)
        if self._left is not None:
            self._left -= 1
        return self._left != 0

    def _lines(self, topic: str, record: Any) -> Iterator[str]:
        if self.rows is not None and isinstance(record, dict):
            yield from self.rows.lines(topic, record)
            return
        if len(self._topics) > 1:
            # of one topic the lines are the records alone
            record = {"topic": topic, "record": record}
        # json.dumps writes ASCII alone: no control character of a value reaches the terminal
        yield json.dumps(record)


def _symbol_of(record: Any, message: ck.Message) -> str:
    """Return the symbol of a record: its field, else the key."""
    if isinstance(record, dict) and isinstance(record.get("symbol"), str):
        return str(record["symbol"])
    return (message.key() or b"").decode(errors="replace")


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _visible(bootstrap: str) -> list[str]:
    """Return the pipeline's topics that the broker shows."""
    asking = ck.Consumer({**client(bootstrap), "group.id": "tail", "log_level": 0})
    try:
        return sorted(name for name in metadata_of(asking).topics if "infoway." in name)
    finally:
        asking.close()
