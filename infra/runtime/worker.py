"""One processors' worker: `faust -A processors.app worker`, with its health over HTTP; where supervised it ends with its supervisor."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module

from faust.cli.faust import cli

from infra.health import Sample, serving
from processors.engine.app import SESSION_TIMEOUT
from processors.engine.engine import Engine
from processors.trades import TradeReader

STUCK = 30.0
"""Seconds without a turn of the event loop: an agent does not come back from a batch, which take milliseconds to a second."""
OUTSIDE = 300.0
"""Seconds outside of the group, in which a worker does nothing: a rebalance takes at most broker_max_poll_interval."""
IDLE = 60.0
"""Seconds without a batch done while some wait: what the group, too, takes for dead (broker_max_poll_interval)."""


class WorkerHealth:
    """Of the worker's engine; None until broker and registry have answered."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.trades: TradeReader | None = None
        self._began = time.monotonic()

    def stuck(self) -> str | None:
        """Say whether the event loop or the agents have stopped turning."""
        engine, now = self.engine, time.monotonic()
        if engine is None or not engine.turned_at:
            return None
        if now - engine.turned_at > STUCK:
            return f"the event loop has not turned for {now - engine.turned_at:.0f} s"
        if now - max(engine.member_at, self._began) > OUTSIDE:
            return f"not in the group for {now - max(engine.member_at, self._began):.0f} s"
        # while states are loaded, and in a rebalance, nothing is fetched
        if engine.ready is not None and now - max(engine.life_at, engine.progress_at) > IDLE:
            return f"batches wait and none was done for {now - engine.life_at:.0f} s"
        return None

    def unready(self) -> str | None:
        """Say whether this worker has yet to join the group or to load its states."""
        if why := self.stuck():
            return why
        engine = self.engine
        if engine is None or not engine.turned_at:
            return "starting: broker and registry are asked"
        member = engine.membership()
        if not member.valid:
            return "not in the group"
        if (
            engine.answered_at
            and (silent := time.monotonic() - engine.answered_at) > SESSION_TIMEOUT
        ):
            return f"the broker has not answered for {silent:.0f} s"
        return (
            None
            if engine.ready == member
            else "recovering: the states of the partitions are loaded"
        )

    def samples(self) -> Iterator[Sample]:
        """Yield what the engine has counted since the start."""
        engine = self.engine
        yield Sample(
            "infoway_worker_ready",
            "gauge",
            "1 while the worker has its states and reads",
            float(self.unready() is None),
        )
        if engine is not None:
            yield Sample(
                "infoway_records_applied",
                "counter",
                "records that agents have applied",
                engine.records_applied,
            )
            yield Sample(
                "infoway_rows_published",
                "counter",
                "records published to derived topics",
                engine.rows_published,
            )
            yield Sample(
                "infoway_dead_lettered",
                "counter",
                "raw records that could not be read",
                engine.dead_lettered,
            )
            yield Sample(
                "infoway_partitions_held",
                "gauge",
                "partitions whose state is held, over all agents",
                len(engine.held),
            )
        if (trades := self.trades) is not None:
            outside, mismatch = (
                "trades read outside of their market's sessions",
                "trades read whose turnover is not price x volume",
            )
            yield Sample(
                "infoway_trades_outside_sessions", "counter", outside, trades.outside_sessions
            )
            yield Sample(
                "infoway_turnover_mismatches", "counter", mismatch, trades.turnover_mismatches
            )


def work() -> None:
    """Run the worker of the slot that INFOWAY_SLOT names, until SIGTERM or Ctrl-C."""
    health = WorkerHealth()
    with serving(os.environ, health):
        processors = import_module("processors.app")
        health.engine, health.trades = processors.app.engine, processors.trade_reader
        sys.argv = ["faust", "-A", "processors.app", "worker", "-l", "info", "--without-web"]
        cli()


def _end_with_supervisor() -> None:
    # stdin is the supervisor's pipe: it ends with the supervisor, SIGKILL included
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_supervisor, name="supervisor-pipe", daemon=True).start()
    work()
