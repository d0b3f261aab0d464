"""Faults as data: drawn from a seed, written to and read from JSON. Nothing is carried out here."""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

WORKERS = ("w0", "w1", "w2")
"""Slots that run from the start."""
JOINING = "w3"
"""The slot that joins and leaves."""
PRODUCER = "producer"
CLIENTS = (*WORKERS, JOINING, PRODUCER)
"""Each of these reaches the broker through a proxy of its own."""
REQUESTS = ("PRODUCE", "ADD_PARTITIONS_TO_TXN", "END_TXN", "TXN_OFFSET_COMMIT")
"""Requests of a transaction that may be held back, overtaken or left without an answer."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong `at` seconds after the start of the drill, for `seconds`."""

    target: ClassVar[str] = ""
    """What it strikes, where no field says so: two faults on one target do not overlap."""
    at: float
    seconds: float = 0.0

    @property
    def struck(self) -> str:
        """What the fault strikes."""
        return str(getattr(self, "slot", getattr(self, "client", self.target)))


@dataclass(frozen=True, kw_only=True)
class KillWorker(Fault):
    """SIGKILL; the slot is started again."""

    slot: str


@dataclass(frozen=True, kw_only=True)
class FreezeWorker(Fault):
    """SIGSTOP for `seconds`, past the session's end or not, then SIGCONT."""

    slot: str


@dataclass(frozen=True, kw_only=True)
class TerminateWorker(Fault):
    """SIGTERM; the slot is started again."""

    slot: str


@dataclass(frozen=True, kw_only=True)
class JoinWorker(Fault):
    """A further worker joins for `seconds`, and is terminated."""

    slot: str = JOINING


@dataclass(frozen=True, kw_only=True)
class DoubleSlot(Fault):
    """A second worker is started in a slot that has one, and killed after `seconds`."""

    slot: str


@dataclass(frozen=True, kw_only=True)
class RestartBroker(Fault):
    """The broker is ended in order and started again after `seconds`."""

    target = "broker"


@dataclass(frozen=True, kw_only=True)
class KillBroker(Fault):
    """SIGKILL of the broker; it is started again after `seconds`."""

    target = "broker"


@dataclass(frozen=True, kw_only=True)
class FreezeBroker(Fault):
    """The broker is stopped (SIGSTOP) for `seconds`."""

    target = "broker"


@dataclass(frozen=True, kw_only=True)
class BrokerDisk(Fault):
    """The broker's disk takes nothing more (RLIMIT_FSIZE: what it writes beyond fails), so that it
    ends by itself; it is started again after `seconds`, with room."""

    target = "broker"


@dataclass(frozen=True, kw_only=True)
class Registry(Fault):
    """The registry refuses connections, hangs, answers 500, or answers what is no JSON."""

    target = "registry"
    how: str


@dataclass(frozen=True, kw_only=True)
class KillProducer(Fault):
    """SIGKILL; the producer is started again."""

    target = PRODUCER


@dataclass(frozen=True, kw_only=True)
class FreezeProducer(Fault):
    """SIGSTOP for `seconds`."""

    target = PRODUCER


@dataclass(frozen=True, kw_only=True)
class FillSpool(Fault):
    """The producer's broker is out of reach for so long that its spool, of 1 MiB, is full."""

    target = PRODUCER


@dataclass(frozen=True, kw_only=True)
class SpoolDisk(Fault):
    """The producer's broker is out of reach, and its disk takes next to nothing (RLIMIT_FSIZE)."""

    target = PRODUCER


@dataclass(frozen=True, kw_only=True)
class Clock(Fault):
    """The producer's clock jumps by `jump_ms`, and back after `seconds`."""

    target = "clock"
    jump_ms: int


@dataclass(frozen=True, kw_only=True)
class Vendor(Fault):
    """A line of the simulator's script: what the vendor's socket does to all connections."""

    target = "vendor"
    do: str
    delay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Network(Fault):
    """A client's way to the broker: cut (connections break and new ones too), frozen (half-open),
    or delayed by `delay` seconds."""

    client: str
    how: str
    delay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Request(Fault):
    """The client's next request of a kind is held for `seconds` while its repetition overtakes it
    on another connection, or its answer is cut off or dropped."""

    client: str
    api: str
    how: str


@dataclass(frozen=True, kw_only=True)
class Odd(Fault):
    """Records that no agent takes as they are, put into the raw topics: poison, strays of another
    source, controls (a gap of a symbol, a mark), heals; and trades of a newer schema."""

    target = "log"
    what: str
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Symbols(Fault):
    """The producer's list of symbols loses one for `seconds`."""

    target = "symbols"
    symbol: str


KINDS: dict[str, type[Fault]] = {
    kind.__name__: kind
    for kind in (
        KillWorker, FreezeWorker, TerminateWorker, JoinWorker, DoubleSlot, RestartBroker,
        KillBroker, FreezeBroker, Registry, KillProducer, FreezeProducer, FillSpool, Vendor,
        Network, Request, Odd, Symbols, BrokerDisk, SpoolDisk, Clock,
    )
}  # fmt: skip
ODD = ("poison", "stray", "gap", "mark", "heal", "newer")
CLOCK_MS = 1_500
"""By so much the producer's clock jumps."""
MOVABLE = ("ETHUSDT", "XRPUSDT", "XAUUSD")
"""Symbols that may be taken off the list for a while."""


