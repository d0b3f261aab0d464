"""The states of the worker's transaction and the transitions between them, as data: checked at run
time, drawn in docs/states-transaction.md."""

from enum import Enum


class TransactionState(Enum):
    """What the transaction is doing; the value is what logs and errors call it."""

    NONE = "none"
    BEGINNING = "begin"
    OPEN = "open"
    FLUSHING = "flush"
    SENDING_OFFSETS = "send offsets"
    COMMITTING = "commit"
    COMMITTED = "committed"
    RENEWING = "renewal of the producer"
    REFUSED = "refused"
    ABORTED = "aborted"


TRANSITIONS = {
    (TransactionState.NONE, TransactionState.BEGINNING): "a batch is to be applied",
    (TransactionState.BEGINNING, TransactionState.OPEN): "librdkafka has begun it",
    (TransactionState.BEGINNING, TransactionState.REFUSED): "the producer is fenced",
    (TransactionState.OPEN, TransactionState.FLUSHING): "a commit is due",
    (TransactionState.OPEN, TransactionState.REFUSED): "a record cannot be added, or not in time",
    (TransactionState.FLUSHING, TransactionState.SENDING_OFFSETS): "every record is acknowledged",
    (
        TransactionState.FLUSHING,
        TransactionState.REFUSED,
    ): "a record cannot be delivered, or not in time",
    (
        TransactionState.SENDING_OFFSETS,
        TransactionState.COMMITTING,
    ): "the coordinator has the offsets",
    (
        TransactionState.SENDING_OFFSETS,
        TransactionState.REFUSED,
    ): "another generation has begun, or time is up",
    (TransactionState.COMMITTING, TransactionState.COMMITTED): "the coordinator has committed",
    (
        TransactionState.COMMITTING,
        TransactionState.REFUSED,
    ): "the broker has aborted it, or time is up",
    (TransactionState.COMMITTED, TransactionState.NONE): "no connection broke since the begin",
    (
        TransactionState.COMMITTED,
        TransactionState.RENEWING,
    ): "a connection broke: the transaction is suspect",
    (TransactionState.RENEWING, TransactionState.NONE): "the producer has a new epoch",
    (TransactionState.RENEWING, TransactionState.REFUSED): "the coordinator gives no epoch",
    (TransactionState.REFUSED, TransactionState.ABORTED): "librdkafka asks for an abort",
}
"""Each legal transition and what causes it. From `refused` and `aborted` the worker ends."""


class IllegalStep(RuntimeError):
    """A call came in a state that does not allow it: a bug of the engine."""

    def __init__(self, before: TransactionState, after: TransactionState) -> None:
        super().__init__(f"a transaction cannot go from {before.value!r} to {after.value!r}")
        self.before = before
        self.after = after


def check(before: TransactionState, after: TransactionState) -> None:
    """Raise IllegalStep for a transition that is not in TRANSITIONS."""
    if (before, after) not in TRANSITIONS:
        raise IllegalStep(before, after)


def page() -> str:
    """Return docs/states-transaction.md."""
    lines = [
        "# States of a worker's transaction",
        "",
        "Drawn from `processors/engine/transactions/states.py`, which checks each transition at",
        "run time. [commit.md](commit.md) says why the steps of a commit have this order.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        *(f'    state "{state.value}" as {state.name}' for state in TransactionState),
        "    [*] --> NONE",
        *(
            f"    {before.name} --> {after.name}: {cause}"
            for (before, after), cause in TRANSITIONS.items()
        ),
        "    REFUSED --> [*]: the worker ends",
        "    ABORTED --> [*]: the worker ends",
        "```",
        "",
        "| from | to | cause |",
        "|---|---|---|",
        *(
            f"| {before.value} | {after.value} | {cause} |"
            for (before, after), cause in TRANSITIONS.items()
        ),
    ]
    return "\n".join(lines) + "\n"
