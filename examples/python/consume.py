"""Reads bars, VWAP and imbalance with confluent-kafka and prints each record as a line of JSON, ten
of them here, with INFOWAY_BOOTSTRAP and INFOWAY_REGISTRY set (`make run` prints them), and
INFOWAY_PREFIX where there is one, in this folder:

$ pip install "confluent-kafka[avro,schemaregistry]"
$ python consume.py 10
"""

import json
import os
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext


def plain(value):
    """Return decimals as text, exact, times in microseconds and dates in days since 1970."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    if isinstance(value, date):
        return (value - date(1970, 1, 1)).days
    return value


prefix = os.environ.get("INFOWAY_PREFIX", "")
# without a timeout a request that the registry leaves without an answer is waited for without end;
# one that takes longer is made again
registry = SchemaRegistryClient({"url": os.environ["INFOWAY_REGISTRY"], "timeout": 10})
deserialize = AvroDeserializer(registry)
consumer = Consumer(
    {
        "bootstrap.servers": os.environ["INFOWAY_BOOTSTRAP"],
        "group.id": f"{prefix}interop-python",
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    }
)
consumer.subscribe(
    [prefix + name for name in ("infoway.bars.1m", "infoway.vwap.1m", "infoway.depth.imbalance")]
)
left = int(sys.argv[1])
while left:
    message = consumer.poll(1)
    if message is None:
        continue
    if message.error():
        raise KafkaException(message.error())
    record = deserialize(message.value(), SerializationContext(message.topic(), MessageField.VALUE))
    fields = {name: plain(value) for name, value in record.items()}
    # every time but that of receipt is one of milliseconds
    fields |= {
        name: plain(value) // 1000
        for name, value in record.items()
        if isinstance(value, datetime) and name != "ts_recv"
    }
    print(
        json.dumps({"topic": message.topic(), "key": message.key().decode(), **fields}), flush=True
    )
    left -= 1
consumer.close()
