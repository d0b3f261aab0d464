"""`infoway-streams export`: topics into Parquet files, each committed record once, or one row per
bar: its last record.

The files are `<topic>/<partition>-<first offset>-<offset to go on at>.parquet`, with --last
`<topic>-last/<partition>.parquet`, which is replaced as a whole. Each has the topic's id and the
next offset: an export that was killed continues where its last whole file ends, and none continues
with a topic that was deleted and created again. A period has a folder of its own, which is written
as a whole: infra/cli/commands/topics/export_period.py.
"""

import argparse
import fcntl
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from infra.cli.checks import folder, reached_cluster_mistakes, topology_mistakes
from infra.cli.command import Command
from infra.cli.commands.topics.export_period import Period, write_period
from infra.cli.options import add_topology, moment
from infra.kafka.offsets import NoSuchTopic, watermarks
from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.deployment import named_cluster
from producers.private_folder import private_folder
from schemas.clients.cluster import described
from schemas.clients.kafka import client
from schemas.clients.registry import Registry, UnknownSchema
from schemas.errors import InfowayError
from schemas.printable import printable
from schemas.topics import Topic, Topology, load_schema
from schemas.wire import UnreadableValue

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 100_000
"""Most records of a file, and most that are decoded at a time: about 100 MB in memory."""

IDENTITY = {
    "bar": ("symbol", "interval", "ts_start"),
    "activity_bar": ("symbol", "trade_date", "bar_index"),
    "reconciliation": ("symbol", "interval", "ts_start"),
}
"""What is one bar, by schema; the records of the other topics are never revised."""


class ExportFailed(InfowayError):
    """The export cannot be done or gone on with."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What `export` was given."""

    topology: Topology
    out: Path
    topics: str
    last: bool
    start: int | None
    """Begin of the period, ms UTC of event time."""
    to: int | None
    """End of the period, exclusive."""
    csv: bool


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "--out",
        type=Path,
        default=Path("export"),
        help="folder with a folder per topic (default: export)",
    )
    command.add_argument(
        "--topics",
        default="",
        help="comma-separated, as infoway.bars.1m or infoway.raw.trade (default: all derived "
        "topics)",
    )
    command.add_argument(
        "--last",
        action="store_true",
        help="one row per bar: its last record; of bars, activity bars, reconciliation",
    )
    command.add_argument(
        "--from",
        dest="start",
        type=moment,
        help="begin of a period of event time: 2026-11-20T01:30Z, or 2h for two hours ago",
    )
    command.add_argument("--to", type=moment, help="end of the period, exclusive (default: none)")
    command.add_argument("--csv", action="store_true", help="write each file as CSV, too")
    add_topology(command)


