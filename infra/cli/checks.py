"""Checks that several commands share: options and settings are checked before anything starts, and
all mistakes are reported at once, a line for each.

A check of one command alone is in that command's module.
"""

import argparse
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from infra.cli.cluster import is_named, running_stack
from infra.cli.options import MOST_PARTITIONS, Wrong, given, topology_of
from infra.embedded.running import NoRun
from infra.ingest.planning import chosen_feeds
from infra.ingest.producer_process import api_key, endpoint_of, silence_ms
from infra.ingest.spooling import DEFAULT_SPOOL, spool_bytes
from infra.ingest.symbols_file import SymbolsFileUnreadable, read_symbols
from infra.runtime.health import HttpUnusable, http_address
from processors.model.session_rules import BadSessions
from processors.model.sessions import Calendars
from processors.settings import Settings, SettingsError, name_mistakes, swapped_sides
from producers.vendor.symbols import BadSymbols
from schemas.clients.kafka import Security, SecurityError
from schemas.errors import SettingsWrong
from schemas.numbers import whole_number

LONGEST_TOPIC = 249
"""Characters that Kafka takes in a topic's name."""
REPLAY_PREFIX = len("replay-0123456789ab.")
ROOM_MIB = 64
"""Room on the disk without which nothing is started in a folder."""
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s,/:@\[\]]+)(:[0-9]+)?")
_OF_TOPOLOGY = ("prefix", "intervals", "activity", "windows", "partitions")
_OF_EACH_WORKER = ("INFOWAY_SLOT", *(f"INFOWAY_{name.upper()}" for name in _OF_TOPOLOGY))


class OptionsWrong(SettingsWrong):
    """Options or settings are wrong; each mistake is a line."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(dict.fromkeys(mistakes))
        super().__init__("\n".join(self.mistakes))


def check(options: argparse.Namespace) -> None:
    """Raise OptionsWrong with every mistake in the options and settings of a command."""
    mistakes = [
        f"--{name.replace('_', '-')} {value.text[:60]!r}: expected {value.expected}"
        for name, value in vars(options).items()
        if isinstance(value, Wrong)
    ]
    for part in options.checks:
        mistakes += part(options)
    if mistakes:
        raise OptionsWrong(mistakes)


def topology_mistakes(options: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with names and numbers of topics."""
    shown, prefix = given(options, "prefix")
    topology = topology_of(options)
    longest = max((topic.name for topic in topology.topics()), key=len)
    room = LONGEST_TOPIC - (REPLAY_PREFIX if options.command == "replay" else 0)
    if len(longest) > room:
        yield (
            f"{shown}: expected {len(prefix) - len(longest) + room} characters at most: Kafka "
            f"takes {LONGEST_TOPIC} in a topic's name"
        )
    text = os.environ.get("INFOWAY_PARTITIONS")
    if options.partitions is None and text and whole_number(text, 1, MOST_PARTITIONS) is None:
        yield f"INFOWAY_PARTITIONS={text!r}: expected a whole number from 1 to {MOST_PARTITIONS}"
    for name, mistake in name_mistakes(topology):
        yield f"{given(options, name)[0]}: {mistake}"


