"""What the command line says of itself: help, version, and what a mistyped word may have meant."""

import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib.metadata import version

import pytest

from infra.cli import main as cli
from infra.cli.main import COMMANDS, command_named, parser

EACH = [command_named(name) for name in COMMANDS]


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


@pytest.mark.parametrize("command", EACH, ids=lambda command: command.name)
def test_the_help_of_a_command_has_an_example_that_it_understands(command, capsys):
    code, out, _ = said(capsys, *command.name.split(), "--help")
    assert (code, f"\nexample: infoway-streams {command.example}\n" in out) == (0, True)
    assert command.example.startswith(command.name)
    parsed = parser().parse_args(shlex.split(command.example))
    assert is_dataclass(command.options)
    assert {each.name for each in fields(command.options)} <= {*vars(parsed), "topology"}


@pytest.mark.parametrize("command", EACH, ids=lambda command: command.name)
def test_the_options_of_a_command_are_a_frozen_value(command):
    assert command.options.__dataclass_params__.frozen


def test_a_command_has_the_name_that_it_is_found_by():
    assert [command.name for command in EACH] == list(COMMANDS)


def test_a_command_imports_no_other():
    code = (
        "import sys; from infra.cli.main import parser; parser(['tail'])\n"
        "print(*sorted(name for name in sys.modules if name.startswith('infra.cli.commands.')))\n"
        "print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = "infra.cli.commands.topics infra.cli.commands.topics.tail"
    assert done.stdout.splitlines() == [packages, "False"]


def test_the_version_is_that_of_the_package(capsys):
    assert said(capsys, "--version") == (0, f"infoway-streams {version('infoway-streams')}\n", "")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["tial", "infoway.bars.1m"], "tail"),
        (["topology", "aply"], "apply"),
        (["plan-subscription", "--symbols", "A"], "plan-subscriptions"),
        (["up", "--sybmols", "BTCUSDT"], "--symbols or --symbols-file"),
        (["up", "--wrokers=2"], "--workers"),
        (["replay", "f", "--uot", "o"], "--out"),
    ],
)
def test_a_mistyped_word_is_answered_by_what_it_may_have_meant(arguments, meant, capsys):
    code, _, err = said(capsys, *arguments)
    assert code == 2
    assert f"did you mean {meant}?" in err


@pytest.mark.parametrize("arguments", [["xyzzy"], ["up", "--xyzzy"], ["replay", "--out", "o"]])
def test_what_is_close_to_nothing_gets_no_suggestion(arguments, capsys):
    code, _, err = said(capsys, *arguments)
    assert code == 2
    assert "did you mean" not in err


def test_no_command_loads_the_compiler_of_kernels_at_its_start():
    code = "import sys; from infra.cli import main; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
