"""Other engines on the same raw topic: Kafka Streams in a JVM, quixstreams and stock Faust in
throw-away environments."""

import io
import json
import os
import shutil
import subprocess
import tempfile
import time
import venv
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import fastavro
import psutil
from load import Load, check, made, make_topics

from infra.runtime.deployment import Deployment
from schemas.topics import load_schema

PEERS = Path(__file__).parent / "peers"
STREAMS = PEERS / "streams"
PINNED = {
    "quixstreams": ["quixstreams==3.28.1"],
    "faust": ["faust-streaming==0.15.3", "aiokafka==0.14.0", "cramjam"],  # lz4
}


@dataclass(frozen=True)
class Result:
    """What a job took, and how much memory at its end; seconds of the whole run and of its second
    half."""

    records: int
    wall: float
    cpu: float
    warm_wall: float
    warm_cpu: float
    mib: float = 0.0

    def shown(self) -> str:
        """Return the figures as a line."""
        memory = f"{self.mib:6.0f} MiB" if self.mib else ""
        return (
            f"{self.records / self.cpu:>10,.0f} {self.records / 2 / self.warm_cpu:>10,.0f} "
            f"records a CPU-second (whole, second half) "
            f"{self.records / self.wall:>10,.0f} records/s {memory}"
        )


class Missing(Exception):
    """What a peer needs cannot be had here."""


_PEER_BAR = fastavro.parse_schema(
    {
        "type": "record",
        "name": "PeerBar",
        "fields": [
            {"name": "start", "type": "long"},
            {"name": "count", "type": "long"},
            *(
                {
                    "name": name,
                    "type": {
                        "type": "bytes",
                        "logicalType": "decimal",
                        "precision": 38,
                        "scale": 18,
                    },
                }
                for name in ("open", "high", "low", "close", "volume")
            ),
        ],
    }
)


def streams_bar(key: bytes, value: bytes) -> tuple[tuple[str, int], Fraction]:
    """Return symbol, start and volume of a bar of Kafka Streams."""
    found = fastavro.schemaless_reader(io.BytesIO(value), _PEER_BAR)
    return (key.decode(), found["start"]), Fraction(found["volume"])


def quix_bar(key: bytes, value: bytes) -> tuple[tuple[str, int], Fraction]:
    """Return symbol, start and volume of a bar of quixstreams."""
    found = json.loads(value)
    return (key.decode(), found["start"]), Fraction(found["value"]["volume"])


def faust_bar(key: bytes, value: bytes) -> tuple[tuple[str, int], Fraction]:
    """Return symbol, start and volume of a bar of stock Faust."""
    found = json.loads(value)
    return (key.decode(), found["start"]), Fraction(found["volume"])


def streams(
    folder: Path, deployment: Deployment, load: Load, raw: str, api: str, rows: bool
) -> Result:
    """Return what Kafka Streams takes, in a JVM of default settings and one thread."""
    bars, vwaps = f"{folder.name}.bars", f"{folder.name}.vwaps"
    make_topics(deployment, bars, vwaps)
    command = streams_command(folder, deployment, raw, api, rows, bars, vwaps, len(load.values))
    result, mib = run(command, STREAMS, None)
    check(deployment, bars, load.volumes, streams_bar)
    return replace(result, mib=mib)


def streams_command(
    folder: Path,
    deployment: Deployment,
    raw: str,
    api: str,
    rows: bool,
    bars: str,
    vwaps: str,
    count: int,
    guarantee: str = "exactly_once_v2",
) -> list[str]:
    """Return what starts Kafka Streams in the folder of its program; it ends by itself after
    `count` trades."""
    for tool in ("mvn", "java"):
        if shutil.which(tool) is None:
            raise Missing(f"no {tool}")
    class_path = folder / "classpath"
    built = subprocess.run(
        ["mvn", "-q", "-B", "dependency:build-classpath", f"-Dmdep.outputFile={class_path}"],
        cwd=STREAMS, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if built.returncode:
        raise Missing(f"Maven: {(built.stdout + built.stderr).strip()[-200:]}")
    schema = folder / "raw_trade.avsc"
    schema.write_text(json.dumps(load_schema("raw_trade")))
    return [
        "java", f"-Dguarantee={guarantee}", "-cp", class_path.read_text().strip(), "Peer.java",
        api, str(int(rows)), deployment.bootstrap, raw, bars, vwaps, folder.name, str(count),
        str(folder / "state"), str(schema),
    ]  # fmt: skip


def python_peer(
    folder: Path,
    deployment: Deployment,
    count: int,
    load: Load,
    raw: str,
    script: str,
    package: str,
) -> Result:
    """Return what a Python library takes, in a throw-away environment."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *PINNED[package], "fastavro"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if installed.returncode:
        raise Missing(f"pip: {installed.stderr.strip()[-200:]}")
    bars = f"{folder.name}.bars"
    make_topics(deployment, bars)
    schema = folder / "raw_trade.avsc"
    schema.write_text(json.dumps(load_schema("raw_trade")))
    command = [
        str(python), str(PEERS / script), deployment.bootstrap, raw, bars, folder.name, str(count),
        str(folder / "state"), str(schema),
    ]  # fmt: skip
    result, mib = run(command, folder, {"PYTHONUNBUFFERED": "1"})
    few = made(count, len({symbol for symbol, _ in load.volumes}))
    check(deployment, bars, few.volumes, quix_bar if package == "quixstreams" else faust_bar)
    return replace(result, mib=mib)


def run(
    command: list[str], folder: Path, environment: Mapping[str, str] | None
) -> tuple[Result, float]:
    """Run a peer to its end; return what it printed last, and its greatest resident memory."""
    errors = folder / "errors" if folder.parent != PEERS else Path(os.devnull)
    most = 0.0
    with (
        tempfile.TemporaryFile("w+") as printed,
        errors.open("w") as told,
        subprocess.Popen(
            command,
            cwd=folder,
            stdout=printed,
            stderr=told,
            env={**os.environ, **(environment or {})},
        ) as process,
    ):
        watched = psutil.Process(process.pid)
        deadline = time.monotonic() + 600
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise Missing("it did not end within 600 s")
                with suppress(psutil.NoSuchProcess):
                    most = max(most, watched.memory_info().rss / 2**20)
                time.sleep(0.1)
        finally:
            process.kill()
        process.wait()
        printed.seek(0)
        lines = [line for line in printed.read().splitlines() if line.startswith("{")]
    if not lines:
        text = errors.read_text()[-300:] if errors.is_file() else ""
        raise Missing(f"it ended with {process.returncode} and no figures: {text}")
    return Result(**json.loads(lines[-1])), most
