"""The pipeline beside Kafka Streams, quixstreams and stock Faust, on the same raw topic in one run;
`make bench-peers`.

Every figure is of this machine and this run: compare ratios. Each result is checked for the sum of
its bars' volumes before its time counts. A peer that cannot be had is left out by name.
"""

import argparse
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import books
import ours
from load import PARTITIONS, made, make_topics, send
from others import Missing, Result, python_peer, streams

from infra.runtime.deployment import Deployment, deployed
from schemas.topics import RAW_TRADE, Topology


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
            "ours: bars": lambda path: ours.trades(path, deployment, load, "1m", "1m", 60_000),
            "ours: bars and a VWAP row": lambda path: ours.trades(
                path, deployment, load, "1m", "1m"
            ),
            "ours: default outputs": lambda path: ours.trades(path, deployment, load),
            "ours: books of ten levels": lambda path: books.measured_books(
                path, deployment, chosen.trades // 4, chosen.symbols
            ),
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


def slow_topic(deployment: Deployment, values: list[tuple[str, bytes]]) -> str:
    """Return a raw topic with fewer trades, for peers that would take minutes."""
    name = "peers.slow.raw"
    make_topics(deployment, name)
    send(deployment, values, name=name)
    return name


if __name__ == "__main__":
    # an end from outside is to end what was started, too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
