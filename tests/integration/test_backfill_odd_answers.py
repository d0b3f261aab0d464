"""The command `backfill` over answers that are odd in one place: the rest is published, and what is
not is named and counted."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infra import topology
from infra.cli.commands.feed.backfill import BackfillOptions, publish_period
from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.deployment import Deployment
from schemas.clients.registry import Registry
from schemas.control import read_control
from schemas.topics import Topology

MINUTE = 60_000
PACKAGE = {"apiNumPerSec": "1000", "maxWsConNum": 2, "maxNum": 600, "allWsNum": 800.0}


class Vendor(BaseHTTPRequestHandler):
    """Answers klines of every minute; `change` makes what it likes of an answer's rows, by how many
    were asked for before."""

    def do_GET(self):
        self.answer(PACKAGE)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        end = asked["timestamp"] // 60 * 60
        times = range(end - 60 * (asked["klineNum"] - 1), end + 60, 60)
        rows = [
            {
                "t": str(t),
                "o": "1",
                "h": "2",
                "l": "0.5",
                "c": "1.5",
                "v": "10",
                "vw": "12.5",
                "pca": "0.1",
                "pc": "1%",
            }
            for t in times
        ]
        self.server.asked.append(asked["timestamp"])
        self.answer(
            self.server.change(
                len(self.server.asked), [{"s": asked["codes"], "respList": rows[::-1]}]
            )
        )

    def answer(self, data):
        body = json.dumps({"ret": 200, "msg": "success", "data": data}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def vendor():
    with ThreadingHTTPServer(("127.0.0.1", 0), Vendor) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def deployment(stack, namespace):
    names = Topology(namespace, intervals=("1m",), windows=("1m",), partitions=1)
    ids = topology.apply(stack.bootstrap, Registry(stack.registry_url), names)
    return Deployment(stack.bootstrap, stack.registry_url, names, ids, embedded=True)


def run(deployment, vendor, start, minutes, state):
    period = tuple(
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms // 1000))
        for ms in (start, start + minutes * MINUTE)
    )
    # a key of its own: requests are paced by key
    return publish_period(
        deployment,
        BackfillOptions(deployment.topology, "BTCUSDT", *period, "1m", state),
        f"http://127.0.0.1:{vendor.server_port}",
        f"key-{start}-{vendor.server_port}",
    )


def minutes_of(deployment, topic, start):
    """Of the raw klines, or the heals, how many minutes after the start they are."""
    messages = list(read_to_end(deployment.bootstrap, deployment.topology.name(topic)))
    if topic == "infoway.raw.trade":
        return [(read_control(each.headers()).ts - MINUTE - start) // MINUTE for each in messages]
    read = ValueReader(Registry(deployment.registry_url))
    return [(read(each.value())[1]["ts_start"] - start) // MINUTE for each in messages]


def test_one_bad_kline_in_a_page_and_nothing_in_another_cost_only_themselves(
    deployment, vendor, tmp_path, capsys
):
    start = (int(time.time() * 1000) // MINUTE - 3_000) * MINUTE

    def change(number, data):
        rows = data[0]["respList"]
        if number == 1:
            rows[-31] |= {"o": None, "h": None, "l": None, "c": None, "v": "0"}
            # pushes are read so too
            rows[-32] |= {"c": 1.5, "t": int(rows[-32]["t"]), "pca": 0.001, "pc": None}
            rows.append(None)
        return None if number == 2 else data

    vendor.change = change
    assert run(deployment, vendor, start, 1_190, tmp_path) == 0
    expected = [minute for minute in range(1_190) if minute != 30 and not 500 <= minute < 1_000]
    assert minutes_of(deployment, "infoway.raw.kline", start) == expected
    assert minutes_of(deployment, "infoway.raw.trade", start) == expected
    shown = capsys.readouterr().out
    assert f"{len(expected)} klines of 1m published, 1 of 1 symbols" in shown
    assert "2 klines could not be read, and are dead letters" in shown
    assert (
        "not readable: BTCUSDT: the 1m kline without a time (an entry of respList is missing or "
        "null: expected an object), and 1 more" in shown
    )
    read = ValueReader(Registry(deployment.registry_url))
    letters = [
        read(each.value())[1]
        for each in read_to_end(
            deployment.bootstrap, deployment.topology.name("infoway.dead-letter")
        )
    ]
    assert [letter["error_class"] for letter in letters] == ["BadKline"] * 2
    assert json.loads(letters[1]["value"])["o"] is None
    assert not list(tmp_path.iterdir())


def test_a_page_that_is_no_answer_is_asked_for_again_by_the_next_run(
    deployment, vendor, tmp_path, capsys
):
    start = (int(time.time() * 1000) // MINUTE - 3_000) * MINUTE
    vendor.change = lambda number, data: "oops" if number == 2 else data
    assert run(deployment, vendor, start, 1_190, tmp_path) == 1
    assert "690 klines of 1m published, 0 of 1 symbols" in capsys.readouterr().out
    vendor.asked.clear()
    vendor.change = lambda number, data: data
    assert run(deployment, vendor, start, 1_190, tmp_path) == 0
    assert vendor.asked == [
        (start + 1_000 * MINUTE) // 1000 - 1,
        (start + 1_190 * MINUTE) // 1000 - 1,
    ]
    assert sorted(set(minutes_of(deployment, "infoway.raw.kline", start))) == list(range(1_190))
