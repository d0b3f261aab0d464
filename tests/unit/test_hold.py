"""`--hold`: what no restart mends stays alive and unready, with its reason, and ends at once when
it is told to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from infra.cli.hold import COMMANDS, asked_to_hold
from infra.cli.main import parser
from infra.embedded.ports import free_ports
from infra.runtime.exit_codes import Code, may_restart
from processors.engine.transactions.exits import Exit

BASE = {name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def held(tmp_path):
    """Starts a command with --hold, the work of which is `body`, and ends it at the end."""
    started = []

    def start(body, *arguments, module="infra.cli.main", **environment):
        folder = tmp_path / str(len(started))
        (folder / "infra").mkdir(parents=True)
        # our own packages, but for the command's work
        (folder / "sitecustomize.py").write_text(
            "import sys\nif sys.argv[1:2] != ['--hold'] and '--hold' not in sys.orig_argv:\n   "
            f" import {module} as module\n{body}"
        )
        variables = BASE | {
            "PYTHONPATH": f"{folder}:{ROOT}",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        command = [sys.executable, "-m", "infra", "worker", "--hold", *arguments]
        started.append(
            subprocess.Popen(
                command, env=variables, cwd=tmp_path, stderr=subprocess.PIPE, text=True
            )
        )
        return started[-1]

    yield start
    for each in started:
        if each.poll() is None:
            each.kill()
        each.communicate()


def asked(place, path, status):
    give_up = time.monotonic() + 60
    while True:
        try:
            answer = httpx.get(f"http://{place}{path}", timeout=5, trust_env=False)
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code == status:
            return answer.text
        assert time.monotonic() < give_up, answer
        time.sleep(0.05)


@pytest.fixture
def place():
    return f"127.0.0.1:{free_ports(0)[0]}"


def test_what_no_restart_mends_is_alive_unready_and_ends_at_once_with_its_code(held, place):
    process = held(
        "",
        INFOWAY_HTTP=place,
        INFOWAY_UPDATE_MS="abc",
        INFOWAY_BOOTSTRAP="b:1",
        INFOWAY_REGISTRY="http://r",
    )
    said = asked(place, "/readyz", 503)
    assert said.startswith(
        "held, exit code 2: a restart would not help: infoway-streams: INFOWAY_UPDATE_MS='abc': "
        "expected"
    )
    assert asked(place, "/livez", 200) == "ok\n"
    assert "infoway_held 1.0" in asked(place, "/metrics", 200)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=30)
    assert process.returncode == Code.SETTINGS_WRONG
    assert log.count("ERROR infra.cli.hold: held, exit code 2") == 1


WAITS = """
    import os, signal, time
    def work(*_):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(CODE))
        signal.signal(signal.SIGHUP, lambda *_: print('SIGHUP came', file=sys.stderr, flush=True))
        print('works', file=sys.stderr, flush=True)
        time.sleep(60)
        time.sleep(60)
    module.begin = work
    module.check = lambda _: None
"""


@pytest.mark.parametrize("code", [0, 1, 70, 78])
def test_a_signal_reaches_the_command_and_its_code_comes_back(held, code):
    process = held(WAITS.replace("CODE", str(code)))
    assert process.stderr.readline() == "works\n"
    process.send_signal(signal.SIGHUP)
    assert process.stderr.readline() == "SIGHUP came\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == code


def test_a_code_that_a_restart_mends_ends_at_once(held):
    for code in (Exit.READING_FAILED, Code.CLUSTER_AWAY, Code.FAILED):
        process = held(
            f"    module.begin = lambda _: {int(code)}\n    module.check = lambda _: None\n"
        )
        process.communicate(timeout=30)
        assert process.returncode == code


def test_the_command_ends_with_what_holds_it(held):
    process = held(
        WAITS.replace(
            "time.sleep(60)", "print(os.getpid(), file=sys.stderr, flush=True); time.sleep(60)", 1
        ).replace("CODE", "0")
    )
    assert process.stderr.readline() == "works\n"
    child = int(process.stderr.readline())
    process.kill()
    process.wait()
    give_up = time.monotonic() + 30
    while (
        Path(f"/proc/{child}").exists()
        and "State:\tZ" not in Path(f"/proc/{child}/status").read_text()
    ):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_only_commands_that_know_it_are_held():
    assert asked_to_hold(["produce", "--hold"])
    assert not asked_to_hold(["simulate", "--hold"])
    assert not asked_to_hold([])
    for command in COMMANDS:
        assert parser().parse_args([command, "--hold"]).hold


def test_what_may_be_restarted():
    assert {code for code in (*Code, *Exit) if not may_restart(code)} == {
        Code.DONE, Code.SETTINGS_WRONG, Code.VENDOR_REFUSED,
        *(code for code in Exit if not code.restart),
    }  # fmt: skip
    assert may_restart(-9)
    assert may_restart(137)


def test_containers_are_restarted_after_every_end_because_they_hold():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    ours = [
        service
        for service in services.values()
        if service.get("command", [])[:2] in (["infoway-streams", name] for name in COMMANDS)
    ]
    assert len(ours) == 6
    # on-failure leaves a container down that the machine's own restart has ended in order
    assert all(
        "--hold" in service["command"] and service["restart"] == "unless-stopped"
        for service in ours
    )
    for path in ("base/processors.yaml", "producer/producer.yaml"):
        for document in yaml.safe_load_all((ROOT / "infra" / "deploy" / "k8s" / path).read_text()):
            if document["kind"] in ("StatefulSet", "Deployment"):
                (container,) = document["spec"]["template"]["spec"]["containers"]
                assert container["command"][1] in COMMANDS
                assert "--hold" in container["command"]


def test_a_signal_that_comes_while_the_child_is_started_ends_both():
    code = (
        "import os, signal, subprocess, sys\n"
        "from infra.cli import hold\n"
        "popen = subprocess.Popen\n"
        "def start(command, **options):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return popen(['sleep', '60'], **options)\n"
        "hold.subprocess.Popen = start\n"
        "sys.exit(hold.hold(['worker', '--hold']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")
