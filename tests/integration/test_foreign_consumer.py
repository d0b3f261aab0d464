"""The README's snippet, as it stands there, reads what the pipeline wrote."""

import os
import re
import subprocess
import sys
from pathlib import Path

import drill

from infra import topology
from processors.engine.outputs import Outputs
from schemas.clients.registry import Registry
from schemas.decimals import to_units
from schemas.topics import Topology

README = Path(__file__).parents[2] / "README.md"


def test_the_snippet_of_the_readme_reads_bars(stack, tmp_path):
    snippet = next(
        block
        for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
        if "infoway.bars.1m" in block
    )
    assert len([line for line in snippet.splitlines() if line.strip()]) < 15
    names = Topology()
    outputs = Outputs.of(
        names, topology.apply(stack.bootstrap, Registry(stack.registry_url), names)
    )
    price, count = to_units("520.2"), 3
    fields = (
        "00700.HK",
        "1m",
        60_000,
        120_000,
        None,
        price,
        price,
        price,
        price,
        to_units("600"),
        to_units("312120"),
        price,
        0,
        0,
        count,
    )
    origin = (
        60_100,
        119_900,
        1,
        True,
        "close",
        "complete",
        "trades",
        "simulated",
        122_000_000,
        0,
        17,
    )
    topic, partition, key, value = outputs.encode(
        "infoway.bars.1m", 0, "00700.HK", fields + origin, "infoway.raw.trade"
    )
    producer = drill.ck.Producer({"bootstrap.servers": stack.bootstrap})
    producer.produce(topic, value, key, partition)
    assert producer.flush(20) == 0
    environment = {
        **os.environ,
        "INFOWAY_BOOTSTRAP": stack.bootstrap,
        "INFOWAY_REGISTRY": stack.registry_url,
        "PYTHONUNBUFFERED": "1",
    }
    service = subprocess.Popen(
        [sys.executable, "-c", snippet], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        line = service.stdout.readline()
    finally:
        service.kill()
        service.wait()
        service.stdout.close()
    assert line.startswith("00700.HK {")
    assert "'interval': '1m'" in line
    assert "'close': Decimal('520.200000000000000000')" in line
    assert "'ts_start': datetime.datetime(1970, 1, 1, 0, 1, tzinfo=" in line
