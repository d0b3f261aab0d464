"""Where an agent failed, kept in its state topic: which record it is, how often, and that the third
time stops the partition for it.

A batch that fails does not say which of its records it was: after the next start the batch's
records are applied one at a time.
"""

import json
from dataclasses import asdict, dataclass

STOPS_AT = 3
"""Failures at one record after which it is not applied again, until `infoway-streams skip` has
passed over it."""
_LONGEST_ERROR = 300


@dataclass(frozen=True, slots=True)
class Failure:
    """The failures of an agent at one record, or at a batch of which one record fails."""

    first: int
    last: int
    """Offsets of the records, both inclusive."""
    count: int
    error: str

    @property
    def stops(self) -> bool:
        """Whether the agent takes nothing more of the partition."""
        return self.count >= STOPS_AT and self.first == self.last

    def encoded(self) -> bytes:
        """Return the failure as the state topic has it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decoded(cls, value: bytes) -> "Failure":
        """Return what encoded() wrote."""
        return cls(**json.loads(value))

    @classmethod
    def at(cls, first: int, last: int, error: Exception, before: "Failure | None") -> "Failure":
        """Return the failure at these records, counted on from the one before where they lie within
        its records."""
        same = before is not None and before.first <= first and last <= before.last
        said = f"{type(error).__name__}: {error}"[:_LONGEST_ERROR]
        return cls(first, last, before.count + 1 if same and before else 1, said)


@dataclass(frozen=True, slots=True)
class Stopped:
    """An agent that takes nothing more of a partition."""

    agent: str
    topic: str
    partition: int
    offset: int
    error: str

    def __str__(self) -> str:
        return (
            f"agent {self.agent} is stopped at {self.topic}[{self.partition}] offset "
            f"{self.offset}, where it failed {STOPS_AT} times "
            f"({self.error}): mend it, or pass over the record by `infoway-streams skip --agent "
            f"{self.agent} --topic {self.topic} "
            f"--partition {self.partition} --offset {self.offset}`"
        )
