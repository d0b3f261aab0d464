"""The start of a worker: broker and registry are waited for, since no new start mends their being
away."""

import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaException

from processors.engine.state import is_away
from processors.engine.waiting import Wait
from schemas.clients.kafka import credentials_refused
from schemas.clients.registry import RegistryError

Built = TypeVar("Built")

AGAIN_S = 1.0

waiting_for: str | None = None
"""What the start of this process waits for, for whoever asks while there is no engine yet."""


def once_answered(build: Callable[[], Built]) -> Built:
    """Return what `build` returns once broker and registry answer it."""
    global waiting_for
    waits: dict[str, Wait] = {}
    while True:
        try:
            built = build()
        except RegistryError as error:
            what, why = "the schema registry", str(error)
        except KafkaException as error:
            if not is_away(error.args[0]):
                raise
            # a secret may be rotated: what is refused now is waited for too
            what, why = "the broker", credentials_refused() or error.args[0].str()
        else:
            waiting_for = None
            for wait in waits.values():
                wait.over()
            return built
        waiting_for = waits.setdefault(what, Wait(what)).text(why)
        time.sleep(AGAIN_S)