def period_mistakes(options: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with the period."""
    start, end = options.start, options.to
    if isinstance(start, int) and isinstance(end, int) and start >= end:
        yield "--from: expected a time before --to"


def export(options: ExportOptions) -> int:
    """Write what has come since the last export. Raises ExportFailed, NoSuchTopic, NotAllowed and
    TopicHidden."""
    if find_spec("pyarrow") is None:
        raise ExportFailed("Parquet needs pyarrow: pip install pyarrow")
    bootstrap, registry_url = named_cluster()
    read = ValueReader(Registry(registry_url))
    period = Period(options.start, options.to)
    for topic in _wanted(options.topology, options.topics, options.last):
        into = options.out / f"{topic.name}{'-last' * options.last}{period.suffix}"
        with _locked(into):
            if period.suffix:
                deleted: list[str] = []
                rows = _export_period(bootstrap, topic, into, read, period, options.last)
            else:
                rows, deleted = _export(bootstrap, topic, into, read, options.last)
            if options.csv:
                _write_csv(into, topic)
        for line in deleted:
            print(f"{topic.name}: {line}", file=sys.stderr)
        how = "records of that time in" if period.suffix else "records read into"
        print(f"{topic.name}: {rows} {how} {into}", flush=True)
    return 0


COMMAND = Command(
    "export",
    "write topics into Parquet and CSV files, from where the last export ended",
    "export --topics infoway.bars.1m --out export",
    add_options,
    ExportOptions,
    export,
    (topology_mistakes, reached_cluster_mistakes, folder("out"), period_mistakes),
    asks_cluster=True,
    reads_back=True,
)


def _wanted(names: Topology, chosen: str, last: bool) -> list[Topic]:
    every = {names.contract_name(topic.name): topic for topic in names.topics() if topic.schema}
    derived = {name: topic for name, topic in every.items() if topic in names.derived()}
    topics = every if chosen.strip(", ") else derived
    if last:
        topics = {name: topic for name, topic in topics.items() if topic.schema in IDENTITY}
    wanted = [name.strip() for name in chosen.split(",") if name.strip()] or list(topics)
    if unknown := [name for name in wanted if name not in topics]:
        what = "topics with one row per bar" if last else "topics"
        raise ExportFailed(f"--topics {','.join(unknown)}: the {what} are {', '.join(topics)}")
    return [topics[name] for name in dict.fromkeys(wanted)]


def _export_period(
    bootstrap: str, topic: Topic, folder: Path, read: ValueReader, period: Period, last: bool
) -> int:
    return write_period(
        bootstrap,
        topic,
        folder,
        lambda partition, taken: table_of(topic, partition, taken, read),
        period,
        IDENTITY[cast(str, topic.schema)] if last else None,
    )


@dataclass(frozen=True, slots=True)
class _ExportedFile:
    """The newest whole file of a partition, and where the next one begins."""

    path: Path
    next_offset: int


def _export(
    bootstrap: str, topic: Topic, folder: Path, read: ValueReader, last: bool
) -> tuple[int, list[str]]:
    """Return the number of records read, and lines of what retention had deleted before."""
    for unfinished in folder.glob("*.part"):
        unfinished.unlink()
    topic_id = _topic_id(bootstrap, topic.name)
    newest = _newest(topic, folder, topic_id, last)
    deleted = []
    for partition, (low, end) in watermarks(bootstrap, topic.name).items():
        file = newest.get(partition)
        if file and file.next_offset > end:
            raise ExportFailed(
                f"{file.path} goes on at offset {file.next_offset}, and {topic.name} ends at "
                f"{end}: name another folder by --out"
            )
        if file and file.next_offset < low:
            deleted.append(
                f"retention deleted offsets {file.next_offset} to {low - 1} of partition "
                f"{partition} before this export"
            )
    messages = read_to_end(
        bootstrap,
        topic.name,
        starts={partition: file.next_offset for partition, file in newest.items()},
    )
    write = _write_last if last else _write_all
    return write(
        topic,
        topic_id,
        folder,
        groupby(messages, lambda message: cast(int, message.partition())),
        read,
        newest,
    ), deleted


_Runs = Iterable[tuple[int, Iterator[ck.Message]]]
"""Each partition that has something new, with its messages."""


def _write_all(
    topic: Topic,
    topic_id: str,
    folder: Path,
    runs: _Runs,
    read: ValueReader,
    _: Mapping[int, _ExportedFile],
) -> int:
    """Write files of at most ROWS records and return how many records there were; a file is in
    memory at a time."""
    # pyarrow is an extra of the package
    from infra.kafka import parquet

    count = 0
    for partition, run in runs:
        while taken := list(islice(run, ROWS)):
            next_offset = _end(taken)
            path = folder / f"{partition:05d}-{taken[0].offset():020d}-{next_offset:020d}.parquet"
            parquet.write(
                table_of(topic, partition, taken, read),
                path.with_suffix(".part"),
                _metadata(topic_id, next_offset),
            )
            parquet.put(path.with_suffix(".part"), path)
            count += len(taken)
    return count


def _write_last(
    topic: Topic,
    topic_id: str,
    folder: Path,
    runs: _Runs,
    read: ValueReader,
    newest: Mapping[int, _ExportedFile],
) -> int:
    """Write the partitions' files again with the last record of each bar, and return how many
    records there were.

    In memory are, of a partition at a time, the last rows of what was read and of its file, about
    300 bytes a row and up to three times while they are put together: 10 million bars in a
    partition take some 10 GB. What a file of --last holds is never forgotten, also where retention
    has deleted it. Raises ExportFailed, and nothing is written, where a bar has records in two
    partitions.
    """
    from infra.kafka import parquet

    identity = IDENTITY[cast(str, topic.schema)]
    files = {folder / f"{partition:05d}.parquet": file.path for partition, file in newest.items()}
    count = 0
    for partition, run in runs:
        path, next_offset = folder / f"{partition:05d}.parquet", 0
        held = [parquet.read(path, load_schema(cast(str, topic.schema)))] if path in files else []
        while taken := list(islice(run, ROWS)):
            held.append(table_of(topic, partition, taken, read))
            # each row is looked at a few times in all, and what is held is at most twice what is
            # left of it
            if sum(map(len, held[1:])) > len(held[0]):
                held = [parquet.last_rows(held, identity)]
            next_offset = _end(taken)
            count += len(taken)
        files[path] = path.with_suffix(".part")
        parquet.write(
            parquet.last_rows(held, identity), files[path], _metadata(topic_id, next_offset)
        )
    if twice := parquet.in_two_files(files.values(), identity):
        bar = ", ".join(f"{name} {value}" for name, value in twice.items())
        raise ExportFailed(
            f"{topic.name} has records of {bar} in two partitions, since their number was "
            "changed, and no order tells which is the last: "
            "export without --last, or into another folder once retention has deleted the older "
            "ones"
        )
    for path, written in files.items():
        if written != path:
            parquet.put(written, path)
    return count


def _write_csv(folder: Path, topic: Topic) -> None:
    """Write each Parquet file of a folder as CSV, if it is newer than the CSV there."""
    from infra.kafka import parquet

    for path in sorted(folder.glob("*.parquet")):
        text = path.with_suffix(".csv")
        if not text.exists() or text.stat().st_mtime_ns < path.stat().st_mtime_ns:
            parquet.write_csv(parquet.read(path, load_schema(cast(str, topic.schema))), text)


def table_of(
    topic: Topic, partition: int, taken: Sequence[ck.Message], read: ValueReader
) -> "pa.Table":
    from infra.kafka import parquet

    schema, rows = load_schema(cast(str, topic.schema)), []
    for message in taken:
        offset, value = cast(int, message.offset()), message.value()
        if value is None:
            continue
        try:
            rows.append((offset, read(value, schema)[1]))
        except (UnknownSchema, UnreadableValue) as error:
            print(
                printable(f"{topic.name}[{partition}] offset {offset} is passed over: {error}"),
                file=sys.stderr,
                flush=True,
            )
    return parquet.table_of(schema, partition, rows)


def _end(taken: Sequence[ck.Message]) -> int:
    return cast(int, taken[-1].offset()) + 1


def _metadata(topic_id: str, next_offset: int) -> dict[str, str]:
    return {"infoway.topic_id": topic_id, "infoway.next_offset": str(next_offset)}


def _topic_id(bootstrap: str, topic: str) -> str:
    """Return the id that Kafka gave to the topic when it was created."""
    found = described(AdminClient({**client(bootstrap), "log_level": 0}), [topic])
    if topic not in found:
        raise NoSuchTopic(topic)
    return str(found[topic].topic_id)


def _newest(topic: Topic, folder: Path, topic_id: str, last: bool) -> dict[int, _ExportedFile]:
    """Return the file of each partition that has one; raises ExportFailed for one of another topic,
    or of something else."""
    from infra.kafka import parquet

    paths: dict[int, Path] = {}
    for path in sorted(folder.glob("*.parquet")):
        numbers = path.stem.split("-")
        if len(numbers) != (1 if last else 3) or not all(number.isdecimal() for number in numbers):
            raise ExportFailed(f"{path} is no file of an export: name another folder by --out")
        paths[int(numbers[0])] = path
    found: dict[int, _ExportedFile] = {}
    for partition, path in paths.items():
        try:
            metadata = parquet.metadata(path)
            written_of, next_offset = (
                metadata["infoway.topic_id"],
                int(metadata["infoway.next_offset"]),
            )
        except (KeyError, ValueError):
            raise ExportFailed(
                f"{path} is no file of an export: name another folder by --out"
            ) from None
        if written_of != topic_id:
            raise ExportFailed(
                f"{path} is of a topic {topic.name} that was deleted since, and created anew: "
                "name another folder by --out"
            )
        found[partition] = _ExportedFile(path, next_offset)
    return found


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    private_folder(folder)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportFailed(f"another export writes into {folder}: wait for its end") from None
        yield
