"""The pipeline beside Kafka Streams, quixstreams and stock Faust, on the same raw topic in one run;
`make bench-peers`.

Every figure is of this machine and this run: compare ratios. Each result is checked for the sum of
its bars' volumes before its time counts. A peer that cannot be had is left out by name.
"""

import argparse
import io
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import venv
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import confluent_kafka as ck
import fastavro
import psutil
from confluent_kafka.admin import AdminClient, NewTopic

from infra import topology
from infra.kafka.reader import Lag
from infra.runtime.deployment import Deployment, deployed
from infra.runtime.supervisor import Supervisor
from producers.delivery.client import open_producer
from schemas.clients.registry import Registry
from schemas.topics import RAW_TRADE, Topology, load_schema
from schemas.wire import compile_encoder

PEERS = Path(__file__).parent / "peers"
START_MS, MINUTE_MS = 1_722_902_400_000, 60_000
PARTITIONS = 6
PINNED = {
    "quixstreams": ["quixstreams==3.28.1"],
    "faust": ["faust-streaming==0.15.3", "aiokafka==0.14.0", "cramjam"],  # lz4
}


@dataclass(frozen=True)
class Load:
    """The trades of a run, and what their bars must sum up to."""

    values: list[tuple[str, bytes]]
    volumes: Mapping[tuple[str, int], Fraction]
    """By symbol and start of the minute."""


@dataclass(frozen=True)
class Result:
    """What a job took, and how much memory at its end; seconds of the whole run and of its second
    half."""

    records: int
    wall: float
    cpu: float
    warm_wall: float
    warm_cpu: float
    mib: float = 0.0

    def shown(self) -> str:
        """Return the figures as a line."""
        memory = f"{self.mib:6.0f} MiB" if self.mib else ""
        return (
            f"{self.records / self.cpu:>10,.0f} {self.records / 2 / self.warm_cpu:>10,.0f} "
            f"records a CPU-second (whole, second half) "
            f""
            f"{self.records / self.wall:>10,.0f} records/s {memory}"
        )


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trades", type=int, default=1_000_000)
    options.add_argument("--slow", type=int, default=100_000, help="trades for the slow peers")
    options.add_argument("--symbols", type=int, default=50)
    options.add_argument("--only", default="", help="jobs whose name has this text")
    options.add_argument("--without", default="", help="jobs to leave out, separated by commas")
    chosen = options.parse_args()
    load = made(chosen.trades, chosen.symbols)
    names = Topology("peers.", partitions=PARTITIONS)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        deployed(names, Path(folder) / "stack") as deployment,
    ):
        send(deployment, load.values)
        raw = names.name(RAW_TRADE)
        slow_raw = slow_topic(deployment, load.values[: chosen.slow])
        jobs: dict[str, Callable[[Path], Result]] = {
            "ours: bars": lambda path: ours(path, deployment, load, "1m", "1m", 60_000),
            "ours: bars and a VWAP row": lambda path: ours(path, deployment, load, "1m", "1m"),
            "ours: default outputs": lambda path: ours(path, deployment, load),
            "Kafka Streams, Processor API: bars": lambda path: streams(
                path, deployment, load, raw, "processor", rows=False
            ),
            "Kafka Streams, Processor API: bars and a VWAP row": lambda path: streams(
                path, deployment, load, raw, "processor", rows=True
            ),
            "Kafka Streams, DSL: bars": lambda path: streams(
                path, deployment, load, raw, "dsl", rows=False
            ),
            "quixstreams: bars": lambda path: python_peer(
                path, deployment, chosen.slow, load, slow_raw, "quix.py", "quixstreams"
            ),
            "stock Faust, at least once: bars": lambda path: python_peer(
                path, deployment, chosen.slow, load, slow_raw, "stock_faust.py", "faust"
            ),
        }
        print(f"{chosen.trades:,} trades of {chosen.symbols:,} symbols, {PARTITIONS} partitions")
        for number, (name, job) in enumerate(jobs.items()):
            if chosen.only not in name or any(
                each and each in name for each in chosen.without.split(",")
            ):
                continue
            path = Path(folder) / f"job-{number}"
            path.mkdir()
            try:
                print(f"{name:52} {job(path).shown()}", flush=True)
            except Missing as missing:
                print(f"{name:52} left out: {missing}", flush=True)


