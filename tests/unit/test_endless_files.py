"""Files that somebody else has written are read up to a bound, and what exceeds it is named:
recordings, symbols, scripts, keys."""

import gzip
import tracemalloc
from contextlib import contextmanager

import pytest

from infra.ingest.producer_process import KeyUnreadable, api_key
from infra.ingest.symbols_file import MAX_FILE, SymbolsFileUnreadable, read_symbols
from infra.simulator.script import MAX_SCRIPT, BadScript, read_script
from producers.recording.reader import MAX_LINE, UnreadableRecording, read_recordings

MIB = 1024 * 1024
GOOD = b'{"recv_ms":1,"frame":{"code":1}}\n'


@contextmanager
def at_most(size):
    tracemalloc.start()
    try:
        yield
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < size


def bomb(path, mib):
    """Write a gz that unpacks to a line of so many MiB between two good ones."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(GOOD)
        for _ in range(mib):
            file.write(b"x" * MIB)
        file.write(b"\n" + GOOD)


def test_line_of_hundreds_of_megabytes_is_passed_over_and_named(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    bomb(path, 300)
    with at_most(160 * MIB):
        recording = read_recordings([path])
    assert len(recording.frames) == 2
    assert [(each.line, each.reason) for each in recording.broken] == [
        (2, f"more than {MAX_LINE} bytes")
    ]


def test_longest_line_is_read(tmp_path):
    path = tmp_path / "long.jsonl"
    line = b'{"recv_us":1,"feed":"stock-1","text":"%s"}\n'
    path.write_bytes(line % (b"x" * (MAX_LINE - len(line) + 2)) + GOOD)
    recording = read_recordings([path])
    assert recording.broken == []
    assert len(recording.frames) == 2


def test_line_without_an_end_is_no_recording(monkeypatch, tmp_path):
    monkeypatch.setattr("producers.recording.reader.LONGEST", 40 * MIB)
    path = tmp_path / "bomb.jsonl.gz"
    bomb(path, 60)
    with (
        at_most(160 * MIB),
        pytest.raises(UnreadableRecording, match=f"a line has more than {40 * MIB} bytes"),
    ):
        read_recordings([path])


def test_symbols_file_without_an_end_is_refused(tmp_path):
    path = tmp_path / "symbols.txt"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with (
        at_most(16 * MIB),
        pytest.raises(SymbolsFileUnreadable, match=f"more than {MAX_FILE} bytes"),
    ):
        read_symbols(path)


def test_key_file_without_an_end_is_refused(tmp_path):
    path = tmp_path / "key"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with at_most(16 * MIB), pytest.raises(KeyUnreadable, match="more than 65536 bytes"):
        api_key({"INFOWAY_API_KEY_FILE": str(path)})


LAUGHS = "- &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"- &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "an alias \\(\\*name\\) is not allowed"),
        ("- &a {at: 1, do: reset}\n- <<: [*a, *a]\n", "an alias"),
        ("[" * 100_000, "nested deeper than 4 levels"),
        ("- {at: !!bool x, do: reset}", "line 1: a tag"),
        ("- {at: 1, at: 2, do: reset}", "line 1: the key 'at' comes twice"),
        ("- {at: " + "9" * 5000 + ", do: reset}", "no YAML"),
        ("- {at: 2001-99-99, do: reset}", "no YAML"),
        ("- " + "x" * 1000, "is no mapping"),
        ("x" * (MAX_SCRIPT + 1), f"more than {MAX_SCRIPT} bytes"),
    ],
    ids=["laughs", "merge", "deep", "tag", "twice", "digits", "date", "words", "long"],
)
def test_script_that_stands_for_more_than_it_says_is_refused(text, said, tmp_path):
    path = tmp_path / "script.yaml"
    path.write_text(text)
    with at_most(256 * MIB), pytest.raises(BadScript, match=said) as refusal:
        read_script(path)
    assert len(str(refusal.value)) < 1000
