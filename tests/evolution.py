"""The schemas against their git history: what was published since the baseline, and what of a
change breaks whom; no registry."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import avro.schema
import yaml
from avro.compatibility import (
    ReaderWriterCompatibilityChecker,
    SchemaCompatibilityType,
    lookup_writer_field,
)
from avro.errors import AvroException

from schemas.docs.fields import fields_of, type_text
from schemas.wire import Schema

BASELINE = "schemas/BASELINE"
TOPICS = "schemas/topics.yaml"
_RANGES = {"int": 1 << 31, "long": 1 << 63}


class NoHistory(Exception):
    """There is no git history to compare with, as in a release's archive."""


class HistoryIncomplete(Exception):
    """There is a git history, and the baseline is not in it."""


def broken(root: Path) -> list[str]:
    """Return what the schemas and topics of the working tree break of those committed since the
    baseline: file, version, field and reason.

    Raises NoHistory and HistoryIncomplete.
    """
    found: list[str] = []
    for path, versions in published(root).items():
        if not (root / path).exists():
            found.append(
                f"{path}: it was published in {versions[-1][0]} and is gone: its topic's "
                "records could not be read any more"
            )
            continue
        try:
            today = json.loads((root / path).read_text(encoding="utf-8"))
            found += [
                f"{path}: {reason}"
                for commit, earlier in versions
                for reason in breaks(earlier, today, commit)
            ]
        except (AvroException, ValueError) as error:
            found.append(f"{path}: no Avro schema: {error}")
    return found + _moved(root)


def breaks(earlier: Schema, today: Schema, version: str) -> list[str]:
    """Return why a change of a schema is not FULL, by field: readers of each version must read the
    other's records."""
    before, after = avro.schema.parse(json.dumps(earlier)), avro.schema.parse(json.dumps(today))
    return [
        *(
            f"{reason}: today's readers cannot read records of {version}"
            for reason in _unreadable(after, before)
        ),
        *(
            f"{reason}: readers of {version} cannot read today's records"
            for reason in _unreadable(before, after)
        ),
        *(
            f"{reason}: records of {version} would be read wrong"
            for reason in _read_wrong(earlier, today)
        ),
        *(
            f"{reason}: libraries that look at defaults refuse the whole schema"
            for reason in _unfit_defaults(after)
        ),
    ]


def published(root: Path) -> dict[str, list[tuple[str, Schema]]]:
    """Return every version of each schema since the baseline, oldest first, with the commit that
    brought it.

    What is no Avro schema is left out: no record was ever written by it.
    """
    versions: dict[str, list[tuple[str, Schema]]] = {}
    seen: set[tuple[str, str]] = set()
    for commit in _commits(root):
        for line in _git(root, "ls-tree", commit, "schemas/").splitlines():
            blob, path = line.split()[2], line.split("\t")[1]
            if path.endswith(".avsc") and (path, blob) not in seen:
                seen.add((path, blob))
                text = _git(root, "cat-file", "blob", blob)
                if _is_schema(text):
                    versions.setdefault(path, []).append((commit[:9], json.loads(text)))
    return versions


def _is_schema(text: str) -> bool:
    try:
        return bool(avro.schema.parse(text))
    except AvroException:
        return False


def _moved(root: Path) -> list[str]:
    """Return the topics that are gone since they were published, or have another schema: their
    subjects' readers would break."""
    today = (
        _schemas_of_topics((root / TOPICS).read_text(encoding="utf-8"))
        if (root / TOPICS).exists()
        else {}
    )
    found: dict[str, str] = {}
    for commit in _commits(root):
        if not _git(root, "ls-tree", commit, TOPICS):
            continue
        for topic, schema in _schemas_of_topics(_git(root, "show", f"{commit}:{TOPICS}")).items():
            if topic not in today:
                found[topic] = (
                    f"{TOPICS}: {topic} was published in {commit[:9]} and is gone: who reads it "
                    "would get nothing more"
                )
            elif today[topic] != schema:
                found[topic] = (
                    f"{TOPICS}: {topic} had the schema {schema} in {commit[:9]} and has "
                    f"{today[topic]}: that of a subject stays"
                )
    return list(found.values())


def _schemas_of_topics(text: str) -> dict[str, str]:
    # state topics have no schema, and no readers but their agent
    return {
        entry["name"]: entry["schema"]
        for entry in yaml.safe_load(text)["topics"]
        if "schema" in entry
    }


def _commits(root: Path) -> list[str]:
    baseline = _baseline(root)
    later = _git(
        root,
        "rev-list",
        "--reverse",
        "--full-history",
        "--ancestry-path",
        f"{baseline}..HEAD",
        "--",
        "schemas",
    ).split()
    return [baseline, *later]


