"""What a deployment wants of a cluster: the contract's topics, with replication and retention of
the environment; asks no cluster."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from schemas.errors import SettingsWrong
from schemas.numbers import whole_number
from schemas.topics import Topic, Topology

VARIABLES = {
    "INFOWAY_REPLICATION": "replication factor of every topic; default what the cluster gives",
    "INFOWAY_MIN_INSYNC_REPLICAS": "min.insync.replicas of every topic, with "
    "INFOWAY_REPLICATION; default what the cluster gives",
    "INFOWAY_RETENTION": "retention by names without prefix, the last match counts: "
    "infoway.raw.*=3d,infoway.bars.*=unlimited; "
    "default as in topics.yaml",
}
_HIGHEST_REPLICATION = 32_767
_UNITS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([mhd])", re.ASCII)


class WantedWrong(SettingsWrong):
    """The environment's replication or retention cannot be; the message lists every mistake."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Wanted:
    """The topics as they are to be; `replication` None leaves the factor to the cluster."""

    topics: tuple[Topic, ...]
    replication: int | None = None


def wanted(topology: Topology, environment: Mapping[str, str]) -> Wanted:
    """Return the topology's topics with what the variables of VARIABLES say; raises WantedWrong."""
    mistakes: list[str] = []
    replication = _replicas(environment, "INFOWAY_REPLICATION", mistakes)
    in_sync = _replicas(environment, "INFOWAY_MIN_INSYNC_REPLICAS", mistakes)
    if in_sync is not None and not environment.get("INFOWAY_REPLICATION"):
        mistakes.append(
            f"INFOWAY_MIN_INSYNC_REPLICAS={in_sync} needs INFOWAY_REPLICATION: it must not be "
            "greater than that"
        )
    elif in_sync is not None and replication is not None and in_sync > replication:
        mistakes.append(
            f"INFOWAY_MIN_INSYNC_REPLICAS={in_sync} is greater than "
            f"INFOWAY_REPLICATION={replication}: no record could ever be written"
        )
    topics = topology.topics()
    retention = _retention(environment.get("INFOWAY_RETENTION", ""), topology, topics, mistakes)
    if mistakes:
        raise WantedWrong(*mistakes)
    durability = {} if in_sync is None else {"min.insync.replicas": str(in_sync)}
    return Wanted(
        tuple(
            replace(topic, config={**topic.config, **durability, **retention.get(topic.name, {})})
            for topic in topics
        ),
        replication,
    )


def _replicas(environment: Mapping[str, str], name: str, mistakes: list[str]) -> int | None:
    text = environment.get(name, "")
    if not text:
        return None
    found = whole_number(text, 1, _HIGHEST_REPLICATION)
    if found is None:
        mistakes.append(f"{name}={text!r}: expected a whole number above 0: {VARIABLES[name]}")
    return found


def _retention(
    text: str, topology: Topology, topics: list[Topic], mistakes: list[str]
) -> dict[str, dict[str, str]]:
    kept: dict[str, dict[str, str]] = {}
    for rule in filter(None, (part.strip() for part in text.split(","))):
        pattern, _, duration = rule.partition("=")
        match = _DURATION.fullmatch(duration)
        if match is None and duration != "unlimited":
            mistakes.append(
                f"INFOWAY_RETENTION: {rule!r}: expected NAME=DURATION, a duration such as 90m, "
                "36h or 7d, or unlimited"
            )
            continue
        # compacted topics, the agents' state, keep the last record of a key whatever its age
        names = [
            topic.name
            for topic in topics
            if topic.config["cleanup.policy"] == "delete"
            and fnmatchcase(topology.contract_name(topic.name), pattern)
        ]
        if not names:
            mistakes.append(
                f"INFOWAY_RETENTION: {rule!r}: no topic with a retention is named {pattern!r}"
            )
        milliseconds = int(match[1]) * _UNITS[match[2]] if match else -1
        kept |= {name: {"retention.ms": str(milliseconds)} for name in names}
    return kept
