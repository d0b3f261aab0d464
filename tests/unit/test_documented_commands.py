"""Commands of the pages: each is in the list with how it is tested, and each of ours parses."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys

import pytest
from documentation import ROOT, WRITTEN, commands
from documented_commands import ALONE, COMMANDS

from infra.cli import main as cli

SHOWN = sorted({command for page in WRITTEN for command in commands(page.read_text())})
TARGETS = re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
SETTING = re.compile(r"[A-Z][A-Z0-9_]*=")


def words(command):
    """The words of a command without the settings before it, up to a pipe."""
    found = shlex.split(command.replace("COMMAND", "up"))
    while found and SETTING.match(found[0]):
        del found[0]
    return found[: found.index("|")] if "|" in found else found


def arguments(command):
    """What the command line gets, None if the command is none of ours."""
    program, *rest = words(command)
    if program.rpartition("/")[2] == "infoway-streams":
        return rest
    if (program, rest[:1]) == ("make", ["run"]):
        [options] = [word for word in rest if word.startswith("ARGS=")] or ["ARGS="]
        return ["up", *shlex.split(options.removeprefix("ARGS="))]
    return None


def parsed(given):
    """The options as the real parser takes them; None if it shows its help."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return vars(cli.parser().parse_args(given))
    except SystemExit as end:
        assert end.code == 0, said.getvalue()
        return None


def test_the_list_has_every_command_that_a_page_shows_and_no_other():
    assert sorted(set(SHOWN) - set(COMMANDS)) == [], "add them to tests/documented_commands.py"
    assert sorted(set(COMMANDS) - set(SHOWN)) == [], "take them out of it"


@pytest.mark.parametrize("command", [each for each in SHOWN if arguments(each) is not None])
def test_a_command_of_ours_parses(command):
    options = parsed(arguments(command)) or {}
    wrong = [value for value in options.values() if type(value).__name__ == "Wrong"]
    assert wrong == []


def test_a_command_that_does_not_parse_is_found():
    for command in ("infoway-streams tail", "infoway-streams up --no-such", "make run ARGS=--x"):
        with pytest.raises(AssertionError):
            parsed(arguments(command))


@pytest.mark.parametrize("command", [each for each in SHOWN if words(each)[0] == "make"])
def test_what_make_is_asked_for_is_a_target(command):
    asked = [word for word in words(command)[1:] if "=" not in word]
    assert asked
    assert set(asked) <= set(TARGETS)


@pytest.mark.parametrize("command", [each for each, how in COMMANDS.items() if how == ALONE])
def test_a_command_that_needs_nothing_runs(command, tmp_path):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")
    }
    done = subprocess.run(
        [sys.executable, "-m", "infra", *arguments(command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
