"""The same raw log gives byte-equal derived topics: however batched, on however many workers,
through restarts, with any hash seed."""

import random
import re
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import drill
import psutil
import pytest

from infra import topology
from infra.kafka.lag import Lag
from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.deployment import Deployment
from infra.runtime.supervisor import Supervisor
from processors.engine.transactions.exits import Exit
from producers.delivery.client import open_producer
from schemas.clients.registry import Registry
from schemas.control import Control
from schemas.topics import Topology, load_schema
from schemas.wire import compile_encoder

TRADES, BOOKS, KLINES = "infoway.raw.trade", "infoway.raw.depth", "infoway.raw.kline"
START = 1_722_909_600_000
"""2024-08-06 02:00 UTC, within the session of Hong Kong."""
HOUR = 3_600_000
RECONCILIATION = "infoway.reconciliation"
STEPS = 800
MARKETS = (
    {"BTCUSDT": "crypto", "00700.HK": "stock", "00005.HK": "stock", "09988.HK": "stock"},
    {"ETHUSDT": "crypto", "USDJPY": "common"},
    {"SOLUSDT": "crypto", "HUGEUSDT": "crypto", "XAUUSD": "common"},
)
"""Symbols and their business, by partition."""


class Raw(NamedTuple):
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Writer:
    """One partition's part of the raw log, seeded by the partition alone."""

    def __init__(self, partition: int, ids: dict[str, int]) -> None:
        self.partition, self.symbols = partition, MARKETS[partition]
        self.trade, self.book, self.kline = (
            compile_encoder(load_schema(name.split(".", 1)[1].replace(".", "_")), ids[name])
            for name in (TRADES, BOOKS, KLINES)
        )
        self.drawn = random.Random(partition)
        self.now, self.connection, self.sequence = START, 1, 0
        self.feeds = {symbol: f"{business}-1" for symbol, business in self.symbols.items()}

    def step(self, number: int) -> Iterator[Raw]:
        """Yield what the feeds send at one step: mostly a trade or a book; controls, an outage and
        poison now and then."""
        self.now += self.drawn.randrange(3000)
        if number == 0:
            yield from self.control("begin", *self.symbols)
        elif number == 300:
            # an outage into Hong Kong's night, of one symbol and of whole feeds; it reaches bars
            # that are closed
            lost, self.now = self.now - HOUR // 10, self.now + 8 * HOUR
            yield from self.control("gap", next(iter(self.symbols)), None, None, ts_from=lost)
            self.connection = 2
            yield from self.control("begin", *self.symbols)
        elif number == 550:  # the next day's session; the crypto symbols go over to the second feed
            self.feeds |= {
                symbol: "crypto-2"
                for symbol, business in self.symbols.items()
                if business == "crypto"
            }
            self.now += 16 * HOUR
            yield from self.control("begin", *self.symbols)
        elif number == STEPS - 1:
            yield from self.control("end", *self.symbols)
        elif number % 40 == 20:
            yield from self.control("mark", None)
        if number % 60 == 7:
            yield self.poison(number)
        elif number % 10 == 3:
            yield self.a_kline()
        elif self.drawn.random() < 0.3:
            yield self.a_book()
        else:
            yield self.a_trade()

    def control(self, kind, *symbols, ts_from=None) -> Iterator[Raw]:
        for symbol in symbols:
            named = symbol or self.drawn.choice(list(self.symbols))
            control = Control(
                kind,
                self.feeds[named],
                self.symbols[named],
                f"c{self.connection}",
                "simulated",
                self.now,
                self.now * 1000,
                ts_from,
            )
            for topic in (TRADES, BOOKS, KLINES):
                yield Raw(
                    topic, self.partition, symbol and symbol.encode(), None, control.headers()
                )

    def envelope(self, symbol: str) -> tuple:
        self.sequence += 1
        received = (self.now + self.drawn.randrange(20, 90)) * 1000
        return (
            self.symbols[symbol],
            self.feeds[symbol],
            f"c{self.connection}",
            self.sequence,
            received,
            "simulated",
            None,
        )

    def a_trade(self, **changes) -> Raw:
        drawn = self.drawn
        symbol = drawn.choice(list(self.symbols))
        # out of order, late, and too late
        behind = (
            drawn.choice((0, 700, 5_000, 90_000, 550_000, 900_000)) if drawn.random() < 0.15 else 0
        )
        # two of these have a turnover that decimal(38,18) cannot hold: dead letters of both agents
        price = (
            "90000000000000000000"
            if symbol == "HUGEUSDT"
            else f"{drawn.randrange(9_900, 10_100) / 100:.2f}"
        )
        volume = "1" if symbol == "HUGEUSDT" else drawn.choice(("0", "0.001", "2.5", "700"))
        fields = {
            "price": price,
            "volume": volume,
            "turnover": None,
            "direction": drawn.randrange(3),
            "trade_type": None,
        }
        fields |= {"repeat": drawn.random() < 0.05, **changes}
        return Raw(
            TRADES,
            self.partition,
            symbol.encode(),
            self.trade(symbol, self.now - behind, *fields.values(), *self.envelope(symbol)),
            [],
        )

    def a_book(self) -> Raw:
        drawn = self.drawn
        symbol, middle = drawn.choice(list(self.symbols)), drawn.randrange(9_900, 10_100)
        asks, bids = (
            [f"{middle + way * level}" for level in range(drawn.randrange(-1, 12))]
            for way in (1, -1)
        )
        sizes = [[f"{drawn.randrange(1, 9000) / 1000}" for _ in side] for side in (asks, bids)]
        value = self.book(symbol, self.now, asks, sizes[0], bids, sizes[1], *self.envelope(symbol))
        return Raw(BOOKS, self.partition, symbol.encode(), value, [])

    def a_kline(self) -> Raw:
        symbol, start = self.drawn.choice(list(self.symbols)), self.now - self.now % 60_000
        fields = ("99.5", "101", "99", "100", "5", "500", None, None)
        return Raw(
            KLINES,
            self.partition,
            symbol.encode(),
            self.kline(symbol, "1m", start, *fields, *self.envelope(symbol)),
            [],
        )

    def poison(self, number: int) -> Raw:
        trade, book = self.a_trade(volume="-1"), self.a_book()
        return (
            trade,
            trade._replace(key=None, value=b"\xffnoise"),
            trade._replace(value=trade.value[:-3]),
            # of a schema that nobody knows each run would ask for half a minute: test_dead_letters
            trade._replace(value=trade.value[:5]),
            trade._replace(value=None),
            book._replace(value=book.value + b"\0"),
        )[number // 60 % 6]


def raw_log(ids: dict[str, int]) -> list[Raw]:
    writers = [Writer(partition, ids) for partition in range(len(MARKETS))]
    return [
        record for number in range(STEPS) for writer in writers for record in writer.step(number)
    ]


@dataclass
class Namespace:
    """One run: the raw log under a prefix of its own, and the workers that process it."""

    bootstrap: str
    registry_url: str
    names: Topology
    log: list[Raw]
    supervisor: Supervisor
    folder: Path

    @property
    def group(self) -> str:
        return f"{self.names.prefix}infoway-processors"

    def __post_init__(self) -> None:
        self.lag = Lag(
            self.bootstrap,
            self.group,
            [self.names.name(topic) for topic in (TRADES, BOOKS, KLINES)],
        )
        self.bars = [f"infoway.bars.{interval}" for interval in self.names.intervals]
        self.bars_left = Lag(
            self.bootstrap, self.group, map(self.names.name, self.bars)
        ).records_left

    def publish(self, records: Sequence[Raw]) -> None:
        producer = open_producer(self.bootstrap)
        for record in records:
            producer.produce(
                self.names.name(record.topic),
                record.value,
                record.key,
                record.partition,
                headers=record.headers,
            )
        assert producer.flush(30) == 0

    def await_shared(self) -> None:
        """Wait until every worker has a share of the partitions."""
        fleet = SimpleNamespace(
            bootstrap=self.bootstrap,
            group=self.group,
            partitions=(3 + len(self.bars)) * len(MARKETS),
        )
        workers = len(list(self.folder.glob("processors-*.log")))
        assert drill.wait_until(
            lambda: self.supervisor.check() or drill.holders(fleet) == workers, 120
        ), self.logs()

    def await_processed(self) -> None:
        assert drill.wait_until(lambda: self.supervisor.check() or self.lag() == 0, 180), (
            self.logs()
        )

    def check_ends(self) -> None:
        """No worker has ended by itself, but for one whose transaction the broker refused: a
        machine that stands still for longer than a session brings that about."""

        def ends():
            return re.findall(r"worker ends \(\w+, exit code (\d+)\)", self.logs())

        # a worker that ends otherwise, or is killed, says no such line
        assert drill.wait_until(lambda: len(ends()) == self.supervisor.restarts, 20), self.logs()
        assert set(map(int, ends())) <= {Exit.TRANSACTION_REFUSED}, self.logs()

    def verdicts(self) -> dict[tuple[str, str, int], tuple[str, ...]]:
        """Return the last word of the reconciliation on each bar; how often it spoke depends on how
        its topics interleave.

        So does, where bars were read long before the first kline of their stream, which of them
        were no longer at hand.
        """
        assert drill.wait_until(lambda: self.supervisor.check() or self.bars_left() == 0, 120), (
            self.logs()
        )
        read, found = ValueReader(Registry(self.registry_url)), {}
        for message in read_to_end(self.bootstrap, self.names.name(RECONCILIATION)):
            _, row = read(message.value())
            key = row["symbol"], row["interval"], row["ts_start"]
            found[key] = tuple(
                row[name]
                for name in (
                    "status",
                    "reason",
                    "bar_revision",
                    "volume",
                    "vendor_volume",
                    "trade_date",
                )
            )
        return {key: verdict for key, verdict in found.items() if verdict[1] != "expired"}

    def strike(self, number: int, slots: Sequence[str], records: Sequence[Raw]) -> None:
        """Publish records, send workers that have not read them all a signal, and wait until they
        are back with their share."""
        children = ((child, child.environ()) for child in psutil.Process().children())
        workers = {
            found["INFOWAY_SLOT"]: child
            for child, found in children
            if found.get("INFOWAY_PREFIX") == self.names.prefix
        }
        joined, generation = {slot: self.joined(slot) for slot in slots}, self.generation()
        restarted = self.supervisor.restarts + len(slots)
        half = len(records) // 2
        self.publish(records[:half])
        for slot in slots:
            workers[
                slot
            ].suspend()  # somewhere in the first half: the second is certain to find it so
        self.publish(records[half:])
        assert self.lag() > 0
        for slot in slots:
            workers[slot].send_signal(number)
            if number != signal.SIGKILL:
                workers[slot].resume()
        assert drill.wait_until(lambda: self.supervisor.restarts >= restarted, 120), self.logs()
        assert drill.wait_until(
            lambda: all(self.joined(slot) > joined[slot] for slot in slots), 120
        ), self.logs()
        self.await_shared()
        assert self.generation() > generation

    def logs(self) -> str:
        return "\n".join(
            path.read_text(errors="replace")
            for path in sorted(self.folder.glob("processors-*.log"))
        )

    def joined(self, slot: str) -> int:
        """Return how many generations of the group the workers of a slot were members of."""
        return (
            (self.folder / f"processors-{slot}.log")
            .read_text(errors="replace")
            .count("Joined group")
        )

    def generation(self) -> int:
        """Return the group's latest generation: how often its partitions were dealt out."""
        return max(
            int(found) for found in re.findall(r"Joined group .*\(generation (\d+)\)", self.logs())
        )

    def digests(self) -> dict[str, tuple[int, str]]:
        """Return number and digest of the records of every derived topic, in the order of the log.

        Dead letters name their topic: the prefix, always of the same length, is taken out. And they
        are sorted, since several agents write them side by side.
        """
        prefix, found = self.names.prefix.encode(), {}
        for topic in self.names.derived():
            if topic.name == self.names.name(RECONCILIATION):
                continue
            read = read_to_end(self.bootstrap, topic.name)
            lines = [
                repr((m.partition(), m.key().replace(prefix, b""), m.value().replace(prefix, b"")))
                for m in read
            ]
            name = self.names.contract_name(topic.name)
            if name == "infoway.dead-letter":
                lines.sort()
            found[name] = len(lines), sha256("\n".join(lines).encode()).hexdigest()
        return found


@contextmanager
def running(
    stack, prefix: str, folder: Path, workers: int, batch: int, hash_seed: str
) -> Iterator[Namespace]:
    names = Topology(prefix, partitions=len(MARKETS), activity=("tick-10", "volume-50"))
    ids = topology.apply(stack.bootstrap, Registry(stack.registry_url), names)
    log = raw_log({names.contract_name(topic): schema_id for topic, schema_id in ids.items()})
    deployment = Deployment(stack.bootstrap, stack.registry_url, names, ids, embedded=False)
    settings = {
        "INFOWAY_BATCH_RECORDS": str(batch),
        "PYTHONHASHSEED": hash_seed,
        "TMPDIR": str(folder),
    }
    with Supervisor({**deployment.environment, **settings}, workers, folder) as supervisor:
        yield Namespace(stack.bootstrap, stack.registry_url, names, log, supervisor, folder)


def compare(run: Namespace, reference) -> None:
    digests, expected = reference
    assert run.digests() == digests
    found = run.verdicts()
    both = found.keys() & expected.keys()
    assert len(both) > 0.8 * max(len(found), len(expected))
    assert {key: found[key] for key in both} == {key: expected[key] for key in both}


pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def reference(stack, tmp_path_factory):
    """The digests of a log that one worker found whole, in batches of 2000; once more where the
    machine stood still for longer than a session lasts."""
    for _ in range(3):
        prefix, folder = f"r{uuid.uuid4().hex[:8]}.", tmp_path_factory.mktemp("reference")
        with running(stack, prefix, folder, 1, 2000, "0") as run:
            run.publish(run.log)
            run.await_processed()
            run.check_ends()
            if (run.supervisor.restarts, run.generation()) == (0, 1):
                return run.digests(), run.verdicts()
    raise AssertionError("each of three runs had a restart or a second generation")


def test_the_log_has_something_for_every_topic(reference):
    digests, verdicts = reference
    assert all(count for count, _ in digests.values()), digests
    assert {status for status, *_ in verdicts.values()} >= {"differs", "not_comparable"}


@pytest.mark.parametrize(("workers", "batch", "hash_seed"), [(1, 1, "1"), (3, 155, "random")])
def test_batches_workers_and_hash_seeds_change_no_byte(
    stack, namespace, tmp_path, reference, workers, batch, hash_seed
):
    with running(stack, namespace, tmp_path, workers, batch, hash_seed) as run:
        run.await_shared()
        run.publish(run.log)
        run.await_processed()
        run.check_ends()
        compare(run, reference)


@pytest.mark.heavy
def test_restarts_and_rebalances_in_mid_stream_change_no_byte(
    stack, namespace, tmp_path, reference
):
    with running(stack, namespace, tmp_path, 3, 7, "random") as run:
        run.await_shared()
        third = len(run.log) // 3
        run.strike(signal.SIGKILL, ("0", "1"), run.log[:third])
        run.strike(signal.SIGTERM, ("2",), run.log[third : 2 * third])
        run.publish(run.log[2 * third :])
        run.await_processed()
        assert run.supervisor.restarts >= 3
        compare(run, reference)
