"""Records of the derived topics as the processors write them, for tests of the live page."""

from dataclasses import replace

import confluent_kafka as ck

from infra import topology
from schemas.clients.registry import Registry
from schemas.decimals import to_units
from schemas.partition import partition_of
from schemas.topics import Topology, load_schema
from schemas.wire import compile_encoder

MINUTE = 60_000
FEED = "crypto-1"


def bar(symbol="BTCUSDT", interval="1m", start=0, length=MINUTE, offset=1, **changed):
    """Fields of a bar; decimals may be text."""
    fields = {
        "symbol": symbol,
        "interval": interval,
        "ts_start": start,
        "ts_end": start + length,
        "trade_date": None,
        "open": "100",
        "high": "101.5",
        "low": "99.25",
        "close": "100.5",
        "volume": "12.5",
        "turnover": "1256.25",
        "vwap": "100.500000000000000001",
        "buy_volume": "7.5",
        "sell_volume": "4",
        "trade_count": 42,
        "ts_first": start + 1,
        "ts_last": start + length - 1,
        "revision": 1,
        "is_closed": True,
        "cause": "close",
        "completeness": "complete",
        "provenance": "trades",
        "source": "simulated",
        "ts_recv": (start + length) * 1000,
        "source_partition": 0,
        "source_offset": offset,
    }
    return _units(fields | changed, "bar")


def vwap(symbol="BTCUSDT", window="1m", ts=0, value="100.25", **changed):
    """Fields of a VWAP."""
    fields = {
        "symbol": symbol,
        "window": window,
        "ts_event": ts,
        "ts_start": ts - MINUTE,
        "trade_date": None,
        "vwap": value,
        "volume": "10",
        "turnover": "1002.5",
        "trade_count": 7,
        "stdev": "0.25",
        "completeness": "complete",
        "source": "simulated",
        "ts_recv": ts * 1000,
        "source_partition": 0,
        "source_offset": 1,
    }
    return _units(fields | changed, "vwap")


def imbalance(symbol="BTCUSDT", ts=0, value=0.25, **changed):
    """Fields of a book's figures."""
    fields = {
        "symbol": symbol,
        "ts_event": ts,
        "best_bid": "100.1",
        "best_bid_size": "3",
        "best_ask": "100.2",
        "best_ask_size": "2",
        "spread": "0.1",
        "mid": "100.15",
        "weighted_mid": "100.16",
        "imbalance_1": 0.2,
        "imbalance_5": value,
        "imbalance_10": 0.1,
        "imbalance_weighted": 0.15,
        "bid_volume_5": "15",
        "ask_volume_5": "9",
        "bid_volume_10": "30",
        "ask_volume_10": "20",
        "ofi": "1",
        "bid_levels": 10,
        "ask_levels": 10,
        "book_state": "normal",
        "source": "simulated",
        "ts_recv": ts * 1000,
        "source_partition": 0,
        "source_offset": 1,
    }
    return _units(fields | changed, "depth_imbalance")


def status(state="healthy", symbols=("BTCUSDT",), feed=FEED, ts=0, **changed):
    """Fields of a feed's status."""
    return {
        "feed": feed,
        "connection": f"{feed}-1",
        "business": "crypto",
        "state": state,
        "reason": "subscribed",
        "ts_from": ts,
        "ts_to": None,
        "symbols": list(symbols),
        "last_sequence": 0,
    } | changed


def _units(fields, schema):
    decimals = {
        each["name"] for each in load_schema(schema)["fields"] if "decimal" in str(each["type"])
    }
    return {
        name: to_units(value) if name in decimals and isinstance(value, str) else value
        for name, value in fields.items()
    }


class Writer:
    """Writes records to the topics of a namespace, each to its key's partition."""

    def __init__(self, stack, prefix, intervals=("1m", "5m"), windows=("1m", "session")):
        self.names = Topology(prefix, intervals, windows, 2)
        ids = topology.apply(stack.bootstrap, Registry(stack.registry_url), self.names)
        self._topics = {topic.name: topic for topic in self.names.topics()}
        self._encoders = {
            name: compile_encoder(load_schema(topic.schema), ids[name])
            for name, topic in self._topics.items()
            if topic.schema is not None
        }
        self._bootstrap = stack.bootstrap
        self.producer = self._client()

    def _client(self):
        return ck.Producer({"bootstrap.servers": self._bootstrap, "linger.ms": 1})

    def write(self, name, fields, key=None):
        """Give a record to the client; flush() sends it."""
        topic = self.names.name(name)
        key = (key or fields.get("symbol") or fields["feed"]).encode()
        value = self._encoders[topic](*fields.values())
        partition = partition_of(key, self._topics[topic].partitions)
        self.producer.produce(topic, value, key, partition)
        self.producer.poll(0)

    def partitions(self, number):
        """From now on every topic that is written to has so many."""
        # a client that knows a topic does not look again at once
        self.producer = self._client()
        self._topics = {
            name: replace(topic, partitions=number) for name, topic in self._topics.items()
        }

    def bar(self, **fields):
        """Write a bar to its interval's topic."""
        made = bar(**fields)
        self.write(f"infoway.bars.{made['interval']}", made)

    def flush(self):
        """Return once everything is in the topics."""
        assert self.producer.flush(30) == 0
