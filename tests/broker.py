"""The embedded broker, made not to answer for a while."""

import os
import signal
from contextlib import contextmanager


@contextmanager
def away(stack):
    """The broker does not answer: its process is stopped, its connections stay."""
    group = next(server.process_group for server in stack.servers if "kafka" in server.name)
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)
