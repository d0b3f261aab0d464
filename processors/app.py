"""The Faust app of the processors, for `faust -A processors.app worker`: settings from the environment, three agents on the engine."""

import os
import sys
from functools import partial
from typing import Any

from processors.bars import Bars
from processors.decode import book_of, trade_of
from processors.depth import Imbalance
from processors.engine.app import create_app
from processors.engine.engine import Agent, Engine
from processors.engine.group import Member, check_metadata_format
from processors.engine.outputs import Outputs
from processors.engine.overrides import EngineApp
from processors.feeds import EventTime
from processors.raw import RawReader, RecordOf
from processors.records import Computation, Trade
from processors.sessions import Calendars
from processors.settings import Settings, SettingsError
from processors.vwap import Vwap
from schemas.registry import Registry, RegistryError
from schemas.topics import load_schema

RAW_TRADE = "infoway.raw.trade"
RAW_DEPTH = "infoway.raw.depth"


def build(settings: Settings) -> EngineApp:
    """Return the app: connects to the registry for the schema ids, to the broker only once it runs."""
    check_metadata_format()
    topology, registry = settings.topology, Registry(settings.registry)
    calendars, event_time = Calendars(), EventTime()
    computations: dict[str, tuple[Computation[Any], str]] = {
        "vwap": (Vwap(topology.windows, calendars, event_time), RAW_TRADE),
        "bars": (Bars(topology.intervals, calendars, event_time), RAW_TRADE),
        "imbalance": (Imbalance(event_time), RAW_DEPTH),
    }
    agents: list[Agent] = []
    for name, (computation, source) in computations.items():
        first = all(agent.source != topology.name(source) for agent in agents)
        agents.append(Agent(computation, topology.name(source), topology.name(f"infoway.state.{name}"), dead_letters=first))
    ids = {topic.name: registry.id_of(topic.subject, load_schema(topic.schema)) for topic in topology.derived() if topic.schema is not None}
    engine = Engine(
        settings.bootstrap,
        settings.transactional_id,
        tuple(agents),
        Outputs.of(topology, ids),
        membership=partial(Member, settings.group, -1, ""),
    )
    readers = {
        topology.name(RAW_TRADE): RawReader(registry, _trades_within(calendars)),
        topology.name(RAW_DEPTH): RawReader(registry, book_of),
    }
    sources = {agent.source for agent in agents}
    return create_app(
        settings.group, engine, {topic: reader for topic, reader in readers.items() if topic in sources}, datadir=str(settings.work_dir)
    )


def _trades_within(calendars: Calendars) -> RecordOf:
    def trade_within(offset: int, raw: dict[str, Any]) -> Trade:
        trade = trade_of(offset, raw)
        # raises BeyondCalendar: a dead letter here, since an agent could only end the worker over it, again and again
        calendars.session_of(trade.business, trade.symbol, trade.ts_event)
        return trade

    return trade_within


try:
    app = build(Settings.from_environment(os.environ))
except (SettingsError, RegistryError) as error:
    sys.exit(f"processors: {error}")
