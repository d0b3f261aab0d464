"""The worker's transactions as the engine has them: one is open at a time, librdkafka's calls are
made in a thread of their own, and what is applied during a commit waits for the next one.

What a commit is, step by step, is `transactions.transactions`.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from processors.engine.held import Applied, HeldRows
from processors.engine.transactions.exits import Exit, leave
from processors.engine.transactions.group import Member
from processors.engine.transactions.transactions import OVERDUE, WAITING, Transactions

WAIT = "transaction"
"""The part of a worker that waits where a commit does."""


class Commits:
    """The transaction that is open, and its commits.

    `begin`, `into` and `commit` are for whoever holds the engine's lock.
    """

    def __init__(self, waits: dict[str, str]) -> None:
        """`waits` has what the worker waits for, by its part."""
        self._waits = waits
        self._transactions: Transactions | None = None
        self._held: HeldRows | None = None
        """Takes what is applied while a commit is under way beside the work."""
        self.alone = asyncio.Lock()
        """Held, before the engine's lock, by whoever commits."""
        self._room = asyncio.Event()
        # one thread: librdkafka's transactional calls are made one after the other
        self.thread = ThreadPoolExecutor(1, "transactions")

    async def start(self, connect: Callable[[], Transactions]) -> None:
        """Take the transactions that `connect` returns."""
        self.use(await self.in_thread(connect))

    def use(self, transactions: Transactions) -> None:
        """Go on with these transactions."""
        self._transactions = transactions

    @property
    def transactions(self) -> Transactions:
        """The worker's transactions; only after the start."""
        assert self._transactions is not None
        return self._transactions

    @property
    def renewals(self) -> int:
        """How often the producer was renewed because a connection broke in a transaction."""
        return self._transactions.producer.renewals if self._transactions is not None else 0

    @property
    def open(self) -> bool:
        """Whether a transaction is open, or rows wait for one."""
        held = self._held is not None and self._held.member is not None
        return held or (self._transactions is not None and self._transactions.member is not None)

    @property
    def into(self) -> Transactions | HeldRows:
        """What takes records now."""
        return self.transactions if self._held is None else self._held

    def begin(self, member: Member) -> None:
        """Open what takes records, for this member."""
        if self._held is not None:
            self._held.member = member
        else:
            self.transactions.begin(member)

    def begin_batch(self, applied: Applied) -> None:
        """Say what the records that follow come from."""
        if self._held is not None:
            self._held.begin_batch(applied)

    async def room(self) -> None:
        """Return once more may be applied: not while what waits is too much."""
        while self._held is not None and self._held.full:
            self._room.clear()
            await self._room.wait()

    async def commit(self, seal: Callable[[], None]) -> None:
        """Seal and commit what is open; nothing is applied meanwhile."""
        if self._transactions is not None:

            def seal_and_commit() -> None:
                seal()
                self.transactions.commit()

            await self._carry_out(seal_and_commit)

    async def commit_beside_work(
        self,
        lock: asyncio.Lock,
        seal: Callable[[], None],
        failed: Callable[[Applied, Exception], None],
    ) -> None:
        """Seal what is open under the lock and commit it without; what is applied meanwhile begins
        the next transaction then. `failed` gets what a record that cannot be added came from."""
        async with self.alone:
            async with lock:
                if not self.open:
                    return
                await self.in_thread(seal)
                held = self._held = HeldRows()
            await self._carry_out(self.transactions.commit)
            async with lock:
                self._held = None
                await self.in_thread(partial(held.hand_over, self.transactions, failed))
                self._room.set()

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        """Make a call after those that are under way."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, call)

    async def _carry_out(self, commit: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        naming = loop.call_later(WAITING, self._name, self.transactions)
        ending = loop.call_later(OVERDUE, _end, self.transactions)
        try:
            await self.in_thread(commit)
        finally:
            naming.cancel()
            ending.cancel()
            self._waits.pop(WAIT, None)

    def _name(self, transactions: Transactions) -> None:
        # what waits in its own loop has said more by now
        self._waits.setdefault(
            WAIT, f"the broker, with a transaction open: {transactions.state.value}"
        )


def _end(transactions: Transactions) -> None:
    if why := transactions.overdue():
        leave(
            Exit.TRANSACTION_REFUSED,
            f"{why}: the next worker begins where the last one committed",
        )
