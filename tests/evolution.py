"""The schemas against their git history: what was published since the baseline, and what of a change breaks whom; no registry."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType, check_schema_names, lookup_writer_field

from infra.contract.fields import fields_of
from schemas.wire import Schema

BASELINE = "schemas/BASELINE"


class NoHistory(Exception):
    """There is no git history to compare with, as in a release's archive."""


class HistoryIncomplete(Exception):
    """There is a git history, and the baseline is not in it."""


def broken(root: Path) -> list[str]:
    """Return what the schemas of the working tree break of those committed since the baseline: file, version, field and reason.

    Raises NoHistory and HistoryIncomplete.
    """
    found: list[str] = []
    for path, versions in published(root).items():
        if not (root / path).exists():
            found.append(f"{path}: it was published in {versions[-1][0]} and is gone: its topic's records could not be read any more")
            continue
        today = json.loads((root / path).read_text(encoding="utf-8"))
        found += [f"{path}: {reason}" for commit, earlier in versions for reason in breaks(earlier, today, commit)]
    return found


def breaks(earlier: Schema, today: Schema, version: str) -> list[str]:
    """Return why a change of a schema is not FULL, by field: readers of each version must read the other's records."""
    before, after = avro.schema.parse(json.dumps(earlier)), avro.schema.parse(json.dumps(today))
    return [
        *(f"{reason}: today's readers cannot read records of {version}" for reason in _unreadable(after, before)),
        *(f"{reason}: readers of {version} cannot read today's records" for reason in _unreadable(before, after)),
        *(f"{reason}: records of {version} would be read wrong" for reason in _read_wrong(earlier, today)),
    ]


def published(root: Path) -> dict[str, list[tuple[str, Schema]]]:
    """Return every version of each schema since the baseline, oldest first, with the commit that brought it."""
    baseline = _baseline(root)
    commits = _git(root, "rev-list", "--reverse", "--full-history", "--ancestry-path", f"{baseline}..HEAD", "--", "schemas").split()
    versions: dict[str, list[tuple[str, Schema]]] = {}
    seen: set[tuple[str, str]] = set()
    for commit in (baseline, *commits):
        for line in _git(root, "ls-tree", commit, "schemas/").splitlines():
            blob, path = line.split()[2], line.split("\t")[1]
            if path.endswith(".avsc") and (path, blob) not in seen:
                seen.add((path, blob))
                versions.setdefault(path, []).append((commit[:9], json.loads(_git(root, "cat-file", "blob", blob))))
    return versions


def _baseline(root: Path) -> str:
    try:
        top = _git(root, "rev-parse", "--show-toplevel").strip()
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise NoHistory(f"no git, or no git history in {root}: the schemas cannot be compared with what was published") from error
    if Path(top) != root.resolve():
        raise NoHistory(f"the git history of {top} is not that of {root}: the schemas cannot be compared with what was published")
    baseline = _git(root, "log", "-1", "--format=%H", "--", BASELINE).strip()
    if not baseline:
        raise HistoryIncomplete(f"{BASELINE} is in no commit: commit it with the schemas that are published")
    # the last commit that a shallow clone has seems to have made every file
    shallow = root / _git(root, "rev-parse", "--git-path", "shallow").strip()
    if shallow.exists() and baseline in shallow.read_text().split():
        raise HistoryIncomplete("a shallow clone, without the commit that publishes the contract: run `git fetch --unshallow`")
    return baseline


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, encoding="utf-8").stdout


def _unreadable(reader: avro.schema.RecordSchema, writer: avro.schema.RecordSchema) -> Iterator[str]:
    # field by field, since the whole's answer does not say which reason is which field's
    if check_schema_names(reader, writer, []).compatibility is SchemaCompatibilityType.incompatible:
        yield f"record {writer.fullname} is now {reader.fullname}"
    for field in reader.fields:
        written = lookup_writer_field(writer, field)
        if written is None:
            if not field.has_default:
                yield f"field {field.name}: it is not in the records, and has no default"
            continue
        answer = ReaderWriterCompatibilityChecker().get_compatibility(field.type, written.type)
        if answer.compatibility is SchemaCompatibilityType.incompatible:
            kinds = ", ".join(dict.fromkeys(kind.value.replace("_", " ") for kind in answer.incompatibilities))
            yield f"field {field.name}: {kinds} ({', '.join(sorted(answer.messages))})"


def _read_wrong(earlier: Schema, today: Schema) -> Iterator[str]:
    """Yield changes of logical types: Avro's resolution does not look at them, and a reader would get another number."""
    before = {field.path: field.type.removesuffix(" or null") for field in fields_of(earlier)}
    for field in fields_of(today):
        was, now = before.get(field.path, ""), field.type.removesuffix(" or null")
        if was and was != now and ("(" in was or "(" in now):
            yield f"field {field.path}: {was} became {now}"
