"""A worker of the drill: the engine with two agents on one topic, killed or stopped at the steps of
a commit.

BREAK takes one rule of the engine out, so that the drill can be seen to fail without it.
"""

import asyncio
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import aiokafka
import confluent_kafka as ck
import faust
import pipelines
from faust.transport.drivers import aiokafka as driver

from processors.engine import assigned, state
from processors.engine.batch import Batch
from processors.engine.engine import Agent, Engine
from processors.engine.plane import binding, native, overrides
from processors.engine.plane.app import REQUEST_TIMEOUT, create_app
from processors.engine.plane.watch import Watch
from processors.engine.transactions import transactions
from processors.engine.transactions.group import Member
from processors.kernels.build import make_ready


def main() -> None:
    bootstrap, group, slot = (
        os.environ[name] for name in ("DRILL_BOOTSTRAP", "DRILL_GROUP", "DRILL_SLOT")
    )
    broken = os.environ.get("DRILL_BREAK", "")
    conf = transactions.transactional_conf
    # records that wait in the producer's queue show what an order of commit is worth
    transactions.transactional_conf = lambda *names: {
        **conf(*names),
        "linger.ms": int(os.environ.get("DRILL_LINGER", "2")),
    }
    overrides.SKIPS_EVERY_S = 1
    overrides.PATIENCE_S = float(os.environ.get("DRILL_PATIENCE", overrides.PATIENCE_S))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if os.environ.get("DRILL_OFFSETS_UNANSWERED"):
        aiokafka.AIOKafkaConsumer.committed = _never
    session = float(os.environ.get("DRILL_SESSION", "6"))
    pipeline = getattr(pipelines, os.environ["DRILL_PIPELINE"])(group)
    engine = DrilledEngine(
        bootstrap,
        f"{group}-{slot}",
        pipeline.agents,
        pipeline.outputs,
        membership=lambda: Member(group, -1, ""),
    )
    _take_out(broken, engine)
    if pipeline.columns is not None:
        make_ready()

    app = create_app(
        group,
        engine,
        {pipeline.source: pipeline.decode},
        int(os.environ.get("DRILL_BATCH", "200")),
        columns={} if pipeline.columns is None else {pipeline.source: pipeline.columns},
        datadir=str(Path(os.environ["DRILL_DIR"]) / slot),
        broker_max_poll_interval=float(os.environ.get("DRILL_MAX_POLL", "20")),
        broker_session_timeout=session,
        # Faust takes no session that is longer than this
        broker_request_timeout=max(REQUEST_TIMEOUT, session),
        broker_heartbeat_interval=0.5,
    )
    sys.argv = ["worker", "worker", "-l", "info", "--without-web"]
    faust.Worker(app, loglevel="INFO").execute_from_commandline()


class DrilledEngine(Engine):
    """The engine with a slow agent, a fault at every step of a commit, and a batch that gets lost
    or stuck where asked for."""

    handled = 0

    async def handle(self, agent: Agent, batch: Batch) -> None:
        if agent is self.agents[1]:
            self.handled += 1
            if self.handled == int(os.environ.get("DRILL_LOSE", "0")):
                print("LOST a batch", flush=True)
                return
            if self.handled == int(os.environ.get("DRILL_STICK", "0")):
                print("STUCK in a batch", flush=True)
                await asyncio.sleep(float(os.environ.get("DRILL_STUCK_S", "inf")))
            await asyncio.sleep(float(os.environ.get("DRILL_SLOW", "0.03")))
        await super().handle(agent, batch)

    def load(
        self, partitions: Sequence[tuple[str, int]], still: Callable[[], bool]
    ) -> dict[tuple[str, int], dict[bytes, bytes]]:
        until = time.monotonic() + float(os.environ.get("DRILL_LOAD_S", "0"))
        while time.monotonic() < until and (still() or os.environ.get("DRILL_DEAF")):
            time.sleep(0.1)
        return super().load(partitions, still)

    def connect(self) -> transactions.Transactions:
        connected = super().connect()
        connected.at_step = Faults()
        begin = connected.begin

        def begin_late(member: Member) -> None:
            connected.at_step("begin")
            begin(member)

        connected.begin = begin_late
        return connected


class Faults:
    """Kills or stops this process at the steps of a commit, at seeded moments or at the one that a
    file names."""

    def __init__(self) -> None:
        self.random = random.Random(int(os.environ.get("DRILL_SEED", "0")))
        self.kill = float(os.environ.get("DRILL_KILL", "0"))
        self.stop = float(os.environ.get("DRILL_STOP", "0"))

    def __call__(self, step: str) -> None:
        drawn = self.random.random()
        if drawn < self.kill:
            print(f"KILLED at {step}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        elif drawn < self.kill + self.stop:
            stop_at(step)
        placed = Path(os.environ["DRILL_DIR"]) / f"stop-{os.environ['DRILL_SLOT']}"
        if placed.exists() and placed.read_text() == step:
            placed.unlink()
            stop_at(step)


def stop_at(step: str) -> None:
    """Stop this process here. A signal to the process would be its main thread's to take: on a
    busy machine this thread would have committed by then."""
    print(f"STOPPED at {step}", flush=True)
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


async def _never(*_: object) -> None:
    print("ASKED for committed offsets", flush=True)
    await asyncio.Event().wait()


def _take_out(rule: str, engine: Engine) -> None:
    if rule == "applied":
        engine.cut = lambda batch, applied: batch.pieces
        engine.check_no_gap = lambda agent, batch, applied: None
    elif rule == "stable":
        state.high_watermarks = lambda bootstrap, partitions: dict.fromkeys(partitions, 0)
    elif rule == "generation":
        # the broker accepts a commit that names no generation and no member, and fences nothing
        transactions.Transactions._owner = lambda self: Member(self.member.group, -1, "")
    elif rule == "order":
        transactions.Transactions.commit = _commit_with_offsets_first
    elif rule == "slot":
        transactions.other_holder = lambda *names: "whoever"
    elif rule == "life":
        # aiokafka's own fetches are all that counts as life: there are none
        overrides.Consumer._turned = lambda self: setattr(
            self.engine, "turned_at", time.monotonic()
        )
    elif rule == "marker":
        eof = ck.KafkaError._PARTITION_EOF
        for module in binding, native:
            module.end_of = lambda message, end_of=module.end_of: (
                None if message.error().code() == eof else end_of(message)
            )
    elif rule == "log":
        assigned._check_same_log = lambda *facts: None
    elif rule == "loader":
        engine._loader = engine.commits.thread
    elif rule == "watch":
        Watch.turn = lambda self, elapsed_s: None
    elif rule == "offsets":
        overrides.Consumer.perform_seek = driver.Consumer.perform_seek
    elif rule == "gap":
        engine.check_no_gap = lambda agent, batch, applied: None
    elif rule:
        raise SystemExit(f"no such rule: {rule}")


def _commit_with_offsets_first(self: transactions.Transactions) -> None:
    if self.member is None:
        return
    self._send_offsets()
    self.at_step("after send offsets")
    self._flush()
    self._call("commit", lambda: self.producer.client.commit_transaction(transactions.CALL_TIMEOUT))
    self.at_step("after commit")
    self.state, self.member = transactions.TransactionState.NONE, None


def _die_with_parent() -> None:
    # stdin is the drill's pipe: it ends with the drill, however that ends
    while os.read(0, 1):
        pass
    os._exit(99)


if __name__ == "__main__":
    main()
