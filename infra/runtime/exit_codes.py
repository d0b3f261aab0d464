"""How the commands end, in one table: their exit codes, and after which of them a process may be
started again.

A worker's codes, 70 and above, are in `processors.engine.transactions.exits`.
"""

from enum import IntEnum

from processors.engine.transactions.exits import Exit
from schemas.errors import Cause, InfowayError


class Code(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    """It did what was asked, or was told to end and did so in order."""
    FAILED = 1
    """It cannot go on; the last line on stderr says why."""
    SETTINGS_WRONG = 2
    """Options or settings are wrong; nothing was started. Each mistake is a line."""
    VENDOR_REFUSED = 3
    """The vendor refuses the key, or a feed with it; another try could have the key banned."""
    CLUSTER_AWAY = 4
    """The broker or the registry does not answer, or the Kafka client has given up."""
    RECORDS_LOST = 5
    """It ended, and records are lost: the broker was away and the spool's disk full. The next start
    reports them as gaps."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM ended a command that has an end of its own."""
    UNREAD = 141
    """Nobody reads the output any more."""

    @property
    def restart(self) -> bool:
        """Whether another start can help, or does no harm."""
        return self not in (Code.DONE, Code.SETTINGS_WRONG, Code.VENDOR_REFUSED)


_OF_CAUSES = {
    Cause.SETTINGS: Code.SETTINGS_WRONG,
    Cause.VENDOR: Code.VENDOR_REFUSED,
    Cause.CLUSTER: Code.CLUSTER_AWAY,
    Cause.OTHER: Code.FAILED,
}


def code_of(error: InfowayError) -> int:
    """Return the exit code of a command that ends with this error: its process's, if it has one."""
    return getattr(error, "exit_code", _OF_CAUSES[error.cause])


def may_restart(code: int) -> bool:
    """Return whether a process that ended with this code may be started again, a worker or a
    command."""
    if code in Exit._value2member_map_:
        return Exit(code).restart
    # a signal from outside (the OOM killer, an operator), and what no table knows, may pass
    return code not in Code._value2member_map_ or Code(code).restart
