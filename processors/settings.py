"""Settings of the processors, from the environment, all mistakes reported at once; nothing of how workers are supervised."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir

from processors.activity import thresholds
from processors.feeds import EventTime
from processors.intervals import ladder
from processors.sessions import Calendars
from processors.vwap import Vwap
from schemas.topics import DEFAULT_INTERVALS, DEFAULT_WINDOWS, Topology

DEFAULT_BATCH_RECORDS = 2_000

VARIABLES = {
    "INFOWAY_BOOTSTRAP": "host:port of the Kafka brokers",
    "INFOWAY_REGISTRY": "URL of the schema registry",
    "INFOWAY_PREFIX": "prefix of every topic, group and transactional id; default none",
    "INFOWAY_SLOT": "stable name of this worker's place (a Compose service, a StatefulSet's ordinal); default 0",
    "INFOWAY_INTERVALS": "comma-separated bar intervals; default " + ",".join(DEFAULT_INTERVALS),
    "INFOWAY_ACTIVITY": "comma-separated activity bars: tick-1000, volume-50000, turnover-1000000; default none",
    "INFOWAY_WINDOWS": "comma-separated VWAP windows; default " + ",".join(DEFAULT_WINDOWS),
    "INFOWAY_PARTITIONS": "partitions of every topic; default as in topics.yaml",
    "INFOWAY_BATCH_RECORDS": f"most records that are fetched and applied at once; default {DEFAULT_BATCH_RECORDS}",
    "INFOWAY_UPDATE_MS": "publish open bars that changed at every multiple of so many ms of event time; default never",
    "INFOWAY_EMIT_MS": "publish VWAPs at every multiple of so many ms of event time; default after every trade",
    "INFOWAY_WATERMARK_DELAY_MS": f"how far the watermark is behind a feed's event time; default {EventTime().watermark_delay_ms}",
    "INFOWAY_REVISION_HORIZON_MS": f"how far behind the watermark a trade still counts; default {EventTime().revision_horizon_ms}",
    "INFOWAY_WORK_DIR": "folder for Faust's own files; default one of the slot in the folder for temporary files",
}


_LONGEST_MS = 86_400_000
_NUMBERS = {
    "INFOWAY_PARTITIONS": (1, 1_000_000),
    "INFOWAY_BATCH_RECORDS": (1, 100_000),
    "INFOWAY_UPDATE_MS": (1, _LONGEST_MS),
    "INFOWAY_EMIT_MS": (1, _LONGEST_MS),
    "INFOWAY_WATERMARK_DELAY_MS": (0, _LONGEST_MS),
    "INFOWAY_REVISION_HORIZON_MS": (0, _LONGEST_MS),
}
"""Least and most of each setting that is a whole number."""


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
    event_time: EventTime = field(default_factory=EventTime)
    update_ms: int | None = None
    emit_ms: int | None = None
    batch_records: int = DEFAULT_BATCH_RECORDS

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
                mistakes.append(
                    f"{name}={value!r}: only letters, digits, '.', '_' and '-' may stand in a topic's name"
                )
        numbers = {name: _whole(environment, name, mistakes) for name in _NUMBERS}
        if mistakes:
            raise SettingsError("; ".join(mistakes))
        topology = Topology(
            prefix,
            _list(environment, "INFOWAY_INTERVALS", DEFAULT_INTERVALS),
            _list(environment, "INFOWAY_WINDOWS", DEFAULT_WINDOWS),
            numbers["INFOWAY_PARTITIONS"],
            _list(environment, "INFOWAY_ACTIVITY", ()),
        )
        work_dir = Path(
            environment.get("INFOWAY_WORK_DIR")
            or Path(gettempdir()) / f"infoway-streams-{prefix}{slot}"
        )
        return cls(
            environment.get("INFOWAY_BOOTSTRAP", ""),
            environment.get("INFOWAY_REGISTRY", ""),
            topology,
            slot,
            work_dir,
            _event_time(
                numbers["INFOWAY_WATERMARK_DELAY_MS"], numbers["INFOWAY_REVISION_HORIZON_MS"]
            ),
            numbers["INFOWAY_UPDATE_MS"],
            numbers["INFOWAY_EMIT_MS"],
            numbers["INFOWAY_BATCH_RECORDS"] or DEFAULT_BATCH_RECORDS,
        )


def check_names(topology: Topology) -> None:
    """Raise SettingsError with every interval and window that there cannot be."""
    mistakes: list[str] = []
    checks: list[Callable[[], object]] = [
        lambda: ladder(topology.intervals),
        lambda: Vwap(topology.windows, Calendars(), EventTime()),
    ]
    if topology.activity:
        checks.append(lambda: thresholds(topology.activity))
    for check in checks:
        try:
            check()
        except ValueError as error:
            mistakes.append(str(error))
    if mistakes:
        raise SettingsError("; ".join(mistakes))


def _whole(environment: Mapping[str, str], name: str, mistakes: list[str]) -> int | None:
    text = environment.get(name, "")
    if not text:
        return None
    least, most = _NUMBERS[name]
    if not (text.isdecimal() and text.isascii() and least <= int(text) <= most):
        mistakes.append(
            f"{name}={text!r}: expected a whole number from {least} to {most}: {VARIABLES[name]}"
        )
        return None
    return int(text)


def _event_time(watermark_delay_ms: int | None, revision_horizon_ms: int | None) -> EventTime:
    default = EventTime()
    return EventTime(
        default.watermark_delay_ms if watermark_delay_ms is None else watermark_delay_ms,
        default.revision_horizon_ms if revision_horizon_ms is None else revision_horizon_ms,
    )


def _list(environment: Mapping[str, str], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    text = environment.get(name, "")
    return (
        tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        if text
        else default
    )
