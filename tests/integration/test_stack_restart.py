"""The embedded stack beside another one, and over the folder of one that was killed."""

import os
import signal
import subprocess
import sys
import time

from infra.embedded.artifacts import KAFKA_VERSION, kafka_classpath
from infra.embedded.stack import Stack


def test_a_stack_starts_at_once_over_the_folder_of_one_that_was_killed_beside_another(
    stack, tmp_path
):
    folder = tmp_path / "with spaces, commas; umlauts ü"
    code = (
        "import sys, pathlib\nfrom infra.embedded.stack import Stack\n"
        "stack = Stack(pathlib.Path(sys.argv[1]))\nprint(stack.bootstrap, flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        first = parent.stdout.readline().strip()
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert first not in ("", stack.bootstrap)
    with Stack(folder) as second:
        assert second.bootstrap not in (first, stack.bootstrap)
        started = time.monotonic()
    assert time.monotonic() - started < 10


def test_the_broker_is_of_one_version_and_can_log():
    names = {jar.name for jar in kafka_classpath()}
    assert {f"kafka_2.13-{KAFKA_VERSION}.jar", f"kafka-clients-{KAFKA_VERSION}.jar"} <= names
    bound, core = (
        next(name for name in names if name.startswith(start))
        for start in ("log4j-slf4j-impl-", "log4j-core-")
    )
    assert bound.removeprefix("log4j-slf4j-impl-") == core.removeprefix("log4j-core-")
