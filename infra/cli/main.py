"""The command line `infoway-streams`: options, and errors in one line that says what to do; the work is in other modules."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from rich.console import Console

from infra.backfill import BackfillRunning, BadPeriod
from infra.commands import backfill_period, produce, simulate, tail
from infra.consuming import NOT_ALLOWED, NoSuchTopic, NotAllowed
from infra.dead_letters import (
    NoSuchLetter,
    Overtaken,
    add_dead_letter_options,
    list_letters,
    redrive,
)
from infra.deployment import ClusterUnnamed, HalfNamed
from infra.embedded.artifacts import DownloadFailed
from infra.embedded.java import JavaMissing
from infra.embedded.process import ServerFailed
from infra.embedded.stack import FolderInUse, PortInUse
from infra.export import ExportFailed, add_export_options, export_topics
from infra.feeding import BadKey, BadSilence, KeyMissing, KeyUnreadable, api_key
from infra.health import HttpUnusable
from infra.planning import plan_subscriptions
from infra.record import record
from infra.recordings import UnreadableRecording
from infra.replay import ReplayStalled, replay
from infra.simulator.protocol import PACKAGES
from infra.simulator.script import BadScript
from infra.spooling import BadSpoolSize
from infra.supervisor import WorkerFailed
from infra.symbols_file import SymbolsFileUnreadable, add_symbols_to
from infra.topology import TopologyError
from infra.topology.command import add_options, apply_plan, show_plan
from infra.topology.wanted import WantedWrong
from infra.up import up
from processors.settings import SettingsError, check_names
from producers.answers import RestError
from producers.backlog import BacklogFull
from producers.outages import OutagesUnreadable
from producers.plan import PlanTooSmall
from producers.proxy import BadProxy
from producers.publish import PublishError
from producers.recorder import ROTATE_MIB, RecordingFailed
from producers.spool import SpoolUnusable
from producers.symbols import BadSymbol, BadSymbols
from producers.websocket import BadAddress, FeedRefused, KeyRefused
from schemas.cluster import NotApplied, TopicHidden
from schemas.registry import RegistryError
from schemas.security import SecurityError
from schemas.topics import DEFAULT_INTERVALS, DEFAULT_WINDOWS, Topology

EXPECTED = (
    BackfillRunning,
    BacklogFull,
    BadAddress,
    BadKey,
    BadPeriod,
    BadProxy,
    BadScript,
    BadSilence,
    BadSpoolSize,
    BadSymbol,
    BadSymbols,
    ClusterUnnamed,
    DownloadFailed,
    ExportFailed,
    FeedRefused,
    FolderInUse,
    HalfNamed,
    HttpUnusable,
    JavaMissing,
    KeyMissing,
    KeyRefused,
    KeyUnreadable,
    NoSuchLetter,
    NoSuchTopic,
    NotAllowed,
    NotApplied,
    OutagesUnreadable,
    Overtaken,
    PlanTooSmall,
    PortInUse,
    PublishError,
    RecordingFailed,
    RegistryError,
    ReplayStalled,
    RestError,
    SecurityError,
    ServerFailed,
    SettingsError,
    SpoolUnusable,
    SymbolsFileUnreadable,
    TopicHidden,
    TopologyError,
    UnreadableRecording,
    WantedWrong,
    WorkerFailed,
)
"""Errors whose message is for the user; anything else is a bug and shows its traceback."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 where it did what was asked, 1 after an error, 2 for wrong options and where
    `topology plan --detailed-exitcode` found a difference, 130 for Ctrl-C in a batch job, 141 where nobody reads the output any more."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("librdkafka").setLevel(
        logging.ERROR
    )  # its warnings are of retries that it makes by itself
    # a service manager's SIGTERM ends a command as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(options.run(options))
    except EXPECTED as error:
        sys.exit(f"infoway-streams: {error}")
    except KafkaException as error:
        if error.args[0].code() in NOT_ALLOWED:
            sys.exit(
                f"infoway-streams: this principal may not do that ({error.args[0].str()}): grant it by infra/acls.yaml"
            )
        sys.exit(
            f"infoway-streams: the broker: {error.args[0].str()}: is it running, and is the address right?"
        )
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # whoever read the output, `head`, has enough; Python would flush once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="infoway-streams",
        description="Infoway's market data on Kafka: exact VWAP, bars, depth imbalance.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = _command(commands, "up", _up, "run everything on this machine, with a live view")
    add_symbols_to(command)
    command.add_argument(
        "--data",
        type=Path,
        default=Path("data"),
        help="folder of the embedded broker's data (default: data)",
    )
    command.add_argument(
        "--workers", type=_positive, default=1, help="processor workers (default: 1)"
    )
    command.add_argument(
        "--kafka-port", type=_port, default=0, help="the broker's port (default: a free one)"
    )
    command.add_argument(
        "--registry-port", type=_port, default=0, help="the registry's port (default: a free one)"
    )
    command.add_argument(
        "--rate",
        type=float,
        default=5.0,
        help="the simulator's trades a second and symbol (default: 5)",
    )
    command.add_argument("--seconds", type=float, help="end by itself after this long")
    _rest_option(command)
    _topology_options(command)

    command = _command(
        commands, "replay", _replay, "play recordings through Kafka and the agents into files"
    )
    command.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="recordings: JSON lines, plain or gz"
    )
    command.add_argument(
        "--out", type=Path, required=True, help="folder for one <topic>.jsonl per derived topic"
    )
    command.add_argument(
        "--workers", type=_positive, default=1, help="processor workers (default: 1)"
    )
    _topology_options(command)

    command = _command(
        commands,
        "record",
        _record,
        "connect to the vendor and write what comes into files, for replay",
    )
    add_symbols_to(command)
    command.add_argument(
        "--out", type=Path, required=True, help="folder for infoway-<UTC time>.jsonl.gz"
    )
    command.add_argument(
        "--url", help="the vendor's WebSocket, or a simulator's (default: the vendor's)"
    )
    command.add_argument(
        "--rotate-mib",
        type=_positive,
        default=ROTATE_MIB,
        help=f"size of a file before compression (default: {ROTATE_MIB})",
    )
    command.add_argument("--seconds", type=float, help="end by itself after this long")
    _rest_option(command)

    command = _command(
        commands,
        "produce",
        _produce,
        "connect to the vendor and publish raw topics on a named cluster",
    )
    add_symbols_to(command)
    command.add_argument(
        "--url", help="the vendor's WebSocket, or a simulator's (default: the vendor's)"
    )
    _rest_option(command)
    _topology_options(command)

    _command(
        commands,
        "worker",
        _worker,
        "compute what INFOWAY_* say on a named cluster, one of any number of workers",
    )

    command = _command(
        commands,
        "backfill",
        _backfill,
        "publish the vendor's klines of a period, and heal bars that an outage cut",
    )
    command.add_argument(
        "--symbols",
        required=True,
        help="comma-separated symbols, each to its business; SYMBOL:BUSINESS overrules",
    )
    command.add_argument(
        "--from",
        dest="start",
        required=True,
        help="begin of the period: 2026-11-20T01:30Z or with another offset",
    )
    command.add_argument("--to", help="end of the period (default: now)")
    command.add_argument(
        "--interval",
        default="1m",
        help="of the klines; heals the bars of the same interval, and coarser ones (default: 1m)",
    )
    command.add_argument(
        "--state",
        type=Path,
        default=Path("data"),
        help="folder where a killed backfill left how far it was (default: data)",
    )
    _rest_option(command)
    _topology_options(command)

    command = _command(
        commands,
        "plan-subscriptions",
        _plan_subscriptions,
        "show how symbols are spread over connections, or why not",
    )
    command.add_argument(
        "--symbols", help="comma-separated symbols, each to its business; SYMBOL:BUSINESS overrules"
    )
    _rest_option(command)

    command = _command(
        commands, "simulate", _simulate, "serve the vendor's WebSocket and REST on this machine"
    )
    command.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="recordings to play; none: synthetic markets",
    )
    command.add_argument("--port", type=_port, default=0, help="port (default: a free one)")
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    command.add_argument(
        "--speed",
        type=float,
        default=1.0,
        help="speed of a recording; 0: as fast as possible (default: 1)",
    )
    command.add_argument(
        "--rate",
        type=float,
        default=5.0,
        help="trades a second and symbol of synthetic markets (default: 5)",
    )
    command.add_argument(
        "--package", choices=PACKAGES, default="pro", help="whose quotas hold (default: pro)"
    )
    command.add_argument(
        "--script",
        type=Path,
        help="YAML: what goes wrong and when, as `- {at: 5, do: stall, seconds: 10}`",
    )

    command = _command(commands, "topology", None, "the topics and schemas of a named cluster")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    planning = _command(
        actions,
        "plan",
        lambda options: show_plan(_topology(options), options),
        "show what apply would do",
    )
    applying = _command(
        actions,
        "apply",
        lambda options: apply_plan(_topology(options), options),
        "create, alter, register; never delete",
    )
    add_options(planning, applying)
    _topology_options(planning)
    _topology_options(applying)

    command = _command(commands, "dead-letter", None, "what could not be read on a named cluster")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    listing = _command(
        actions,
        "list",
        lambda options: list_letters(_topology(options), options),
        "print every dead letter",
    )
    redriving = _command(
        actions,
        "redrive",
        lambda options: redrive(_topology(options), options),
        "publish anew to their raw topics",
    )
    add_dead_letter_options(listing, redriving)
    _topology_options(listing)
    _topology_options(redriving)

    command = _command(
        commands,
        "export",
        _export,
        "write derived topics of a named cluster into files, from where the last export ended",
    )
    add_export_options(command)
    _topology_options(command)

    command = _command(commands, "tail", _tail, "print a topic of a named cluster as JSON lines")
    command.add_argument("topic", help="the topic's name in the contract, such as infoway.bars.1m")
    command.add_argument(
        "--from-beginning", action="store_true", help="from the first record on, not only new ones"
    )
    _topology_options(command)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int] | None,
    text: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    if run is not None:
        command.set_defaults(run=run)
    return command


