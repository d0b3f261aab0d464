"""Milliseconds from a trade's sending to the arrival of its VWAP row, beside Kafka Streams in one
run; `make bench-latency`.

Sender, broker, worker and readers share the machine, and its clock. A trade's event time is the
time of its sending; the rows carry it. `read_uncommitted` sees a row as soon as it is produced,
`read_committed` once its transaction is.
"""

import argparse
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import confluent_kafka as ck
from load import PARTITIONS, make_topics
from others import STREAMS, Missing, streams_command

from infra import topology
from infra.runtime.deployment import Deployment, deployed
from infra.runtime.supervisor import Supervisor
from producers.delivery.client import open_producer
from schemas.clients.registry import Registry
from schemas.topics import RAW_TRADE, Topology, load_schema
from schemas.wire import compile_encoder

SYMBOLS = 50
TURN_S = 0.005
SETTLING_S = 10.0
"""Seconds after the first row that are not measured: code is compiled, caches fill."""
STARTS_WITHIN_S = 120.0
LEVELS = ("read_uncommitted", "read_committed")


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rate", type=int, default=2_000, help="trades a second")
    options.add_argument("--seconds", type=float, default=20.0)
    options.add_argument("--only", default="", help="jobs whose name has this text")
    chosen = options.parse_args()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as text,
        deployed(Topology("latency.", partitions=PARTITIONS), Path(text) / "stack") as deployment,
    ):
        folder = Path(text)
        jobs: dict[str, Callable[[Path], None]] = {
            "ours: bars and a VWAP row": lambda path: ours(path, deployment, chosen, "1m", "1m"),
            "ours: default outputs": lambda path: ours(
                path, deployment, chosen, "1m,5m,15m,1h,1d", "1m,5m,session"
            ),
            "Kafka Streams, exactly once: the row": lambda path: streams(
                path, deployment, chosen, "exactly_once_v2"
            ),
            "Kafka Streams, at least once: the row": lambda path: streams(
                path, deployment, chosen, "at_least_once"
            ),
        }
        print(f"{chosen.rate:,} trades/s of {SYMBOLS} symbols; ms, p50 / p99 / worst")
        for number, (name, job) in enumerate(jobs.items()):
            if chosen.only in name:
                path = folder / f"job-{number}"
                path.mkdir()
                try:
                    print(f"{name:40}", end="", flush=True)
                    job(path)
                except Missing as missing:
                    print(f" left out: {missing}", flush=True)


def ours(
    folder: Path,
    deployment: Deployment,
    chosen: argparse.Namespace,
    intervals: str,
    windows: str,
) -> None:
    """Print the figures of one worker."""
    names = Topology(
        f"{folder.name}.",
        tuple(intervals.split(",")),
        tuple(windows.split(",")),
        partitions=PARTITIONS,
    )
    ids = topology.apply(deployment.bootstrap, Registry(deployment.registry_url), names)
    mine = replace(deployment, topology=names, schema_ids=ids)
    with Supervisor(mine.environment, 1, folder / "logs") as supervisor:
        rows = names.name("infoway.vwap.1m")
        show(mine, names.name(RAW_TRADE), rows, chosen, our_time, supervisor.check)


def streams(
    folder: Path, deployment: Deployment, chosen: argparse.Namespace, guarantee: str
) -> None:
    """Print the figures of Kafka Streams, in a JVM of default settings and one thread."""
    raw, bars, vwaps = (f"{folder.name}.{each}" for each in ("raw", "bars", "vwaps"))
    make_topics(deployment, raw, bars, vwaps)
    command = streams_command(
        folder, deployment, raw, "processor", True, bars, vwaps, 1 << 60, guarantee
    )
    with (
        (folder / "errors").open("w") as told,
        subprocess.Popen(command, cwd=STREAMS, stdout=told, stderr=told) as process,
    ):

        def check() -> None:
            if process.poll() is not None:
                raise Missing(f"it ended: {(folder / 'errors').read_text()[-300:]}")

        try:
            show(deployment, raw, vwaps, chosen, streams_time, check)
        finally:
            process.kill()


