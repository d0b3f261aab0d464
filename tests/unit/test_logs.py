"""What an operator reads while a broker is away: a line a minute, with counts, and nothing that
matters is held back."""

import ast
import logging
from importlib.util import find_spec
from pathlib import Path

import confluent_kafka
import pytest

from schemas.clients import kafka_logs
from schemas.clients.kafka_logs import PERIOD, Sparing, spare


@pytest.fixture
def now(monkeypatch):
    clock = [1_000.0]
    monkeypatch.setattr(kafka_logs.time, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def log(caplog):
    """A logger with the filter, and the lines that it shows."""
    names = ["librdkafka-test", "aiokafka.test"]
    spare(names)
    spare(names)
    yield lambda: [record.getMessage() for record in caplog.records]
    for name in names:
        logger = logging.getLogger(name)
        assert len([each for each in logger.filters if isinstance(each, Sparing)]) == 1
        logger.filters.clear()


def fail(broker=1):
    logging.getLogger("librdkafka-test").error(
        "%s [%s] %s", "FAIL", "rdkafka#producer-1", f"broker {broker}: Connection refused"
    )


def test_a_broker_that_is_away_is_a_line_a_minute_with_a_count_however_many_clients_complain(
    now, log
):
    aiokafka = logging.getLogger("aiokafka.test")
    for _ in range(100):
        fail()
        aiokafka.error("Unable connect to node with id %s: %s", 1, "refused")
        aiokafka.error("Unable to update metadata from %s", [1])
        aiokafka.error("Group Coordinator Request failed: %s", "NodeNotReadyError")
        now[0] += PERIOD / 128
    now[0] += PERIOD
    fail()
    assert log() == [
        "FAIL [rdkafka#producer-1] broker 1: Connection refused",
        "FAIL [rdkafka#producer-1] broker 1: Connection refused (399 lines like this one were "
        "held back)",
    ]


def test_what_says_something_else_is_shown(now, log):
    librdkafka, aiokafka = logging.getLogger("librdkafka-test"), logging.getLogger("aiokafka.test")
    fail()
    librdkafka.error("%s [%s] %s", "FATAL", "rdkafka#producer-1", "fenced")
    librdkafka.error("%s [%s] %s", "FATAL", "rdkafka#producer-1", "fenced again")
    librdkafka.warning("%s [%s] %s", "CONFWARN", "rdkafka#producer-1", "a setting is not used")
    librdkafka.error("worker ends (%s)", "fenced")
    librdkafka.error("worker ends (%s)", "fenced")
    aiokafka.error("Heartbeat failed: %s", "member unknown")
    aiokafka.info("Joined group")
    aiokafka.info("Joined group")
    aiokafka.error("Unable connect to node with id %s: %s", 1, "x", exc_info=ValueError("a bug"))
    assert log()[1:-1] == [
        "FATAL [rdkafka#producer-1] fenced",
        "FATAL [rdkafka#producer-1] fenced again",
        "CONFWARN [rdkafka#producer-1] a setting is not used",
        "worker ends (fenced)",
        "worker ends (fenced)",
        "Heartbeat failed: member unknown",
        *(
            ["Joined group"] * 2
            if logging.getLogger("aiokafka.test").isEnabledFor(logging.INFO)
            else []
        ),
    ]


def test_the_texts_are_those_that_the_clients_write(caplog):
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": "127.0.0.1:1", "logger": logging.getLogger("librdkafka-own")}
    )
    while not caplog.records:
        producer.poll(0.05)
    record = caplog.records[0]
    assert record.msg == kafka_logs.LIBRDKAFKA
    assert record.args[0] in kafka_logs._AWAY
    folder = Path(find_spec("aiokafka").origin).parent
    texts = {
        node.value
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert {text for text in kafka_logs._AWAY if " " in text} <= texts


def test_the_loggers_of_the_worker_are_there():
    tree = ast.parse(Path(find_spec("processors.app").origin).read_text())
    assigned = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "KAFKA_LOGGERS"
    ]
    names = ast.literal_eval(assigned[0].value)
    assert all(find_spec(name) for name in names)
