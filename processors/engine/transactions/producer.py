"""A transactional producer that is renewed after a connection broke inside a transaction.

librdkafka repeats a request whose connection broke, unseen. The first one may still be on its way:
a late EndTxn would commit half of the transaction that is open by then (no KIP-890 in librdkafka).
A new producer of the same transactional id gets a higher epoch, and the coordinator refuses
whatever comes late with the old one.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException

log = logging.getLogger(__name__)

CALL_TIMEOUT = 5.0
"""Seconds that one librdkafka call may take before it is made again."""
COORDINATOR_TIMEOUT = 60.0
"""Seconds that the coordinator may refuse a producer while the brokers answer."""
LONGEST_PAUSE = 2.0


class CoordinatorSilent(RuntimeError):
    """The brokers answer, and their transaction coordinator gives the producer no epoch."""


class TransactionalProducer:
    """librdkafka's producer, its transactional id fenced against late requests of its own."""

    def __init__(
        self,
        configuration: dict[str, Any],
        waiting: Callable[[str | None], None] = lambda what: None,
        give_up_after: float | None = None,
        logger: logging.Logger = log,
    ) -> None:
        """Connect, and end the transaction that a predecessor of the same id left open.

        Waits while no broker answers, for `give_up_after` seconds or without end, and calls
        `waiting` with what it waits for, with None at the end; `logger` gets librdkafka's lines.
        Raises CoordinatorSilent, and KafkaException if the broker refuses or time is up.
        """
        self._configuration, self._waiting = configuration, waiting
        self._give_up_after, self._logger = give_up_after, logger
        self._breaks_before = 0
        self._streak = 0
        self.renewals = 0
        self.client = self._connect()

    def begin(self) -> None:
        """Begin a transaction. Raises KafkaException."""
        self._breaks_before = self._count_breaks()
        self.client.begin_transaction()

    @property
    def suspect(self) -> bool:
        """Whether a connection broke since the transaction began; true at the latest when a call
        has returned whose request was repeated."""
        return self._count_breaks() != self._breaks_before

    def renew_if_suspect(self) -> bool:
        """Take a new producer if a connection broke in the transaction, which must be committed for
        certain: what its caller remembers would be ahead of the topics otherwise.

        Raises CoordinatorSilent and KafkaException.
        """
        if not self.suspect:
            self._streak = 0
            return False
        began = time.monotonic()
        self._streak += 1
        if self._streak > 1:  # a network that breaks every transaction is not to be stormed
            time.sleep(min(LONGEST_PAUSE, 0.05 * 2**self._streak))
        self.client.close()
        self.client = self._connect()
        self._breaks_before = self._count_breaks()
        self.renewals += 1
        log.warning(
            "a connection broke in the transaction: its producer was renewed in %d ms (renewal %d)",
            (time.monotonic() - began) * 1000,
            self.renewals,
        )
        return True

    def _connect(self) -> ck.Producer:
        self._log = _ClientLog(self._logger)
        client = ck.Producer(
            {
                **self._configuration,
                # of all its lines only the breaks are used; they cost four short lines a
                # transaction
                "debug": "broker",
                # "rebootstrap" (the default) forgets the brokers once none is connected, after one
                # break with a single broker: send_offsets_to_transaction then never returns (2.16)
                "metadata.recovery.strategy": "none",
            },
            logger=self._log,
        )
        began = time.monotonic()
        answering_since: float | None = None
        try:
            while True:
                try:
                    client.init_transactions(CALL_TIMEOUT)
                except KafkaException as exception:
                    error: KafkaError = exception.args[0]
                    waited = time.monotonic() - began
                    if not error.retriable() or error.fatal():
                        raise
                    if self._give_up_after is not None and waited > self._give_up_after:
                        raise
                    log.warning("init_transactions: %s; the same call again", error.str())
                else:
                    return client
                if not _answers(client):
                    answering_since = None
                    self._waiting("the broker: it does not answer")
                    continue
                self._waiting("the transaction coordinator: the broker answers, and gives no epoch")
                now = time.monotonic()
                answering_since = answering_since or now
                if now - answering_since > COORDINATOR_TIMEOUT:
                    raise CoordinatorSilent(
                        f"the brokers answer, and the coordinator of the transactional id "
                        f"{self._configuration['transactional.id']!r} has refused it for "
                        f"{now - answering_since:.0f} s: {error.str()}: see the broker's log, and "
                        "whether every partition of __transaction_state has a leader"
                    )
        finally:
            self._waiting(None)

    def _count_breaks(self) -> int:
        # librdkafka logs a break before it repeats what was under way: served here, the line is
        # there once the repeated request has been answered
        self.client.poll(0)
        return self._log.breaks


class _ClientLog:
    """librdkafka's log, its debugging lines counted and not passed on.

    At debugging level every break gives a line; the one of a higher level is suppressed for 30 s
    after one like it, and the statistics show it only in their next report.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.breaks = 0
        self._logger = logger

    def log(self, level: int, text: str, *arguments: object) -> None:
        if level > logging.DEBUG:
            self._logger.log(level, text, *arguments)
        elif arguments[:1] == ("FAIL",):
            self.breaks += 1


def _answers(client: ck.Producer) -> bool:
    try:
        client.list_topics(timeout=CALL_TIMEOUT)
    except KafkaException:
        return False
    return True
