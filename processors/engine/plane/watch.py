"""Notices a worker that makes no progress though its broker answers, and ends it; names the broker
while that does not answer."""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from processors.engine.engine import Engine
from processors.engine.sources import SourcePartition
from processors.engine.state import LOAD_TIMEOUT
from processors.engine.transactions.exits import Exit, leave
from processors.engine.waiting import Wait

log = logging.getLogger(__name__)

STEP_S = 0.5
QUIET_S = 3.0
"""Seconds without progress after which the broker is asked, and between two such questions."""
PATIENCE_S = 30.0
_WATCH = "watch"
LONGEST_TURN_S = 2 * QUIET_S
"""Seconds that one turn counts at most: a process that was frozen for longer was not stuck in that
time."""


class Watch:
    """Counts the seconds for which nothing was applied while the broker answered and records, or
    the group, waited.

    It is a thread: no agent and no call of the event loop holds it up.
    """

    def __init__(
        self,
        engine: Engine,
        ask: Callable[[], Mapping[SourcePartition, int] | None],
        all_done: Callable[[Mapping[SourcePartition, int]], bool],
        patience_s: float,
    ) -> None:
        """`ask` returns the end of each partition, or None where no broker answers; `all_done`
        whether nothing before them waits."""
        self._engine, self._ask, self._all_done, self._patience_s = (
            engine,
            ask,
            all_done,
            patience_s,
        )
        self._seen: tuple[float, float] | None = None
        self._quiet_s = self._stalled_s = 0.0
        self._silence: Wait | None = None

    def start(self, tick: Callable[[], None]) -> None:
        """Watch until the process ends, calling `tick` before each turn."""
        threading.Thread(target=self._run, args=(tick,), name="watch", daemon=True).start()

    def _run(self, tick: Callable[[], None]) -> None:
        try:
            self._turn_on(tick)
        except Exception as error:
            # the worker would go on, and nothing would end it where it gets stuck
            log.exception("watch")
            leave(Exit.CRASHED, f"the watch over this worker failed: {error!r}")

    def _turn_on(self, tick: Callable[[], None]) -> None:
        before = time.monotonic()
        while True:
            tick()
            time.sleep(STEP_S)
            now = time.monotonic()
            self.turn(min(now - before, LONGEST_TURN_S))
            before = now

    def turn(self, elapsed_s: float) -> None:
        """Count `elapsed_s` seconds; ends the process where it has been stuck for too long."""
        if self._progressed():
            self._quiet_s = self._stalled_s = 0.0
            self._answered()
            return
        self._quiet_s += elapsed_s
        if self._quiet_s < QUIET_S:
            return
        quiet_s, self._quiet_s = self._quiet_s, 0.0
        ends = self._ask()
        if ends is None:
            self._stalled_s = 0.0
            self._silent()
            return
        self._answered()
        waits = self._engine.waiting_for is not None or self._all_done(ends)
        self._stalled_s = 0.0 if waits else self._stalled_s + quiet_s
        # a load ends by itself, with a better text
        if self._stalled_s > self._patience_s + (LOAD_TIMEOUT if self._engine.loading else 0):
            leave(
                Exit.STUCK,
                f"the broker answers and nothing was done for {self._stalled_s:.0f} s: "
                f"{self._where()}",
            )

    def _progressed(self) -> bool:
        in_hand = min(self._engine.busy_since.copy().values(), default=0.0)
        before, self._seen = self._seen, (self._engine.progress_at, in_hand)
        if before is None or before[0] == self._engine.progress_at:
            return False
        # another agent may go on while this one does not come back from its batch
        return not in_hand or before[1] != in_hand

    def _where(self) -> str:
        engine = self._engine
        if (turned_s := time.monotonic() - engine.turned_at) > 2 * QUIET_S:
            return f"the event loop has not turned for {turned_s:.0f} s"
        if engine.busy_since:
            return f"{', '.join(sorted(engine.busy_since))} did not come back from a batch"
        member = engine.membership()
        if not member.valid:
            return f"not in the group {member.group!r}"
        if engine.ready != member:
            return "the states of the partitions are not loaded"
        return "records wait that nothing fetches, or a transaction does not end"

    def _silent(self) -> None:
        self._silence = self._silence or Wait("the broker")
        self._engine.wait_for(_WATCH, self._silence.text("no answer"))

    def _answered(self) -> None:
        if self._silence is not None:
            self._silence.over()
            self._silence = None
            self._engine.wait_for(_WATCH, None)
