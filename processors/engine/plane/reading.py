"""The schemas that fetched messages name are had before they are decoded; a registry that does not
answer is waited for."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import confluent_kafka as ck

from processors.decode.messages import Messages
from processors.engine.engine import Engine
from processors.engine.plane.fetch import Pieces
from processors.engine.waiting import Wait
from schemas.control import ATTEMPTS, headers_of

_SCHEMAS = "schemas"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
TURN_S = 0.1


class Lookup(Protocol):
    """Asks for what decoding needs."""

    def lacking(self, values: Iterable[bytes | None]) -> set[int]:
        """Return the ids that have to be asked for before these values are decoded."""

    def denies(self, values: Iterable[bytes | None]) -> bool:
        """Return whether an id of these values was denied and is not asked for again yet."""

    def ask_again(self, values: Iterable[bytes | None]) -> None:
        """Ask for the denied ids of these values before they are decoded."""

    def ask(self, ids: Collection[int]) -> str | None:
        """Ask for them, in a thread; return why they have to be asked for again, None if all are
        settled."""


class Columns(Protocol):
    """Reads the records of one partition, while it is assigned, into columns."""

    def read(self, messages: Messages, source: str | None) -> Pieces:
        """Return the messages in order: those that are plain as runs, and the indices of the
        others; `source` is what all of them come from, None before that is known."""
        ...


async def wait_for_schemas(
    engine: Engine, lookup: Lookup, run: Sequence[ck.Message], still: Callable[[], bool]
) -> bool:
    """Return once every schema that the messages name is known or denied; False if the assignment
    ended before.

    A registry that does not answer is waited for: the event loop turns on, so the worker keeps its
    membership, and `engine.waiting_for` and the log name the registry.
    """
    values = [message.value() for message in run]
    if lookup.denies(values):
        # somebody has mended the cause, perhaps: that an id was denied minutes ago says nothing of
        # now
        lookup.ask_again(message.value() for message in run if _redriven(message))
    pause, wait = FIRST_PAUSE_S, None
    try:
        while wanted := lookup.lacking(values):
            asking = asyncio.get_running_loop().run_in_executor(None, lookup.ask, wanted)
            while not asking.done():
                if not still():
                    return False
                await asyncio.wait({asking}, timeout=TURN_S)
            why = await asking
            if why is None:
                continue
            wait = wait or Wait("the schema registry")
            engine.wait_for(_SCHEMAS, wait.text(why))
            over = time.monotonic() + pause
            while time.monotonic() < over:
                if not still():
                    return False
                await asyncio.sleep(TURN_S)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        if wait is not None:
            wait.over()
    finally:
        engine.wait_for(_SCHEMAS, None)
    return True


def _redriven(message: ck.Message) -> bool:
    return ATTEMPTS in dict(headers_of(message))
