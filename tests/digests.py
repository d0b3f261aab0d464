"""Digests of every topic that recordings and seeded logs give, computed without a broker.

What a change must leave equal: keys, headers, order and Avro bodies of each partition. Schema ids
are fixed here, so a changed `doc` changes nothing. `python tests/digests.py RECORDINGS` prints one
line a topic and partition; two of these lists are compared with `diff`, but for lines of `state.*`.
How many rows kernels have encoded is said at the end.
"""

import argparse
import hashlib
import sys
import threading
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

from integration.test_determinism import Writer
from raw_message import Message

from processors.agents.activity.agent import ActivityBars
from processors.agents.bars.agent import Bars
from processors.agents.depth.agent import Imbalance
from processors.agents.reconciliation.agent import Reconciliation
from processors.agents.vwap.agent import Vwap
from processors.decode.bar_columns import BarColumns
from processors.decode.book_columns import BookColumns
from processors.decode.messages import Messages
from processors.decode.raw_records import bar_revision_of, book_of, kline_of
from processors.decode.reader import RawReader
from processors.decode.trade_columns import TradeColumns
from processors.decode.trades import TradeReader
from processors.engine.outputs import Outputs
from processors.engine.sources import of_one_source
from processors.kernels.columns import EncodedRows
from processors.kernels.compiled import AVAILABLE
from processors.model.event_time import EventTime
from processors.model.records import Unreadable
from processors.model.sessions import Calendars
from producers.delivery.publisher import Publisher
from producers.recording.player import Player
from producers.recording.reader import read_recordings
from schemas.partition import partition_of
from schemas.topics import Topology, load_schema
from schemas.wire import header

TRADE, DEPTH, KLINE = "infoway.raw.trade", "infoway.raw.depth", "infoway.raw.kline"
NAMES = Topology(
    intervals=("10s", "1m", "5m", "1h", "1d"),
    windows=("30s", "5m", "session"),
    activity=("tick-100", "volume-1000"),
)
TOPICS = [topic for topic in NAMES.topics() if topic.schema is not None]
IDS = {topic.name: number for number, topic in enumerate(TOPICS, 1)}
PARTITIONS = 3
BATCH = 1_000
ENCODED = Counter()
"""Rows that kernels have encoded, by topic."""


class Logs:
    """Topics by partition; stands for the broker and for librdkafka's producer."""

    def __init__(self):
        self.partitions = defaultdict(list)

    def produce(
        self, topic, value=None, key=None, partition=-1, headers=None, on_delivery=None, **_
    ):
        key = key.encode() if isinstance(key, str) else key
        if partition < 0:
            partition = partition_of(key, PARTITIONS)
        log = self.partitions[topic, partition]
        message = Message(len(log), value, key, list(headers or ()) or None, topic, partition)
        log.append(message)
        if on_delivery is not None:
            on_delivery(None, message)

    def poll(self, timeout):
        return 0

    def flush(self, timeout=None):
        return 0

    def __len__(self):
        return 0

    def digests(self):
        for (topic, partition), log in sorted(self.partitions.items()):
            found = hashlib.sha256()
            for message in log:
                for part in (message.key(), message.value(), message.headers()):
                    found.update(repr(part).encode() + b"\n")
            yield f"{topic}[{partition}] {len(log)} {found.hexdigest()[:32]}"


class Schemas:
    """A registry that knows the topics' schemas."""

    url = "digests"

    def schema(self, schema_id):
        if not 0 < schema_id <= len(TOPICS):
            from schemas.clients.registry import UnknownSchema

            raise UnknownSchema(f"no schema {schema_id}")
        return load_schema(TOPICS[schema_id - 1].schema)


