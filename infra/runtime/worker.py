"""One processors' worker: `faust -A processors.app worker`, with its health over HTTP; where
supervised it ends with its supervisor."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from importlib import import_module
from typing import NoReturn

from faust.cli.faust import cli

from infra.runtime.health import Sample, serving
from infra.runtime.readiness import report
from processors import starting
from processors.agents.bars.agent import Bars
from processors.decode.trades import TradeReader
from processors.engine.engine import Engine
from processors.engine.transactions.exits import Exit, leave
from processors.model.strays import STRAYS

STUCK_S = 60.0
"""Seconds without a turn of the event loop, in which the worker's own watch, too, had no turn to
end it."""


class WorkerHealth:
    """Of the worker's engine; None until broker and registry have answered."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.trades: TradeReader | None = None

    def stuck(self) -> str | None:
        """Say whether the event loop has stopped turning."""
        engine = self.engine
        if engine is None or not engine.turned_at or engine.waiting_for is not None:
            return None
        turned_s = time.monotonic() - engine.turned_at
        return f"the event loop has not turned for {turned_s:.0f} s" if turned_s > STUCK_S else None

    def unready(self) -> str | None:
        """Say what this worker waits for, or whether it has yet to join the group or to load its
        states."""
        if why := self.stuck():
            return why
        engine = self.engine
        if waited := starting.waiting_for if engine is None else engine.waiting_for:
            return f"waiting for {waited}"
        if engine is None or not engine.turned_at:
            return "starting: broker and registry are asked"
        member = engine.membership()
        if not member.valid:
            return "not in the group"
        if engine.ready != member:
            return "recovering: the states of the partitions are loaded"
        return "; ".join(map(str, engine.stopped())) or None

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
                engine.dead_letters.count,
            )
            yield Sample(
                "infoway_stray_records",
                "counter",
                "dead letters of another source than their partition",
                engine.dead_letters.strays,
            )
            older = (
                "records read of a connection that a newer one of its feed had replaced, by "
                "every agent"
            )
            yield Sample("infoway_older_connection_records", "counter", older, STRAYS.records)
            renewed = "producers renewed because a connection broke in a transaction"
            yield Sample("infoway_producer_renewals", "counter", renewed, engine.commits.renewals)
            yield Sample(
                "infoway_partitions_held",
                "gauge",
                "partitions whose state is held, over all agents",
                len(engine.assigned),
            )
            forgotten = [
                agent.computation.forgotten
                for agent in engine.agents
                if isinstance(agent.computation, Bars)
            ]
            for name, counts in (
                ("heals", [bars.heals for bars in forgotten]),
                ("gaps", [bars.gaps for bars in forgotten]),
            ):
                text = (
                    f"{name} that reached a bar that was published and has left the state: "
                    "it stays as published"
                )
                yield Sample(f"infoway_{name}_of_forgotten_bars", "counter", text, sum(counts))
            for stop in engine.stopped():
                labels = {
                    "agent": stop.agent,
                    "topic": stop.topic,
                    "partition": str(stop.partition),
                }
                meaning = (
                    "offset of the record at which an agent is stopped, having failed three times"
                )
                yield Sample("infoway_agent_stopped_offset", "gauge", meaning, stop.offset, labels)
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
            yield from _calendar_samples(trades, datetime.now(UTC).date())


def _calendar_samples(trades: TradeReader, today: date) -> Iterator[Sample]:
    calendars = trades.calendars
    same, changes = (
        "1, by the fingerprint of the calendars: one in all of a group",
        "states loaded that other calendars had built",
    )
    yield Sample("infoway_calendars", "gauge", same, 1, {"fingerprint": calendars.fingerprint})
    yield Sample("infoway_calendars_changed", "counter", changes, calendars.changes)
    assumed, left = (
        "sessions of trades that no calendar knows, at regular hours",
        "days until the market's calendar ends",
    )
    for market, until in calendars.exchanges_in_use().items():
        labels = {"market": market}
        yield Sample(
            "infoway_sessions_assumed", "counter", assumed, trades.sessions_assumed[market], labels
        )
        yield Sample("infoway_calendar_days_left", "gauge", left, (until - today).days, labels)


def work(
    reports_to: int | None = None, topology_there: Callable[[], object] = lambda: None
) -> None:
    """Run the worker of the slot that INFOWAY_SLOT names, until SIGTERM or Ctrl-C; what it does it
    says into the pipe `reports_to`, if there is one.

    `topology_there` reads what the environment leaves open from the cluster, sets it, and returns
    it. The broker is waited for. Raises what `topology_there` raises beside KafkaException.
    """
    health = WorkerHealth()
    if reports_to is not None:
        report(reports_to, health.unready)
    # until Faust has its own: a process that is the first of its container ignores the signal
    # otherwise
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with serving(os.environ, health):
        there = starting.once_answered(topology_there)
        processors = import_module("processors.app")
        # schemas are registered after the last topic is made, and the app needs its schemas: so it
        # was asked too early if there are others now
        if starting.once_answered(topology_there) != there:
            sys.exit("processors: the topology was just being applied: start again")
        health.engine, health.trades = processors.app.engine, processors.trade_reader
        sys.argv = ["faust", "-A", "processors.app", "worker", "-l", "info", "--without-web"]
        try:
            cli()
        except SystemExit as ended:
            if ended.code == 1:  # Faust's, after a traceback
                leave(Exit.CRASHED, "see the traceback above")
            _end(ended.code)


def _end(code: object) -> NoReturn:
    # what was open is committed or left to the broker; Python would wait for the threads that wait
    # for a broker
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


def _end_with_supervisor() -> None:
    # stdin is the supervisor's pipe: it ends with the supervisor, SIGKILL included
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_supervisor, name="supervisor-pipe", daemon=True).start()
    work(int(sys.argv[1]) if len(sys.argv) > 1 else None)
