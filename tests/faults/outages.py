"""Broker, registry and workers frozen (SIGSTOP) or stopped and started again, for as long as a
`with` lasts."""

import os
import signal
from contextlib import contextmanager

import broker
import psutil

from infra.embedded.process import Server
from infra.embedded.stack import READY_TIMEOUT, Stack


@contextmanager
def frozen(stack: Stack, what: str):
    """The server does not answer."""
    with broker.frozen(_server(stack, what)):
        yield


@contextmanager
def stopped(stack: Stack, what: str, kill: bool = False):
    """The server is ended in order, or killed, and started again over the same data and at the
    same port."""
    server = _server(stack, what)
    if kill:
        os.killpg(server.process_group, signal.SIGKILL)
    server.stop()
    try:
        yield
    finally:
        again = stack.start_again(server)
        answers = (
            stack._kafka_answers
            if what == "kafka"
            else lambda: again.running and "Listening on" in again.tail(200)
        )
        again.wait_ready(answers, READY_TIMEOUT)


@contextmanager
def frozen_workers(prefix: str):
    """The workers of a namespace stand still."""
    workers = [
        child
        for child in psutil.Process().children()
        if child.environ().get("INFOWAY_PREFIX") == prefix
    ]
    for worker in workers:
        worker.suspend()
    try:
        yield
    finally:
        for worker in workers:
            worker.resume()


def _server(stack: Stack, what: str) -> Server:
    return next(server for server in stack.servers if server.name == what)
