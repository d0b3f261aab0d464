"""The commands `topology plan` and `topology apply`: their options, what they print, their exit codes."""

import argparse
import json
import os
from collections.abc import Iterator
from typing import Any

from infra.deployment import named_cluster
from infra.topology.cluster import carry_out, plan
from infra.topology.difference import Action, Allowed, Attribute, Change, Plan
from infra.topology.wanted import wanted
from schemas.registry import Registry
from schemas.topics import Topology

_MARKS = {Action.CREATE: "+", Action.CHANGE: "~", Action.REFUSED: "!"}


def add_options(planning: argparse.ArgumentParser, applying: argparse.ArgumentParser) -> None:
    """Give both commands what they have beside the topology's own options."""
    planning.add_argument(
        "--detailed-exitcode",
        action="store_true",
        help="exit with 2 where something differs, 0 where nothing does",
    )
    for command in (planning, applying):
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


def show_plan(topology: Topology, options: argparse.Namespace) -> int:
    """Print what apply would do; 0, or with --detailed-exitcode 2 where anything differs, refused or not."""
    bootstrap, registry_url = named_cluster()
    planned = plan(
        bootstrap, Registry(registry_url), wanted(topology, os.environ), _allowed(options)
    )
    print(json.dumps(as_json(planned)) if options.json else "\n".join(lines(planned)))
    return 2 if options.detailed_exitcode and planned.changes else 0


def apply_plan(topology: Topology, options: argparse.Namespace) -> int:
    """Print the plan and carry it out; raises Refused, after the plan was printed, where a part of it is refused."""
    bootstrap, registry_url = named_cluster()
    registry, wants = Registry(registry_url), wanted(topology, os.environ)
    planned = plan(bootstrap, registry, wants, _allowed(options))
    refused = bool(planned.count(Action.REFUSED))
    if not options.json:
        print("\n".join(lines(planned)), flush=True)
    elif refused:
        print(json.dumps(as_json(planned) | {"applied": False}), flush=True)
    carry_out(bootstrap, registry, wants, planned)
    if options.json:
        print(json.dumps(as_json(planned) | {"applied": True}))
    else:
        print(
            f"Applied: {planned.count(Action.CREATE)} created, {planned.count(Action.CHANGE)} changed."
        )
    return 0


def lines(planned: Plan) -> Iterator[str]:
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


def as_json(planned: Plan) -> dict[str, Any]:
    """Return the plan for machines; `old` is null where there is none yet, `refused` where the change is made."""
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


def _allowed(options: argparse.Namespace) -> Allowed:
    return Allowed(options.allow_partition_change, options.allow_shorter_retention)
