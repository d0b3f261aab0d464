"""Ports on loopback for servers that start in a moment."""

import errno
import random
import socket
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"
# below the ports of outgoing connections (Linux from 32768, macOS from 49152): one of those can be gone before the server binds
_RANGE = range(20000, 32768)


class PortInUse(RuntimeError):
    """A port that was asked for is taken."""


def free_ports(*wanted: int) -> list[int]:
    """Return the ports, a free one for each 0, none twice; raises PortInUse where one that is named is not free."""
    found = list(wanted)
    with ExitStack() as held:
        # the named ones first, so that none of them is chosen for another
        for place in sorted(range(len(wanted)), key=lambda place: not wanted[place]):
            for port in [wanted[place]] if wanted[place] else random.sample(_RANGE, len(_RANGE)):
                candidate = held.enter_context(socket.socket())
                candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    candidate.bind((LOOPBACK, port))
                    candidate.listen()  # a bound socket alone does not keep others off, with SO_REUSEADDR
                except OSError as error:
                    candidate.close()
                    if wanted[place]:
                        raise PortInUse(_refusal(port, error)) from error
                else:
                    found[place] = port
                    break
    return found


def _refusal(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {LOOPBACK} is in use: stop what listens there, or name another port"
    return f"port {port} on {LOOPBACK} cannot be had ({error.strerror}): name another port"
