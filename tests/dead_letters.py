"""Dead letters of a namespace of their own, and the commands that list and redrive them."""

import confluent_kafka as ck
import pytest

from infra import topology
from infra.cli.main import main
from infra.kafka.reader import read_to_end
from processors.engine.outputs import Outputs
from processors.model.records import Unreadable
from schemas.clients.registry import Registry
from schemas.topics import Topology, load_schema
from schemas.wire import compile_encoder

NOISE = b"\0\0\0\xff\xffnoise"


@pytest.fixture
def cluster(stack, namespace, monkeypatch):
    variables = {"INFOWAY_BOOTSTRAP": stack.bootstrap, "INFOWAY_REGISTRY": stack.registry_url}
    variables |= {"INFOWAY_PREFIX": namespace, "INFOWAY_PARTITIONS": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Cluster(stack, namespace, variables)


class Cluster:
    def __init__(self, stack, namespace, variables):
        self.variables = variables
        self.prefix = namespace
        self.bootstrap = stack.bootstrap
        self.registry = Registry(stack.registry_url)
        names = Topology(namespace, partitions=2)
        self.raw, self.dead = names.name("infoway.raw.trade"), names.name("infoway.dead-letter")
        self.outputs = Outputs.of(names, topology.apply(stack.bootstrap, self.registry, names, {}))
        self.vwaps = names.name("infoway.vwap.1m")

    def publish(self, *records):
        """Each (topic, partition, key, value, headers)."""
        producer = ck.Producer({"bootstrap.servers": self.bootstrap})
        for topic, partition, key, value, headers in records:
            producer.produce(topic, value, key, partition, headers=headers)
        assert producer.flush(20) == 0

    def dead_letter(
        self, offset, topic=None, value=NOISE, headers=(), key=b"A", source_partition=1
    ):
        """The dead letter of a raw record, as an agent writes it; it stands in partition 1."""
        topic = self.raw if topic is None else topic
        dead = self.outputs.dead_letter(
            topic, source_partition, Unreadable(offset, key, value, "E", "why")
        )
        return (dead[0], 1, *dead[2:], list(headers))

    def raw_records(self):
        return [
            (message.partition(), message.key(), message.value(), message.headers())
            for message in read_to_end(self.bootstrap, self.raw)
        ]


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["dead-letter", *arguments])
    assert ended.value.code == 0
    return capsys.readouterr().out.splitlines()


FRAME = (
    b'{"code":10002,"data":{"s":"%s","t":1752826113546,"p":"98.150","v":"2","vw":"196.300",'
    b'"td":1,"new":1.50}}'
)


def frame_letter(
    cluster, frame, feed="stock-1", received=1752826113600000, error_class="NotAskedFor"
):
    """A dead letter as a producer writes it of a frame; it stands in partition 1."""
    schema = load_schema("dead_letter")
    encode = compile_encoder(schema, cluster.registry.id_of(f"{cluster.dead}-value", schema))
    connection = f"{feed}-1752826000000000"
    value = encode(
        "",
        None,
        None,
        None,
        frame,
        error_class,
        "not asked for",
        feed,
        connection,
        received,
        "live",
    )
    return (cluster.dead, 1, feed.encode(), value, [])
