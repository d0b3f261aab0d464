"""A Faust app for a set of computations: one agent each, on the engine; what they compute is not
known here."""

import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from faust.auth import Credentials, SASLCredentials, SSLCredentials

from processors.engine.batch import Batch
from processors.engine.engine import Agent, Engine
from processors.engine.plane.overrides import BatchTopic, Decode, EngineApp
from processors.engine.plane.reading import Columns, Lookup
from processors.engine.transactions.exits import Exit, leave
from processors.engine.transactions.takeover import client_id
from schemas.clients.kafka import Security, security_of

log = logging.getLogger(__name__)

NO_COLUMNS: Mapping[str, Callable[[], Columns]] = MappingProxyType({})
SESSION_TIMEOUT = 6.0
REQUEST_TIMEOUT = 10.0
MAX_POLL_INTERVAL = 60.0
REBALANCE_TIMEOUT = 20.0
"""Seconds that a rebalance waits for a member that does not come: less than it takes for a worker
to count as stuck."""


def create_app(
    group: str,
    engine: Engine,
    decoders: Mapping[str, Decode],
    batch_records: int,
    datadir: str,
    lookup: Lookup | None = None,
    columns: Mapping[str, Callable[[], Columns]] = NO_COLUMNS,
    **conf: Any,
) -> EngineApp:
    """Return the Faust app of the engine's agents; `decoders` has one entry per source topic, a
    batch at most `batch_records`.

    `lookup` is asked for what the decoders need before they are called. `columns` has by source
    topic what reads a partition of it into columns, if any agent takes them.

    `conf` goes to Faust: the tests shorten `broker_max_poll_interval` with it.
    """
    settings: dict[str, Any] = {
        "broker": f"kafka://{engine.bootstrap}",
        "broker_client_id": client_id(engine.transactional_id),
        "broker_credentials": _credentials(security_of(engine.bootstrap)),
        "datadir": datadir,
        "store": "memory://",
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "web_enabled": False,
        "broker_session_timeout": SESSION_TIMEOUT,
        "broker_heartbeat_interval": 1.0,
        # Faust's 90 s held up a SIGTERM while the broker did not answer, longer than any pod has to
        # end
        "broker_request_timeout": REQUEST_TIMEOUT,
        "broker_max_poll_interval": MAX_POLL_INTERVAL,
        "broker_rebalance_timeout": REBALANCE_TIMEOUT,
        # counts events, and an event is a whole batch: at the default of 4096 a backlog took 1.3 GB
        "stream_buffer_maxsize": 2,
        # with two agents on a topic a revocation would wait for batches that one of them never gets
        "stream_wait_empty": False,
    }
    app = EngineApp(group, **{**settings, **conf})
    app.engine = engine
    app.decoders = dict(decoders)
    app.batch_records = batch_records
    app.lookup = lookup
    taken = {name for agent in engine.agents if agent.takes_runs for name in agent.sources}
    app.columns = {topic: made for topic, made in columns.items() if topic in taken}
    for agent in engine.agents:
        topic = BatchTopic(
            app, topics=list(agent.sources), key_serializer="raw", value_serializer="raw"
        )
        app.agent(topic, name=agent.name)(_agent_function(engine, agent))
    return app


def _credentials(security: Security) -> Credentials | None:
    tls = security.tls() if security.protocol.endswith("SSL") else None
    if security.protocol.startswith("SASL_"):
        return SASLCredentials(
            username=security.username,
            password=security.password,
            mechanism=security.mechanism,
            ssl_context=tls,
        )
    return SSLCredentials(tls) if tls else None


def _agent_function(engine: Engine, agent: Agent) -> Callable[[Any], Any]:
    async def run(stream: Any) -> None:
        async for batch in stream:
            await _handle(engine, agent, batch)

    run.__name__ = agent.name
    return run


async def _handle(engine: Engine, agent: Agent, batch: Batch) -> None:
    engine.busy_since[agent.name] = time.monotonic()
    try:
        await engine.handle(agent, batch)
    except Exception:
        # stock Faust logs, stays alive and does nothing more
        log.exception("agent %s", agent.name)
        topic, partition = batch.source_partition
        leave(
            Exit.AGENT_FAILED,
            f"{agent.name} failed on {topic}[{partition}] before offset {batch.next_offset}",
        )
    finally:
        del engine.busy_since[agent.name]
