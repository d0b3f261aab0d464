"""Records that no agent takes as they are, put into the raw topics beside the producer's: poison,
strays of another source, control records of a feed that nobody runs, and trades of a newer schema.
"""

import random
import time
from collections.abc import Callable

import confluent_kafka as ck
import orjson
from evidence import RAW, VendorTrade

from schemas.clients.registry import Registry
from schemas.control import Control, Kind
from schemas.partition import partition_of
from schemas.records import RawTradeRecord
from schemas.topics import Topology, load_schema
from schemas.wire import compile_encoder

TIMEOUT_S = 60
OWN_SYMBOL = "DRILLUSDT"
"""No feed carries it."""
PRICES = dict.fromkeys(("open", "high", "low", "close"), "100")


class OddRecords:
    """Puts records into one namespace."""

    def __init__(
        self, bootstrap: str, registry: Registry, names: Topology, ids: dict[str, int]
    ) -> None:
        self._producer = ck.Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "log_level": 0,
            }
        )
        self.ledger: list[VendorTrade] = []
        """The vendor's, which gets the trades that count."""
        self._names, self._registry = names, registry
        self.chance = random.Random(0)
        """What decides which records of a kind these are."""
        self._partitions = next(
            t.partitions for t in names.topics() if t.name == names.name(RAW[0])
        )
        self._newer: Callable[..., bytes] | None = None
        self._sequence = 0
        self._trade = compile_encoder(load_schema("raw_trade"), ids[names.name(RAW[0])])

    def put(self, what: str, symbol: str) -> None:
        """Put a record of a kind, of a symbol; raises TimeoutError where the broker takes none."""
        now = time.time_ns() // 1_000_000
        match what:
            case "poison":
                noise = self.chance.randbytes(20)
                cut = self._trade(*_a_trade(symbol, now, "simulated"))[:-3]
                value = self.chance.choice((noise, b"\0\0\0\xff\xff" + noise, cut))
                self._send(self.chance.choice(RAW), symbol, value)
            case "stray":
                self._send(RAW[0], symbol, self._trade(*_a_trade(symbol, now, "replay")))
            case "gap":
                self._control("gap", symbol, now, now - 1500)
            case "mark":
                self._control("mark", None, now, partition=self._partition(symbol))
            case "heal":
                start = (now // 60_000 - self.chance.randint(1, 2)) * 60_000
                bar = {"interval": "1m", "ts_start": start, **PRICES}
                kline = orjson.dumps({**bar, "volume": "7", "turnover": "700"}).decode()
                self._control("heal", symbol, start + 60_000, kline=kline)
            case "newer":
                self._newer_trade(now)
            case _:
                raise ValueError(f"no odd record {what!r}")
        if self._producer.flush(TIMEOUT_S):
            raise TimeoutError(f"the broker took no {what} within {TIMEOUT_S} s")

    def _newer_trade(self, now: int) -> None:
        """Send a trade of a schema that has a field more, and register that at its first use."""
        if self._newer is None:
            schema = load_schema("raw_trade")
            field = {"name": "drilled", "type": ["null", "string"], "default": None}
            newer = {**schema, "fields": [*schema["fields"], field]}
            subject = f"{self._names.name(RAW[0])}-value"
            self._newer = compile_encoder(newer, self._registry.register(subject, newer))
        self._sequence += 1
        trade = _a_trade(OWN_SYMBOL, now, "simulated")._replace(sequence=self._sequence)
        self.ledger.append(VendorTrade(now, OWN_SYMBOL, now, trade.price, trade.volume))
        self._send(RAW[0], OWN_SYMBOL, self._newer(*trade, "drilled"))

    def _partition(self, symbol: str) -> int:
        return partition_of(symbol.encode(), self._partitions)

    def _control(
        self,
        kind: Kind,
        symbol: str | None,
        ts: int,
        ts_from: int | None = None,
        kline: str | None = None,
        partition: int = -1,
    ) -> None:
        source = "rest" if kind == "heal" else "simulated"
        names = "drill-1", "crypto", "drill-1-1", source
        reason = "put there by the drill" if kind == "gap" else ""
        control = Control(kind, *names, ts, time.time_ns() // 1000, ts_from, reason, kline)
        self._send(RAW[0], symbol, None, control.headers(), partition)

    def _send(
        self,
        topic: str,
        symbol: str | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int = -1,
    ) -> None:
        key = None if symbol is None else symbol.encode()
        self._producer.produce(
            self._names.name(topic), value, key, partition, headers=headers or []
        )


def _a_trade(symbol: str, now: int, source: str) -> RawTradeRecord:
    envelope = "crypto", "drill-1", "drill-1-1", 1, now * 1000, source, None
    return RawTradeRecord(symbol, now, "100", "1", None, 0, None, False, *envelope)
