"""Whatever a failing run writes, the API key is not in it: output, errors, topics, headers, the
process's title."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest
from websockets.sync.server import serve

from infra import topology
from infra.kafka.reader import read_to_end
from schemas.clients.registry import Registry
from schemas.topics import Topology

KEY = "k3y+with/odd=signs%and~more"
ESCAPED = (
    KEY.replace("/", "\\/").replace("=", "\\u003d").replace("&", "\\u0026").replace("+", "\\u002B")
)
"""As other JSON writers than Python's spell it."""
PERCENT = quote(KEY, safe="")
SPELLINGS = tuple(
    each.encode() for each in (KEY, PERCENT, PERCENT.lower(), ESCAPED, KEY.replace("/", "\\/"))
)


@pytest.fixture
def telltale():
    """A server that says the key wherever a vendor could: in a push, in texts, in errors, in the
    reason of its close."""

    def converse(client):
        client.recv()
        client.send(f"hello, your key is {KEY}")
        client.send(orjson.dumps({"code": 10001, "trace": KEY}).decode())
        trade = {
            "s": "BTCUSDT",
            "t": 1752826113546,
            "p": "1",
            "v": "1",
            "vw": "1",
            "td": 0,
            "apikey": KEY,
        }
        client.send(orjson.dumps({"code": 10002, "data": trade}).decode())
        client.send(
            '{"code": 10002, "data": {"s": "BTCUSDT", "t": 1752826113547, "p": "1.5", "v": "1", '
            f'"vw": "1.5", "td": 0, "key": "{ESCAPED}"}}}}'
        )
        client.send(orjson.dumps({"code": 99999, "data": KEY}).decode())
        client.send(f"who is {PERCENT.lower()}")
        client.send(f"Subscribe fail: {KEY}")
        client.send(orjson.dumps({"code": 503, "msg": f"too many klines for {KEY}"}).decode())
        client.send(
            orjson.dumps({"code": 509, "msg": f"invalid key {KEY}", "trace": KEY})
            .decode()
            .replace(KEY, ESCAPED)
        )
        client.close(1008, f"key {KEY}"[:100])

    with serve(converse, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
        server.shutdown()
        thread.join()


@pytest.mark.timeout(400)
def test_nothing_that_a_failing_run_writes_has_the_key(stack, namespace, telltale, tmp_path):
    names = Topology(namespace, partitions=1)
    topology.apply(stack.bootstrap, Registry(stack.registry_url), names)
    environment = os.environ | {
        "INFOWAY_API_KEY": KEY,
        "INFOWAY_BOOTSTRAP": stack.bootstrap,
        "INFOWAY_REGISTRY": stack.registry_url,
    }
    environment["INFOWAY_SPOOL"] = str(tmp_path / "spool")
    command = [
        sys.executable,
        "-m",
        "infra.cli.main",
        "produce",
        "--symbols",
        "BTCUSDT",
        "--url",
        telltale,
        "--prefix",
        namespace,
        "--partitions",
        "1",
    ]
    output = tmp_path / "output"
    with output.open("wb") as written:
        process = subprocess.Popen(
            command,
            env=environment | {"PYTHONPATH": str(Path.cwd())},
            stdout=written,
            stderr=written,
        )
        try:
            title = Path(f"/proc/{process.pid}/cmdline")
            titles = [title.read_bytes()] if title.exists() else []
            assert process.wait(120) == 3
        finally:
            process.kill()
    found = {"output": output.read_bytes(), "title": b"".join(titles)}
    for topic in (topic for topic in names.topics() if "producers" in topic.owner):
        messages = list(read_to_end(stack.bootstrap, topic.name))
        found[topic.name] = b"\n".join(
            part or b""
            for m in messages
            for part in (m.key(), m.value(), *(value for _, value in m.headers() or ()))
        )
    found |= {str(path): path.read_bytes() for path in (tmp_path / "spool").iterdir()}
    assert b"509" in found["output"]
    assert found[f"{namespace}infoway.dead-letter"]
    assert b"***" in found[f"{namespace}infoway.raw.trade"], "the push was kept, less the key"
    assert [
        where
        for where, written in found.items()
        if any(spelling in written for spelling in SPELLINGS)
    ] == []
