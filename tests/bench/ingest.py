"""Frames a second that one producer process takes from a local socket, and how long until the
broker has them; `make bench`.

Half trades, half books of ten levels, each stamped with the time of its sending; the latency is
from there to the broker's acknowledgement. The server is a process of its own; broker, server and
producer share the machine. The first second is not timed: the broker's transaction coordinator is
loading, and no producer gets its id until that is done.
"""

import argparse
import multiprocessing
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson
from websockets.sync.server import ServerConnection, serve

from infra.ingest.producer_process import spare_full_collections
from infra.ingest.spooling import open_backlog
from infra.runtime.deployment import Deployment, deployed
from producers.delivery.client import open_producer, raw_partitions
from producers.delivery.publisher import Publisher
from producers.feed.metrics import FeedCounters
from producers.feed.outputs import RAW_RECORDS, Output, Publication
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.transport.endpoint import Endpoint
from producers.transport.websocket import run_feed
from producers.vendor.frames import read_frame
from producers.vendor.symbols import Feed
from schemas.topics import Topology, load_schema
from schemas.wire import compile_encoder

SYMBOLS = tuple(f"C{number:02d}USDT" for number in range(50))
TICK = 0.005
SAMPLE = 50
"""Every so many records one is timed."""
TIME = b"1722902400000"


def main() -> None:
    """Print the figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--rate", type=int, default=20_000, help="frames a second that the server sends"
    )
    options.add_argument("--seconds", type=float, default=15.0)
    chosen = options.parse_args()
    known = stages()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        deployed(Topology("ingest."), Path(folder)) as deployment,
    ):
        through_socket(deployment, Path(folder) / "spool", chosen.rate, chosen.seconds, known)


def frames() -> list[bytes]:
    """Return a trade and a book of each symbol."""
    found: list[bytes] = []
    for number, symbol in enumerate(SYMBOLS):
        trade = {
            "s": symbol,
            "t": int(TIME),
            "p": f"{61800 + number}.30",
            "v": "0.512",
            "vw": f"{31641.6 + number}",
            "td": 1 + number % 2,
        }
        sides = [
            [
                [f"{61800 + way * level}.10" for level in range(10)],
                [f"{level + 1}.125" for level in range(10)],
            ]
            for way in (1, -1)
        ]
        book = {"s": symbol, "t": int(TIME), "a": sides[0], "b": sides[1]}
        found += [
            orjson.dumps({"code": 10002, "data": trade}),
            orjson.dumps({"code": 10005, "data": book}),
        ]
    return found


def stages() -> float:
    """Print microseconds a frame of each stage, alone in this process, and return those of the core
    and the encoder."""
    sent, count = frames(), 40_000
    latest = int(TIME) + 60_000
    core = protocol({"infoway.raw.trade": 6, "infoway.raw.depth": 6, "infoway.raw.kline": 6})
    core.connected(int(TIME) * 1000)
    records: list[Publication] = []
    encoders = {
        f"infoway.raw.{name}": compile_encoder(load_schema(f"raw_{name}"), 1)
        for name in ("trade", "depth")
    }

    def take() -> None:
        for number in range(count):
            outputs = core.receive(sent[number % len(sent)], int(TIME) * 1000 + number)
            records.extend(output for output in outputs if isinstance(output, Publication))

    timed(
        "read a frame",
        count,
        lambda: [read_frame(sent[number % len(sent)], latest, False) for number in range(count)],
    )
    core_us = timed("the whole protocol core", count, take)
    return core_us + timed(
        "encode the record",
        len(records),
        lambda: [
            encoders[record.topic](*record.record) for record in records if record.topic in encoders
        ],
    )


def timed(stage: str, count: int, work: Callable[[], object]) -> float:
    """Run the work once, print and return CPU microseconds a frame."""
    before = time.process_time()
    work()
    return shown(stage, (time.process_time() - before) / count * 1e6)


def shown(stage: str, us: float) -> float:
    """Print and return microseconds a frame."""
    print(f"{stage:28} {us:7.2f} us a frame", flush=True)
    return us


def protocol(partitions: dict[str, int]) -> FeedProtocol:
    """Return a feed of all symbols."""
    feed = Feed("crypto-1", "crypto", SYMBOLS)
    return FeedProtocol(
        feed,
        FeedSettings("simulated", klines=()),
        partitions,
        FeedCounters(feed.name),
        random.Random(1),
    )


def through_socket(
    deployment: Deployment, spool: Path, rate: int, seconds: float, known: float
) -> None:
    """Print what one feed holds, from the socket to the broker; `known` are microseconds a frame of
    the core and the encoder."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve_frames, args=(theirs, rate, seconds), daemon=True
    )
    server.start()
    producer, stop = open_producer(deployment.bootstrap), threading.Event()
    publisher = TimedPublisher(
        rate,
        producer,
        deployment.topology,
        deployment.schema_ids,
        stop,
        open_backlog(deployment, "simulated", spool, {}),
    )
    core = protocol(raw_partitions(producer, deployment.topology, deployment.bootstrap))
    feed = threading.Thread(
        target=run_feed,
        args=(
            core,
            Endpoint(f"ws://127.0.0.1:{ours.recv()}/ws", "k"),
            publisher,
            stop,
            random.Random(1),
        ),
        daemon=True,
    )
    spare_full_collections()
    feed.start()
    ours.recv()  # the first frame goes out
    began, cpu = time.monotonic(), time.process_time()
    sent = ours.recv()
    while core.counters.received < sent and time.monotonic() - began < 4 * seconds:
        time.sleep(0.01)
    publisher.flush()
    taken, cpu = time.monotonic() - began, time.process_time() - cpu
    stop.set()
    feed.join()
    server.join(5)
    delays = sorted(publisher.delays)
    done = core.counters.acknowledged
    print(
        f"sent {sent:,} frames at {sent / seconds:,.0f}/s; {done:,} acknowledged in {taken:.1f} "
        f"s: {done / taken:,.0f} frames/s"
    )
    shown("socket, Kafka client, queues", cpu / done * 1e6 - known)
    print(
        f"producer process: {done / cpu:,.0f} frames a CPU-second, {cpu / taken:.0%} of a core, "
        "librdkafka's threads included"
    )
    half, most = (delays[int(len(delays) * share)] for share in (0.5, 0.99))
    print(
        f"socket to acknowledgement: p50 {half:.0f} ms, p99 {most:.0f} ms ({len(delays):,} timed)"
    )