def _rest_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--rest-url",
        "--rest",
        help="where the package of the key is asked for (default: the vendor's REST, with --url that host's)",
    )


def _topology_options(command: argparse.ArgumentParser) -> None:
    environment = os.environ.get
    command.add_argument(
        "--prefix",
        default=environment("INFOWAY_PREFIX", ""),
        help="prefix of every topic and group (default: none)",
    )
    command.add_argument(
        "--intervals",
        default=environment("INFOWAY_INTERVALS") or ",".join(DEFAULT_INTERVALS),
        help="bar intervals",
    )
    command.add_argument(
        "--activity",
        default=environment("INFOWAY_ACTIVITY", ""),
        help="activity bars: tick-1000,volume-50000,turnover-1000000",
    )
    command.add_argument(
        "--windows",
        default=environment("INFOWAY_WINDOWS") or ",".join(DEFAULT_WINDOWS),
        help="VWAP windows",
    )
    command.add_argument(
        "--partitions",
        type=_positive,
        default=environment("INFOWAY_PARTITIONS") or None,
        help="partitions of every topic (default: as in topics.yaml)",
    )


def _topology(options: argparse.Namespace) -> Topology:
    intervals, windows, activity = (
        tuple(dict.fromkeys(part.strip() for part in text.split(",") if text))
        for text in (options.intervals, options.windows, options.activity)
    )
    topology = Topology(options.prefix, intervals, windows, options.partitions, activity)
    check_names(topology)
    return topology


