"""`infoway-streams topology plan` and `topology apply`: what is to be changed on a named
cluster, and the change."""

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from infra.cli.checks import reached_cluster_mistakes, topology_mistakes
from infra.cli.command import Command
from infra.cli.options import add_topology, topology_of
from infra.runtime.deployment import named_cluster
from infra.topology.applying import carry_out
from infra.topology.cluster import plan
from infra.topology.difference import Action, Allowed, Attribute, Change, TopologyPlan
from infra.topology.wanted import WantedWrong, wanted
from schemas.clients.registry import Registry
from schemas.printable import printable
from schemas.topics import Topology

_MARKS = {Action.CREATE: "+", Action.CHANGE: "~", Action.REFUSED: "!"}


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """What `topology apply` was given."""

    topology: Topology
    json: bool
    allow_partition_change: bool
    allow_shorter_retention: bool
    allow_unverified_transactions: bool

    @property
    def allowed(self) -> Allowed:
        """What may be done though it has a price."""
        return Allowed(
            self.allow_partition_change,
            self.allow_shorter_retention,
            self.allow_unverified_transactions,
        )


@dataclass(frozen=True, slots=True)
class PlanOptions(ApplyOptions):
    """What `topology plan` was given."""

    detailed_exitcode: bool


def add_plan_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `topology plan`."""
    command.add_argument(
        "--detailed-exitcode",
        action="store_true",
        help="exit with 2 where something differs, 0 where nothing does",
    )
    add_apply_options(command)


def add_apply_options(command: argparse.ArgumentParser) -> None:
    """Add the options that both commands have."""
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument(
        "--allow-partition-change",
        action="store_true",
        help="add partitions, though keys then change places",
    )
    command.add_argument(
        "--allow-shorter-retention",
        action="store_true",
        help="shorten retention, though records are deleted sooner",
    )
    command.add_argument(
        "--allow-unverified-transactions",
        action="store_true",
        help="use brokers that do not check to which transaction a record belongs",
    )
    add_topology(command)


def wanted_mistakes(options: argparse.Namespace) -> Iterable[str]:
    """Return what is wrong with replication and retention."""
    try:
        wanted(topology_of(options), os.environ)
    except WantedWrong as error:
        return error.mistakes
    return ()


def show_plan(options: PlanOptions) -> int:
    """Print what apply would do; return 0, or with --detailed-exitcode 2 if anything differs,
    refused or not."""
    bootstrap, registry_url = named_cluster()
    planned = plan(
        bootstrap, Registry(registry_url), wanted(options.topology, os.environ), options.allowed
    )
    print(
        json.dumps(as_json(planned)) if options.json else "\n".join(map(printable, lines(planned)))
    )
    return 2 if options.detailed_exitcode and planned.changes else 0


def apply_plan(options: ApplyOptions) -> int:
    """Print the plan and carry it out. Raises Refused, after the plan was printed, if a part of it
    is refused."""
    bootstrap, registry_url = named_cluster()
    registry, wants = Registry(registry_url), wanted(options.topology, os.environ)
    planned = plan(bootstrap, registry, wants, options.allowed)
    refused = bool(planned.count(Action.REFUSED))
    if not options.json:
        print("\n".join(map(printable, lines(planned))), flush=True)
    elif refused:
        print(json.dumps(as_json(planned) | {"applied": False}), flush=True)
    carry_out(bootstrap, registry, wants, planned)
    if options.json:
        print(json.dumps(as_json(planned) | {"applied": True}))
    else:
        print(
            f"Applied: {planned.count(Action.CREATE)} created, {planned.count(Action.CHANGE)} "
            "changed."
        )
    return 0


_CHECKS = (topology_mistakes, reached_cluster_mistakes, wanted_mistakes)

PLAN = Command(
    "topology plan",
    "show what apply would do",
    "topology plan --detailed-exitcode",
    add_plan_options,
    PlanOptions,
    show_plan,
    _CHECKS,
    asks_cluster=True,
)
APPLY = Command(
    "topology apply",
    "create, alter, register; never delete",
    "topology apply --partitions 12",
    add_apply_options,
    ApplyOptions,
    apply_plan,
    _CHECKS,
    asks_cluster=True,
)


def lines(planned: TopologyPlan) -> Iterator[str]:
    """Yield the plan for people."""
    for change in planned.changes:
        yield f"  {_MARKS[change.action]} {change.kind} {change.name}"
        for attribute in change.attributes:
            yield f"      {_line(change, attribute)}"
    if planned.changes:
        yield ""
    counts = ", ".join(
        f"{planned.count(action)} {text}"
        for action, text in zip(Action, ("to create", "to change", "refused"), strict=True)
    )
    yield f"Plan: {counts}."


def as_json(planned: TopologyPlan) -> dict[str, Any]:
    """Return the plan for machines; `old` is null where there is none yet, `refused` where the
    change is made."""
    changes = [
        {
            "action": change.action.value,
            "kind": change.kind,
            "name": change.name,
            "attributes": [
                {
                    "name": attribute.name,
                    "old": attribute.old,
                    "new": attribute.new,
                    "refused": attribute.refused,
                }
                for attribute in change.attributes
            ],
        }
        for change in planned.changes
    ]
    return {"changes": changes, **{action.value: planned.count(action) for action in Action}}


def _line(change: Change, attribute: Attribute) -> str:
    value = attribute.new if change.is_new else f"{attribute.old or 'not set'} -> {attribute.new}"
    return f"{attribute.name}: {value}" + (
        f"   refused: {attribute.refused}" if attribute.refused else ""
    )