@dataclass(frozen=True)
class Schedule:
    """Faults in the order of their times, within a drill of `seconds` of load."""

    seed: int
    seconds: float
    faults: tuple[Fault, ...]

    def dump(self) -> str:
        """Return the schedule as JSON, a line a fault."""
        lines = ",\n  ".join(
            json.dumps({"kind": type(fault).__name__, **asdict(fault)}) for fault in self.faults
        )
        head = f'{{"seed": {self.seed}, "seconds": {self.seconds}, "faults": ['
        return f"{head}\n  {lines}\n]}}\n" if self.faults else f"{head}]}}\n"

    @classmethod
    def load(cls, text: str) -> "Schedule":
        """Read what `dump` wrote; raises ValueError with what is wrong."""
        try:
            found = json.loads(text)
            faults = [_fault(dict(line)) for line in found["faults"]]
            return cls(int(found["seed"]), float(found["seconds"]), in_order(faults))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no schedule: {error!r}") from error

    @classmethod
    def read(cls, path: Path) -> "Schedule":
        """Read a schedule's file."""
        return cls.load(path.read_text(encoding="utf-8"))

    def with_faults(self, faults: Iterable[Fault]) -> "Schedule":
        """Return the schedule with these faults instead."""
        return Schedule(self.seed, self.seconds, in_order(faults))


def in_order(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Return faults by their times."""
    return tuple(sorted(faults, key=lambda fault: (fault.at, type(fault).__name__)))


def draw(seed: int, seconds: float, every_s: float, kinds: Sequence[str] = ()) -> Schedule:
    """Draw a schedule: a fault every `every_s` seconds on average, of `kinds` or of all; none on a
    target that another one still strikes."""
    chance = random.Random(seed)
    busy_until: dict[str, float] = {}
    faults: list[Fault] = []
    at = 5.0
    while at < seconds:
        fault = _draw(chance, round(at, 1), tuple(kinds))
        if fault.at >= busy_until.get(fault.struck, 0.0):
            # what has ended starts again, and needs its time to be struck again
            busy_until[fault.struck] = fault.at + fault.seconds + REST.get(fault.struck, 4.0)
            faults.append(fault)
        at += chance.uniform(0.2, 1.8) * every_s
    return Schedule(seed, seconds, in_order(faults))


REST = {"broker": 20.0, "log": 0.0, "vendor": 3.0, PRODUCER: 10.0}
"""Seconds that a target has after a fault, default 4."""

_WEIGHTS = {
    "KillWorker": 6, "FreezeWorker": 4, "TerminateWorker": 3, "JoinWorker": 2, "DoubleSlot": 1,
    "RestartBroker": 1, "KillBroker": 1, "FreezeBroker": 2, "Registry": 3, "KillProducer": 3,
    "FreezeProducer": 2, "FillSpool": 1, "Vendor": 8, "Network": 8, "Request": 10, "Odd": 8,
    "Symbols": 3, "BrokerDisk": 1, "SpoolDisk": 1, "Clock": 2,
}  # fmt: skip


def _draw(chance: random.Random, at: float, kinds: Sequence[str]) -> Fault:
    names = kinds or tuple(_WEIGHTS)
    kind = chance.choices(names, [_WEIGHTS[name] for name in names])[0]
    slot, client = chance.choice(WORKERS), chance.choice((*WORKERS, PRODUCER))
    seconds = round(chance.choice((chance.uniform(0.5, 4), chance.uniform(4, 15))), 1)
    match kind:
        case "KillWorker" | "TerminateWorker":
            return KINDS[kind](at=at, slot=slot)  # type: ignore[call-arg]
        case "FreezeWorker":
            return FreezeWorker(at=at, slot=slot, seconds=seconds)
        case "JoinWorker":
            return JoinWorker(at=at, seconds=seconds + 10)
        case "DoubleSlot":
            return DoubleSlot(at=at, slot=slot, seconds=20)
        case "RestartBroker" | "KillBroker":
            return KINDS[kind](at=at, seconds=min(seconds, 5))
        case "FreezeBroker" | "FreezeProducer":
            return KINDS[kind](at=at, seconds=seconds)
        case "FillSpool" | "SpoolDisk":
            return KINDS[kind](at=at, seconds=25 if kind == "FillSpool" else 12)
        case "BrokerDisk":
            return BrokerDisk(at=at, seconds=min(seconds, 5))
        case "Clock":
            return Clock(at=at, seconds=seconds, jump_ms=chance.choice((-1, 1)) * CLOCK_MS)
        case "Registry":
            how = chance.choice(("refuse", "hang", "500", "garbage"))
            return Registry(at=at, seconds=seconds, how=how)
        case "KillProducer":
            return KillProducer(at=at)
        case "Vendor":
            do = chance.choice(("disconnect", "reset", "half_frame", "stall", "burst", "slow"))
            lasts = seconds if do in ("stall", "burst", "slow") else 0.0
            return Vendor(at=at, do=do, seconds=lasts, delay=0.05 if do == "slow" else 0.0)
        case "Network":
            how = chance.choice(("cut", "freeze", "delay"))
            delay = chance.choice((0.02, 0.1, 0.5)) if how == "delay" else 0.0
            return Network(at=at, client=client, how=how, seconds=seconds, delay=delay)
        case "Request":
            how, api = chance.choice(("hold", "cut", "drop")), chance.choice(REQUESTS)
            if client == PRODUCER:
                api = "PRODUCE"
            return Request(at=at, client=client, api=api, how=how, seconds=seconds)
        case "Odd":
            what = chance.choice(ODD)
            return Odd(at=at, what=what, count=chance.randint(1, 5))
        case "Symbols":
            return Symbols(at=at, seconds=seconds, symbol=chance.choice(MOVABLE))
    raise ValueError(f"no fault of kind {kind!r}")


def _fault(line: dict[str, Any]) -> Fault:
    kind = KINDS.get(line.pop("kind"))
    if kind is None or not line.keys() <= {field.name for field in fields(kind)}:
        raise ValueError(f"no fault: {line}: kinds are {', '.join(KINDS)}")
    return kind(**line)
