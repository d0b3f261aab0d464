"""The whole way through a broker with TLS, SCRAM and ACLs, and a registry behind TLS and a
password; and what is not allowed."""

import json
import os
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import confluent_kafka as ck
import drill
import httpx
import pytest
import yaml
from confluent_kafka import KafkaError
from confluent_kafka import admin as kafka_admin
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from page_records import bar
from websockets.sync.client import connect

from infra.embedded.ports import free_ports
from infra.embedded.stack import Stack
from infra.simulator import running_simulator
from schemas.clients.kafka import Security
from schemas.clients.registry import Registry
from schemas.topics import load_example, load_schema
from schemas.wire import compile_encoder

ACLS = yaml.safe_load((Path(__file__).parents[2] / "infra" / "deploy" / "acls.yaml").read_text())
PREFIX = "team."
PASSWORD = "correct-horse-battery"
SCRAM_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"


def without(component, name, *operations):
    """A component's rules less one of them, or less these operations of it."""
    kept = [rule for rule in ACLS[component] if name not in rule.values()]
    [rule] = [rule for rule in ACLS[component] if name in rule.values()]
    left = [
        operation for operation in rule["operations"] if operations and operation not in operations
    ]
    return [*kept, {**rule, "operations": left}]


LESS = {
    "redrive-hidden-letters": without("redrive", "infoway.dead-letter"),
    "redrive-unread-letters": without("redrive", "infoway.dead-letter", "Read"),
    "redrive-unmarked-letters": without("redrive", "infoway.dead-letter", "Write"),
    "redrive-hidden-raw": without("redrive", "infoway.raw."),
    "redrive-unwritten-raw": without("redrive", "infoway.raw.", "Write"),
    "redrive-no-transactions": without("redrive", "infoway-dead-letter"),
    "consumer-hidden-letters": without("consumer", "infoway.dead-letter"),
    "consumer-unread-letters": without("consumer", "infoway.dead-letter", "Read"),
    "consumer-hidden-raw": without("consumer", "infoway.raw."),
    "consumer-hidden-status": without("consumer", "infoway.feed.status"),
    "consumer-hidden-bars": without("consumer", "infoway.bars."),
    "consumer-no-tail-group": without("consumer", "tail"),
    "producer-hidden-raw": without("producer", "infoway.raw."),
    "producer-unwritten-raw": without("producer", "infoway.raw.", "Write"),
}
"""Components that may do less than they have to."""
BASE = {name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")}


def certificates(folder):
    """A certificate for 127.0.0.1 that stands for itself, and it with its key as Kafka reads
    them."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    shown = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(shown)
    (folder / "server.pem").write_bytes(secret + shown)


@contextmanager
def guarded(registry_url, folder):
    """A registry over TLS that asks for user and password, in front of one that does not."""
    expected = httpx.BasicAuth("reader", PASSWORD)._auth_header

    class Guard(BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") == expected:
                found = http.request(
                    self.command,
                    registry_url + self.path,
                    content=body,
                    headers={"Content-Type": "application/json"},
                )
                status, text = found.status_code, found.content
            else:
                status, text = 401, b"{}"
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - as http.server asks for them

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with httpx.Client(trust_env=False) as http:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A component's environment on a broker that lets in only what acls.yaml says."""
    folder = tmp_path_factory.mktemp("secured")
    certificates(folder)
    [port] = free_ports(0)

    def secured(properties):
        return properties | {
            "listeners": f"{properties['listeners']},SASL_SSL://127.0.0.1:{port}",
            "advertised.listeners": f"{properties['advertised.listeners']},SASL_SSL://127.0.0.1:{port}",
            "listener.security.protocol.map": ",".join(
                f"{name}:{name}" for name in ("PLAINTEXT", "SASL_SSL")
            )
            + ",CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{SCRAM_MODULE} required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": folder / "server.pem",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # the test's own, by the listener without TLS: no component uses it
            "super.users": "User:ANONYMOUS",
        }

    with (
        Stack(folder / "stack", properties=secured) as stack,
        guarded(stack.registry_url, folder) as registry_url,
    ):
        admit(AdminClient({"bootstrap.servers": stack.bootstrap}))
        (folder / "password").write_text(f"{PASSWORD}\n")

        def environment(component, **changes):
            return BASE | {
                "INFOWAY_BOOTSTRAP": f"127.0.0.1:{port}",
                "INFOWAY_REGISTRY": registry_url,
                "INFOWAY_PREFIX": PREFIX,
                "INFOWAY_PARTITIONS": "1",
                "INFOWAY_SECURITY_PROTOCOL": "SASL_SSL",
                "INFOWAY_SASL_USERNAME": component,
                "INFOWAY_SASL_PASSWORD_FILE": str(folder / "password"),
                "INFOWAY_TLS_CA": str(folder / "ca.pem"),
                "INFOWAY_REGISTRY_USERNAME": "reader",
                "INFOWAY_REGISTRY_PASSWORD": PASSWORD,
                **changes,
            }

        yield environment


def admit(admin):
    """Make a SCRAM user of each component and allow it what acls.yaml says, and of each that may do
    less."""
    info = kafka_admin.ScramCredentialInfo(kafka_admin.ScramMechanism.SCRAM_SHA_512, 4096)
    users = [
        kafka_admin.UserScramCredentialUpsertion(name, info, PASSWORD.encode())
        for name in ACLS | LESS
    ]
    for future in admin.alter_user_scram_credentials(users).values():
        future.result(60)
    bindings = []
    for component, rules in (ACLS | LESS).items():
        for rule in rules:
            [kind] = {"topic", "group", "transactional_id"} & set(rule)
            literal = rule.get("literal", False)
            pattern = ResourcePatternType.LITERAL if literal else ResourcePatternType.PREFIXED
            for operation in rule["operations"]:
                name = rule[kind] if literal else PREFIX + rule[kind]
                snake = (
                    "".join(
                        f"_{letter}" if letter.isupper() else letter.upper() for letter in operation
                    )
                    .strip("_")
                    .upper()
                )
                allowed = AclOperation[snake]
                what = ResourceType[kind.upper()]
                bindings.append(
                    AclBinding(
                        what,
                        name,
                        pattern,
                        f"User:{component}",
                        "*",
                        allowed,
                        AclPermissionType.ALLOW,
                    )
                )
    for future in admin.create_acls(bindings).values():
        future.result(60)


def run(environment, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert PASSWORD not in done.stdout + done.stderr
    return done


@pytest.mark.heavy
@pytest.mark.timeout(500)
def test_every_component_does_its_work_and_none_does_anothers(settings, tmp_path):
    log = tmp_path / "log"
    applied = run(settings("topology"), "topology", "apply")
    assert applied.returncode == 0, applied.stderr
    assert run(settings("topology"), "topology", "plan", "--detailed-exitcode").returncode == 0

    def start(component, *command, **changes):
        environment = settings(
            component,
            INFOWAY_WORK_DIR=str(tmp_path / "work"),
            INFOWAY_SPOOL=str(tmp_path / "spool"),
            **changes,
        )
        return subprocess.Popen(
            [sys.executable, "-m", "infra.cli.main", *command],
            env=environment,
            stdout=output,
            stderr=output,
            cwd=tmp_path,
        )

    with running_simulator(rate=50) as simulator, log.open("ab") as output:
        produce = ("produce", "--symbols", "BTCUSDT,00700.HK", "--url", simulator.url)
        with start("producer", *produce) as producer, start("processors", "worker") as worker:
            try:
                exporting = (
                    "export",
                    "--topics",
                    "infoway.vwap.1m,infoway.depth.imbalance",
                    "--out",
                    str(tmp_path / "export"),
                )
                read = drill.wait_until(
                    lambda: run(settings("consumer"), *exporting).stdout.count(": 0 records") == 0,
                    150,
                )
                assert read, log.read_text()
            finally:
                for each in (producer, worker):
                    each.terminate()
            assert (producer.wait(60), worker.wait(60)) == (0, 0), log.read_text()
        assert len(list((tmp_path / "export").glob("*/*.parquet"))) >= 2
        with start("producer", "worker") as worker:
            assert worker.wait(90) not in (0, None)
        with start("processors", *produce) as producer:
            assert producer.wait(90) == 1
    said = log.read_text()
    assert PASSWORD not in said
    assert "does not let this client see" in said
    assert "allow its principal" in said
    refused = run(
        settings("consumer"), "topology", "apply", "--partitions", "2", "--allow-partition-change"
    )
    assert (refused.returncode, refused.stderr.count("does not let this client see")) == (1, 1), (
        refused.stderr
    )
    assert (
        delivery(settings("consumer"), f"{PREFIX}infoway.vwap.1m").code()
        == KafkaError.TOPIC_AUTHORIZATION_FAILED
    )
    assert delivery(settings("producer"), f"{PREFIX}infoway.raw.trade") is None
    assert (
        delivery(settings("producer"), f"{PREFIX}infoway.bars.1m").code()
        == KafkaError.TOPIC_AUTHORIZATION_FAILED
    )


def delivery(environment, topic):
    """The error of a record of this component's, None where it is let through."""
    answers = []
    security = Security.from_environment(environment)
    producer = ck.Producer(
        {"bootstrap.servers": environment["INFOWAY_BOOTSTRAP"], **security.kafka()}
    )
    producer.produce(topic, b"", b"key", on_delivery=lambda error, _: answers.append(error))
    producer.flush(60)
    [answer] = answers
    return answer


@pytest.fixture(scope="module")
def letter(settings):
    """A dead letter, and a line of the feeds' status."""
    assert run(settings("topology"), "topology", "apply").returncode == 0
    where = (f"{PREFIX}infoway.raw.trade", 0, 7, b"A", b"", "E", "why", None, None, None, None)
    put(
        settings("processors"),
        "infoway.dead-letter",
        "dead_letter",
        where,
        headers=[("control", b"gap")],
    )
    put(
        settings("producer"),
        "infoway.feed.status",
        "feed_status",
        load_example("feed_status").values(),
    )


def put(environment, name, schema, fields, headers=()):
    """Publish a record as the component of this environment."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        registry, avro = Registry(environment["INFOWAY_REGISTRY"]), load_schema(schema)
        schema_id = registry.id_of(f"{PREFIX}{name}-value", avro)
        registry.close()
    errors = []
    producer = ck.Producer(
        {
            "bootstrap.servers": environment["INFOWAY_BOOTSTRAP"],
            **Security.from_environment(environment).kafka(),
        }
    )
    value = compile_encoder(avro, schema_id)(*fields)
    producer.produce(
        f"{PREFIX}{name}",
        value,
        b"key",
        0,
        on_delivery=lambda error, _: errors.append(error),
        headers=list(headers),
    )
    assert producer.flush(60) == 0
    assert errors == [None]


def backfill(simulator, folder):
    """A backfill of ten minutes, a command of the producer's principal."""
    start, end = (
        datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=ago)
        for ago in (70, 60)
    )
    period = ("--from", start.isoformat(), "--to", end.isoformat())
    return (
        "backfill",
        "--symbols",
        "BTCUSDT",
        *period,
        "--state",
        str(folder),
        "--rest-url",
        simulator.rest_url,
    )


@pytest.mark.timeout(500)
def test_letters_klines_and_the_feeds_status_are_had_by_those_who_may(settings, letter, tmp_path):
    with running_simulator() as simulator:
        filled = run(settings("producer"), *backfill(simulator, tmp_path))
        assert "10 klines of 1m published, 1 of 1 symbols" in filled.stdout, filled.stderr
    listed = run(settings("consumer"), "dead-letter", "list")
    assert f"{PREFIX}infoway.raw.trade[0] offset 7: E: why" in listed.stdout, listed.stderr
    redriven = run(settings("redrive"), "dead-letter", "redrive", "--only", "0:0")
    assert redriven.stdout.endswith("1 redriven, 0 passed over\n"), redriven.stderr
    for topic, word in (
        ("dead-letter", "why"),
        ("raw.kline", "BTCUSDT"),
        ("feed.status", "last_sequence"),
    ):
        command = [
            sys.executable,
            "-u",
            "-m",
            "infra.cli.main",
            "tail",
            f"infoway.{topic}",
            "--from-beginning",
        ]
        with subprocess.Popen(
            command, env=settings("consumer"), stdout=subprocess.PIPE, text=True
        ) as tailing:
            assert word in tailing.stdout.readline()
            tailing.terminate()
            tailing.stdout.read()
        assert tailing.returncode == 0


@pytest.mark.timeout(500)
def test_what_a_principal_may_not_do_is_one_line_that_says_where_to_allow_it(
    settings, letter, tmp_path
):
    dead, raw, status = (
        f"{PREFIX}infoway.{name}" for name in ("dead-letter", "raw.trade", "feed.status")
    )
    redrive, listing = ("dead-letter", "redrive", "--only", "0:0"), ("dead-letter", "list")
    tailing = ("tail", "infoway.dead-letter", "--from-beginning")
    exporting = ("export", "--topics", "infoway.bars.1m", "--out", str(tmp_path / "export"))
    # one redrive after the other: a second one ends the first, which has the same transactional id
    with (
        running_simulator() as simulator,
        ThreadPoolExecutor(1) as redrives,
        ThreadPoolExecutor(2) as others,
    ):
        filling = backfill(simulator, tmp_path / "state")
        lacking = (
            ("redrive-hidden-letters", redrive, f"may not see {dead}"),
            ("redrive-unread-letters", redrive, f"may not read {dead}"),
            ("redrive-unmarked-letters", redrive, f"may not write into {dead} or {raw}"),
            ("redrive-hidden-raw", redrive, f"may not see {raw}"),
            ("redrive-unwritten-raw", redrive, f"may not write into {dead} or {raw}"),
            (
                "redrive-no-transactions",
                redrive,
                f"may not use the transactional.id {PREFIX}infoway-dead-letter",
            ),
            ("consumer-hidden-letters", listing, f"may not see {dead}"),
            ("consumer-unread-letters", listing, f"may not read {dead}"),
            ("consumer-hidden-letters", tailing, f"may not see {dead}"),
            ("consumer-unread-letters", tailing, f"may not read {dead}"),
            ("consumer-no-tail-group", tailing, "Group authorization failed"),
            ("consumer-hidden-raw", ("tail", "infoway.raw.trade"), f"may not see {raw}"),
            ("consumer-hidden-status", ("tail", "infoway.feed.status"), f"may not see {status}"),
            ("consumer-hidden-bars", exporting, f"see {PREFIX}infoway.bars.1m"),
            ("producer-hidden-raw", filling, f"does not let this client see {PREFIX}infoway.raw."),
            ("producer-unwritten-raw", filling, "Topic authorization failed"),
        )
        runs = [
            (
                user,
                said,
                (redrives if command is redrive else others).submit(run, settings(user), *command),
            )
            for user, command, said in lacking
        ]
    for user, said, done in runs:
        last = done.result().stderr.splitlines()[-1]
        assert (done.result().returncode, said in last) == (1, True), (user, last)
        assert "Traceback" not in done.result().stderr
        # the bar of a backfill stands before
        assert last.startswith("infoway-streams: ")
        assert user.startswith("producer") or done.result().stderr.count("\n") == 1


def test_a_wrong_setting_is_told_in_lines_that_name_it(settings):
    wrong = {
        "uthenticat": {"INFOWAY_SASL_USERNAME": "nobody"},
        "INFOWAY_SECURITY_PROTOCOL": {
            "INFOWAY_SECURITY_PROTOCOL": "PLAINTEXT",
            "INFOWAY_SASL_PASSWORD_FILE": "",
        },
        "ertificate": {"INFOWAY_TLS_CA": ""},
        "401": {"INFOWAY_REGISTRY_PASSWORD": "wrong"},
    }
    # credentials that are refused are no outage
    named = {"uthenticat": "check INFOWAY_SASL_USERNAME", "401": "check INFOWAY_REGISTRY_USERNAME"}
    with ThreadPoolExecutor(len(wrong)) as threads:
        runs = {
            said: threads.submit(run, settings("topology", **changes), "topology", "plan")
            for said, changes in wrong.items()
        }
    for said, done in runs.items():
        assert done.result().returncode == (1 if said in named else 4), done.result().stderr
        assert said in done.result().stderr
        assert named.get(said, "") in done.result().stderr
        assert "Traceback" not in done.result().stderr


@pytest.mark.timeout(500)
def test_the_page_shows_what_a_consumer_may_read(settings, letter):
    # its symbol is the key that put() gives every record
    shown = bar("key", "1m", start=60_000, close="520.2")
    put(settings("processors"), "infoway.bars.1m", "bar", shown.values())
    command = [sys.executable, "-m", "infra.cli.main", "dashboard", "--port", "0"]
    with subprocess.Popen(
        command, env=settings("consumer"), stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            url = running.stdout.readline().removeprefix("page ").strip().rstrip("/")
            with connect(url.replace("http", "ws") + "/live", origin=url, proxy=None) as page:
                page.send('{"show": {"symbol": "key", "interval": "1m"}}')
                bars = []
                while not bars:
                    message = json.loads(page.recv(60))
                    trouble = message.get("status", {}).get("trouble", "")
                    assert trouble == ""
                    if message.get("series", {}).get("loaded"):
                        bars = message["series"]["bars"]
        finally:
            running.terminate()
        assert running.wait(60) == 0
    assert [each["close"] for each in bars] == ["520.2"]
