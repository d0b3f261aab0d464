"""The embedded servers, made not to answer for a while."""

from contextlib import contextmanager, suppress

import psutil


@contextmanager
def frozen(server):
    """The server does not answer: its process is stopped, its connections stay.

    Its guard goes on: a test run that is killed meanwhile leaves no server behind.
    """
    processes = [
        child
        for child in psutil.Process(server.process_group).children()
        if child.name() != "sh"  # a part of the guard
    ]
    assert processes, f"{server.name} does not run"
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # it was killed meanwhile
                process.resume()


@contextmanager
def away(stack):
    """The broker does not answer."""
    with frozen(next(server for server in stack.servers if "kafka" in server.name)):
        yield
