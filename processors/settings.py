"""Settings of the processors, from the environment, all mistakes reported at once; nothing of how workers are supervised."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

from processors.feeds import EventTime
from processors.intervals import ladder
from processors.sessions import Calendars
from processors.vwap import Vwap
from schemas.topics import DEFAULT_INTERVALS, DEFAULT_WINDOWS, Topology

VARIABLES = {
    "INFOWAY_BOOTSTRAP": "host:port of the Kafka brokers",
    "INFOWAY_REGISTRY": "URL of the schema registry",
    "INFOWAY_PREFIX": "prefix of every topic, group and transactional id; default none",
    "INFOWAY_SLOT": "stable name of this worker's place (a Compose service, a StatefulSet's ordinal); default 0",
    "INFOWAY_INTERVALS": "comma-separated bar intervals; default " + ",".join(DEFAULT_INTERVALS),
    "INFOWAY_WINDOWS": "comma-separated VWAP windows; default " + ",".join(DEFAULT_WINDOWS),
    "INFOWAY_PARTITIONS": "partitions of every topic; default as in topics.yaml",
    "INFOWAY_WORK_DIR": "folder for Faust's own files; default one of the slot in the folder for temporary files",
}


class SettingsError(ValueError):
    """The environment's settings are wrong; the message lists every mistake."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the processors run and what they compute."""

    bootstrap: str
    registry: str
    topology: Topology
    slot: str
    work_dir: Path

    def __post_init__(self) -> None:
        check_names(self.topology)

    @property
    def group(self) -> str:
        """The consumer group: one per namespace."""
        return f"{self.topology.prefix}infoway-processors"

    @property
    def transactional_id(self) -> str:
        """Stable over restarts: a restarted worker frees at once what its predecessor left open."""
        return f"{self.group}-{self.slot}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the variables of VARIABLES; raises SettingsError."""
        mistakes: list[str] = []
        for name in ("INFOWAY_BOOTSTRAP", "INFOWAY_REGISTRY"):
            if not environment.get(name):
                mistakes.append(f"{name} is not set: {VARIABLES[name]}")
        prefix, slot = environment.get("INFOWAY_PREFIX", ""), environment.get("INFOWAY_SLOT", "0")
        for name, value in (("INFOWAY_PREFIX", prefix), ("INFOWAY_SLOT", slot)):
            if not re.fullmatch(r"[A-Za-z0-9._-]*", value):
                mistakes.append(f"{name}={value!r}: only letters, digits, '.', '_' and '-' may stand in a topic's name")
        partitions = environment.get("INFOWAY_PARTITIONS", "")
        if partitions and not (partitions.isdecimal() and int(partitions) > 0):
            mistakes.append(f"INFOWAY_PARTITIONS={partitions!r}: expected a whole number above 0")
        if mistakes:
            raise SettingsError("; ".join(mistakes))
        topology = Topology(
            prefix,
            _list(environment, "INFOWAY_INTERVALS", DEFAULT_INTERVALS),
            _list(environment, "INFOWAY_WINDOWS", DEFAULT_WINDOWS),
            int(partitions) if partitions else None,
        )
        work_dir = Path(environment.get("INFOWAY_WORK_DIR") or Path(gettempdir()) / f"infoway-streams-{prefix}{slot}")
        return cls(environment.get("INFOWAY_BOOTSTRAP", ""), environment.get("INFOWAY_REGISTRY", ""), topology, slot, work_dir)


def check_names(topology: Topology) -> None:
    """Raise SettingsError with every interval and window that there cannot be."""
    mistakes: list[str] = []
    for check in (lambda: ladder(topology.intervals), lambda: Vwap(topology.windows, Calendars(), EventTime())):
        try:
            check()
        except ValueError as error:
            mistakes.append(str(error))
    if mistakes:
        raise SettingsError("; ".join(mistakes))


def _list(environment: Mapping[str, str], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    text = environment.get(name, "")
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip())) if text else default
