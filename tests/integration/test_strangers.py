"""What strangers write into our topics and registry: dead-lettered, shown as far as it can be, and
it stops and executes nothing."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import confluent_kafka as ck
import drill
import fastavro
import httpx
import pyarrow.parquet
import pytest
from unit.test_hostile_headers import Broker

from infra import topology
from infra.cli.main import main
from infra.embedded.ports import free_ports
from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.supervisor import Supervisor
from processors.decode.reader import CUT_TO
from schemas.clients.registry import Registry
from schemas.control import CUT, UNREADABLE_HEADERS, Control
from schemas.topics import Topology, load_example, load_schema
from schemas.wire import compile_encoder, header

TRADE, EXAMPLE = load_schema("raw_trade"), load_example("raw_trade")
SECOND = 1_000


class Gateway(BaseHTTPRequestHandler):
    """Stands before the real registry: passes on, denies schemas, or does not answer."""

    def _pass_on(self):
        if self.server.mode == "away":
            self.server.back.wait(60)
        if self.server.mode == "lagging" and "/schemas/ids/" in self.path:
            self.server.denied += 1
            return self._answer(
                404, json.dumps({"error_code": 40403, "message": "no schema"}).encode()
            )
        if forged := self.server.forged.get(self.path.removeprefix("/apis/ccompat/v7")):
            return self._answer(200, forged)
        if "/schemas/ids/" in self.path:
            self.server.asked.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = httpx.request(
            self.command,
            self.server.target + self.path,
            content=body,
            headers={"Content-Type": "application/json"},
            timeout=30,
        )
        return self._answer(answer.status_code, answer.content)

    do_GET = do_POST = do_PUT = _pass_on  # noqa: N815 - the server's names

    def _answer(self, status, content):
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            pass  # whoever asked has given up

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway(stack):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    server.target = stack.registry_url.partition("/apis/")[0]
    server.mode, server.back, server.denied, server.asked, server.forged = (
        "open",
        threading.Event(),
        0,
        [],
        {},
    )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.back.set()
    server.shutdown()
    server.server_close()


class Cluster:
    def __init__(self, stack, gateway, namespace):
        self.registry = Registry(stack.registry_url)
        self.bootstrap = stack.bootstrap
        self.names = Topology(namespace, intervals=("1m",), windows=("1m",), partitions=1)
        ids = topology.apply(stack.bootstrap, self.registry, self.names, {})
        self.raw = self.names.name("infoway.raw.trade")
        self.encode = compile_encoder(TRADE, ids[self.raw])
        self.http = f"127.0.0.1:{free_ports(0)[0]}"
        self.variables = {
            "INFOWAY_BOOTSTRAP": stack.bootstrap,
            "INFOWAY_REGISTRY": f"http://127.0.0.1:{gateway.server_port}/apis/ccompat/v7",
            "INFOWAY_PREFIX": namespace,
            "INFOWAY_INTERVALS": "1m",
            "INFOWAY_WINDOWS": "1m",
            "INFOWAY_PARTITIONS": "1",
            "INFOWAY_HTTP": self.http,
        }

    def trade(self, number, **changes):
        at = 1_752_825_600_000 + number * SECOND
        fields = {
            **EXAMPLE,
            "symbol": "BTCUSDT",
            "business": "crypto",
            "feed": "crypto-1",
            "connection": "c",
            "source": "live",
        }
        fields |= {
            "ts_event": at,
            "ts_recv": (at + 50) * 1000,
            "price": "10",
            "volume": "1",
            "turnover": "10",
            "sequence": number + 1,
        }
        return self.encode(*{**fields, **changes}.values())

    def control(self, source):
        return Control(
            "mark", "crypto-1", "crypto", "other", source, 1_752_825_700_000, 1_752_825_700_000_000
        ).headers()

    def publish(self, *values):
        """Each a value, or the headers of a control record."""
        producer = ck.Producer({"bootstrap.servers": self.bootstrap})
        for value in values:
            if isinstance(value, bytes):
                producer.produce(self.raw, value, b"BTCUSDT", 0)
            else:
                producer.produce(self.raw, None, None, 0, headers=value)
        assert producer.flush(20) == 0

    def foreign(self, schema, value, subject):
        """Register a schema under a subject of its own, and return a value by it."""
        answer = httpx.post(
            f"{self.registry.url}/subjects/{subject}/versions",
            json={"schema": json.dumps(schema)},
            timeout=30,
        )
        body = io.BytesIO()
        if isinstance(value, bytes):
            body.write(value)
        else:
            fastavro.schemaless_writer(body, fastavro.parse_schema(schema), value)
        return header(answer.json()["id"]) + body.getvalue()

    def rows(self, name):
        read = ValueReader(self.registry)
        return [
            read(message.value())[1]
            for message in read_to_end(self.bootstrap, self.names.name(name))
        ]

    def letters(self):
        read = ValueReader(self.registry)
        found = read_to_end(self.bootstrap, self.names.name("infoway.dead-letter"))
        return [(read(message.value())[1], message.headers()) for message in found]

    def counted(self, name):
        metrics = httpx.get(f"http://{self.http}/metrics", timeout=30).text
        return float(
            next(line.split()[1] for line in metrics.splitlines() if line.startswith(name))
        )

    def ready(self):
        try:
            return httpx.get(f"http://{self.http}/readyz", timeout=30).text.strip()
        except httpx.HTTPError as error:
            return repr(error)

    def volumes(self):
        return [row["volume"] // 10**18 for row in self.rows("infoway.vwap.1m")]


@pytest.fixture
def cluster(stack, gateway, namespace):
    return Cluster(stack, gateway, namespace)


def wait(workers, condition, seconds=120):
    assert drill.wait_until(lambda: workers.check() or condition(), seconds)


def tailed(cluster, lines, topic="infoway.raw.trade"):
    """Return the first lines of stdout and stderr that `tail` has of a topic, once they are as
    many."""
    command = [
        sys.executable,
        "-m",
        "infra.cli.main",
        "tail",
        topic,
        "--from-beginning",
        "--prefix",
        cluster.names.prefix,
    ]
    tail = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **cluster.variables, "INFOWAY_HTTP": ""},
    )
    out, err = [], []
    readers = [
        threading.Thread(target=_gather, args=each)
        for each in ((tail.stdout, out), (tail.stderr, err))
    ]
    for reader in readers:
        reader.start()
    try:
        assert drill.wait_until(
            lambda: len(out) + len(err) >= lines or tail.poll() is not None, 90
        ), (out, err)
    finally:
        tail.send_signal(signal.SIGTERM)
        assert tail.wait(60) == 0, err
        for reader in readers:
            reader.join()
    return out, err


def _gather(stream, into):
    for line in stream:
        into.append(line)


@pytest.mark.timeout(400)
def test_a_field_name_of_the_registry_is_never_executed(cluster, gateway, tmp_path):
    """Whoever answers for a registry without TLS can send this; some registries take it from
    anybody, too."""
    witness = tmp_path / "executed"
    attack = f"x[__import__('pathlib').Path({str(witness)!r}).write_text('yes')]"
    schema = {
        "type": "record",
        "name": "RawTrade",
        "fields": [{"name": "x", "type": "int"}, {"name": attack, "type": "int"}],
    }
    gateway.forged["/schemas/ids/77777"] = json.dumps({"schema": json.dumps(schema)}).encode()
    cluster.publish(header(77777) + b"\2\2", cluster.trade(0))
    with Supervisor(cluster.variables, 1, tmp_path / "logs") as workers:
        wait(workers, lambda: cluster.volumes() == [1])
        [(letter, _)] = cluster.letters()
        assert letter["error_class"] == "UnreadableSchema"
        assert "no name of Avro's" in letter["error_text"]
        out, err = tailed(cluster, 2)
        assert workers.restarts == 0
    assert not witness.exists()
    assert json.loads(out[0])["symbol"] == "BTCUSDT"
    assert b"no name of Avro's" in err[0]
    assert b"Traceback" not in b"".join(err)


@pytest.mark.timeout(400)
def test_what_could_stop_a_partition_below_any_decoder_is_a_dead_letter(cluster, tmp_path):
    """A header that the binding cannot read, a letter too large to be sent, an id no registry has,
    a mark of the year 2100."""
    below = Broker(cluster.bootstrap)
    below.write(None, b"\xff\xfe", cluster.raw)
    at = 1_752_825_600_000
    never = Control("mark", "crypto-1", "crypto", "c", "live", at + (1 << 41), at * 1000).headers()
    cluster.publish(
        b"x" * 999_900,
        header((1 << 32) - 1) + b"x",
        never,
        [("control", b"x" * 900_000)],
        cluster.trade(0),
        cluster.trade(1),
    )
    with Supervisor(cluster.variables, 1, tmp_path / "logs") as workers:
        wait(workers, lambda: cluster.volumes() == [1, 2])
        letters = cluster.letters()
        assert workers.restarts == 0
    below.lib.rd_kafka_destroy(below.producer)
    kinds = [
        "UnreadableControl",
        "UnreadableValue",
        "UnreadableValue",
        "Undecodable",
        "UnreadableControl",
    ]
    assert [letter["error_class"] for letter, _ in letters] == kinds
    assert [headers for _, headers in letters[:2]] == [[UNREADABLE_HEADERS], [(CUT, b"999914")]]
    assert letters[1][0]["value"] == b"x" * CUT_TO
    assert cluster.rows("infoway.late") == []


MAP = {"type": "map", "values": "int"}
LEGAL = {
    "enum": ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "B"),
    "map": ({"type": "map", "values": ["null", "long"]}, {"\x1b[31m": 5}, {"\x1b[31m": 5}),
    "recursive": (
        {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]},
        {"next": {"next": None}},
        {"next": {"next": None}},
    ),
    "ours but for a map": (
        {
            **TRADE,
            "fields": [
                {**field, "type": MAP} if field["name"] == "price" else field
                for field in TRADE["fields"]
            ],
        },
        {**EXAMPLE, "price": {"a": 1}},
        {**EXAMPLE, "price": {"a": 1}},
    ),
    "a primitive": ("string", "\x1b]0;title\x07[red]", "\x1b]0;title\x07[red]"),
}


@pytest.mark.timeout(400)
def test_legal_schemas_of_others_are_dead_letters_and_tail_shows_them(cluster, tmp_path):
    values = [
        cluster.foreign(schema, value, f"{cluster.names.prefix}legal-{n}")
        for n, (schema, value, _) in enumerate(LEGAL.values())
    ]
    torn = values[0][:5] + b"\xff\xff"
    cluster.publish(cluster.trade(0), *values, torn, cluster.trade(1))
    with Supervisor(cluster.variables, 1, tmp_path) as workers:
        wait(workers, lambda: cluster.volumes() == [1, 2])
        wait(workers, lambda: len(cluster.letters()) == len(values) + 1)
        assert [letter["value"] for letter, _ in cluster.letters()] == [*values, torn]
        assert {letter["error_class"] for letter, _ in cluster.letters()} == {"UnreadableSchema"}
        assert workers.restarts == 0
        wait(workers, lambda: cluster.counted("infoway_dead_lettered_total") == len(values) + 1)
    out, err = tailed(cluster, len(values) + 3)
    assert [json.loads(line) for line in out][1:-1] == [shown for _, _, shown in LEGAL.values()]
    assert len(err) == 1
    assert not any((byte < 32 and byte != 10) or byte > 126 for byte in b"".join(out + err))
    log = b"".join(path.read_bytes() for path in tmp_path.glob("*.log"))
    assert b"offset 1 is dead-lettered: UnreadableSchema" in log
    assert log.count(b"is dead-lettered") < len(values)


@pytest.mark.timeout(400)
def test_the_letter_of_a_record_that_none_can_hold_has_its_beginning_and_its_place(
    cluster, tmp_path
):
    cluster.publish(cluster.trade(0), b"x" * 999_000, cluster.trade(1))
    with Supervisor(cluster.variables, 1, tmp_path) as workers:
        wait(workers, lambda: cluster.volumes() == [1, 2])
        [(letter, headers)] = cluster.letters()
        assert workers.restarts == 0
    assert (letter["value"], letter["source_offset"]) == (b"x" * CUT_TO, 1)
    assert "the whole record is where it was read, at offset 1" in letter["error_text"]
    assert [name for name, _ in headers] == [CUT]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("setting", ["", "live"])
def test_records_of_another_source_are_dead_letters_and_stop_nothing(cluster, tmp_path, setting):
    strays = [
        cluster.trade(1, source="simulated", volume="100"),
        cluster.control("replay"),
        cluster.trade(2, source="rest", volume="100"),
    ]
    # without the setting the first record of the partition says what its source is
    first = [cluster.trade(0, source="replay", volume="1000")] if setting else []
    cluster.publish(*first, cluster.trade(0), *strays, cluster.trade(3))
    variables = {**cluster.variables, "INFOWAY_SOURCE": setting, "INFOWAY_BATCH_RECORDS": "2"}
    with Supervisor(variables, 1, tmp_path) as workers:
        wait(workers, lambda: cluster.volumes() == [1, 2])
        wait(workers, lambda: len(cluster.letters()) == len(first + strays))
        strayed = lambda: cluster.counted("infoway_stray_records_total")  # noqa: E731
        wait(workers, lambda: strayed() == len(first + strays))
        assert workers.restarts == 0
    letters = cluster.letters()
    assert {letter["error_class"] for letter, _ in letters} == {"SourcesMixed"}
    assert [letter["value"] for letter, _ in letters] == [
        each if isinstance(each, bytes) else b"" for each in first + strays
    ]
    assert dict(letters[-2][1])["source"] == b"replay"
    # another start, from the state: the same decision, for all agents
    cluster.publish(cluster.trade(4, source="simulated", volume="100"), cluster.trade(5))
    with Supervisor({**variables, "INFOWAY_BATCH_RECORDS": "100"}, 1, tmp_path) as workers:
        wait(workers, lambda: cluster.volumes() == [1, 2, 3])
        wait(workers, lambda: len(cluster.letters()) == len(first + strays) + 1)
        assert workers.restarts == 0
    assert {row["volume"] for row in cluster.rows("infoway.bars.1m")} <= {
        10**18,
        2 * 10**18,
        3 * 10**18,
    }


@pytest.mark.timeout(400)
def test_a_state_of_another_source_than_the_setting_is_not_gone_on_with(cluster, tmp_path):
    cluster.publish(cluster.trade(0, source="simulated"))
    with Supervisor(cluster.variables, 1, tmp_path) as workers:
        wait(workers, lambda: cluster.volumes() == [1])
    with Supervisor({**cluster.variables, "INFOWAY_SOURCE": "live"}, 1, tmp_path) as workers:
        assert drill.wait_until(lambda: workers.failure is not None, 120)
        assert (
            "INFOWAY_SOURCE=live: partition 0 is of source 'live', the state was built from "
            "'simulated'" in str(workers.failure)
        )


@pytest.mark.timeout(400)
def test_a_schema_that_a_replica_does_not_have_yet_is_waited_for(cluster, gateway, tmp_path):
    gateway.mode = "lagging"
    cluster.publish(*map(cluster.trade, range(100)))
    with Supervisor(cluster.variables, 1, tmp_path) as workers:
        wait(workers, lambda: gateway.denied >= 2)
        wait(workers, lambda: "waiting for the schema registry for " in cluster.ready())
        wait(workers, lambda: "it has no schema of id" in cluster.ready())
        gateway.mode = "open"
        wait(workers, lambda: len(cluster.volumes()) == 100)
        wait(workers, lambda: cluster.ready() == "ok")
        assert workers.restarts == 0
    assert cluster.letters() == []
    assert len(gateway.asked) == len(set(gateway.asked)), "each id once"


@pytest.mark.timeout(400)
def test_a_registry_that_is_away_in_mid_run_is_waited_for(cluster, gateway, tmp_path):
    cluster.publish(cluster.trade(0))
    with Supervisor(cluster.variables, 1, tmp_path) as workers:
        wait(workers, lambda: cluster.volumes() == [1])
        gateway.mode = "away"
        # one more version of ours, whose id nobody has asked for
        newer = {
            **TRADE,
            "fields": [
                *TRADE["fields"],
                {"name": "venue", "type": ["null", "string"], "default": None},
            ],
        }
        record = cluster.trade(1)
        value = cluster.foreign(newer, record[5:] + b"\0", f"{cluster.raw}-value")
        cluster.publish(value, cluster.trade(2))
        wait(workers, lambda: "s: no answer from the schema registry" in cluster.ready())
        began = time.monotonic()
        # longer than the session timeout of 6 s: the worker stays in its group
        wait(workers, lambda: time.monotonic() - began > 8)
        assert "waiting for the schema registry" in cluster.ready()
        gateway.mode = "open"
        gateway.back.set()
        wait(workers, lambda: cluster.volumes() == [1, 2, 3])
        wait(workers, lambda: cluster.ready() == "ok")
        assert workers.restarts == 0
    assert cluster.letters() == []
    log = b"".join(path.read_bytes() for path in tmp_path.glob("*.log"))
    assert log.count(b"waiting for the schema registry for ") == 1, "one line a minute"
    assert log.count(b"the schema registry is there again after ") == 1


@pytest.mark.timeout(400)
def test_commands_name_what_they_cannot_read_and_go_on(cluster, tmp_path, monkeypatch, capsys):
    """A stranger's records in topics of ours, and times that no calendar has; each command does its
    work on the others."""
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    bars, dead = cluster.names.name("infoway.bars.1m"), cluster.names.name("infoway.dead-letter")
    schema, value, _ = LEGAL["map"]
    foreign = cluster.foreign(schema, value, f"{cluster.names.prefix}commands")
    bar = load_schema("bar")
    bar_id = cluster.registry.id_of(f"{bars}-value", bar)
    fields = {
        **load_example("bar"),
        **dict.fromkeys(("open", "high", "low", "close", "volume", "turnover"), 10**18),
        "trade_date": 2**31 - 1,
    }
    fields |= {"vwap": None, "buy_volume": None, "sell_volume": None, "ts_start": 2**62}
    good = compile_encoder(bar, bar_id)(*fields.values())
    letter = load_schema("dead_letter")
    letter_id = cluster.registry.id_of(f"{dead}-value", letter)
    dead_letter = compile_encoder(letter, letter_id)(
        cluster.raw, 0, 3, b"A", b"x", "E\x1b[31m", "why\nforged", None, None, None, None
    )
    producer = ck.Producer({"bootstrap.servers": cluster.bootstrap})
    for topic, each in (
        (bars, good),
        (bars, foreign),
        (bars, b"noise"),
        (dead, foreign),
        (dead, dead_letter),
    ):
        producer.produce(topic, each, b"A", 0)
    assert producer.flush(20) == 0

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert ended.value.code == 0
        return capsys.readouterr()

    exported = run("export", "--out", str(tmp_path), "--topics", "infoway.bars.1m")
    assert "3 records read" in exported.out
    assert f"{bars}[0] offset 1 is passed over: written as map" in exported.err
    assert f"{bars}[0] offset 2 is passed over: not Confluent's wire format" in exported.err
    [file] = tmp_path.glob("*/*.parquet")
    assert pyarrow.parquet.read_table(file).column("ts_start").cast("int64").to_pylist() == [2**62]
    listed = run("dead-letter", "list")
    assert "0:0 is no dead letter of ours: written as map" in listed.err
    [line] = listed.out.splitlines()
    assert "E\\x1b[31m: why\\nforged" in line
    assert run("dead-letter", "redrive").out.splitlines()[-1] == "1 redriven, 0 passed over"
    logging.setLogRecordFactory(logging.LogRecord)