def cluster_mistakes(options: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with the named cluster, without asking it."""
    bootstrap, registry = (
        os.environ.get("INFOWAY_BOOTSTRAP", ""),
        os.environ.get("INFOWAY_REGISTRY", ""),
    )
    if bool(bootstrap) != bool(registry):
        yield "set both INFOWAY_BOOTSTRAP and INFOWAY_REGISTRY, or neither for the embedded ones"
    for broker in bootstrap.split(",") if bootstrap else ():
        match = _BROKER.fullmatch(broker)
        if match is None or (match[2] and whole_number(match[2][1:], 1, 65_535) is None):
            yield (
                f"INFOWAY_BOOTSTRAP={bootstrap!r}: expected HOST:PORT, or several with commas "
                "between them"
            )
            break
    if registry and not _is_url(registry, ("http", "https")):
        yield (
            f"INFOWAY_REGISTRY={_without_user(registry)!r}: expected "
            "http://HOST:PORT/apis/ccompat/v7, or https"
        )
    if bootstrap:
        try:
            Security.from_environment(os.environ)
        except SecurityError as error:
            yield from error.mistakes


def reached_cluster_mistakes(options: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with the cluster that is asked: one that is named, or a running stack."""
    if not is_named():
        try:
            running_stack(options.data)
        except NoRun as error:
            yield str(error)
    yield from cluster_mistakes(options)


def feed_mistakes(options: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with symbols, key and addresses of the vendor's feed."""
    symbols = getattr(options, "symbols", None)
    if symbols is not None and not symbols.replace(",", "").strip():
        yield f"--symbols {symbols!r}: expected at least one symbol, such as 00700.HK or BTCUSDT"
    try:
        file = getattr(options, "symbols_file", None)
        chosen_feeds(read_symbols(file) if file else symbols, live=True)
    except BadSymbols as error:
        yield from map(str, error.mistakes)
    except SymbolsFileUnreadable as error:
        yield str(error)
    url, rest_url = getattr(options, "url", None), getattr(options, "rest_url", None)
    if rest_url is not None and not _is_url(rest_url, ("http", "https")):
        yield f"--rest-url {_without_user(rest_url)!r}: expected http://HOST:PORT, or https"
    try:
        key = api_key()
        if key or "url" in options:
            endpoint_of(key, url)
    except ValueError as error:
        yield str(error)


def serving_mistakes(options: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with what a producer measures and serves, with its spool's size, sides
    and sessions."""
    checks: tuple[Callable[[], object], ...] = (
        silence_ms,
        spool_bytes,
        lambda: swapped_sides(os.environ),
    )
    for read in checks:
        try:
            read()
        except ValueError as error:
            yield str(error)
    yield from sessions_mistakes()
    yield from http_mistakes(options)


def sessions_mistakes() -> Iterable[str]:
    """Return what is wrong with the operator's file of sessions."""
    try:
        Calendars.from_environment(os.environ)
    except BadSessions as error:
        return [str(error)]
    return ()


def http_mistakes(options: argparse.Namespace) -> Iterator[str]:
    """Yield why nothing can be served at the address of INFOWAY_HTTP."""
    try:
        if address := http_address(os.environ):
            with socket.create_server(address):
                pass
    except HttpUnusable as error:
        yield str(error)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        yield f"INFOWAY_HTTP={os.environ['INFOWAY_HTTP']!r}: {reason}: name another address"


def spool_mistakes(options: argparse.Namespace) -> Iterable[str]:
    """Return what is wrong with the folder of the spool."""
    # `up` has it in its data folder
    default = DEFAULT_SPOOL if options.command == "produce" else None
    path = os.environ.get("INFOWAY_SPOOL") or default
    # what waits there may be what has filled the disk: a start lets it out
    waits = path is not None and any(Path(path).glob("*.spool"))
    return folder_mistakes("INFOWAY_SPOOL", path, 0 if waits else ROOM_MIB)


def worker_mistakes(options: argparse.Namespace) -> Iterable[str]:
    """Return what is wrong with the settings of workers that this command starts."""
    # their cluster, slot and topology come from the command
    own = {name: value for name, value in os.environ.items() if name not in _OF_EACH_WORKER}
    return settings_mistakes(
        own | {"INFOWAY_BOOTSTRAP": "embedded:1", "INFOWAY_REGISTRY": "http://embedded"}
    )


def folder(name: str) -> Callable[[argparse.Namespace], Iterable[str]]:
    """Return the check of an option that names a folder to write into."""

    def check_folder(options: argparse.Namespace) -> Iterable[str]:
        return folder_mistakes(f"--{name}", getattr(options, name))

    return check_folder


def folder_mistakes(
    setting: str, path: str | Path | None, room_mib: int = ROOM_MIB
) -> Iterator[str]:
    """Yield why nothing can be written into a folder, which need not exist yet; makes none."""
    if path is None:
        return
    nearest = Path(path)
    try:
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            yield f"{setting} {str(path)!r}: {nearest} is no folder: name a folder"
            return
        with tempfile.TemporaryFile(dir=nearest) as probe:
            status = os.fstatvfs(probe.fileno())
            free = status.f_bavail * status.f_frsize >> 20
        if free < room_mib:
            yield (
                f"{setting} {str(path)!r}: {free} MiB are free there, {room_mib} are needed: "
                "make room, or name another folder"
            )
    except (OSError, ValueError) as error:
        yield (
            f"{setting} {str(path)!r}: it cannot be written "
            f"({getattr(error, 'strerror', None) or error}): name another folder"
        )


def settings_mistakes(environment: Mapping[str, str]) -> Iterable[str]:
    try:
        Settings.from_environment(environment)
    except SettingsError as error:
        return error.mistakes
    return (
        *sessions_mistakes(),
        *folder_mistakes("INFOWAY_WORK_DIR", environment.get("INFOWAY_WORK_DIR") or None),
    )


def _without_user(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in schemes
            and bool(parts.hostname)
            and parts.port != 0
            and text.isprintable()
            and " " not in text
        )
    except ValueError:
        return False