def our_time(value: bytes) -> int:
    """Return the event time of a row of ours, ms."""
    start = 5
    for _ in ("symbol", "window"):
        start += 1 + (value[start] >> 1)
    return long_at(value, start)


def streams_time(value: bytes) -> int:
    """Return the event time of a row of Kafka Streams, ms."""
    return long_at(value, 1 + (value[0] >> 1))


def long_at(value: bytes, start: int) -> int:
    """Return Avro's long at a place."""
    found, shift = 0, 0
    while True:
        byte = value[start]
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (found >> 1) ^ -(found & 1)
        start, shift = start + 1, shift + 7


def show(
    deployment: Deployment,
    raw: str,
    rows: str,
    chosen: argparse.Namespace,
    time_of: Callable[[bytes], int],
    check: Callable[[], None],
) -> None:
    """Send trades until enough of their rows have come, and print how late they were."""
    with reading(deployment.bootstrap, rows) as arrived, sending(deployment, raw, chosen.rate):
        give_up = time.monotonic() + STARTS_WITHIN_S
        while not all(arrived.values()):
            check()
            if time.monotonic() > give_up:
                raise Missing(f"no row within {STARTS_WITHIN_S:.0f} s")
            time.sleep(0.1)
        time.sleep(SETTLING_S)
        first_ms = time.time() * 1000
        time.sleep(chosen.seconds)
        last_ms = time.time() * 1000
        time.sleep(2)
        check()
    for level in LEVELS:
        late = sorted(
            at * 1000 - sent_ms
            for at, value in arrived[level]
            if first_ms <= (sent_ms := time_of(value)) < last_ms
        )
        assert len(late) > 0.9 * chosen.rate * chosen.seconds, f"{len(late)} rows alone"
        p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
        print(f" {level} {p50:4.0f} /{p99:5.0f} /{late[-1]:5.0f}", end="", flush=True)
    print(flush=True)


@contextmanager
def reading(bootstrap: str, topic: str) -> Iterator[dict[str, list[tuple[float, bytes]]]]:
    """Read a topic's rows as they come, at both levels: when each was there, and the row."""
    arrived: dict[str, list[tuple[float, bytes]]] = {level: [] for level in LEVELS}
    over = threading.Event()

    def read(level: str) -> None:
        consumer = ck.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "latency",
                "enable.auto.commit": False,
                "isolation.level": level,
                "fetch.wait.max.ms": 5,
                "auto.offset.reset": "earliest",
            }
        )
        consumer.assign([ck.TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        while not over.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                arrived[level].append((time.time(), message.value()))
        consumer.close()

    threads = [threading.Thread(target=read, args=(level,)) for level in LEVELS]
    for thread in threads:
        thread.start()
    try:
        yield arrived
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def sending(deployment: Deployment, topic: str, rate: int) -> Iterator[None]:
    """Send trades at an even rate, each with the time of its sending as its event time."""
    [schema_id] = {
        number for name, number in deployment.schema_ids.items() if name.endswith(RAW_TRADE)
    }
    encode = compile_encoder(load_schema("raw_trade"), schema_id)
    producer = open_producer(deployment.bootstrap)
    over, drawn = threading.Event(), random.Random(7)

    def send() -> None:
        sent, began = 0, time.monotonic()
        while not over.wait(TURN_S):
            for _ in range(int((time.monotonic() - began) * rate) - sent):
                sent += 1
                place = drawn.randrange(SYMBOLS)
                symbol, now = f"C{place:04d}USDT", time.time()
                price = f"{1000 + place}.{drawn.randrange(100):02d}"
                envelope = ("crypto", "c-1", "c-1-1", sent, int(now * 1e6), "simulated", None)
                value = encode(
                    symbol, int(now * 1000), price, "1.5", None, 1, None, False, *envelope
                )
                producer.produce(topic, value, symbol)
            producer.poll(0)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        producer.flush(10)


if __name__ == "__main__":
    # an end from outside is to end what was started, too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
