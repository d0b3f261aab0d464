"""The whole way through a broker with TLS, SCRAM and ACLs, and a registry behind TLS and a password; and what is not allowed."""

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
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, AdminClient, ResourcePatternType, ResourceType
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.embedded.ports import free_ports
from infra.embedded.stack import Stack
from infra.simulator import running_simulator
from schemas.security import Security

ACLS = yaml.safe_load((Path(__file__).parents[2] / "infra" / "acls.yaml").read_text())
PREFIX = "team."
PASSWORD = "correct-horse-battery"
BASE = {name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")}


def certificates(folder):
    """A certificate for 127.0.0.1 that stands for itself, and it with its key as Kafka reads them."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
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
                found = http.request(self.command, registry_url + self.path, content=body, headers={"Content-Type": "application/json"})
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
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": folder / "server.pem",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # the test's own, by the listener without TLS: no component uses it
            "super.users": "User:ANONYMOUS",
        }

    with Stack(folder / "stack", properties=secured) as stack, guarded(stack.registry_url, folder) as registry_url:
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
    """Make a SCRAM user of each component and allow it what acls.yaml says."""
    info = kafka_admin.ScramCredentialInfo(kafka_admin.ScramMechanism.SCRAM_SHA_512, 4096)
    users = [kafka_admin.UserScramCredentialUpsertion(name, info, PASSWORD.encode()) for name in ACLS]
    for future in admin.alter_user_scram_credentials(users).values():
        future.result(20)
    bindings = []
    for component, rules in ACLS.items():
        for rule in rules:
            [kind] = {"topic", "group", "transactional_id"} & set(rule)
            literal = rule.get("literal", False)
            pattern = ResourcePatternType.LITERAL if literal else ResourcePatternType.PREFIXED
            for operation in rule["operations"]:
                name = rule[kind] if literal else PREFIX + rule[kind]
                snake = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in operation).strip("_").upper()
                allowed = AclOperation[snake]
                what = ResourceType[kind.upper()]
                bindings.append(AclBinding(what, name, pattern, f"User:{component}", "*", allowed, AclPermissionType.ALLOW))
    for future in admin.create_acls(bindings).values():
        future.result(20)


def run(environment, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert PASSWORD not in done.stdout + done.stderr
    return done


@pytest.mark.timeout(180)
def test_every_component_does_its_work_and_none_does_anothers(settings, tmp_path):
    log = tmp_path / "log"
    applied = run(settings("topology"), "topology", "apply")
    assert applied.returncode == 0, applied.stderr
    assert run(settings("topology"), "topology", "plan", "--detailed-exitcode").returncode == 0

    def start(component, *command, **changes):
        environment = settings(component, INFOWAY_WORK_DIR=str(tmp_path / "work"), INFOWAY_SPOOL=str(tmp_path / "spool"), **changes)
        return subprocess.Popen([sys.executable, "-m", "infra.cli", *command], env=environment, stdout=output, stderr=output, cwd=tmp_path)

    with running_simulator(rate=50) as simulator, log.open("ab") as output:
        produce = ("produce", "--symbols", "BTCUSDT,00700.HK", "--url", simulator.url)
        with start("producer", *produce) as producer, start("processors", "worker") as worker:
            try:
                exporting = ("export", "--topics", "infoway.vwap.1m,infoway.depth.imbalance", "--to", str(tmp_path / "export"))
                read = drill.wait_until(lambda: run(settings("consumer"), *exporting).stdout.count(": 0 records") == 0, 60)
                assert read, log.read_text()
            finally:
                for each in (producer, worker):
                    each.terminate()
            assert (producer.wait(20), worker.wait(20)) == (0, 0), log.read_text()
        assert len(list((tmp_path / "export").glob("*/*.parquet"))) >= 2
        with start("producer", "worker") as worker:
            assert worker.wait(40) not in (0, None)
        with start("processors", *produce) as producer:
            assert producer.wait(40) == 1
    said = log.read_text()
    assert PASSWORD not in said
    assert "does not let this client see" in said
    assert "allow its principal" in said
    refused = run(settings("consumer"), "topology", "apply", "--partitions", "2", "--allow-partition-change")
    assert (refused.returncode, refused.stderr.count("does not let this client see")) == (1, 1), refused.stderr
    assert delivery(settings("consumer"), f"{PREFIX}infoway.vwap.1m").code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert delivery(settings("producer"), f"{PREFIX}infoway.raw.trade") is None
    assert delivery(settings("producer"), f"{PREFIX}infoway.bars.1m").code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def delivery(environment, topic):
    """The error of a record of this component's, None where it is let through."""
    answers = []
    security = Security.from_environment(environment)
    producer = ck.Producer({"bootstrap.servers": environment["INFOWAY_BOOTSTRAP"], **security.kafka()})
    producer.produce(topic, b"", b"key", on_delivery=lambda error, _: answers.append(error))
    producer.flush(20)
    [answer] = answers
    return answer


def test_a_wrong_setting_is_told_in_lines_that_name_it(settings):
    wrong = {
        "uthenticat": {"INFOWAY_SASL_USERNAME": "nobody"},
        "INFOWAY_SECURITY_PROTOCOL": {"INFOWAY_SECURITY_PROTOCOL": "PLAINTEXT", "INFOWAY_SASL_PASSWORD_FILE": ""},
        "ertificate": {"INFOWAY_TLS_CA": ""},
        "401": {"INFOWAY_REGISTRY_PASSWORD": "wrong"},
    }
    with ThreadPoolExecutor(len(wrong)) as threads:
        runs = {said: threads.submit(run, settings("topology", **changes), "topology", "plan") for said, changes in wrong.items()}
    for said, done in runs.items():
        assert done.result().returncode == 1
        assert said in done.result().stderr
        assert "Traceback" not in done.result().stderr
