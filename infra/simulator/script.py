"""Faults by script: what the simulator does to its clients and when, read from a YAML file; nothing is carried out here."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

KINDS: Mapping[str, frozenset[str]] = {
    "error": frozenset(("code",)),
    "disconnect": frozenset(),
    "reset": frozenset(),
    "half_frame": frozenset(),
    "stall": frozenset(("seconds",)),
    "burst": frozenset(("seconds",)),
    "slow": frozenset(("seconds", "delay")),
    "refuse": frozenset(("seconds", "status")),
    "rest_error": frozenset(("seconds", "ret")),
    "rest_status": frozenset(("seconds", "status")),
    "rest_truncated": frozenset(("seconds",)),
}
"""What there is, each with what it needs beside `at`, the seconds after the start:

error           an error frame of the vendor's with this code to every client
disconnect      every connection is closed in order
reset           every connection is cut by a TCP reset
half_frame      every client gets the begin of a frame, and the connection is cut
stall           nothing is sent and nothing read, pings included; what would have been sent is lost
burst           pushes are held back, and then sent at once
slow            every push takes `delay` seconds more
refuse          handshakes are answered with this HTTP status
rest_error      REST answers with this code of the vendor's in `ret`
rest_status     REST answers with this HTTP status and no envelope
rest_truncated  REST's JSON is cut in the middle
"""


class BadScript(ValueError):
    """A script that cannot be followed; the message lists every mistake."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of a script: times in seconds."""

    at: float
    do: str
    seconds: float = 0.0
    delay: float = 0.0
    code: int = 0
    status: int = 0
    ret: int = 0


def read_script(path: Path) -> list[Fault]:
    """Return the faults in the order of their times: a YAML list of `{at: 5, do: stall, seconds: 10}`. Raises BadScript."""
    try:
        lines = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadScript(f"{path}: {error.strerror}: name a YAML file by --script") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadScript(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(lines, list):
        raise BadScript(f"{path}: no list: give lines such as `- {{at: 5, do: stall, seconds: 10}}`")
    mistakes = [f"line {number}: {mistake}" for number, line in enumerate(lines, 1) if (mistake := _mistake(line))]
    if mistakes:
        raise BadScript(f"{path}: {'; '.join(mistakes)}")
    return sorted((Fault(**line) for line in lines), key=lambda fault: fault.at)


def _mistake(line: Any) -> str | None:
    if not isinstance(line, dict):
        return f"{line!r} is no mapping with `at` and `do`"
    kind = line.get("do")
    if not isinstance(kind, str) or kind not in KINDS:
        return f"do: {kind!r} is none of {', '.join(KINDS)}"
    wanted = {"at", "do", *KINDS[kind]}
    if line.keys() != wanted:
        return f"{kind} takes {', '.join(sorted(wanted))}, not {', '.join(sorted(map(str, line)))}"
    if wrong := [name for name in wanted - {"do"} if type(line[name]) not in (int, float) or not 0 <= line[name] < 1e9]:
        return f"{wrong[0]}: {line[wrong[0]]!r} is no number"
    if "status" in line and (line["status"] not in HTTPStatus._value2member_map_ or line["status"] < 300):
        return f"status: {line['status']!r} is no HTTP status from 300 on"
    if wrong := [name for name in wanted & {"code", "ret"} if type(line[name]) is not int]:
        return f"{wrong[0]}: {line[wrong[0]]!r} is no whole number"
    return None