def run_agents(logs, grid_ms, batch_size=BATCH, native=AVAILABLE):
    """Apply every agent to the raw logs, and publish what it gives; `grid_ms` is that of updates
    and VWAPs."""
    calendars, event_time, outputs = Calendars(), EventTime(), Outputs.of(NAMES, IDS)
    bar_topics = [f"infoway.bars.{interval}" for interval in NAMES.intervals]
    readers = {TRADE: TradeReader(calendars), DEPTH: book_of, KLINE: kline_of}
    readers |= {
        topic: partial(bar_revision_of, interval=interval)
        for topic, interval in zip(bar_topics, NAMES.intervals, strict=True)
    }
    agents = [
        (Vwap(NAMES.windows, calendars, event_time, grid_ms, native=native), (TRADE,), True),
        (
            Bars(NAMES.intervals, calendars, event_time, grid_ms, native=native),
            (TRADE,),
            False,
        ),
        (Imbalance(event_time, native=native), (DEPTH,), True),
        (
            ActivityBars(NAMES.activity, calendars, event_time, grid_ms, native=native),
            (TRADE,),
            False,
        ),
        (
            Reconciliation(NAMES.intervals, calendars, event_time, native),
            (KLINE, *bar_topics),
            True,
        ),
    ]
    for agent, sources, dead_letters in agents:
        for partition in range(PARTITIONS):
            state = agent.load(partition, {})
            known = None
            for topic in sources:
                log = list(logs.partitions.get((topic, partition), ()))
                schema = load_schema(next(each.schema for each in TOPICS if each.name == topic))
                read = RawReader(Schemas(), schema, readers[topic])
                records = [read(message) for message in log]
                known = of_one_source(records, log, known, partition)
                columns = columns_of(topic, read, readers[topic]) if takes_runs(agent) else None
                for start in range(0, len(records), batch_size):
                    batch = records[start : start + batch_size]
                    given = batch
                    if columns is not None:
                        found = columns.read(Messages.of(log[start : start + batch_size]), known)
                        given = [
                            batch[piece] if isinstance(piece, int) else piece for piece in found
                        ]
                    for row in agent.apply(state, given):
                        for produced in encoded(outputs, partition, row, topic):
                            logs.produce(*_in_order(produced))
                    for record in batch if dead_letters else ():
                        if isinstance(record, Unreadable):
                            logs.produce(
                                *_in_order(outputs.dead_letter(topic, partition, record)),
                                list(record.headers),
                            )
                    for key, value in agent.dirty(state):
                        logs.produce(f"state.{agent.name}", value, key, partition)


def takes_runs(agent):
    """Return whether the agent has kernels, and uses them."""
    return getattr(agent, "takes_runs", False)


def columns_of(topic, read, record_of):
    """Return what reads a topic into columns; None for topics that have none."""
    if topic == TRADE:
        return TradeColumns(read, record_of)
    if topic == DEPTH:
        return BookColumns(read)
    return None if topic == KLINE else BarColumns(read, record_of.keywords["interval"])


def encoded(outputs, partition, row, source_topic):
    """Yield what is produced of a row, or of rows that a kernel has encoded."""
    if not isinstance(row, EncodedRows):
        yield outputs.encode(row[0], partition, row[1], row[2], source_topic)
        return
    for name, key, body in row.bodies():
        ENCODED[name] += 1
        topic, _ = outputs.encoders[name]
        yield topic, partition, key.encode(), header(IDS[topic]) + body


def _in_order(produced):
    topic, partition, key, value = produced
    return topic, value, key, partition


def of_recording(path):
    """Return the logs of a recording."""
    logs = Logs()
    publisher = Publisher(logs, NAMES, IDS, threading.Event())
    recording = read_recordings([path])
    player = Player(recording, dict.fromkeys((TRADE, DEPTH, KLINE), PARTITIONS), publisher)
    for entry in recording.entries:
        player.play(entry)
    player.end()
    return logs


def of_seeds():
    """Return the logs of the seeded raw log of the determinism tests: disorder, gaps, moves,
    poison."""
    logs = Logs()
    writers = [Writer(partition, IDS) for partition in range(PARTITIONS)]
    for number in range(800):
        for writer in writers:
            for raw in writer.step(number):
                logs.produce(raw.topic, raw.value, raw.key, raw.partition, raw.headers)
    return logs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--general", action="store_true", help="without kernels")
    options = parser.parse_args()
    folder = options.folder
    sources = {path.name: partial(of_recording, path) for path in sorted(folder.glob("*.jsonl.gz"))}
    for name, logs_of in {"seeds": of_seeds, **sources}.items():
        for grid_ms in (None, 1_000):
            logs = logs_of()
            run_agents(logs, grid_ms, options.batch, AVAILABLE and not options.general)
            for line in logs.digests():
                print(name, grid_ms, line, flush=True)
    print(f"rows encoded by kernels: {dict(ENCODED)}", file=sys.stderr)


if __name__ == "__main__":
    main()
