"""`infoway-streams replay`: plays recordings through the real path, from the producer's core
by Kafka and the agents into one file per derived topic.

The recording's receive time takes the place of the producer's clock, and a fresh namespace that of
any earlier run, so that the same recordings give the same files.
"""

import argparse
import json
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from infra.cli.checks import cluster_mistakes, folder, topology_mistakes, worker_mistakes
from infra.cli.command import Command
from infra.cli.options import add_topology, add_workers
from infra.ingest.planning import businesses_of
from infra.kafka.lag import Lag
from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.deployment import Deployment, deployed
from infra.runtime.supervisor import Supervisor
from processors.settings import swapped_sides
from producers.delivery.client import open_producer
from producers.delivery.publisher import Publisher
from producers.feed.metrics import FeedCounters
from producers.private_folder import private_folder
from producers.recording.player import Player
from producers.recording.reader import Recording, read_recordings
from schemas.clients.registry import Registry
from schemas.errors import InfowayError
from schemas.printable import printable
from schemas.topics import Topology
from schemas.wire import to_json

SOURCES = ("infoway.raw.trade", "infoway.raw.depth", "infoway.raw.kline")
DEAD_LETTER = "infoway.dead-letter"
STALL_TIMEOUT = 120.0
_SHOWN, _SHOWN_LENGTH = 20, 32


class ReplayStalled(InfowayError):
    """The processors made no progress for a long time."""


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What `replay` was given."""

    files: Sequence[Path]
    out: Path
    topology: Topology
    workers: int = 1
    symbols: str | None = None
    """SYMBOL:BUSINESS of symbols whose business the recording does not say."""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="recordings: JSON lines, plain or gz"
    )
    command.add_argument(
        "--out", type=Path, required=True, help="folder for one <topic>.jsonl per derived topic"
    )
    add_workers(command)
    command.add_argument(
        "--symbols",
        help="SYMBOL:BUSINESS, comma-separated, of symbols whose business the recording does "
        "not say",
    )
    add_topology(command)


def replay_files(options: ReplayOptions) -> int:
    """Play the files and print what was done."""
    print("\n".join(replay(options, Console(stderr=True)).lines()))
    return 0


COMMAND = Command(
    "replay",
    "play recordings through Kafka and the agents into files",
    "replay recordings/*.jsonl.gz --out out",
    add_options,
    ReplayOptions,
    replay_files,
    (topology_mistakes, cluster_mistakes, worker_mistakes, folder("out")),
)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a replay did."""

    frames: int
    broken_lines: int
    counters: tuple[FeedCounters, ...]
    records: dict[str, int]
    seconds: float
    guessed: tuple[str, ...] = ()
    """Symbols that were played as `common` as nothing says their business."""

    def lines(self) -> list[str]:
        """Return the summary for people."""
        unreadable = sum(each.unreadable for each in self.counters)
        trades, depth = (
            sum(each.trades for each in self.counters),
            sum(each.depth for each in self.counters),
        )
        klines = sum(each.klines for each in self.counters)
        odd = {
            "trades delivered before by an earlier connection": sum(
                each.repeats for each in self.counters
            ),
            "trades without a side that can be read": sum(
                each.unknown_sides for each in self.counters
            ),
            "symbols whose books have their sides swapped": sum(
                each.swapped_sides for each in self.counters
            ),
            "connections on which nearly all books of one level are crossed": sum(
                each.suspect_sides for each in self.counters
            ),
        }
        return [
            f"{self.frames} frames in {self.seconds:.1f} s: {trades} trades, {depth} books, "
            f"{klines} klines, "
            f"{unreadable} not understood, {self.broken_lines} broken lines",
            *(f"  {number} {what}" for what, number in odd.items() if number),
            *_guesses(self.guessed),
            *(f"  {name:32} {count:>9} records" for name, count in self.records.items()),
        ]


def _guesses(symbols: tuple[str, ...]) -> list[str]:
    if not symbols:
        return []
    shown = ", ".join(repr(symbol[:_SHOWN_LENGTH])[1:-1] for symbol in symbols[:_SHOWN])
    more = f" and {len(symbols) - _SHOWN} more" if len(symbols) > _SHOWN else ""
    return [
        f"{len(symbols)} symbols taken for `common`, as nothing names their business: "
        f"{shown}{more}; --symbols SYMBOL:BUSINESS says it"
    ]


