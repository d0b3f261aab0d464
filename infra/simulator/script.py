"""Faults by script: what the simulator does to its clients and when, read from a YAML file; nothing
is carried out here."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from infra.simulator.protocol import SUBSCRIBE, UNSUBSCRIBE
from schemas.bounded_text import read_text
from schemas.errors import SettingsWrong
from schemas.plain_yaml import plain_yaml

KINDS: Mapping[str, frozenset[str]] = {
    "error": frozenset(("code",)),
    "disconnect": frozenset(),
    "reset": frozenset(),
    "half_frame": frozenset(),
    "stall": frozenset(("seconds",)),
    "burst": frozenset(("seconds",)),
    "slow": frozenset(("seconds", "delay")),
    "refuse": frozenset(("seconds", "status")),
    "next_error": frozenset(("code",)),
    "next_fail": frozenset(("code",)),
    "next_prose": frozenset(),
    "next_ack": frozenset(),
    "rest_error": frozenset(("seconds", "ret")),
    "rest_status": frozenset(("seconds", "status")),
    "rest_truncated": frozenset(("seconds",)),
    "next_rest": frozenset(("ret",)),
}
"""What there is, each with what it needs beside `at`, the seconds after the start. Each begins at
its time, whatever lasts still.

error           an error frame of the vendor's with this code to every client
disconnect      every connection is closed in order
reset           every connection is cut by a TCP reset
half_frame      every client gets the begin of a frame, and the connection is cut
stall           on the connections there are nothing is read, pings included, and pushes are lost
burst           pushes are held back, and then sent at once
slow            every push to a client takes `delay` seconds more
refuse          handshakes are answered with this HTTP status
next_error      the next request is answered by an error frame with this code and its trace
next_fail       the next request is answered by `Subscribe fail:` and that error frame
next_prose      the next request is answered by `Subscribe fail:` and words
next_ack        the next request is acked and nothing done: a subscription stays silent for ever
rest_error      REST answers with this code of the vendor's in `ret`
rest_status     REST answers with this HTTP status and no envelope
rest_truncated  REST's JSON is cut in the middle
next_rest       REST's next request is answered with this code in `ret`

A request is a subscription or unsubscription of any client; with `symbol` one that names it, with
`request` one of this code (`- {at: 0, do: next_error, code: 516, request: 10003, symbol:
BTCUSDT}`). Each line is one answer, and waits for its request.
"""
_OPTIONAL = {
    kind: frozenset(("request", "symbol"))
    for kind in KINDS
    if kind.startswith("next_") and kind != "next_rest"
}


MAX_SCRIPT = 1024 * 1024
"""Bytes."""
_DEEPEST = 4


class BadScript(SettingsWrong):
    """A script that cannot be followed; the message lists every mistake."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of a script: times in seconds."""

    at: float
    do: str
    seconds: float = 0.0
    delay: float = 0.0
    code: int = 0
    request: int = 0
    symbol: str = ""
    status: int = 0
    ret: int = 0


def read_script(path: Path) -> list[Fault]:
    """Return the faults in the order of their times: a YAML list of `{at: 5, do: stall, seconds:
    10}`. Raises BadScript."""
    try:
        lines = plain_yaml(read_text(path, MAX_SCRIPT), _DEEPEST)
    except OSError as error:
        raise BadScript(f"{path}: {error.strerror}: name a YAML file by --script") from error
    except (ValueError, yaml.YAMLError) as error:
        raise BadScript(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(lines, list):
        raise BadScript(
            f"{path}: no list: give lines such as `- {{at: 5, do: stall, seconds: 10}}`"
        )
    mistakes = [
        f"line {number}: {mistake}"
        for number, line in enumerate(lines, 1)
        if (mistake := _mistake(line))
    ]
    if mistakes:
        raise BadScript(f"{path}: {'; '.join(mistakes)}")
    return sorted((Fault(**line) for line in lines), key=lambda fault: fault.at)


def _mistake(line: Any) -> str | None:
    if not isinstance(line, dict):
        return f"{line!r:.80} is no mapping with `at` and `do`"
    kind = line.get("do")
    if not isinstance(kind, str) or kind not in KINDS:
        return f"do: {kind!r:.80} is none of {', '.join(KINDS)}"
    wanted, optional = {"at", "do", *KINDS[kind]}, _OPTIONAL.get(kind, frozenset())
    if not wanted <= line.keys() <= wanted | optional:
        may = f", may take {', '.join(sorted(optional))}" if optional else ""
        return (
            f"{kind} takes {', '.join(sorted(wanted))}{may}, not "
            f"{', '.join(sorted(map(str, line)))}"
        )
    if wrong := [
        name
        for name in wanted - {"do"}
        if type(line[name]) not in (int, float) or not 0 <= line[name] < 1e9
    ]:
        return f"{wrong[0]}: {line[wrong[0]]!r} is no number"
    if "status" in line and (
        line["status"] not in HTTPStatus._value2member_map_ or line["status"] < 300
    ):
        return f"status: {line['status']!r} is no HTTP status from 300 on"
    if "request" in line and line["request"] not in (*SUBSCRIBE, *UNSUBSCRIBE):
        return (
            f"request: {line['request']!r} is none of "
            f"{', '.join(map(str, (*SUBSCRIBE, *UNSUBSCRIBE)))}"
        )
    if "symbol" in line and not (isinstance(line["symbol"], str) and line["symbol"]):
        return f"symbol: {line['symbol']!r} is no symbol: write it in quotes"
    if wrong := [name for name in wanted & {"code", "ret"} if type(line[name]) is not int]:
        return f"{wrong[0]}: {line[wrong[0]]!r} is no whole number"
    return None
