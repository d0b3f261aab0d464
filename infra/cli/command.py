"""A command as a value, and a parser that suggests what a mistyped word may have meant."""

import argparse
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Generic, NoReturn, TypeVar, cast

from infra.cli.cluster import add_data, cluster_named, read_back
from infra.cli.options import topology_of
from schemas.topics import Topology

Check = Callable[[argparse.Namespace], Iterable[str]]
"""Returns the mistakes in a part of the options and settings."""

Options = TypeVar("Options")


@dataclass(frozen=True, slots=True)
class Command(Generic[Options]):
    """One command of the command line."""

    name: str
    """Of two words if it belongs to a group: `topology plan`."""
    summary: str
    example: str
    """A command line that works, after `infoway-streams`."""
    add_options: Callable[[argparse.ArgumentParser], None]
    options: type[Options]
    """A dataclass; each field is filled from the option of its name, `topology` from several."""
    run: Callable[[Options], int]
    """Does the work and returns the exit code."""
    checks: tuple[Check, ...] = ()
    """What has to be right before anything starts."""
    topology: Callable[[argparse.Namespace], Topology] = topology_of
    """Returns the topology of the options."""
    asks_cluster: bool = False
    """Whether it asks a cluster: the named one, else the stack that runs over --data."""
    reads_back: bool = False
    """Whether it works on topics as they are, by the intervals, windows, activity bars and
    partitions that the cluster has, unless others are named."""

    def add_to(self, parsers: "argparse._SubParsersAction[Parser]") -> None:
        """Add the command's parser."""
        parser = parsers.add_parser(
            self.name.rpartition(" ")[2],
            help=self.summary,
            description=self.summary,
            epilog=f"example: infoway-streams {self.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_options(parser)
        if self.asks_cluster:
            add_data(parser)
        parser.set_defaults(run=self._run, checks=self.checks, parser=parser)

    def _run(self, parsed: argparse.Namespace) -> int:
        if not self.asks_cluster:
            return self.run(self._filled(parsed))
        with cluster_named(parsed.data):
            if self.reads_back:
                read_back(parsed)
            return self.run(self._filled(parsed))

    def _filled(self, parsed: argparse.Namespace) -> Options:
        values = {
            field.name: self.topology(parsed)
            if field.name == "topology"
            else getattr(parsed, field.name)
            for field in fields(cast(Any, self.options))
        }
        return self.options(**values)


def no_options(_: argparse.ArgumentParser) -> None:
    """Add nothing: the options of a command that has none of its own."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors name the known words that are close to an unknown one."""

    _arguments: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, and keep the arguments for the text of an error."""
        self._arguments = list(args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2, the message and the words that may have been meant."""
        meant = "".join(
            f"; did you mean {' or '.join(close)}?"
            for close in map(self._close, self._arguments)
            if close
        )
        super().error(f"{message}{meant}")

    def _close(self, argument: str) -> list[str]:
        """Return the known words close to an argument that is none of them."""
        word = argument.partition("=")[0]
        if word.startswith("--"):
            known = list(self._option_string_actions)
            # argparse takes an option that is cut short
            understood = any(each.startswith(word) for each in known)
        else:
            groups = [each for each in self._actions if isinstance(each.choices, dict)]
            known = [name for group in groups for name in group.choices or ()]
            understood = word in known
        if understood:
            return []
        return difflib.get_close_matches(word, known, n=2)


def parser_of(commands: Iterable[Command[Any]], groups: Mapping[str, str]) -> Parser:
    """Return the parser of a command line; `groups` has the text of each first word of two."""
    made = Parser(
        prog="infoway-streams",
        description="Infoway's market data on Kafka: exact VWAP, bars, depth imbalance.",
    )
    made.add_argument("--version", action="version", version=f"infoway-streams {_version()}")
    top = made.add_subparsers(required=True, metavar="COMMAND", dest="command")
    actions: dict[str, argparse._SubParsersAction[Parser]] = {}
    for command in commands:
        group, _, _ = command.name.rpartition(" ")
        if group and group not in actions:
            text = groups[group]
            actions[group] = top.add_parser(group, help=text, description=text).add_subparsers(
                required=True, metavar="ACTION"
            )
        command.add_to(actions.get(group, top))
    return made


def _version() -> str:
    try:
        return version("infoway-streams")
    except PackageNotFoundError:
        return "of a source tree that is not installed"
