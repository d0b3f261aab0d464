"""The Faust app of the processors, for `faust -A processors.app worker`: settings from the environment, its agents on the engine."""

import os
import sys
from functools import partial
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from processors.activity import ActivityBars
from processors.bars import Bars
from processors.decode import bar_revision_of, book_of, heal_of, kline_of
from processors.depth import Imbalance
from processors.engine.app import create_app
from processors.engine.engine import Agent, Engine
from processors.engine.exits import Exit
from processors.engine.group import Member, check_metadata_format
from processors.engine.outputs import Outputs
from processors.engine.overrides import EngineApp
from processors.raw import HealOf, RawReader, RecordOf
from processors.reconciliation import Reconciliation
from processors.records import Computation, Heal
from processors.sessions import Calendars
from processors.settings import Settings, SettingsError
from processors.trades import TradeReader
from processors.vwap import Vwap
from schemas.cluster import NotApplied, TopicHidden, require
from schemas.control import Control
from schemas.registry import Registry, RegistryError
from schemas.security import SecurityError, client
from schemas.topics import load_schema

RAW_TRADE = "infoway.raw.trade"
RAW_DEPTH = "infoway.raw.depth"
RAW_KLINE = "infoway.raw.kline"


def build(settings: Settings, trades: TradeReader) -> EngineApp:
    """Return the app, its trades read by `trades`: asks broker and registry for the topics and schemas that it needs, and makes none.

    Raises NotApplied, TopicHidden, RegistryError, and KafkaException where no broker answers.
    """
    check_metadata_format()
    topology, registry = settings.topology, Registry(settings.registry)
    bar_topics = [f"infoway.bars.{interval}" for interval in topology.intervals]
    calendars, event_time = trades.calendars, settings.event_time
    computations: list[tuple[Computation[Any], tuple[str, ...]]] = [
        (Vwap(topology.windows, calendars, event_time, settings.emit_ms), (RAW_TRADE,)),
        (Bars(topology.intervals, calendars, event_time, settings.update_ms), (RAW_TRADE,)),
        (Imbalance(event_time), (RAW_DEPTH,)),
        (Reconciliation(topology.intervals, calendars, event_time), (RAW_KLINE, *bar_topics)),
    ]
    if topology.activity:
        computations.append(
            (
                ActivityBars(topology.activity, calendars, event_time, settings.update_ms),
                (RAW_TRADE,),
            )
        )
    agents: list[Agent] = []
    for computation, sources in computations:
        names = tuple(map(topology.name, sources))
        first = not any(set(names) & set(agent.sources) for agent in agents)
        agents.append(
            Agent(
                computation,
                names,
                topology.name(f"infoway.state.{computation.name}"),
                dead_letters=first,
            )
        )
    read = {name for agent in agents for name in agent.sources}
    admin = AdminClient({**client(settings.bootstrap), "log_level": 0})
    written = [topic for topic in topology.topics() if "processors" in topic.owner]
    try:
        ids = require(
            admin,
            registry,
            writes=written,
            reads=[topic for topic in topology.topics() if topic.name in read],
        )
    finally:
        admin.poll(0)  # logs why the broker lets nobody in
    engine = Engine(
        settings.bootstrap,
        settings.transactional_id,
        tuple(agents),
        Outputs.of(topology, ids),
        membership=partial(Member, settings.group, -1, ""),
    )
    reads: dict[str, RecordOf] = {
        RAW_TRADE: trades,
        RAW_DEPTH: book_of,
        RAW_KLINE: kline_of,
        **dict.fromkeys(bar_topics, bar_revision_of),
    }
    heals = _heals_within(calendars)
    schemas = {
        topic.name: load_schema(topic.schema)
        for topic in topology.topics()
        if topic.schema is not None
    }
    decoders = {
        topology.name(name): RawReader(registry, schemas[topology.name(name)], record_of, heals)
        for name, record_of in reads.items()
    }
    return create_app(
        settings.group, engine, decoders, settings.batch_records, datadir=str(settings.work_dir)
    )


def _heals_within(calendars: Calendars) -> HealOf:
    def heal_within(offset: int, symbol: str | None, control: Control) -> Heal:
        heal = heal_of(offset, symbol, control)
        calendars.session_of(heal.business, heal.symbol, heal.ts_start)
        return heal

    return heal_within


try:
    trade_reader = TradeReader(Calendars())
    app = build(Settings.from_environment(os.environ), trade_reader)
except (NotApplied, RegistryError, SecurityError, SettingsError, TopicHidden) as error:
    sys.exit(f"processors: {error}")
except KafkaException as error:
    print(f"processors: no answer from the broker ({error.args[0].str()})", file=sys.stderr)
    sys.exit(Exit.READING_FAILED)
