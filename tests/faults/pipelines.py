"""What the drill's workers run and what a fault-free run would write: the tally's two agents, or
the project's own on trades."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import confluent_kafka as ck
from as_columns import AsColumns
from tally import Tally, decode_tally, encode_tally

from processors.agents.bars.agent import Bars
from processors.agents.vwap.agent import Vwap
from processors.decode.reader import RawReader
from processors.decode.trade_columns import TradeColumns
from processors.decode.trades import TradeReader
from processors.engine.engine import Agent
from processors.engine.outputs import Outputs
from processors.model.event_time import EventTime
from processors.model.records import SourceRecord, Unreadable
from processors.model.sessions import Calendars
from schemas.topics import DEAD_LETTER, Topology, load_schema
from schemas.wire import compile_encoder

SOURCE = "infoway.raw.trade"
START = 1_722_902_400_000
Expected = dict[str, dict[int, list[tuple[bytes, bytes]]]]


@dataclass(frozen=True)
class Pipeline:
    """Two agents on one source topic, and what may be fed to them."""

    source: str
    agents: tuple[Agent, ...]
    outputs: Outputs
    decode: Callable[[ck.Message], SourceRecord]
    message: Callable[[int, int], tuple[bytes, bytes]]
    """Key and value of the n-th message of a partition."""
    columns: Callable[[], TradeColumns] | None = None
    """Makes what reads a partition into columns."""

    def topics(self) -> dict[str, bool]:
        """Every topic, and whether it is compacted."""
        return {
            self.source: False,
            **{agent.state_topic: True for agent in self.agents},
            **{topic: False for topic, _ in self.outputs.encoders.values()},
        }

    def expected(self, log: dict[int, list[ck.Message]]) -> Expected:
        """Recompute from the source's log what every topic must hold."""
        found: Expected = {
            topic: {partition: [] for partition in log}
            for topic, _ in self.outputs.encoders.values()
        }
        for agent in self.agents:
            for partition, messages in log.items():
                records = [self.decode(message) for message in messages]
                general = getattr(agent.computation, "inner", agent.computation)
                rows = general.apply(general.load(partition, {}), records)
                produced = [
                    self.outputs.encode(name, partition, key, fields, self.source)
                    for name, key, fields in rows
                ]
                if agent.dead_letters:
                    unreadable = (record for record in records if isinstance(record, Unreadable))
                    produced += [
                        self.outputs.dead_letter(self.source, partition, record)
                        for record in unreadable
                    ]
                for topic, _, key, value in produced:
                    found[topic][partition].append((key, value))
        return found


def tally(group: str) -> Pipeline:
    """Agents that number records: every fault of the engine shows at once."""
    names = ("fast", "fast-late", "slow", "slow-late", DEAD_LETTER)
    agents = tuple(
        Agent(Tally(name), (f"{group}-in",), f"{group}-state-{name}", dead_letters=name == "fast")
        for name in ("fast", "slow")
    )
    outputs = Outputs({name: (f"{group}-{name}", encode_tally) for name in names})

    def message(partition: int, number: int) -> tuple[bytes, bytes]:
        return b"k%d-%d" % (partition, number % 5), b"poison" if number % 211 == 3 else b"trade"

    return Pipeline(
        f"{group}-in",
        agents,
        outputs,
        lambda m: decode_tally(m.key(), m.value(), m.offset()),
        message,
    )


def market(group: str) -> Pipeline:
    """The project's own agents, VWAP by runs of columns, bars as the slow one, on trades of which
    some are late, some too late, and some poison."""
    topology, calendars = Topology(f"{group}."), Calendars()
    outputs = Outputs.of(topology, {topic.name: 1 for topic in topology.derived()})
    encoders = {name: encoder for name, (_, encoder) in outputs.encoders.items()}
    trades = TradeReader(calendars)
    reader = RawReader(_OneSchema(), load_schema("raw_trade"), trades)
    agents = (
        Agent(
            AsColumns(Vwap(("1m", "5m", "session"), calendars, EventTime()), encoders),
            (topology.name(SOURCE),),
            topology.name("infoway.state.vwap"),
            True,
        ),
        Agent(
            Bars(("1m", "5m", "1d"), calendars, EventTime()),
            (topology.name(SOURCE),),
            topology.name("infoway.state.bars"),
            False,
        ),
    )
    return Pipeline(
        topology.name(SOURCE),
        agents,
        outputs,
        reader,
        partial(_trade, compile_encoder(load_schema("raw_trade"), 1)),
        partial(TradeColumns, reader, trades),
    )


class _OneSchema:
    """A registry that knows the schema of raw trades."""

    def schema(self, schema_id: int) -> dict:
        return load_schema("raw_trade")


def _trade(encode: Callable[..., bytes], partition: int, number: int) -> tuple[bytes, bytes]:
    drawn = random.Random(f"{partition} {number}")
    symbol = f"C{partition}N{number % 3}USDT"
    if number % 211 == 3:
        return symbol.encode(), drawn.randbytes(20)
    # event time runs a thousand times as fast as the load, so that bars close and trades grow too
    # late while it lasts
    time = START + number * 1000
    if drawn.random() < 0.05:
        time -= drawn.choice((5_000, 90_000, 500_000, 900_000))
    price = f"{100 + drawn.randrange(-50, 50) / 100:.2f}"
    volume = f"{drawn.randrange(1, 5000) / 1000:.3f}"
    envelope = (
        "crypto",
        "crypto-1",
        "crypto-1-1",
        number + 1,
        (START + number * 1000 + 40) * 1000,
        "simulated",
        None,
    )
    return symbol.encode(), encode(
        symbol, time, price, volume, None, number % 3, None, False, *envelope
    )
