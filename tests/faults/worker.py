"""A worker of the drill: the engine with two tally agents on one topic, killed or stopped at the steps of a commit.

BREAK takes one rule of the engine out, so that the drill can be seen to fail without it.
"""

import asyncio
import os
import random
import signal
import sys
import threading
from pathlib import Path

import confluent_kafka as ck
import faust
from tally import Tally, decode_tally, encode_tally

from processors.engine import overrides, state, transactions
from processors.engine.app import create_app
from processors.engine.engine import Agent, Batch, Engine
from processors.engine.group import Member
from processors.engine.outputs import DEAD_LETTER, Outputs

NAMES = ("fast", "fast-late", "slow", "slow-late", DEAD_LETTER)


def main() -> None:
    bootstrap, group, slot = (os.environ[name] for name in ("DRILL_BOOTSTRAP", "DRILL_GROUP", "DRILL_SLOT"))
    broken = os.environ.get("DRILL_BREAK", "")
    overrides.BATCH_RECORDS = int(os.environ.get("DRILL_BATCH", "200"))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    agents = tuple(
        Agent(Tally(name), f"{group}-in", f"{group}-state-{name}", dead_letters=name == "fast") for name in ("fast", "slow")
    )
    outputs = Outputs({name: (f"{group}-{name}", encode_tally) for name in NAMES})
    engine = DrilledEngine(bootstrap, f"{group}-{slot}", agents, outputs, membership=lambda: Member(group, -1, ""))
    _take_out(broken, engine)

    def decode(message: ck.Message):
        return decode_tally(message.key(), message.value(), message.offset())

    app = create_app(
        group,
        engine,
        {f"{group}-in": decode},
        datadir=str(Path(os.environ["DRILL_DIR"]) / slot),
        broker_max_poll_interval=float(os.environ.get("DRILL_MAX_POLL", "20")),
    )
    sys.argv = ["worker", "worker", "-l", "info", "--without-web"]
    faust.Worker(app, loglevel="INFO").execute_from_commandline()


class DrilledEngine(Engine):
    """The engine with a slow agent and a fault at every step of a commit."""

    async def handle(self, agent: Agent, batch: Batch) -> None:
        if agent.name == "slow":
            await asyncio.sleep(float(os.environ.get("DRILL_SLOW", "0.03")))
        await super().handle(agent, batch)

    def connect(self) -> transactions.Transactions:
        connected = super().connect()
        connected.at_step = Faults()
        return connected


class Faults:
    """Kills or stops this process at the steps of a commit, at seeded moments or at the one that a file names."""

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
            print(f"STOPPED at {step}", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        placed = Path(os.environ["DRILL_DIR"]) / f"stop-{os.environ['DRILL_SLOT']}"
        if placed.exists() and placed.read_text() == step:
            placed.unlink()
            print(f"STOPPED at {step}", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)


def _take_out(rule: str, engine: Engine) -> None:
    if rule == "applied":
        engine.cut = lambda batch, applied: batch.records
        engine.check_no_gap = lambda agent, batch, applied: None
    elif rule == "stable":
        state.high_watermarks = lambda bootstrap, partitions: dict.fromkeys(partitions, 0)
    elif rule == "generation":
        transactions.Transactions._owner = lambda self: engine.membership()
    elif rule == "order":
        transactions.Transactions._flush = lambda self: None
    elif rule == "gap":
        engine.check_no_gap = lambda agent, batch, applied: None
        # the plane as it was before the check found its two holes
        overrides.Consumer._still = lambda self, member: bool(self.flow_active)
    elif rule:
        raise SystemExit(f"no such rule: {rule}")


def _die_with_parent() -> None:
    # stdin is the drill's pipe: it ends with the drill, however that ends
    while os.read(0, 1):
        pass
    os._exit(99)


if __name__ == "__main__":
    main()
