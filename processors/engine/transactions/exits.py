"""How a worker ends when it cannot go on: one line for people, one exit code for the supervisor, no repair in process."""

import logging
import os
import sys
from enum import IntEnum
from typing import NoReturn

log = logging.getLogger(__name__)


class Exit(IntEnum):
    """Exit codes of a worker. A supervisor starts anew with backoff after 70 to 74, and never after the others."""

    TRANSACTION_REFUSED = 70
    """The broker refused the transaction: another generation has begun, or the transaction timed out."""
    GROUP_LOST = 71
    """The worker has been out of its group for longer than the session timeout."""
    GAP_FOUND = 72
    """A batch does not continue where the agent stopped; it reads again from its state."""
    READING_FAILED = 73
    """Records could not be fetched, or their schema could not be had: the broker or the registry is away."""
    BROKER_AWAY = 74
    """The worker was told to end and the broker takes nothing: what was open it aborts, and the next worker does it again."""
    FENCED = 76
    """Another worker uses the same transactional id."""
    AGENT_FAILED = 77
    """An agent raised: the same record would fail again."""
    SETUP_WRONG = 78
    """Broker, topics, schemas or state do not fit: a person has to act."""

    @property
    def restart(self) -> bool:
        """Whether starting anew can help."""
        return self in (
            Exit.TRANSACTION_REFUSED,
            Exit.GROUP_LOST,
            Exit.GAP_FOUND,
            Exit.READING_FAILED,
            Exit.BROKER_AWAY,
        )


def leave(code: Exit, why: str) -> NoReturn:
    """End this process at once: an open transaction is left to the broker, and nothing more is written."""
    log.error("worker ends (%s, exit code %d): %s", code.name.lower(), code, why)
    for handler in logging.getLogger().handlers:
        handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code))
