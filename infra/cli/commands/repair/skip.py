"""`infoway-streams skip`: passes over the record at which an agent is stopped, into the
dead letters, and notes it in the agent's state topic.

Dead letter, the agent's next offset and the note of what was passed over are one transaction.
Nothing else writes that agent's next offset of that source meanwhile: an agent that is stopped
takes nothing of it.
"""

import argparse
import getpass
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import confluent_kafka as ck
from confluent_kafka import KafkaException, TopicPartition

from infra.cli.checks import reached_cluster_mistakes, topology_mistakes
from infra.cli.command import Command
from infra.cli.options import add_topology, whole
from infra.kafka.offsets import TIMEOUT, refused
from infra.runtime.deployment import named_cluster
from processors.decode.reader import letter_of
from processors.engine.failures import STOPS_AT, Failure
from processors.engine.outputs import Outputs
from processors.engine.state import APPLIED, FAILED, SKIPPED, Entries, load_states, log_starts
from schemas.clients.cluster import NotApplied
from schemas.clients.kafka import client
from schemas.clients.registry import Registry
from schemas.control import headers_of
from schemas.errors import InfowayError
from schemas.topics import DEAD_LETTER, Topology, load_schema
from schemas.wire import compile_encoder

STATE = "infoway.state."


class NotStopped(InfowayError):
    """The agent is not stopped at the record that is to be passed over."""


@dataclass(frozen=True, slots=True)
class SkipOptions:
    """What `skip` was given."""

    topology: Topology
    agent: str
    topic: str
    partition: int
    offset: int
    retry: bool


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("--agent", required=True, help="as the worker names it, vwap for instance")
    command.add_argument(
        "--topic", required=True, help="the source, by its full name or its name in the contract"
    )
    command.add_argument("--partition", required=True, type=whole(0, 2**31 - 1))
    command.add_argument(
        "--offset",
        required=True,
        type=whole(0, 2**63 - 1),
        help="of the record at which the agent is stopped",
    )
    command.add_argument(
        "--retry",
        action="store_true",
        help="do not pass over it: let the agent, mended, try it again",
    )
    add_topology(command)


def skip(options: SkipOptions) -> int:
    """Pass over one record for one agent, and print what was done. Raises NotStopped, NotApplied,
    NotAllowed and RegistryError."""
    names = options.topology
    bootstrap, registry_url = named_cluster()
    every = {topic.name: topic for topic in names.topics()}
    agents = [
        names.contract_name(name).removeprefix(STATE)
        for name in every
        if names.contract_name(name).startswith(STATE)
    ]
    if options.agent not in agents:
        raise NotStopped(f"no agent {options.agent!r}: name one of {', '.join(agents)}")
    topic = options.topic if options.topic in every else names.name(options.topic)
    if topic not in every:
        raise NotStopped(f"no topic {options.topic!r} with these settings")
    letters = every[names.name(DEAD_LETTER)]
    schema = load_schema(cast(str, letters.schema))
    schema_id = Registry(registry_url).id_of(letters.subject, schema)
    if schema_id is None:
        raise NotApplied((), (), (letters.subject,))
    outputs = Outputs({DEAD_LETTER: (letters.name, compile_encoder(schema, schema_id))})
    state_topic, who = (
        names.name(f"{STATE}{options.agent}"),
        f"{getpass.getuser()}@{socket.gethostname()}",
    )
    source = topic, options.partition
    transactional_id = f"{names.prefix}infoway-processors-skip"
    print(
        pass_over(
            bootstrap,
            options.agent,
            state_topic,
            source,
            options.offset,
            outputs,
            transactional_id,
            who,
            options.retry,
        )
    )
    return 0


COMMAND = Command(
    "skip",
    "pass over a record at which an agent is stopped",
    "skip --agent vwap --topic infoway.raw.trade --partition 0 --offset 17",
    add_options,
    SkipOptions,
    skip,
    (topology_mistakes, reached_cluster_mistakes),
    asks_cluster=True,
    reads_back=True,
)