class Missing(Exception):
    """What a peer needs cannot be had here."""


def made(count: int, symbols: int) -> Load:
    """Return raw trades, 200 a second of event time, prices on a walk."""
    drawn, encode = random.Random(7), compile_encoder(load_schema("raw_trade"), 1)
    prices = [10_000 + 1000 * (number % 1000) for number in range(symbols)]
    values: list[tuple[str, bytes]] = []
    volumes: dict[tuple[str, int], Fraction] = defaultdict(Fraction)
    for number in range(count):
        place = drawn.randrange(symbols)
        prices[place] += drawn.randrange(-3, 4)
        symbol, time_ms = f"C{place:04d}USDT", START_MS + number * 5
        price, volume = f"{prices[place] / 100:.2f}", drawn.randrange(1, 99_999)
        volumes[symbol, time_ms // MINUTE_MS * MINUTE_MS] += Fraction(volume, 1000)
        envelope = (
            "crypto", "crypto-1", "crypto-1-1", number + 1, (time_ms + 40) * 1000, "simulated", None
        )  # fmt: skip
        text = f"{volume // 1000}.{volume % 1000:03d}"
        side = 1 + number % 2
        values.append(
            (symbol, encode(symbol, time_ms, price, text, None, side, None, False, *envelope))
        )
    return Load(values, volumes)


def send(deployment: Deployment, values: Iterable[tuple[str, bytes]], topic: str = "") -> None:
    """Fill a raw topic."""
    name = topic or deployment.topology.name(RAW_TRADE)
    header = b"\0" + deployment.schema_ids[deployment.topology.name(RAW_TRADE)].to_bytes(4, "big")
    producer = open_producer(deployment.bootstrap)
    for key, value in values:
        while True:
            try:
                producer.produce(name, header + value[5:], key)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def slow_topic(deployment: Deployment, values: list[tuple[str, bytes]]) -> str:
    """Return a raw topic with fewer trades, for peers that would take minutes."""
    name = "peers.slow.raw"
    make_topics(deployment, name)
    send(deployment, values, name)
    return name


def make_topics(deployment: Deployment, *names: str) -> None:
    """Make topics with as many partitions as the raw one has."""
    admin = AdminClient({"bootstrap.servers": deployment.bootstrap})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        future.result()


def ours(
    folder: Path,
    deployment: Deployment,
    load: Load,
    intervals: str = "1m,5m,15m,1h,1d",
    windows: str = "1m,5m,session",
    emit_ms: int | None = None,
) -> Result:
    """Return what one worker takes, from a topic of its own with the same records."""
    prefix = f"{folder.name}."
    names = Topology(
        prefix, tuple(intervals.split(",")), tuple(windows.split(",")), partitions=PARTITIONS
    )
    registry = Registry(deployment.registry_url)
    mine = replace(
        deployment,
        topology=names,
        schema_ids=topology.apply(deployment.bootstrap, registry, names),
    )
    send(mine, load.values)
    count = len(load.values)
    emit = {} if emit_ms is None else {"INFOWAY_EMIT_MS": str(emit_ms)}
    lag = Lag(mine.bootstrap, f"{prefix}infoway-processors", [names.name(RAW_TRADE)])
    with Supervisor({**mine.environment, **emit}, 1, folder / "logs") as supervisor:
        while not (first := times_of(supervisor)) or lag() == count:
            supervisor.check()
            time.sleep(0.01)
        began, half = times_of(supervisor), None
        while (left := lag()) > 0:
            supervisor.check()
            if half is None and left <= count / 2:
                half = times_of(supervisor), left
            time.sleep(0.01)
        end = times_of(supervisor)
        process = worker_of(supervisor)
        assert process is not None and began is not None and end is not None and first
        mib = process.memory_info().rss / 2**20
    check(
        deployment,
        names.name("infoway.bars.1m"),
        load.volumes,
        our_bar,
    )
    (half_wall, half_cpu), left = half if half is not None and half[0] else (began, count)
    share = count / 2 / left
    return Result(
        count,
        end[0] - began[0],
        end[1] - began[1],
        (end[0] - half_wall) * share,
        (end[1] - half_cpu) * share,
        mib,
    )


def worker_of(supervisor: Supervisor) -> psutil.Process | None:
    """Return the worker's process."""
    [slot] = supervisor._slots
    return psutil.Process(slot.process.pid) if slot.process is not None else None


def times_of(supervisor: Supervisor) -> tuple[float, float] | None:
    """Return the present time and the worker's CPU time."""
    process = worker_of(supervisor)
    return None if process is None else (time.monotonic(), sum(process.cpu_times()[:2]))


def our_bar(key: bytes, value: bytes) -> tuple[tuple[str, int], Fraction] | None:
    """Return symbol, start and volume of a bar of ours that is closed."""
    found = fastavro.schemaless_reader(io.BytesIO(value[5:]), _BAR)
    start = int(found["ts_start"].timestamp() * 1000)
    return ((found["symbol"], start), Fraction(found["volume"])) if found["is_closed"] else None


_BAR = fastavro.parse_schema(load_schema("bar"))
_PEER_BAR = fastavro.parse_schema(
    {
        "type": "record",
        "name": "PeerBar",
        "fields": [
            {"name": "start", "type": "long"},
            {"name": "count", "type": "long"},
            *(
                {
                    "name": name,
                    "type": {
                        "type": "bytes",
                        "logicalType": "decimal",
                        "precision": 38,
                        "scale": 18,
                    },
                }
                for name in ("open", "high", "low", "close", "volume")
            ),
        ],
    }
)


def streams_bar(key: bytes, value: bytes) -> tuple[tuple[str, int], Fraction]:
    """Return symbol, start and volume of a bar of Kafka Streams."""
    found = fastavro.schemaless_reader(io.BytesIO(value), _PEER_BAR)
    return (key.decode(), found["start"]), Fraction(found["volume"])


def quix_bar(key: bytes, value: bytes) -> tuple[tuple[str, int], Fraction]:
    """Return symbol, start and volume of a bar of quixstreams."""
    found = json.loads(value)
    return (key.decode(), found["start"]), Fraction(found["value"]["volume"])


def faust_bar(key: bytes, value: bytes) -> tuple[tuple[str, int], Fraction]:
    """Return symbol, start and volume of a bar of stock Faust."""
    found = json.loads(value)
    return (key.decode(), found["start"]), Fraction(found["volume"])


def check(
    deployment: Deployment,
    topic: str,
    volumes: Mapping[tuple[str, int], Fraction],
    bar_of: Callable[[bytes, bytes], tuple[tuple[str, int], Fraction] | None],
) -> None:
    """Hold every bar against the trades' volumes; all but each symbol's last ones must be there."""
    found: dict[tuple[str, int], Fraction] = {}
    for key, value in committed(deployment.bootstrap, topic):
        bar = bar_of(key, value)
        if bar is not None:
            found[bar[0]] = bar[1]
    wrong = [each for each, volume in found.items() if volumes.get(each) != volume]
    last = max(start for _, start in volumes)
    newest: dict[str, int] = {}
    for symbol, start in volumes:
        newest[symbol] = max(start, newest.get(symbol, start))
    lacking = [
        (symbol, start)
        for symbol, start in volumes
        if start < min(newest[symbol], last - MINUTE_MS) and (symbol, start) not in found
    ]
    assert not wrong and not lacking, f"{topic}: {len(wrong)} wrong, {len(lacking)} lacking"


def committed(bootstrap: str, topic: str) -> list[tuple[bytes, bytes]]:
    """Return keys and values of a topic, committed ones alone."""
    consumer = ck.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "check",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    partitions = consumer.list_topics(topic).topics[topic].partitions
    consumer.assign([ck.TopicPartition(topic, number, 0) for number in partitions])
    found: list[tuple[bytes, bytes]] = []
    left = set(partitions)
    while left:
        for message in consumer.consume(10_000, 1.0):
            if message.error() is None:
                found.append((message.key(), message.value()))
            elif message.error().code() == ck.KafkaError._PARTITION_EOF:
                left.discard(message.partition())
            else:
                raise ck.KafkaException(message.error())
    consumer.close()
    return found


def streams(
    folder: Path, deployment: Deployment, load: Load, raw: str, api: str, rows: bool
) -> Result:
    """Return what Kafka Streams takes, in a JVM of default settings and one thread."""
    for tool in ("mvn", "java"):
        if shutil.which(tool) is None:
            raise Missing(f"no {tool}")
    class_path = folder / "classpath"
    built = subprocess.run(
        ["mvn", "-q", "-B", "dependency:build-classpath", f"-Dmdep.outputFile={class_path}"],
        cwd=PEERS / "streams", capture_output=True, text=True, check=False,
    )  # fmt: skip
    if built.returncode:
        raise Missing(f"Maven: {(built.stdout + built.stderr).strip()[-200:]}")
    bars, vwaps = f"{folder.name}.bars", f"{folder.name}.vwaps"
    make_topics(deployment, bars, vwaps)
    schema = folder / "raw_trade.avsc"
    schema.write_text(json.dumps(load_schema("raw_trade")))
    command = [
        "java", "-cp", class_path.read_text().strip(), "Peer.java", api, str(int(rows)),
        deployment.bootstrap, raw, bars, vwaps, folder.name, str(len(load.values)),
        str(folder / "state"), str(schema),
    ]  # fmt: skip
    result, mib = run(command, PEERS / "streams", None)
    check(deployment, bars, load.volumes, streams_bar)
    return replace(result, mib=mib)


def python_peer(
    folder: Path,
    deployment: Deployment,
    count: int,
    load: Load,
    raw: str,
    script: str,
    package: str,
) -> Result:
    """Return what a Python library takes, in a throw-away environment."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *PINNED[package], "fastavro"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if installed.returncode:
        raise Missing(f"pip: {installed.stderr.strip()[-200:]}")
    bars = f"{folder.name}.bars"
    make_topics(deployment, bars)
    schema = folder / "raw_trade.avsc"
    schema.write_text(json.dumps(load_schema("raw_trade")))
    command = [
        str(python), str(PEERS / script), deployment.bootstrap, raw, bars, folder.name, str(count),
        str(folder / "state"), str(schema),
    ]  # fmt: skip
    result, mib = run(command, folder, {"PYTHONUNBUFFERED": "1"})
    few = made(count, len({symbol for symbol, _ in load.volumes}))
    check(deployment, bars, few.volumes, quix_bar if package == "quixstreams" else faust_bar)
    return replace(result, mib=mib)


def run(
    command: list[str], folder: Path, environment: Mapping[str, str] | None
) -> tuple[Result, float]:
    """Run a peer to its end; return what it printed last, and its greatest resident memory."""
    errors = folder / "errors" if folder.parent != PEERS else Path(os.devnull)
    most = 0.0
    with (
        tempfile.TemporaryFile("w+") as printed,
        errors.open("w") as told,
        subprocess.Popen(
            command,
            cwd=folder,
            stdout=printed,
            stderr=told,
            env={**os.environ, **(environment or {})},
        ) as process,
    ):
        watched = psutil.Process(process.pid)
        deadline = time.monotonic() + 600
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise Missing("it did not end within 600 s")
                with suppress(psutil.NoSuchProcess):
                    most = max(most, watched.memory_info().rss / 2**20)
                time.sleep(0.1)
        finally:
            process.kill()
        process.wait()
        printed.seek(0)
        lines = [line for line in printed.read().splitlines() if line.startswith("{")]
    if not lines:
        text = errors.read_text()[-300:] if errors.is_file() else ""
        raise Missing(f"it ended with {process.returncode} and no figures: {text}")
    return Result(**json.loads(lines[-1])), most


if __name__ == "__main__":
    # an end from outside is to end what was started, too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