def replay(options: ReplayOptions, console: Console) -> Summary:
    """Play the files and write `<topic>.jsonl` for every derived topic. Raises SettingsError and
    BadSymbols."""
    businesses = businesses_of(options.symbols)
    began = time.monotonic()
    swapped = swapped_sides(os.environ)
    recording = read_recordings(options.files)
    for broken in recording.broken:
        line = printable(f"{broken.path}:{broken.line}: {broken.reason}; passed over")
        console.print(line, style="yellow", highlight=False, soft_wrap=True, markup=False)
    private_folder(options.out)
    fresh = replace(
        options.topology, prefix=f"replay-{uuid.uuid4().hex[:12]}.{options.topology.prefix}"
    )
    with ExitStack() as running:
        data = Path(
            running.enter_context(
                tempfile.TemporaryDirectory(prefix="infoway-replay-", ignore_cleanup_errors=True)
            )
        )
        deployment = running.enter_context(deployed(fresh, data))
        supervisor = running.enter_context(
            Supervisor(
                deployment.environment | {"INFOWAY_SOURCE": "replay"},
                options.workers,
                data / "logs",
            )
        )
        progress = running.enter_context(Progress(console=console, disable=not console.is_terminal))
        publisher = Publisher(
            open_producer(deployment.bootstrap),
            deployment.topology,
            deployment.schema_ids,
            threading.Event(),
        )
        player = Player(recording, deployment.partitions, publisher, businesses, swapped)
        _produce(recording, player, progress)
        publisher.flush()
        _wait_until_processed(deployment, supervisor, progress)
        records = _write(deployment, options.out, progress)
    seconds, counters = time.monotonic() - began, tuple(player.counters.values())
    return Summary(
        len(recording.frames),
        len(recording.broken),
        counters,
        records,
        seconds,
        tuple(sorted(player.guessed)),
    )


def _produce(recording: Recording, player: Player, progress: Progress) -> None:
    task = progress.add_task("producing", total=len(recording.entries))
    for number, entry in enumerate(recording.entries):
        player.play(entry)
        if number % 1000 == 0:
            progress.update(task, completed=number)
    player.end()
    progress.update(task, completed=len(recording.entries))


def _wait_until_processed(
    deployment: Deployment, supervisor: Supervisor, progress: Progress
) -> None:
    names, group = deployment.topology, f"{deployment.topology.prefix}infoway-processors"
    # the group commits its offsets in the transaction of its outputs: without lag everything has
    # been published
    lag = Lag(deployment.bootstrap, group, map(names.name, SOURCES))
    _wait_for_none(lag, supervisor, progress, "processing")
    # only then is every bar there that the reconciliation reads
    bars = Lag(
        deployment.bootstrap,
        group,
        [names.name(f"infoway.bars.{interval}") for interval in names.intervals],
    )
    _wait_for_none(bars.records_left, supervisor, progress, "reconciling")


def _wait_for_none(
    left_now: Callable[[], int], supervisor: Supervisor, progress: Progress, what: str
) -> None:
    left = total = left_now()
    task, moved_at = progress.add_task(what, total=total), time.monotonic()
    while left:
        supervisor.check()
        time.sleep(0.05)
        before, left = left, left_now()
        if left < before:
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > STALL_TIMEOUT:
            raise ReplayStalled(
                f"the processors made no progress for {STALL_TIMEOUT:.0f} s, {left} records are "
                "left: see their logs"
            )
        progress.update(task, completed=total - left)


def _write(deployment: Deployment, out: Path, progress: Progress) -> dict[str, int]:
    reader = ValueReader(Registry(deployment.registry_url))
    written: dict[str, int] = {}
    topics = deployment.topology.derived()
    for topic in progress.track(topics, description="writing"):
        name = deployment.topology.contract_name(topic.name)
        lines = [
            _line(reader, message.value(), deployment)
            for message in read_to_end(deployment.bootstrap, topic.name)
        ]
        if name == DEAD_LETTER:
            # producers and processors write it side by side: their order is no part of the contract
            lines.sort()
        (out / f"{name}.jsonl").write_bytes(b"".join(lines))
        written[name] = len(lines)
    return written


def _line(reader: ValueReader, value: bytes | None, deployment: Deployment) -> bytes:
    assert value is not None
    schema, record = reader(value)
    shown = to_json(schema, record)
    if shown.get("source_topic"):
        shown["source_topic"] = deployment.topology.contract_name(shown["source_topic"])
    return json.dumps(shown, separators=(",", ":")).encode() + b"\n"
