"""What a drill runs: the vendor, a producer and workers as real processes, each with a proxy before
the broker, and a proxy before the registry."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import confluent_kafka as ck
import httpx
from evidence import Ended, Sample
from kafka_proxy import KafkaProxy, Listeners
from odd_records import OddRecords
from prometheus_client.parser import text_string_to_metric_families
from registry_proxy import RegistryProxy, registry_proxy
from schedule import CLIENTS, PRODUCER, WORKERS, Fault, Schedule
from strikes import strike
from vendor import Vendor, running_vendor

from infra import topology
from infra.embedded.ports import free_ports
from infra.embedded.stack import Stack
from infra.runtime.exit_codes import may_restart
from processors.engine.transactions.exits import Exit
from schemas.clients.registry import Registry
from schemas.topics import Topology

HERE = Path(__file__).parent
PARTITIONS = 8
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "USDJPY", "XAUUSD", "00700.HK", "00005.HK")
"""Of three businesses: three feeds, each on a connection of its own."""
HORIZON_MS = 10_000
RATE = 5.0
"""Trades and books a second and symbol."""
BACKOFF_S, LONGEST_BACKOFF_S, STEADY_S = 0.5, 8.0, 30.0


class Fleet:
    """Everything that runs in a drill."""

    def __init__(self, stack: Stack, listeners: Listeners, folder: Path, prefix: str) -> None:
        self.stack, self.folder = stack, folder
        self.names = Topology(
            prefix,
            intervals=("1s", "10s", "1m", "1d"),
            windows=("1s", "10s", "session"),
            partitions=PARTITIONS,
            activity=("tick-20",),
        )
        self.group = f"{prefix}infoway-processors"
        self.ids = topology.apply(stack.bootstrap, Registry(stack.registry_url), self.names)
        self.proxies: dict[str, KafkaProxy] = {
            client: listeners.proxy(number) for number, client in enumerate(CLIENTS)
        }
        self.ports = dict(zip(CLIENTS, free_ports(*[0] * len(CLIENTS)), strict=True))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.wanted: set[str] = set()
        """Those that are started again when they end."""
        self.ended: list[Ended] = []
        self.samples: list[Sample] = []
        self.struck: Counter[str] = Counter()
        self.failed_faults: list[str] = []
        self.mutation = ""
        self.began = time.monotonic()
        self._symbols, self._clock = folder / "symbols", folder / "clock"
        self._start_at: dict[str, float] = {}
        self._backoff: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self.doubled: set[str] = set()
        self._chance = random.Random(0)
        self.locks = {
            target: threading.Lock()
            for target in (
                *CLIENTS,
                *(f"way of {client}" for client in CLIENTS),
                "broker",
                "registry",
            )
        }
        registry = Registry(stack.registry_url)
        self.odd_records = OddRecords(stack.bootstrap, registry, self.names, self.ids)
        self.vendor: Vendor
        self.registry: RegistryProxy

    @contextmanager
    def running(self, seed: int, rate: float) -> Iterator["Fleet"]:
        """Start the vendor, the proxies, three workers and the producer; end them all."""
        self._chance.seed(seed)
        self.odd_records.chance.seed(seed)
        with ExitStack() as ends:
            self.vendor = ends.enter_context(running_vendor(seed, rate))
            self.registry = ends.enter_context(registry_proxy(self.stack.registry_url))
            for proxy in self.proxies.values():
                ends.enter_context(proxy)
            ends.callback(self.close)
            self.write_symbols()
            self.set_clock(0)
            self.odd_records.ledger = self.vendor.ledger
            for name in (*WORKERS, PRODUCER):
                self.wanted.add(name)
                self.start(name)
            yield self

    def start(self, name: str, double: bool = False) -> None:
        """Start the worker of a slot, or the producer; a double has the slot of one that runs."""
        environment = {
            **os.environ,
            "INFOWAY_BOOTSTRAP": self.proxies[name].address,
            "INFOWAY_REGISTRY": self.registry.url,
            "INFOWAY_PREFIX": self.names.prefix,
            "INFOWAY_INTERVALS": ",".join(self.names.intervals),
            "INFOWAY_WINDOWS": ",".join(self.names.windows),
            "INFOWAY_ACTIVITY": ",".join(self.names.activity),
            "INFOWAY_PARTITIONS": str(PARTITIONS),
            "INFOWAY_SOURCE": "simulated",
            "INFOWAY_REVISION_HORIZON_MS": str(HORIZON_MS),
            "INFOWAY_BATCH_RECORDS": "50",
            "INFOWAY_SLOT": name,
            "INFOWAY_WORK_DIR": str(self.folder / f"work-{name}{'-2' * double}"),
            "INFOWAY_HTTP": "" if double else f"127.0.0.1:{self.ports[name]}",
            "INFOWAY_SPOOL": str(self.folder / "spool"),
            "INFOWAY_SPOOL_MIB": "1",
            "DRILL_MUTATION": self.mutation,
        }
        environment.pop("INFOWAY_API_KEY", None)
        arguments = ["worker"]
        if name == PRODUCER:
            urls = ["--url", self.vendor.url, "--rest-url", self.vendor.rest_url]
            environment["DRILL_CLOCK"] = str(self._clock)
            arguments = ["produce", "--symbols-file", str(self._symbols), *urls]
        shown = f"{name}'" if double else name
        with (self.folder / f"{shown}.log").open("ab") as output:
            self.processes[shown] = subprocess.Popen(
                [sys.executable, str(HERE / "process.py"), *arguments],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
            )
        self._started[shown] = time.monotonic()

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process, if it runs."""
        if (process := self.processes.get(name)) is not None:
            process.send_signal(number)

    def write_symbols(self, without: str = "") -> None:
        """Write the producer's list of symbols."""
        self._symbols.write_text("\n".join(s for s in SYMBOLS if s != without))

    def set_clock(self, jump_ms: int) -> None:
        """Set the producer's clock: so much ahead of the true time."""
        written = self._clock.with_suffix(".new")
        written.write_text(str(jump_ms))
        written.replace(self._clock)

    def any_symbol(self) -> str:
        """Return a symbol, drawn."""
        return self._chance.choice(SYMBOLS)

    def tend(self) -> None:
        """Take note of what ended, and start it again as the supervisor does."""
        now = time.monotonic()
        for name, process in list(self.processes.items()):
            if (code := process.poll()) is None:
                continue
            del self.processes[name]
            expected = code == Exit.FENCED and name.rstrip("'") in self.doubled
            self.ended.append(Ended(now - self.began, name, code, self._last_words(name), expected))
            steady = now - self._started[name] > STEADY_S
            backoff = (
                BACKOFF_S if steady else min(2 * self._backoff.get(name, 0.25), LONGEST_BACKOFF_S)
            )
            self._backoff[name] = backoff
            # what would stay ended goes on too, and is reported: the drill is to go on
            self._start_at[name] = now + (backoff if may_restart(code) else 5)
        for name in self.wanted - self.processes.keys():
            if now >= self._start_at.get(name, 0.0):
                self.start(name)

    def sample(self) -> bool:
        """Take the producer's counters, and return whether it answered."""
        found = self._counters()
        for feed, counters in found.items():
            self.samples.append(Sample(time.monotonic() - self.began, feed, counters))
        return bool(found)

    def nothing_in_flight(self) -> bool:
        """Return whether the producer answers, and all that it received is accounted for."""
        found = self._counters()
        return bool(found) and all(
            c["received"] == c["acknowledged"] + c["dead_lettered"] + c["lost"] and not c["spooled"]
            for c in found.values()
        )

    def unready(self) -> list[str]:
        """Return what the processes that are to run wait for."""
        found = []
        for name in sorted(self.wanted):
            try:
                answer = httpx.get(
                    f"http://127.0.0.1:{self.ports[name]}/readyz", timeout=2, trust_env=False
                )
                if answer.status_code != 200:
                    found.append(f"{name}: {answer.text.strip()}")
            except httpx.HTTPError as error:
                found.append(f"{name}: no answer: {error!r}")
        return found

    def run(self, schedule: Schedule) -> None:
        """Carry out a schedule, each fault in a thread of its own, until it and the load are
        over."""
        faults, threads = list(schedule.faults), []
        self.began = time.monotonic()
        sampled = 0.0
        while (now := time.monotonic() - self.began) < schedule.seconds or any(
            thread.is_alive() for thread in threads
        ):
            while faults and faults[0].at <= now:
                thread = threading.Thread(target=self._strike, args=(faults.pop(0),), daemon=True)
                thread.start()
                threads.append(thread)
            self.tend()
            if now - sampled > 2:
                sampled = now
                self.sample()
            time.sleep(0.1)

    def close(self) -> None:
        """End every process."""
        self.wanted.clear()
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        self.processes.clear()

    def _strike(self, fault: Fault) -> None:
        try:
            strike(fault, self)
            self.struck[type(fault).__name__] += 1
        except Exception as error:  # noqa: BLE001 what could not be placed is reported
            self.failed_faults.append(f"{fault}: {error!r}")

    def _counters(self) -> dict[str, dict[str, int]]:
        try:
            text = httpx.get(
                f"http://127.0.0.1:{self.ports[PRODUCER]}/metrics", timeout=1, trust_env=False
            ).text
        except httpx.HTTPError:
            return {}
        found: dict[str, dict[str, int]] = {}
        for family in text_string_to_metric_families(text):
            for each in family.samples:
                if feed := each.labels.get("feed"):
                    name = each.name.removeprefix("infoway_feed_").removeprefix("infoway_")
                    found.setdefault(feed, {})[name.removesuffix("_total")] = int(each.value)
        return {feed: c for feed, c in found.items() if "received" in c}

    def _last_words(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        telling = [line for line in lines[-200:] if "worker ends" in line or "processors:" in line]
        return (telling or lines or ["no output"])[-1][:400]


def wait_for(
    condition: Callable[[], object], timeout: float, tend: Callable[[], None]
) -> float | None:
    """Return after how many seconds the condition came true, None where it did not in time. How
    long it takes to look does not count: a busy machine makes that long."""
    began = time.monotonic()
    while time.monotonic() - began < timeout:
        tend()
        looked = time.monotonic()
        with suppress(ck.KafkaException):
            if condition():
                return looked - began
        time.sleep(0.2)
    return None
