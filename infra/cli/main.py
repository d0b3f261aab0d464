"""The command line `infoway-streams`: finds the command, has its options checked, runs it, and
turns errors into one line and an exit code. Each command is a module of `commands`."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from confluent_kafka import KafkaException

from infra.cli.checks import check
from infra.cli.command import Command, Parser, parser_of
from infra.cli.hold import hold
from infra.kafka.offsets import NOT_ALLOWED
from infra.runtime.exit_codes import Code, code_of
from schemas.clients.kafka import credentials_refused
from schemas.clients.kafka_logs import spare
from schemas.errors import InfowayError
from schemas.printable import guard_logs, printable

COMMANDS = {
    "up": "running.up:COMMAND",
    "status": "running.status:COMMAND",
    "env": "running.env:COMMAND",
    "logs": "running.logs:COMMAND",
    "down": "running.down:COMMAND",
    "tail": "topics.tail:COMMAND",
    "replay": "feed.replay:COMMAND",
    "record": "feed.record:COMMAND",
    "produce": "feed.produce:COMMAND",
    "worker": "running.worker:COMMAND",
    "backfill": "feed.backfill:COMMAND",
    "plan-subscriptions": "feed.plan_subscriptions:COMMAND",
    "simulate": "feed.simulate:COMMAND",
    "topology plan": "topics.topology:PLAN",
    "topology apply": "topics.topology:APPLY",
    "dead-letter list": "repair.dead_letter:COMMAND",
    "dead-letter redrive": "repair.redrive:COMMAND",
    "skip": "repair.skip:COMMAND",
    "export": "topics.export:COMMAND",
    "group": "topics.group:COMMAND",
    "dashboard": "running.dashboard:COMMAND",
}
"""Where each command is, below infra.cli.commands: only the one that is asked for is imported."""
GROUPS = {
    "topology": "the topics and schemas of a named cluster",
    "dead-letter": "what could not be read on a named cluster",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with one of infra.runtime.exit_codes, or a worker's; `topology plan
    --detailed-exitcode` has 2 for a difference."""
    try:
        # a service manager's SIGTERM ends a command as Ctrl-C does
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler)
        _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        sys.exit(Code.INTERRUPTED)
    except BrokenPipeError:
        # whoever read the output, `head`, has enough; Python would flush once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Code.UNREAD)


def _run(arguments: Sequence[str]) -> None:
    options = _parsed(arguments)
    options.arguments = tuple(arguments)
    guard_logs()
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("librdkafka").setLevel(
        logging.ERROR
    )  # its warnings are of retries that it makes by itself
    spare(["librdkafka"])
    # terraform's way: 2 says that something differs, and nothing else
    wrong = Code.FAILED if getattr(options, "detailed_exitcode", False) else Code.SETTINGS_WRONG
    try:
        if getattr(options, "hold", False):
            sys.exit(hold(arguments))
        check(options)
        sys.exit(begin(options))
    except InfowayError as error:
        code = code_of(error)
        if code == Code.CLUSTER_AWAY:
            _leave_away(*error.lines)
        _leave(wrong if code == Code.SETTINGS_WRONG else code, *error.lines)
    except KafkaException as error:
        if error.args[0].code() in NOT_ALLOWED:
            _leave(
                Code.FAILED,
                f"this principal may not do that ({error.args[0].str()}): grant it by "
                "infra/deploy/acls.yaml",
            )
        _leave_away(f"the broker: {error.args[0].str()}: is it running, and is the address right?")
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None:
            raise
        _leave(
            Code.FAILED,
            f"{os.fsdecode(error.filename)}: {error.strerror}: make room, allow it, or name "
            "another place",
        )


def _leave_away(*said: str) -> NoReturn:
    if (refused := credentials_refused()) is not None:
        _leave(Code.FAILED, refused)
    _leave(Code.CLUSTER_AWAY, *said)


class _End(SystemExit):
    """The end of a command: its exit code, and what was said about it as its text."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code = code


def _leave(code: int, *lines: str) -> NoReturn:
    said = "\n".join(printable(f"infoway-streams: {line}") for line in lines)
    print(said, file=sys.stderr)
    raise _End(code, said)


def begin(options: argparse.Namespace) -> int:
    """Do the work of a command whose options were checked."""
    return int(options.run(options))


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    options = argparse.Namespace()
    asked_for = [name for name in COMMANDS if name.split()[0] in arguments[:1]]
    _, unknown = parser(asked_for or COMMANDS).parse_known_args(arguments, options)
    if unknown:
        # the command's own parser knows which option may have been meant
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def parser(names: Iterable[str] = COMMANDS) -> Parser:
    """Return the parser of the whole command line, or of some commands."""
    return parser_of(map(command_named, names), GROUPS)


def command_named(name: str) -> Command[Any]:
    """Import a command and return it."""
    module, _, value = COMMANDS[name].partition(":")
    command: Command[Any] = getattr(import_module(f"infra.cli.commands.{module}"), value)
    return command


if __name__ == "__main__":
    main()
