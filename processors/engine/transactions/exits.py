"""How a worker ends when it cannot go on: one line for people, one exit code for the supervisor, no
repair in process."""

import logging
import os
import sys
from enum import IntEnum
from typing import NoReturn

log = logging.getLogger(__name__)


class Exit(IntEnum):
    """Exit codes of a worker. A supervisor starts anew with backoff after all but 76 and 78."""

    TRANSACTION_REFUSED = 70
    """The broker refused the transaction: another generation has begun, or the transaction timed
    out; or it was away for that long."""
    GROUP_LOST = 71
    """The states of the partitions cannot be read to their end: a transaction of a dead worker
    stays open."""
    GAP_FOUND = 72
    """A batch does not continue where the agent stopped, or a record was passed over by `skip`; it
    reads again from its state."""
    READING_FAILED = 73
    """Records could not be fetched, or their schema could not be had: the broker or the registry is
    away."""
    BROKER_AWAY = 74
    """The worker was told to end and the broker takes nothing: what was open it aborts, and the
    next worker does it again."""
    STUCK = 75
    """Records wait, the broker answers, and nothing is applied."""
    FENCED = 76
    """Another live worker of the group has the same slot, and with it the same transactional id."""
    AGENT_FAILED = 77
    """An agent raised; at the third time at one record it takes nothing more of that partition, and
    the worker goes on without it."""
    SETUP_WRONG = 78
    """Broker, topics, schemas or state do not fit: a person has to act."""
    CRASHED = 79
    """Faust, or something under it, failed in a way that nothing here expects; the log has the
    traceback."""

    @property
    def restart(self) -> bool:
        """Whether starting anew can help."""
        return self not in (Exit.FENCED, Exit.SETUP_WRONG)


def leave(code: Exit, why: str) -> NoReturn:
    """End this process at once: an open transaction is left to the broker, and nothing more is
    written."""
    log.error("worker ends (%s, exit code %d): %s", code.name.lower(), code, why)
    for handler in logging.getLogger().handlers:
        handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code))
