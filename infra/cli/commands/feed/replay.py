"""Plays recordings through the real path, from the producer's core by Kafka and the agents into one file per derived topic.

The recording's receive time takes the place of the producer's clock, and a fresh namespace that of any earlier run, so
that the same recordings give the same files.
"""

import json
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

from infra.consuming import Lag, ValueReader, read_to_end
from infra.deployment import Deployment, deployed
from infra.playing import Player
from infra.recordings import Recording, read_recordings
from infra.supervisor import Supervisor
from producers.counters import FeedCounters
from producers.publish import Publisher, open_producer
from schemas.registry import Registry
from schemas.topics import Topology
from schemas.wire import to_json

SOURCES = ("infoway.raw.trade", "infoway.raw.depth", "infoway.raw.kline")
DEAD_LETTER = "infoway.dead-letter"
STALL_TIMEOUT = 120.0


class ReplayStalled(RuntimeError):
    """The processors made no progress for a long time."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a replay did."""

    frames: int
    broken_lines: int
    counters: tuple[FeedCounters, ...]
    records: dict[str, int]
    seconds: float

    def lines(self) -> list[str]:
        """Return the summary for people."""
        unreadable = sum(each.unreadable for each in self.counters)
        trades, depth = (
            sum(each.trades for each in self.counters),
            sum(each.depth for each in self.counters),
        )
        klines = sum(each.klines for each in self.counters)
        return [
            f"{self.frames} frames in {self.seconds:.1f} s: {trades} trades, {depth} books, {klines} klines, "
            f"{unreadable} not understood, {self.broken_lines} broken lines",
            *(f"  {name:32} {count:>9} records" for name, count in self.records.items()),
        ]


def replay(
    files: Sequence[Path], out: Path, names: Topology, workers: int, console: Console
) -> Summary:
    """Play the files and write `<topic>.jsonl` for every derived topic into `out`."""
    began = time.monotonic()
    recording = read_recordings(files)
    for broken in recording.broken:
        console.print(
            f"{broken.path}:{broken.line}: {broken.reason}; passed over",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
    out.mkdir(parents=True, exist_ok=True)
    fresh = replace(names, prefix=f"replay-{uuid.uuid4().hex[:12]}.{names.prefix}")
    with ExitStack() as running:
        data = Path(
            running.enter_context(
                tempfile.TemporaryDirectory(prefix="infoway-replay-", ignore_cleanup_errors=True)
            )
        )
        deployment = running.enter_context(deployed(fresh, data))
        supervisor = running.enter_context(
            Supervisor(deployment.environment, workers, data / "logs")
        )
        progress = running.enter_context(Progress(console=console, disable=not console.is_terminal))
        counters = _produce(recording, deployment, progress)
        _wait_until_processed(deployment, supervisor, progress)
        records = _write(deployment, out, progress)
    return Summary(
        len(recording.frames), len(recording.broken), counters, records, time.monotonic() - began
    )


def _produce(
    recording: Recording, deployment: Deployment, progress: Progress
) -> tuple[FeedCounters, ...]:
    publisher = Publisher(
        open_producer(deployment.bootstrap),
        deployment.topology,
        deployment.schema_ids,
        threading.Event(),
    )
    player = Player(recording, deployment.partitions, publisher)
    task = progress.add_task("producing", total=len(recording.entries))
    for number, entry in enumerate(recording.entries):
        player.play(entry)
        if number % 1000 == 0:
            progress.update(task, completed=number)
    player.end()
    publisher.flush()
    progress.update(task, completed=len(recording.entries))
    return tuple(player.counters.values())


def _wait_until_processed(
    deployment: Deployment, supervisor: Supervisor, progress: Progress
) -> None:
    names, group = deployment.topology, f"{deployment.topology.prefix}infoway-processors"
    # the group commits its offsets in the transaction of its outputs: without lag everything has been published
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
                f"the processors made no progress for {STALL_TIMEOUT:.0f} s, {left} records are left: see their logs"
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
