"""The Faust app of the processors, for `faust -A processors.app worker`: settings from the
environment, its agents on the engine."""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from processors import starting
from processors.agents.activity.agent import ActivityBars
from processors.agents.bars.agent import Bars
from processors.agents.depth.agent import Imbalance
from processors.agents.reconciliation.agent import Reconciliation
from processors.agents.vwap.agent import Vwap
from processors.decode.bar_columns import BarColumns
from processors.decode.book_columns import BookColumns
from processors.decode.lookup import SchemaLookup
from processors.decode.raw_records import bar_revision_of, book_of, kline_of
from processors.decode.reader import RawReader, RecordOf
from processors.decode.trade_columns import TradeColumns
from processors.decode.trades import TradeReader
from processors.engine.engine import Agent, Engine
from processors.engine.outputs import Outputs
from processors.engine.plane.app import create_app
from processors.engine.plane.overrides import EngineApp
from processors.engine.plane.reading import Columns
from processors.engine.transactions.exits import Exit
from processors.engine.transactions.group import (
    Member,
    MetadataFormatChanged,
    check_metadata_format,
)
from processors.kernels.build import make_ready
from processors.kernels.compiled import AVAILABLE
from processors.memory import bound_heaps
from processors.model.records import Computation
from processors.model.session_rules import BadSessions
from processors.model.sessions import Calendars
from processors.settings import Settings, SettingsError
from schemas.clients.cluster import NotApplied, TopicHidden, require
from schemas.clients.kafka import SecurityError, client
from schemas.clients.kafka_logs import spare
from schemas.clients.registry import Registry
from schemas.printable import guard_logs
from schemas.topics import RAW_DEPTH, RAW_KLINE, RAW_TRADE, load_schema

KAFKA_LOGGERS = (
    # those of the engine's librdkafka clients, and Faust's client
    "processors.engine.transactions.producer",
    "processors.engine.plane.fetch",
    "aiokafka",
    "aiokafka.conn",
    "aiokafka.cluster",
    "aiokafka.consumer.consumer",
    "aiokafka.consumer.group_coordinator",
)
"""Loggers that a broker's absence fills."""


def build(settings: Settings, trades: TradeReader) -> EngineApp:
    """Return the app, its trades read by `trades`: asks broker and registry for the topics and
    schemas that it needs, and makes none.

    Raises NotApplied, TopicHidden, RegistryError, and KafkaException where no broker answers.
    """
    check_metadata_format()
    topology, registry = settings.topology, Registry(settings.registry)
    bar_topics = [f"infoway.bars.{interval}" for interval in topology.intervals]
    calendars, event_time = trades.calendars, settings.event_time
    computations: list[tuple[Computation[Any], tuple[str, ...]]] = [
        (Vwap(topology.windows, calendars, event_time, settings.emit_ms), (RAW_TRADE,)),
        (
            Bars(topology.intervals, calendars, event_time, settings.update_ms, native=AVAILABLE),
            (RAW_TRADE,),
        ),
        (Imbalance(event_time, settings.swapped_sides), (RAW_DEPTH,)),
        (Reconciliation(topology.intervals, calendars, event_time), (RAW_KLINE, *bar_topics)),
    ]
    if topology.activity:
        computations.append(
            (
                ActivityBars(
                    topology.activity, calendars, event_time, settings.update_ms, native=AVAILABLE
                ),
                (RAW_TRADE,),
            )
        )
    agents: list[Agent] = []
    for computation, sources in computations:
        names = tuple(map(topology.name, sources))
        first = not any(set(names) & set(agent.sources) for agent in agents)
        state_topic = topology.name(f"infoway.state.{computation.name}")
        agents.append(
            Agent(
                computation, names, state_topic, first, source_of=lambda state: state.feeds.source
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
        source=settings.source,
    )
    reads: dict[str, RecordOf] = {
        RAW_TRADE: trades,
        RAW_DEPTH: book_of,
        RAW_KLINE: kline_of,
        **{
            topic: partial(bar_revision_of, interval=interval)
            for topic, interval in zip(bar_topics, topology.intervals, strict=True)
        },
    }
    schemas = {
        topic.name: load_schema(topic.schema)
        for topic in topology.topics()
        if topic.schema is not None
    }
    lookup = SchemaLookup(registry)
    decoders = {
        topology.name(name): RawReader(lookup, schemas[topology.name(name)], record_of)
        for name, record_of in reads.items()
    }
    raw_trade, raw_depth = topology.name(RAW_TRADE), topology.name(RAW_DEPTH)
    columns: dict[str, Callable[[], Columns]] = {}
    if AVAILABLE:
        columns = {
            raw_trade: partial(TradeColumns, decoders[raw_trade], trades),
            raw_depth: partial(BookColumns, decoders[raw_depth]),
            **{
                topology.name(topic): partial(BarColumns, decoders[topology.name(topic)], interval)
                for topic, interval in zip(bar_topics, topology.intervals, strict=True)
            },
        }
    return create_app(
        settings.group,
        engine,
        decoders,
        settings.batch_records,
        str(settings.work_dir),
        lookup,
        columns,
    )


bound_heaps(os.environ)
guard_logs()
spare(KAFKA_LOGGERS)
try:
    settings = Settings.from_environment(os.environ)
    starting.waiting_for = "its kernels: those of a new version are compiled once"
    make_ready()
    trade_reader = TradeReader(Calendars.from_environment(os.environ), settings.uses_sessions)
    app = starting.once_answered(lambda: build(settings, trade_reader))
except (NotApplied, TopicHidden) as error:
    # `topology apply`, or a grant, may follow: another start helps then
    sys.exit(f"processors: {error}")
except (BadSessions, MetadataFormatChanged, SecurityError, SettingsError) as error:
    print(f"processors: {error}", file=sys.stderr)
    sys.exit(Exit.SETUP_WRONG)
except KafkaException as error:
    print(f"processors: the broker refuses: {error.args[0].str()}", file=sys.stderr)
    sys.exit(Exit.READING_FAILED)
