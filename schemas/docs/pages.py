"""One page for people per topic, in Markdown: key, retention, fields, example, readers, order;
facts from `schemas/` alone."""

import json
from collections.abc import Sequence
from datetime import timedelta

from schemas.clients.registry import COMPATIBILITY
from schemas.control import HEADERS, KINDS, Kind
from schemas.docs.fields import doc_parts, fields_of
from schemas.topics import Topic, contract, load_example, load_schema, placeholders

NOTICE = "<!-- made by `make docs` from schemas/: change it there -->"

_PLACE = {
    "producers": "of the key by `murmur2_random`, as in the Java client",
    "processors": "that of the record that caused it",
}
_ORDER = {
    "producers": (
        "Written by an idempotent producer with `acks=all`: in its partition in the order in "
        "which a feed received it, nothing repeated "
        "while the producer lives, and nothing lost without a `gap`. After a crash of the "
        "producer a record may come twice; in the raw "
        "topics the same `connection` and `sequence` tell it."
    ),
    "processors": (
        "Written in one Kafka transaction with the state and the source offsets: exactly once "
        "for `isolation.level=read_committed`. With "
        "`read_uncommitted` records come sooner, and after a crash some come twice, "
        "byte-identical. A record stands in the partition of "
        "the record that caused it, in the order of those."
    ),
}


def page_name(topic: Topic) -> str:
    """Return the file name of a topic's page: that of a family leaves the braces out."""
    return f"{plain_name(topic)}.md"


def plain_name(topic: Topic) -> str:
    """Return a topic's name without braces."""
    return topic.name.replace("{", "").replace("}", "")


def is_raw(topic: Topic) -> bool:
    """Return whether control records stand among the topic's values."""
    return topic.name.startswith("infoway.raw.")


def kinds_of(topic: Topic) -> list[Kind]:
    """Return which control records stand in a raw topic: klines heal bars, which come of trades."""
    return [kind for kind in KINDS if kind != "heal" or topic.schema == "raw_trade"]


def index() -> str:
    """Return the list of topics."""
    rows = [
        (f"[`{topic.name}`]({page_name(topic)})", topic.owner, topic.description)
        for topic in contract()
    ]
    return "\n".join(
        [
            NOTICE,
            "# The topics",
            "",
            "A deployment may put a prefix before every name. The same as AsyncAPI 3: "
            "[asyncapi.yaml](../asyncapi.yaml).",
            "",
            *_table(("topic", "written by", "what it holds"), rows),
            "",
        ]
    )


def page(topic: Topic) -> str:
    """Return the page of one topic or family."""
    parts = [NOTICE, f"# {topic.name}", "", topic.description, "", *_facts(topic)]
    if topic.schema is not None:
        parts += _record(topic.schema)
    if is_raw(topic):
        parts += _controls(kinds_of(topic))
    parts += ["", "## Order and repetition", ""]
    parts += [f"- {owner.capitalize()}: {_ORDER[owner]}" for owner in topic.owner.split(", ")]
    return "\n".join([*parts, ""])


def _facts(topic: Topic) -> list[str]:
    config = dict(topic.config)
    cleanup, retention = config.pop("cleanup.policy"), config.pop("retention.ms", None)
    days = (
        f"`{cleanup}`"
        if retention is None
        else f"`{cleanup}` after {timedelta(milliseconds=int(retention)).days} days, from the "
        "time of writing"
    )
    readers = ", ".join(topic.consumers) or "none"
    places = "; ".join(f"{owner}: {_PLACE[owner]}" for owner in topic.owner.split(", "))
    rows = [
        (f"`{{{name}}}`", meaning)
        for name, meaning in placeholders().items()
        if f"{{{name}}}" in topic.name
    ]
    rows += [
        ("key", f"{topic.key}, UTF-8" if topic.schema is not None else topic.key),
        ("partitions", f"{topic.partitions}; {places}"),
        ("cleanup", days),
        ("other settings", ", ".join(f"`{name}={value}`" for name, value in config.items())),
        ("written by", topic.owner),
        (
            "read by",
            f"{readers}; your services"
            if topic.schema is not None
            else f"{readers}; no contract: read it nowhere else",
        ),
    ]
    if topic.schema is not None:
        rows.append(
            (
                "value",
                f"Avro in Confluent's wire format; subject `{topic.subject}`, compatibility "
                f"`{COMPATIBILITY}`",
            )
        )
        rows.append(
            ("schema", f"[`schemas/{topic.schema}.avsc`](../../schemas/{topic.schema}.avsc)")
        )
    return _table(("", ""), rows)


def _record(name: str) -> list[str]:
    schema = load_schema(name)
    rows = [
        (f"`{field.path}`", field.type, field.unit, field.meaning, field.null)
        for field in fields_of(schema)
    ]
    return [
        "",
        f"## {schema['name']}",
        "",
        schema["doc"],
        "",
        *_table(("field", "type", "unit", "meaning", "null"), rows),
        "",
        "An example, decimals as strings, times as integers, dates as `YYYY-MM-DD`, bytes as hex:",
        "",
        "```json",
        json.dumps(load_example(name), indent=2, ensure_ascii=False),
        "```",
    ]


def _controls(present: Sequence[Kind]) -> list[str]:
    kinds = [(f"`{kind}`", KINDS[kind]) for kind in present]
    headers = []
    for header in HEADERS:
        meaning, unit, _ = doc_parts(header.doc)
        always, where_known = (
            [kind for kind in borne if kind in present]
            for borne in (header.always, header.where_known)
        )
        if always or where_known:
            names = ", ".join(always) if len(always) < len(present) else "all"
            headers.append((f"`{header.name}`", unit, meaning, names, ", ".join(where_known)))
    return [
        "",
        "## Control records",
        "",
        "A null value is a control record, told by its headers; skip it if you don't care.",
        "",
        *_table(("control", "says"), kinds),
        "",
        *_table(("header", "unit", "meaning", "always in", "where known in"), headers),
    ]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *([_escaped(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;")
