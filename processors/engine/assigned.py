"""What an agent has of a partition while that is assigned, and how it is restored from the agent's
state topic."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from processors.engine.batch import Span
from processors.engine.failures import Failure, Stopped
from processors.engine.journal import Changes, Journal
from processors.engine.sources import SourcePartition
from processors.engine.state import APPLIED, FAILED, LOG, SKIPPED
from processors.engine.transactions.exits import Exit, leave
from processors.model.records import Computation

log = logging.getLogger(__name__)

JOURNALED = " with a journal"
"""Follows a topic's id in the state topic: a version that reads no journal takes it for another
topic's id, and ends instead of going on from half a state."""


@dataclass(frozen=True, slots=True)
class Agent:
    """One computation on its source topics (full names throughout); of several it has the same
    partition of each."""

    computation: Computation[Any]
    sources: tuple[str, ...]
    state_topic: str
    dead_letters: bool
    """Whether this agent writes the dead letters of its sources: exactly one agent of a topic
    does."""
    source_of: Callable[[Any], str | None] = lambda state: None
    """Reads out of a state which source it was built from, None before the first record."""

    @property
    def takes_runs(self) -> bool:
        """Whether its computation takes records as columns beside single ones."""
        return bool(getattr(self.computation, "takes_runs", False))

    def changes(self, state: Any) -> Changes:
        """Return what changed in a state since the last call, and forget it."""
        changes: Callable[[Any], Changes] = getattr(
            self.computation, "changes", self.computation.dirty
        )
        return changes(state)

    @property
    def name(self) -> str:
        """The agent's name, as in `infoway.state.<name>`."""
        return self.computation.name


@dataclass(slots=True)
class AssignedState:
    """An agent's state of one partition while it is assigned."""

    state: Any
    applied: dict[str, int]
    """The next offset of each source."""
    unwritten: dict[str, str]
    """The topic ids of the sources that the state topic does not have yet."""
    failed: dict[str, Failure]
    """Where the agent has failed, by source."""
    journal: Journal
    """How the state stands in the state topic."""
    unsealed: dict[str, Span] = field(default_factory=dict)
    """By source what was applied since the state was last added to a transaction."""

    def join(self, topic: str, span: Span) -> None:
        """Remember that these offsets of a source were applied."""
        first, _ = self.unsealed.get(topic, span)
        self.unsealed[topic] = first, span[1]


def restored(
    agent: Agent,
    partition: int,
    stored: dict[bytes, bytes],
    starts: Mapping[SourcePartition, int],
    ids: Mapping[str, str],
) -> AssignedState:
    """Return what an agent has of a partition from the live entries of its state topic; ends the
    worker where they do not fit the logs.

    `starts` has the first offset of each source that is left, `ids` the ids of the topics.
    """
    applied: dict[str, int] = {}
    unwritten: dict[str, str] = {}
    failed: dict[str, Failure] = {}
    for topic in agent.sources:
        stored.pop(SKIPPED + topic.encode(), None)
        if value := stored.pop(FAILED + topic.encode(), None):
            failed[topic] = Failure.decoded(value)
        if (topic, partition) not in starts:
            leave(
                Exit.SETUP_WRONG,
                f"{agent.name} reads {', '.join(agent.sources)} side by side, and partition "
                f"{partition} of {topic} went to another worker "
                "or is not there: all of them must have the same number of partitions",
            )
        known = stored.pop(LOG + topic.encode(), b"").decode()
        if known != ids[topic] + JOURNALED:
            _check_same_log(agent, topic, known.removesuffix(JOURNALED), ids[topic])
            unwritten[topic] = ids[topic]
        applied[topic] = _applied(agent, (topic, partition), stored, starts, failed.get(topic))
    try:
        journal = Journal.restored(stored)
        state = agent.computation.load(partition, journal.pairs())
    except Exception as error:
        log.exception("agent %s", agent.name)
        leave(
            Exit.SETUP_WRONG,
            f"{agent.name}: {agent.state_topic}[{partition}] cannot be used: {error}",
        )
    assigned = AssignedState(state, applied, unwritten, failed, journal)
    for stop in stops_of(agent, partition, assigned):
        log.error("%s", stop)
    return assigned


def stops_of(agent: Agent, partition: int, assigned: AssignedState) -> list[Stopped]:
    """Return where the agent takes nothing more of this partition."""
    return [
        Stopped(agent.name, topic, partition, failure.first, failure.error)
        for topic, failure in assigned.failed.items()
        if failure.stops
    ]


def _check_same_log(agent: Agent, topic: str, known: str, found: str) -> None:
    if known not in ("", found):
        leave(
            Exit.SETUP_WRONG,
            f"{agent.name}: {topic} was deleted and made again (its id was {known} and is "
            f"{found}): the offsets in {agent.state_topic} are "
            "of records that are gone; compute anew under a fresh prefix (INFOWAY_PREFIX), or "
            "delete the group's state topics and what was "
            "derived, and run `infoway-streams topology apply`",
        )


def _applied(
    agent: Agent,
    source_partition: SourcePartition,
    stored: dict[bytes, bytes],
    starts: Mapping[SourcePartition, int],
    failure: Failure | None,
) -> int:
    """Take the next offset of a source out of the state."""
    applied = int(
        stored.pop(APPLIED + source_partition[0].encode(), b"%d" % starts[source_partition])
    )
    # an agent that is stopped has said so for as long as retention lasts; what was before that
    # record is lost all the same
    stopped = failure is not None and failure.stops and applied >= failure.first
    if applied < starts[source_partition] and not stopped:
        topic, partition = source_partition
        leave(
            Exit.SETUP_WRONG,
            f"{agent.name}: offsets {applied} to {starts[source_partition] - 1} of "
            f"{topic}[{partition}] were deleted by retention before they were read: compute anew "
            "under a fresh prefix, or give the topic a longer retention",
        )
    return applied
