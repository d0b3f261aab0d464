"""Settings of the processors, from the environment, all mistakes reported at once; nothing of how
workers are supervised."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir

from processors.agents.activity.thresholds import thresholds
from processors.agents.vwap.windows import SESSION, spans_of
from processors.model.event_time import EventTime
from processors.model.intervals import ladder
from processors.model.records import SOURCES
from schemas.business import BUSINESSES
from schemas.errors import SettingsWrong
from schemas.numbers import whole_number
from schemas.topics import DEFAULT_INTERVALS, DEFAULT_WINDOWS, Topology

DEFAULT_BATCH_RECORDS = 2_000

VARIABLES = {
    "INFOWAY_BOOTSTRAP": "host:port of the Kafka brokers",
    "INFOWAY_REGISTRY": "URL of the schema registry",
    "INFOWAY_PREFIX": "prefix of every topic, group and transactional id; default none",
    "INFOWAY_SOURCE": "what the records come from: live, simulated or replay, others are "
    "dead-lettered; default: a partition's first",
    "INFOWAY_SLOT": "stable name of this worker's place (a Compose service, a StatefulSet's "
    "ordinal); default 0",
    "INFOWAY_INTERVALS": "comma-separated bar intervals; default " + ",".join(DEFAULT_INTERVALS),
    "INFOWAY_ACTIVITY": "comma-separated activity bars: tick-1000, volume-50000, "
    "turnover-1000000; default none",
    "INFOWAY_WINDOWS": "comma-separated VWAP windows; default " + ",".join(DEFAULT_WINDOWS),
    "INFOWAY_PARTITIONS": "partitions of every topic; default as in topics.yaml",
    "INFOWAY_BATCH_RECORDS": "most records that are fetched and applied at once; default "
    f"{DEFAULT_BATCH_RECORDS}",
    "INFOWAY_UPDATE_MS": "publish open bars that changed at every multiple of so many ms of "
    "event time; default never",
    "INFOWAY_EMIT_MS": "publish VWAPs at every multiple of so many ms of event time; default "
    "after every trade",
    "INFOWAY_WATERMARK_DELAY_MS": "how far the watermark is behind a feed's event time; "
    f"default {EventTime().watermark_delay_ms}",
    "INFOWAY_REVISION_HORIZON_MS": "how far behind the watermark a trade still counts; default "
    f"{EventTime().revision_horizon_ms}",
    "INFOWAY_SESSIONS": "file of sessions that the calendars do not know (docs/sessions.md); "
    "default none",
    "INFOWAY_SWAP_SIDES": "comma-separated businesses in whose books the vendor's list a holds "
    "the bids; default none",
    "INFOWAY_KERNELS": "folder for compiled kernels; default beside the sources, or the user's "
    "cache if that cannot be written to",
    "INFOWAY_WORK_DIR": "folder for Faust's own files; default one of the slot in the folder "
    "for temporary files",
}


_NAME = r"[A-Za-z0-9._-]*"
_NAME_RULE = "expected letters, digits, '.', '_' and '-' alone: it is part of topics' names"
_LONGEST_MS = 86_400_000
_LONGEST_NAME = 200
"""Characters of prefix and slot: a folder's name has room for 255."""
_NUMBERS = {
    "INFOWAY_PARTITIONS": (1, 1_000_000),
    "INFOWAY_BATCH_RECORDS": (1, 100_000),
    "INFOWAY_UPDATE_MS": (1, _LONGEST_MS),
    "INFOWAY_EMIT_MS": (1, _LONGEST_MS),
    "INFOWAY_WATERMARK_DELAY_MS": (0, _LONGEST_MS),
    "INFOWAY_REVISION_HORIZON_MS": (0, _LONGEST_MS),
}
"""Least and most of each setting that is a whole number."""


class SettingsError(SettingsWrong):
    """The environment's settings are wrong; the message lists every mistake."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


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
    source: str | None = None
    swapped_sides: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_names(self.topology)

    @property
    def group(self) -> str:
        """The consumer group: one per namespace."""
        return f"{self.topology.prefix}infoway-processors"

    @property
    def uses_sessions(self) -> bool:
        """Whether anything that is computed of trades depends on the markets' sessions."""
        topology = self.topology
        return SESSION in topology.windows or "1d" in topology.intervals or bool(topology.activity)

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
            if not re.fullmatch(_NAME, value):
                mistakes.append(f"{name}={value!r}: {_NAME_RULE}")
        if len(prefix) + len(slot) > _LONGEST_NAME:
            mistakes.append(
                f"INFOWAY_PREFIX={prefix!r} and INFOWAY_SLOT={slot!r}: expected {_LONGEST_NAME} "
                "characters at most, together"
            )
        if (source := environment.get("INFOWAY_SOURCE") or None) not in (None, *SOURCES):
            mistakes.append(
                f"INFOWAY_SOURCE={source!r}: expected one of {', '.join(SOURCES)}, or nothing"
            )
        numbers = {name: _whole(environment, name, mistakes) for name in _NUMBERS}
        swapped: frozenset[str] = frozenset()
        try:
            swapped = swapped_sides(environment)
        except SettingsError as error:
            mistakes.append(str(error))
        topology = Topology(
            prefix,
            _list(environment, "INFOWAY_INTERVALS", DEFAULT_INTERVALS),
            _list(environment, "INFOWAY_WINDOWS", DEFAULT_WINDOWS),
            numbers["INFOWAY_PARTITIONS"],
            _list(environment, "INFOWAY_ACTIVITY", ()),
        )
        mistakes += [
            f"INFOWAY_{name.upper()}: {mistake}" for name, mistake in name_mistakes(topology)
        ]
        if mistakes:
            raise SettingsError(*mistakes)
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
            source,
            swapped,
        )


def swapped_sides(environment: Mapping[str, str]) -> frozenset[str]:
    """Return the businesses in whose books list a holds the bids, from INFOWAY_SWAP_SIDES; raises
    SettingsError."""
    named = _list(environment, "INFOWAY_SWAP_SIDES", ())
    unknown = [business for business in named if business not in BUSINESSES]
    if unknown:
        raise SettingsError(
            f"INFOWAY_SWAP_SIDES names {', '.join(map(repr, unknown))}: choose from "
            f"{', '.join(BUSINESSES)}, separated by commas"
        )
    return frozenset(named)


def check_names(topology: Topology) -> None:
    """Raise SettingsError with every interval and window that there cannot be."""
    mistakes = [mistake for _, mistake in name_mistakes(topology)]
    if mistakes:
        raise SettingsError(*mistakes)


def name_mistakes(topology: Topology) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with prefix, intervals, windows and activity bars: which of them, and
    what."""
    if not re.fullmatch(_NAME, topology.prefix):
        yield "prefix", _NAME_RULE
    checks: dict[str, Callable[[], object]] = {
        "intervals": lambda: ladder(topology.intervals),
        "windows": lambda: spans_of(topology.windows),
        "activity": lambda: thresholds(topology.activity) if topology.activity else None,
    }
    for name, check in checks.items():
        try:
            check()
        except ValueError as error:
            yield name, str(error)


def _whole(environment: Mapping[str, str], name: str, mistakes: list[str]) -> int | None:
    text = environment.get(name, "")
    if not text:
        return None
    least, most = _NUMBERS[name]
    found = whole_number(text, least, most)
    if found is None:
        mistakes.append(
            f"{name}={text[:60]!r}: expected a whole number from {least} to {most}: "
            f"{VARIABLES[name]}"
        )
    return found


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