def pass_over(
    bootstrap: str,
    agent: str,
    state_topic: str,
    source: tuple[str, int],
    offset: int,
    outputs: Outputs,
    transactional_id: str,
    who: str,
    retry: bool = False,
) -> str:
    """Dead-letter the record and move the agent behind it, or with `retry` only let the agent try
    again; returns what was done.

    Raises NotStopped and NotAllowed.
    """
    topic, partition = source
    producer = ck.Producer(
        {
            **client(bootstrap),
            "transactional.id": transactional_id,
            "transaction.timeout.ms": 10_000,
            "log_level": 0,
        }
    )
    # before the state is read: it ends the transaction of another one that was killed, or that
    # still runs
    _call(
        lambda: producer.init_transactions(TIMEOUT), f"use the transactional.id {transactional_id}"
    )
    here = f"{topic}[{partition}] offset {offset}"
    entries = load_states(bootstrap, [(state_topic, partition)], TIMEOUT)[state_topic, partition]
    if entries.get(SKIPPED + topic.encode()) == b"%d" % offset:
        return f"{here} was passed over for agent {agent} before: nothing was done"
    failure = _stopped_at(entries, agent, topic, here, offset)
    record = _record(bootstrap, source, offset)
    text = f"agent {agent} failed {STOPS_AT} times ({failure.error}); passed over by {who}"
    key, value = (record.key(), record.value()) if record else (None, None)
    headers = tuple(headers_of(record) if record else ())
    letter = letter_of(
        offset,
        key,
        value or b"",
        "Skipped",
        text if record else f"{text}; the record itself was deleted",
        headers,
    )

    def write() -> None:
        producer.begin_transaction()
        producer.produce(state_topic, None, FAILED + topic.encode(), partition)
        if not retry:
            write_letter()
        producer.commit_transaction(TIMEOUT)

    def write_letter() -> None:
        at, in_partition, letter_key, letter_value = outputs.dead_letter(topic, partition, letter)
        producer.produce(at, letter_value, letter_key, in_partition, headers=list(letter.headers))
        producer.produce(state_topic, b"%d" % (offset + 1), APPLIED + topic.encode(), partition)
        producer.produce(state_topic, b"%d" % offset, SKIPPED + topic.encode(), partition)

    _call(write, f"write into {outputs.encoders[DEAD_LETTER][0]} or {state_topic}")
    done = (
        f"is tried again by agent {agent}"
        if retry
        else f"is passed over for agent {agent} and is a dead letter now"
    )
    return (
        f"{here} {done}: a worker that runs ends within a minute and goes on from there, one "
        "that is started goes on at once"
    )


def _stopped_at(entries: Entries, agent: str, topic: str, here: str, offset: int) -> Failure:
    value, applied = (
        entries.get(FAILED + topic.encode()),
        int(entries.get(APPLIED + topic.encode(), b"-1")),
    )
    failure = Failure.decoded(value) if value else None
    if failure is None or not failure.stops:
        raise NotStopped(
            f"agent {agent} is not stopped in this partition: it has applied {topic} up to "
            f"offset {applied}"
        )
    if failure.first != offset:
        raise NotStopped(f"agent {agent} is stopped at offset {failure.first}, not at {here}")
    if 0 <= applied < offset:
        raise NotStopped(
            f"agent {agent} has yet to apply offsets {applied} to {offset - 1} of {topic}: let "
            "a worker run, then try again"
        )
    return failure


def _record(bootstrap: str, source: tuple[str, int], offset: int) -> ck.Message | None:
    """Return the record; None where retention has deleted it."""
    if log_starts(bootstrap, [source])[source] > offset:
        return None
    reading = ck.Consumer(
        {
            **client(bootstrap),
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )
    try:
        reading.assign([TopicPartition(*source, offset)])
        message = reading.poll(TIMEOUT)
    finally:
        reading.close()
    if message is None or message.error() is not None or message.offset() != offset:
        raise NotStopped(
            f"{source[0]}[{source[1]}] has no record at offset {offset}: "
            f"{message and message.error()}"
        )
    return message


def _call(call: Callable[[], None], what: str) -> None:
    try:
        call()
    except KafkaException as error:
        raise refused(error.args[0], what) from None
