"""What others wrote reaches no terminal, log or table as more than text."""

import io
import json
import logging
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from infra.cli.main import main
from infra.dashboard import view
from infra.dashboard.board import Board, SymbolBoard
from infra.dashboard.selection import Selection
from infra.runtime.deployment import Deployment
from schemas.printable import printable, utc_text
from schemas.topics import Topology, load_example

EVIL = "\x1b]0;owned\x07\x1b[2J[red]\r\n2026-01-01 ERROR forged\u202e\x9b31m\x7f"


@given(st.text(st.characters(exclude_categories=())))
def test_text_is_one_line_of_what_can_be_seen(text):
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert not text.isprintable() or shown == text


def clean(text):
    return all(each.isprintable() for line in text.split("\n") for each in line)


def board():
    deployment = Deployment("b:1", "http://r", Topology(), {}, embedded=False)
    made = Board(deployment, (EVIL, "[red]X[/red]", "[/]"))
    bar = {
        **load_example("bar"),
        "ts_start": 2**62,
        **dict.fromkeys(("open", "high", "low", "close", "volume"), 1),
    }
    made.symbols[EVIL] = SymbolBoard(last=EVIL, bar={**bar, "completeness": EVIL})
    return made, deployment


def test_the_live_view_takes_a_symbol_for_text_and_no_markup():
    made, deployment = board()
    out = io.StringIO()
    Console(file=out, width=400, force_terminal=True, color_system=None).print(
        view.screen(made, view.Seen(deployment, [], "banner [b]"), Selection(), 400, 40)
    )
    shown = out.getvalue()
    assert "[red]X[/red]" in shown
    assert "banner [b]" in shown
    assert str(2**62) in shown
    assert "\\x1b]0;owned" in shown
    assert "\x1b]" not in shown
    assert "\x9b" not in shown


def test_the_plain_view_is_printable():
    made, deployment = board()
    assert all(line.isprintable() for line in view.lines(made, view.Seen(deployment, [])))


def test_json_lines_are_ascii():
    assert json.dumps(EVIL + "é").isascii()
    assert json.dumps(EVIL).isprintable()


LOGGING = """
import logging, sys
from schemas.printable import guard_logs
guard_logs()
logging.basicConfig(format="%(levelname)s %(message)s")
evil = sys.argv[1]
logging.getLogger("x").error("said %s", evil)
try:
    raise ValueError(evil)
except ValueError:
    logging.getLogger("y").exception("failed")
"""


def test_a_log_line_is_one_line_and_a_traceback_cannot_forge_one():
    run = subprocess.run(
        [sys.executable, "-c", LOGGING, EVIL], capture_output=True, timeout=60, check=True
    )
    shown = run.stderr.decode()
    assert clean(shown)
    lines = shown.splitlines()
    assert lines[0].startswith("ERROR said \\x1b]0;owned")
    assert not any(line.startswith("2026-01-01") for line in lines[:2])
    assert [line for line in lines if line.startswith("ERROR")][1] == "ERROR failed"


def test_an_error_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("infra.cli.main.parser", _failing)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert str(ended.value).isprintable()
    assert "owned" in str(ended.value)
    # what a test sets for its process stays with it
    logging.setLogRecordFactory(logging.LogRecord)


class _Failing:
    def parse_known_args(self, arguments, options):
        options.run, options.checks = self.run, ()
        return options, []

    def run(self, options):
        from infra.cli.commands.topics.export import ExportFailed

        raise ExportFailed(EVIL)


def _failing(*_):
    return _Failing()


def test_a_time_that_no_calendar_has_is_a_number():
    assert utc_text(0, "%Y-%m-%d") == "1970-01-01"
    assert [utc_text(each, "%Y") for each in (-1, 253_402_300_800_000, 2**63 - 1)] == [
        "-1",
        "253402300800000",
        str(2**63 - 1),
    ]


@pytest.mark.parametrize("prefix", ["../x.", "a/b", "a b", "\x1b[31m", "é"])
def test_a_prefix_is_no_path(prefix):
    run = subprocess.run(
        [sys.executable, "-m", "infra.cli.main", "tail", "infoway.bars.1m", "--prefix", prefix],
        capture_output=True,
        timeout=60,
    )
    assert run.returncode == 2
    assert b"part of topics' names" in run.stderr
    assert b"Traceback" not in run.stderr
    assert clean(run.stderr.decode())