def _up(options: argparse.Namespace) -> int:
    ports = (options.kafka_port, options.registry_port)
    more = (options.rate, options.seconds, options.rest_url, options.symbols_file)
    return up(_topology(options), options.symbols, options.data, options.workers, ports, *more)


def _replay(options: argparse.Namespace) -> int:
    summary = replay(
        options.files, options.out, _topology(options), options.workers, Console(stderr=True)
    )
    print("\n".join(summary.lines()))
    return 0


def _record(options: argparse.Namespace) -> int:
    more = (options.rotate_mib, options.seconds, options.symbols_file)
    return record(options.symbols, options.out, options.url, options.rest_url, *more)


def _produce(options: argparse.Namespace) -> int:
    return produce(
        _topology(options), options.symbols, options.url, options.rest_url, options.symbols_file
    )


def _worker(_: argparse.Namespace) -> int:
    # Faust takes a second to import, which no other command needs
    from infra.worker import work

    work()
    return 0


def _backfill(options: argparse.Namespace) -> int:
    period = (options.start, options.to)
    return backfill_period(
        _topology(options),
        options.symbols,
        period,
        options.interval,
        options.rest_url,
        options.state,
    )


def _plan_subscriptions(options: argparse.Namespace) -> int:
    return plan_subscriptions(options.symbols, api_key(), options.rest_url)


def _simulate(options: argparse.Namespace) -> int:
    return simulate(
        options.files,
        options.host,
        options.port,
        options.speed,
        options.rate,
        options.package,
        options.script,
    )


def _export(options: argparse.Namespace) -> int:
    return export_topics(_topology(options), options)


def _tail(options: argparse.Namespace) -> int:
    return tail(_topology(options), options.topic, options.from_beginning)


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no port: name a number from 0 (a free one) to 65535"
        )
    return int(text)


if __name__ == "__main__":
    main()
