"""Ports on loopback for servers that start in a moment."""

import errno
import json
import logging
import random
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from schemas.errors import InfowayError

_log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
# below the ports of outgoing connections (Linux from 32768, macOS from 49152): one of those can be
# gone before the server binds
_RANGE = range(20000, 32768)


class PortInUse(InfowayError):
    """A port that was asked for is taken."""


def free_ports(*wanted: int, kept: Sequence[int] = ()) -> list[int]:
    """Return the ports, a free one for each 0, none twice; for a 0 the port of `kept` in its place
    if that is free. Raises PortInUse where one that is named is not free."""
    found = list(wanted)
    with ExitStack() as held:
        # the named ones first, so that none of them is chosen for another
        for index in sorted(range(len(wanted)), key=lambda index: not wanted[index]):
            before = [port for port in kept[index : index + 1] if port]
            some = [*before, *random.sample(_RANGE, len(_RANGE))]
            for port in [wanted[index]] if wanted[index] else some:
                candidate = held.enter_context(socket.socket())
                candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    candidate.bind((LOOPBACK, port))
                    # with SO_REUSEADDR a bound socket alone does not keep others off
                    candidate.listen()
                except OSError as error:
                    candidate.close()
                    if wanted[index]:
                        raise PortInUse(_refusal(port, error)) from error
                else:
                    found[index] = port
                    break
    return found


class KeptPorts:
    """The ports that the servers of a data folder had at their last start, in a file of it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ports.json"

    def taken(self, kafka_port: int, registry_port: int) -> list[int]:
        """Return the ports of broker, registry and controller, and keep the first two: those that
        are named, else those of the last start, else free ones. Raises PortInUse for a named one.
        """
        kept = self._read()
        ports = free_ports(kafka_port, registry_port, 0, kept=kept)
        wanted = kafka_port, registry_port
        for server, before, asked, now in zip(
            ("broker", "registry"), kept, wanted, ports, strict=False
        ):
            if before and not asked and now != before:
                _log.warning(
                    "port %d on %s, which the %s had before, is in use: it has %d now; stop what "
                    "listens there to have the old address at the next start",
                    before,
                    LOOPBACK,
                    server,
                    now,
                )
        self._path.write_text(json.dumps({"kafka": ports[0], "registry": ports[1]}))
        return ports

    def _read(self) -> tuple[int, int]:
        """Return both ports, 0 for what is not known."""
        try:
            found = json.loads(self._path.read_text())
            ports = found["kafka"], found["registry"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0, 0
        if not all(type(port) is int and 1 <= port <= 65_535 for port in ports):
            return 0, 0
        return ports


def _refusal(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {LOOPBACK} is in use: stop what listens there, or name another port"
    return f"port {port} on {LOOPBACK} cannot be had ({error.strerror}): name another port"