def _baseline(root: Path) -> str:
    try:
        top = _git(root, "rev-parse", "--show-toplevel").strip()
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise NoHistory(
            f"no git, or no git history in {root}: the schemas cannot be compared with what was "
            "published"
        ) from error
    if Path(top) != root.resolve():
        raise NoHistory(
            f"the git history of {top} is not that of {root}: the schemas cannot be compared "
            "with what was published"
        )
    baseline = _publishing_commit(root)
    if not baseline or not (root / BASELINE).exists():
        raise HistoryIncomplete(
            f"{BASELINE} is in no commit, or is gone: commit it, with the schemas that are "
            "published, and leave it"
        )
    # the last commit that a shallow clone has seems to have made every file
    shallow = root / _git(root, "rev-parse", "--git-path", "shallow").strip()
    if shallow.exists() and baseline in shallow.read_text().split():
        raise HistoryIncomplete(
            "a shallow clone, without the commit that publishes the contract: run `git fetch "
            "--unshallow`"
        )
    return baseline


def _publishing_commit(root: Path) -> str:
    """Return the commit that brought the baseline's words of today's HEAD; spaces, and a time
    without the file, do not publish anew."""
    found = words = ""
    for commit in _git(root, "log", "--format=%H", "--", BASELINE).split():
        if not _git(root, "ls-tree", commit, BASELINE):
            continue
        text = " ".join(_git(root, "show", f"{commit}:{BASELINE}").split())
        if words and text != words:
            break
        found, words = commit, text
    return found


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, check=True, capture_output=True, encoding="utf-8"
    ).stdout


def _unreadable(
    reader: avro.schema.RecordSchema, writer: avro.schema.RecordSchema
) -> Iterator[str]:
    # field by field, since the whole's answer does not say which reason is which field's Avro's
    # rules let the namespace change; some libraries do not, and what consumers generate of a schema
    # is named by it
    if reader.fullname != writer.fullname:
        yield f"record {writer.fullname} is now {reader.fullname}"
    for field in reader.fields:
        written = lookup_writer_field(writer, field)
        if written is None:
            if not field.has_default:
                yield f"field {field.name}: it is not in the records, and has no default"
            continue
        answer = ReaderWriterCompatibilityChecker().get_compatibility(field.type, written.type)
        if answer.compatibility is SchemaCompatibilityType.incompatible:
            kinds = ", ".join(
                dict.fromkeys(kind.value.replace("_", " ") for kind in answer.incompatibilities)
            )
            yield f"field {field.name}: {kinds} ({', '.join(sorted(answer.messages))})"


def _read_wrong(earlier: Schema, today: Schema) -> Iterator[str]:
    """Yield changes of logical types: Avro's resolution does not look at them, and a reader would
    get another number."""
    before = {field.path: field.type.removesuffix(" or null") for field in fields_of(earlier)}
    renamed = (
        (alias, type_text(field["type"]))
        for field in today["fields"]
        for alias in field.get("aliases", ())
    )
    for path, text in (*((field.path, field.type) for field in fields_of(today)), *renamed):
        was, now = before.get(path, ""), text.removesuffix(" or null")
        if was and was != now and ("(" in was or "(" in now):
            yield f"field {path}: {was} became {now}"


def _unfit_defaults(record: avro.schema.RecordSchema) -> Iterator[str]:
    for field in record.fields:
        if field.has_default and not _fits(field.type, field.default):
            yield (
                f"field {field.name}: its default {json.dumps(field.default)} is none of its "
                "type, in a union of the first"
            )


def _fits(kind: avro.schema.Schema, default: object) -> bool:
    """Return whether a default, as JSON has it, is one of a type by Avro's specification."""
    match kind.type:
        case "union":
            return _fits(kind.schemas[0], default)
        case "null":
            return default is None
        case "boolean":
            return isinstance(default, bool)
        case "int" | "long":
            limit = _RANGES[kind.type]
            return (
                isinstance(default, int)
                and not isinstance(default, bool)
                and -limit <= default < limit
            )
        case "float" | "double":
            return isinstance(default, int | float) and not isinstance(default, bool)
        case "string":
            return isinstance(default, str)
        case "bytes":
            return isinstance(default, str) and all(ord(letter) < 256 for letter in default)
        case "fixed":
            return (
                isinstance(default, str)
                and len(default) == kind.size
                and all(ord(letter) < 256 for letter in default)
            )
        case "enum":
            return default in kind.symbols
        case "array":
            return isinstance(default, list) and all(_fits(kind.items, item) for item in default)
        case "map":
            return isinstance(default, dict) and all(
                _fits(kind.values, value) for value in default.values()
            )
    # a record: each field has its value, or a default of its own
    return isinstance(default, dict) and all(
        _fits(field.type, default[field.name]) if field.name in default else field.has_default
        for field in kind.fields
    )
