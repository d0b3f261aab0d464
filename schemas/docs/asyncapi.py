"""The contract as an AsyncAPI 3.0 document: server, channels, messages with their Avro payloads,
operations; no validation of it."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from schemas.clients.registry import COMPATIBILITY
from schemas.control import HEADERS, KINDS
from schemas.docs.fields import doc_parts
from schemas.docs.pages import is_raw, kinds_of, page_name, plain_name
from schemas.topics import (
    DEFAULT_INTERVALS,
    DEFAULT_WINDOWS,
    Topic,
    contract,
    load_example,
    load_schema,
    placeholders,
)

AVRO = "application/vnd.apache.avro;version=1.9.0"
KAFKA_BINDING = "0.5.0"
_VALUES = {
    "interval": DEFAULT_INTERVALS,
    "window": DEFAULT_WINDOWS,
    "activity": ("tick-1000", "volume-50000", "turnover-1000000"),
}

Node = dict[str, Any]


def document() -> Node:
    """Return the document; the private state topics are not in it."""
    topics = [topic for topic in contract() if topic.schema is not None]
    schemas = sorted({topic.schema for topic in topics if topic.schema is not None})
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "infoway-streams",
            "version": version("infoway-streams"),
            "description": (
                "Infoway's market data on Kafka. A deployment may put a prefix before every "
                "address. Values are Avro in Confluent's wire "
                "format: a zero byte, the schema id in four bytes, the record. Examples show "
                "decimals as strings, times as integers, "
                "dates as YYYY-MM-DD, bytes as hex."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "avro/binary",
        "servers": {
            "cluster": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "The cluster of the deployment; INFOWAY_BOOTSTRAP and "
                "INFOWAY_REGISTRY name it and its schema registry.",
                "variables": {
                    "bootstrap": {
                        "default": "localhost:9094",
                        "description": "host:port of a broker",
                    }
                },
                "bindings": {
                    "kafka": {
                        "schemaRegistryUrl": "http://localhost:8080/apis/ccompat/v7",
                        "schemaRegistryVendor": "apicurio",
                        "bindingVersion": KAFKA_BINDING,
                    }
                },
            }
        },
        "channels": {_id(topic): _channel(topic) for topic in topics},
        "operations": dict(operation for topic in topics for operation in _operations(topic)),
        "components": {
            "messages": {
                **{load_schema(name)["name"]: _record(name) for name in schemas},
                **{_control_name(kind): _control(kind) for kind in KINDS},
            }
        },
    }


def _id(topic: Topic) -> str:
    first, *others = plain_name(topic).removeprefix("infoway.").replace("-", ".").split(".")
    return first + "".join(word.capitalize() for word in others)


def _control_name(kind: str) -> str:
    return f"{kind.capitalize()}Control"


def _messages(topic: Topic) -> list[str]:
    assert topic.schema is not None
    return [
        load_schema(topic.schema)["name"],
        *(map(_control_name, kinds_of(topic)) if is_raw(topic) else ()),
    ]


def _channel(topic: Topic) -> Node:
    config: Node = {
        name: value
        for name, value in topic.config.items()
        if name not in ("cleanup.policy", "retention.ms")
    }
    config["cleanup.policy"] = [topic.config["cleanup.policy"]]
    config["retention.ms"] = int(topic.config["retention.ms"])
    channel: Node = {
        "address": topic.name,
        "title": topic.name,
        "description": topic.description,
        "servers": [{"$ref": "#/servers/cluster"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages(topic)},
        "bindings": {
            "kafka": {
                "partitions": topic.partitions,
                "topicConfiguration": config,
                "bindingVersion": KAFKA_BINDING,
            }
        },
        "x-page": f"topics/{page_name(topic)}",
        "x-subject": topic.subject,
        "x-compatibility": COMPATIBILITY,
    }
    parameters = {
        name: {"description": meaning, "examples": list(_VALUES[name])}
        for name, meaning in placeholders().items()
        if f"{{{name}}}" in topic.name
    }
    return {**channel, "parameters": parameters} if parameters else channel


def _operations(topic: Topic) -> Iterator[tuple[str, Node]]:
    channel = _id(topic)
    acts = [("send", owner) for owner in topic.owner.split(", ")]
    acts += [("receive", reader) for reader in (*topic.consumers, "your services")]
    for action, component in acts:
        title = "".join(word.capitalize() for word in component.split())
        yield (
            f"{action}{channel[0].upper()}{channel[1:]}By{title}",
            {
                "action": action,
                "channel": {"$ref": f"#/channels/{channel}"},
                "summary": f"{component} {'write' if action == 'send' else 'read'} {topic.name}",
                "tags": [{"name": component}],
                "messages": [
                    {"$ref": f"#/channels/{channel}/messages/{name}"} for name in _messages(topic)
                ],
            },
        )


def _record(name: str) -> Node:
    schema = load_schema(name)
    keys = ", or ".join(dict.fromkeys(topic.key for topic in contract() if topic.schema == name))
    return {
        "name": schema["name"],
        "title": schema["name"],
        "summary": schema["doc"],
        "contentType": "avro/binary",
        "payload": {"schemaFormat": AVRO, "schema": schema},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": f"{keys}, UTF-8"},
                "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "4",
                "schemaLookupStrategy": "TopicNameStrategy",
                "bindingVersion": KAFKA_BINDING,
            }
        },
        "examples": [{"payload": load_example(name)}],
    }


def _control(kind: str) -> Node:
    borne = [header for header in HEADERS if kind in (*header.always, *header.where_known)]
    properties: Node = {}
    for header in borne:
        meaning, unit, _ = doc_parts(header.doc)
        properties[header.name] = {
            "type": "string",
            "description": f"{meaning}{f' Unit: {unit}.' if unit else ''}",
        }
        if header.name == "control":
            properties[header.name]["const"] = kind
        elif unit:
            properties[header.name]["pattern"] = "^-?[0-9]+$"
    return {
        "name": _control_name(kind),
        "title": f"Control record {kind}",
        "summary": KINDS[kind],  # type: ignore[index]
        "headers": {
            "type": "object",
            "properties": properties,
            "required": [header.name for header in borne if kind in header.always],
        },
        "payload": {"type": "null"},
        "bindings": {"kafka": {"key": _control_key(kind), "bindingVersion": KAFKA_BINDING}},
    }


def _control_key(kind: str) -> Node:
    if kind == "mark":
        return {"type": "null", "description": "No key: it is written to an explicit partition."}
    if kind == "gap":
        return {
            "type": ["string", "null"],
            "description": "The symbol, UTF-8; none where all of the feed in the partition is "
            "meant.",
        }
    return {"type": "string", "description": "The symbol, UTF-8."}
