"""A change of a schema that is not FULL_TRANSITIVE against every version since the baseline is
refused, with file, field and reason."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from evolution import HistoryIncomplete, NoHistory, breaks, broken, published

ROOT = Path(__file__).parents[2]
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}
FIRST = {
    "type": "record",
    "name": "Bar",
    "namespace": "infoway.streams",
    "fields": [
        {"name": "symbol", "type": "string"},
        {"name": "close", "type": DECIMAL},
        {"name": "vwap", "type": ["null", DECIMAL], "default": None},
        {"name": "cause", "type": {"type": "enum", "name": "Cause", "symbols": ["close", "late"]}},
    ],
}
ADDED = {"name": "spread", "type": ["null", DECIMAL], "default": None}


def changed(known, /, **changes):
    fields = [
        {**field, **changes} if field["name"] == known else field for field in FIRST["fields"]
    ]
    return {**FIRST, "fields": fields}


def without(name):
    return {**FIRST, "fields": [field for field in FIRST["fields"] if field["name"] != name]}


def git(folder, *arguments):
    identity = [
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b.example",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "init.defaultBranch=main",
    ]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, env=environment
    )


def commit(folder, **schemas):
    for name, schema in schemas.items():
        (folder / "schemas" / f"{name}.avsc").write_text(json.dumps(schema))
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a change")


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / "schemas").mkdir(parents=True)
    git(folder, "init", "-q")
    commit(folder, bar=without("symbol"))  # what came before the baseline counts nowhere
    (folder / "schemas" / "BASELINE").write_text("published")
    commit(folder, bar=FIRST)
    return folder


def test_no_schema_of_today_breaks_one_that_was_published():
    try:
        found = broken(ROOT)
    except NoHistory as missing:
        pytest.skip(str(missing))
    assert found == [], "\n" + "\n".join(found)


OLD_READERS, NEW_READERS = (
    ": readers of v1 cannot read today's records",
    ": today's readers cannot read records of v1",
)
RESCALED = "decimal(38,18) became decimal(38,9): records of v1 would be read wrong"
CHANGES = {
    "nothing": (FIRST, []),
    "a doc": (changed("symbol", doc="Another word."), []),
    "a defaulted field added": ({**FIRST, "fields": [*FIRST["fields"], ADDED]}, []),
    "a defaulted field removed": (without("vwap"), []),
    "a field removed": (
        without("close"),
        ["field close: it is not in the records, and has no default" + OLD_READERS],
    ),
    "a field added": (
        {**FIRST, "fields": [*FIRST["fields"], {"name": "low", "type": DECIMAL}]},
        ["field low: it is not in the records, and has no default" + NEW_READERS],
    ),
    "a scale": (changed("close", type={**DECIMAL, "scale": 9}), ["field close: " + RESCALED]),
    "the scale of a nullable field": (
        changed("vwap", type=["null", {**DECIMAL, "scale": 9}]),
        ["field vwap: " + RESCALED],
    ),
    "an enum symbol": (
        changed("cause", type={"type": "enum", "name": "Cause", "symbols": ["close", "tardy"]}),
        [
            "field cause: missing enum symbols ({'late'})" + NEW_READERS,
            "field cause: missing enum symbols ({'tardy'})" + OLD_READERS,
        ],
    ),
    "a field made nullable": (
        changed("close", type=["null", DECIMAL], default=None),
        [
            "field close: type mismatch (reader type: bytes not compatible with writer type: null)"
            + OLD_READERS
        ],
    ),
    "the record's name": (
        {**FIRST, "name": "Candle"},
        [
            "record infoway.streams.Bar is now infoway.streams.Candle" + NEW_READERS,
            "record infoway.streams.Candle is now infoway.streams.Bar" + OLD_READERS,
        ],
    ),
    "the record's namespace": (
        {**FIRST, "namespace": "other"},
        [
            "record infoway.streams.Bar is now other.Bar" + NEW_READERS,
            "record other.Bar is now infoway.streams.Bar" + OLD_READERS,
        ],
    ),
    "a field renamed": (changed("vwap", name="mean", aliases=["vwap"]), []),
    "a field renamed with another scale": (
        changed("vwap", name="mean", aliases=["vwap"], type=["null", {**DECIMAL, "scale": 9}]),
        ["field vwap: " + RESCALED],
    ),
}


@pytest.mark.parametrize(("today", "reasons"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_full_or_its_field_and_reason_are_told(today, reasons):
    assert breaks(FIRST, today, "v1") == reasons


DEFAULTS = [
    ("string", None),
    ("string", 5),
    (["null", "string"], "none"),
    ("boolean", 0),
    ("int", True),
    ("int", 1 << 31),
    ("long", 0.5),
    ("double", "0"),
    (DECIMAL, "1\u0100"),
    ({"type": "fixed", "name": "Hash", "size": 4}, "abc"),
    ({"type": "enum", "name": "Side", "symbols": ["bid", "ask"]}, "both"),
    ({"type": "array", "items": "string"}, ["a", 1]),
    ({"type": "map", "values": "long"}, {"a": "b"}),
    ({"type": "record", "name": "Level", "fields": [{"name": "size", "type": "long"}]}, {}),
]


@pytest.mark.parametrize(("avro_type", "default"), DEFAULTS)
def test_a_default_is_one_of_its_fields_type(avro_type, default):
    today = {
        **FIRST,
        "fields": [*FIRST["fields"], {"name": "added", "type": avro_type, "default": default}],
    }
    (reason,) = breaks(FIRST, today, "v1")
    assert reason.startswith(f"field added: its default {json.dumps(default)} is none of its type")


SOUND = [
    ("string", ""),
    (["string", "null"], "none"),
    ("boolean", False),
    ("int", -(1 << 31)),
    ("double", 1),
    (DECIMAL, "\u00ff"),
    ({"type": "fixed", "name": "Hash", "size": 4}, "abcd"),
    ({"type": "enum", "name": "Side", "symbols": ["bid", "ask"]}, "ask"),
    ({"type": "array", "items": "string"}, []),
    ({"type": "map", "values": "long"}, {"a": 1}),
    (
        {
            "type": "record",
            "name": "Level",
            "fields": [{"name": "size", "type": "long", "default": 0}],
        },
        {},
    ),
]


@pytest.mark.parametrize(("avro_type", "default"), SOUND)
def test_a_default_of_its_fields_type_is_welcome(avro_type, default):
    today = {
        **FIRST,
        "fields": [*FIRST["fields"], {"name": "added", "type": avro_type, "default": default}],
    }
    assert breaks(FIRST, today, "v1") == []


def test_a_time_in_another_unit_is_no_compatible_change():
    millis, micros = (
        {
            **FIRST,
            "fields": [
                {"name": "ts", "type": {"type": "long", "logicalType": f"timestamp-{unit}"}}
            ],
        }
        for unit in ("millis", "micros")
    )
    assert breaks(millis, micros, "v1") == [
        "field ts: timestamp-millis (long) became timestamp-micros (long): records of v1 would "
        "be read wrong"
    ]


def test_the_working_tree_is_held_against_every_version_not_the_last_alone(project):
    commit(project, bar=without("vwap"))
    retyped = changed("vwap", type=["null", "string"])
    (project / "schemas/bar.avsc").write_text(json.dumps(retyped))
    ((first, _), (second, _)) = published(project)["schemas/bar.avsc"]
    assert breaks(without("vwap"), retyped, second) == []
    assert any(
        f"schemas/bar.avsc: field vwap: decimal(38,18) became string: records of {first}" in reason
        for reason in broken(project)
    )


def test_a_schema_that_was_published_stays(project):
    assert broken(project) == []
    (project / "schemas/bar.avsc").unlink()
    (reason,) = broken(project)
    assert reason.startswith("schemas/bar.avsc: it was published in ")


def test_what_is_no_schema_is_told_by_its_file_and_once_mended_no_more(project):
    (project / "schemas/bar.avsc").write_text(json.dumps({**FIRST, "fields": FIRST["fields"] * 2}))
    (reason,) = broken(project)
    assert reason.startswith("schemas/bar.avsc: no Avro schema: ")
    (project / "schemas/bar.avsc").write_text("<<<<<<< HEAD")
    (reason,) = broken(project)
    assert reason.startswith("schemas/bar.avsc: no Avro schema: ")
    git(project, "commit", "-qam", "half a merge")
    commit(project, bar=FIRST)
    assert broken(project) == []


def test_a_topic_that_was_published_stays_with_its_schema(project):
    topics = project / "schemas/topics.yaml"
    state = {"name": "infoway.state.{agent}"}
    topics.write_text(
        json.dumps(
            {
                "topics": [
                    {"name": "infoway.bars", "schema": "bar"},
                    {"name": "infoway.late", "schema": "late"},
                    state,
                ]
            }
        )
    )
    commit(project, late=FIRST)
    assert broken(project) == []
    (project / "schemas/topics.yaml").write_text(
        json.dumps({"topics": [{"name": "infoway.bars", "schema": "late"}]})
    )
    schema, gone = broken(project)
    assert schema.startswith("schemas/topics.yaml: infoway.bars had the schema bar in ")
    assert schema.endswith(" and has late: that of a subject stays")
    assert gone.startswith("schemas/topics.yaml: infoway.late was published in ")


def test_neither_spaces_nor_a_time_without_it_move_the_baseline(project):
    baseline = project / "schemas/BASELINE"
    for text in ("published\n", None, "published"):
        baseline.write_text(text) if text else baseline.unlink()
        commit(project, bar=without("symbol"))
    assert any("schemas/bar.avsc: field symbol: " in reason for reason in broken(project))


def test_a_baseline_that_was_removed_is_an_error(project):
    (project / "schemas/BASELINE").unlink()
    commit(project, bar=without("symbol"))
    with pytest.raises(HistoryIncomplete, match="is gone"):
        broken(project)


def test_a_change_of_the_baseline_publishes_anew(project):
    (project / "schemas/BASELINE").write_text("published anew")
    commit(project, bar=without("symbol"))
    assert broken(project) == []


def test_a_branch_from_before_the_baseline_published_nothing(project):
    git(project, "checkout", "-q", "-b", "older", "HEAD~1")
    commit(project, late=FIRST, bar=without("vwap"))
    commit(project, late=without("close"))
    git(project, "checkout", "-q", "main")
    git(project, "merge", "-q", "-X", "ours", "older", "-m", "both")
    assert {path: len(versions) for path, versions in published(project).items()} == {
        "schemas/bar.avsc": 1,
        "schemas/late.avsc": 1,
    }
    assert broken(project) == []


def test_a_shallow_clone_is_told_what_it_lacks(project, tmp_path):
    commit(project, bar={**FIRST, "fields": [*FIRST["fields"], ADDED]})
    git(tmp_path, "clone", "-q", "--depth", "1", project.as_uri(), "shallow")
    with pytest.raises(HistoryIncomplete, match="git fetch --unshallow"):
        broken(tmp_path / "shallow")


def test_an_archive_without_git_says_so(tmp_path):
    with pytest.raises(NoHistory, match="no git history"):
        broken(tmp_path)


def test_a_baseline_that_was_never_committed_is_an_error(tmp_path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "none")
    with pytest.raises(HistoryIncomplete, match="commit it"):
        broken(tmp_path)