class TimedPublisher(Publisher):
    """A publisher that times some of its records, after the first `untimed`, from the vendor's time
    to the acknowledgement."""

    def __init__(self, untimed: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._untimed = untimed
        self.delays: list[float] = []
        self._stamps: dict[int, int] = {}

    def publish(self, outputs: Iterable[Output], counters: FeedCounters) -> None:
        found = list(outputs)
        for output in found:
            if isinstance(output, Publication) and isinstance(output.record, RAW_RECORDS):
                sequence = output.record.sequence
                if sequence > self._untimed and sequence % SAMPLE == 1:
                    self._stamps[sequence] = output.record.ts_event
        super().publish(found, counters)

    def _delivered(self, flight: Any, *rest: Any) -> None:
        stamp = self._stamps.pop(flight.entry.sequence, None)
        if stamp is not None:
            self.delays.append(time.time() * 1000 - stamp)
        super()._delivered(flight, *rest)


def serve_frames(tell: Connection, rate: int, seconds: float) -> None:
    """Send frames at an even rate to the one client that comes, then tell how many."""
    templates = [
        (_head(len(frame)) + frame[: frame.index(TIME)], frame[frame.index(TIME) + len(TIME) :])
        for frame in frames()
    ]

    def converse(client: ServerConnection) -> None:
        for ack in (10001, 10004):
            client.recv()
            client.send(orjson.dumps({"code": ack, "trace": ""}).decode())
        tell.send("begun")
        began, sent = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            due = int(passed * rate) - sent
            stamp = b"%d" % (time.time_ns() // 1_000_000)
            client.socket.sendall(
                b"".join(
                    head + stamp + tail
                    for head, tail in (templates[(sent + n) % len(templates)] for n in range(due))
                )
            )
            sent += due
            time.sleep(TICK)
        tell.send(sent)
        client.recv(timeout=4 * seconds)  # the unsubscription

    with serve(converse, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        tell.send(server.socket.getsockname()[1])
        threading.Timer(6 * seconds, server.shutdown).start()
        server.serve_forever()


def _head(length: int) -> bytes:
    """Return the head of an unmasked text frame."""
    return bytes((0x81, length)) if length < 126 else bytes((0x81, 126)) + length.to_bytes(2, "big")


if __name__ == "__main__":
    main()
