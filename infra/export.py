"""The command export: derived topics into Parquet files, each committed record once, or one row per bar: its last record.

The names of the files say what they hold, so that an export that was killed goes on where its last whole file ends:
`<topic>/<partition>-<first offset>-<offset to go on at>.parquet`, with --last `<topic>-last/<partition>-<offset to go on at>.parquet`.
"""

import argparse
import fcntl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby, islice
from pathlib import Path
from typing import cast

import confluent_kafka as ck

from infra.consuming import ValueReader, read_to_end, watermarks
from infra.deployment import named_cluster
from schemas.registry import Registry
from schemas.topics import Topic, Topology, load_schema

ROWS = 100_000
"""Most records of a file, or of one step of --last: about 100 MB in memory."""

IDENTITY = {
    "bar": ("symbol", "interval", "ts_start"),
    "activity_bar": ("symbol", "trade_date", "bar_index"),
    "reconciliation": ("symbol", "interval", "ts_start"),
}
"""What is one bar, by schema; the records of the other topics are never revised."""


class ExportFailed(ValueError):
    """The export cannot be done or gone on with."""


def add_export_options(command: argparse.ArgumentParser) -> None:
    """Give the command what it has beside the topology's options."""
    command.add_argument("--to", type=Path, default=Path("export"), help="folder with a folder per topic (default: export)")
    command.add_argument("--format", choices=("parquet",), default="parquet", help="of the files (default: parquet)")
    command.add_argument("--topics", default="", help="comma-separated, as infoway.bars.1m (default: all derived topics)")
    command.add_argument("--last", action="store_true", help="one row per bar: its last record; of bars, activity bars, reconciliation")


def export_topics(names: Topology, options: argparse.Namespace) -> int:
    """Write what has come since the last export. Raises ExportFailed."""
    if find_spec("pyarrow") is None:
        raise ExportFailed("Parquet needs pyarrow: pip install 'infoway-streams[export]'")
    bootstrap, registry_url = named_cluster()
    read = ValueReader(Registry(registry_url))
    for topic in _wanted(names, options.topics, options.last):
        folder = options.to / f"{topic.name}{'-last' * options.last}"
        with _locked(folder):
            rows, deleted = _export(bootstrap, topic, folder, read, options.last)
        for line in deleted:
            print(f"{topic.name}: {line}", file=sys.stderr)
        print(f"{topic.name}: {rows} records read into {folder}", flush=True)
    return 0


def _wanted(names: Topology, chosen: str, last: bool) -> list[Topic]:
    topics = {names.contract_name(topic.name): topic for topic in names.derived()}
    if last:
        topics = {name: topic for name, topic in topics.items() if topic.schema in IDENTITY}
    wanted = [name.strip() for name in chosen.split(",") if name.strip()] or list(topics)
    if unknown := [name for name in wanted if name not in topics]:
        what = "topics with one row per bar" if last else "derived topics"
        raise ExportFailed(f"--topics {','.join(unknown)}: the {what} are {', '.join(topics)}")
    return [topics[name] for name in dict.fromkeys(wanted)]


@dataclass(frozen=True, slots=True)
class _File:
    """A whole file of a partition, and where the next one begins."""

    path: Path
    partition: int
    next_offset: int


def _export(bootstrap: str, topic: Topic, folder: Path, read: ValueReader, last: bool) -> tuple[int, list[str]]:
    """Return the number of records read, and lines of what retention had deleted before."""
    for unfinished in folder.glob("*.part"):
        unfinished.unlink()
    newest: dict[int, _File] = {}
    for file in sorted(_files(folder), key=lambda file: file.next_offset):
        if last and file.partition in newest:
            newest[file.partition].path.unlink()  # an export was killed before it could
        newest[file.partition] = file
    ends = watermarks(bootstrap, topic.name)
    if not ends:
        raise ExportFailed(f"no topic {topic.name}: run `infoway-streams topology apply`, or name another --prefix")
    deleted = []
    for file in newest.values():
        low, end = ends.get(file.partition, (0, 0))
        if file.next_offset > end:
            raise ExportFailed(
                f"{file.path} goes on at offset {file.next_offset}, and {topic.name} ends at {end}: name another folder by --to"
            )
        if file.next_offset < low:
            deleted.append(f"retention deleted offsets {file.next_offset} to {low - 1} of partition {file.partition} before this export")
    messages = read_to_end(bootstrap, topic.name, starts={file.partition: file.next_offset for file in newest.values()})
    rows = 0
    for partition, run in groupby(messages, lambda message: cast(int, message.partition())):
        while taken := list(islice(run, ROWS)):
            before = newest.get(partition)
            newest[partition] = _write(topic, folder, taken, read, before if last else None, last)
            rows += len(taken)
    return rows, deleted


def _write(topic: Topic, folder: Path, taken: Sequence[ck.Message], read: ValueReader, before: _File | None, last: bool) -> _File:
    # pyarrow is an extra of the package
    from infra import parquet

    schema = load_schema(cast(str, topic.schema))
    first, partition = cast(int, taken[0].offset()), cast(int, taken[0].partition())
    rows = [(cast(int, message.offset()), read(value)[1]) for message in taken if (value := message.value()) is not None]
    table = parquet.table_of(schema, partition, rows)
    next_offset = cast(int, taken[-1].offset()) + 1
    if not last:
        path = folder / f"{partition:05d}-{first:020d}-{next_offset:020d}.parquet"
        parquet.write(table, path)
        return _File(path, partition, next_offset)
    old = parquet.read(before.path) if before else table.slice(0, 0)
    path = folder / f"{partition:05d}-{next_offset:020d}.parquet"
    parquet.write(parquet.merged(old, table, IDENTITY[cast(str, topic.schema)]), path)
    if before:
        before.path.unlink()
    return _File(path, partition, next_offset)


def _files(folder: Path) -> Iterator[_File]:
    for path in folder.glob("*.parquet"):
        numbers = path.stem.split("-")
        if len(numbers) not in (2, 3) or not all(number.isdecimal() for number in numbers):
            raise ExportFailed(f"{path} is no file of an export: name another folder by --to")
        yield _File(path, int(numbers[0]), int(numbers[-1]))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportFailed(f"another export writes into {folder}: wait for its end") from None
        yield
