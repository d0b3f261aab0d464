"""`infoway-streams env`: prints the running stack's addresses as `export` lines."""

import os
import shlex
from dataclasses import dataclass

from infra.cli.checks import reached_cluster_mistakes
from infra.cli.cluster import ADDRESSES
from infra.cli.command import Command, no_options

NAMES = (*ADDRESSES, "INFOWAY_PREFIX")


@dataclass(frozen=True, slots=True)
class EnvOptions:
    """`env` has no options of its own."""


def env(_: EnvOptions) -> int:
    """Print what names the cluster that commands ask; a line for each setting."""
    for name in NAMES:
        if value := os.environ.get(name):
            print(f"export {name}={shlex.quote(value)}")
    return 0


COMMAND = Command(
    "env",
    "print the running stack's addresses as export lines",
    "env",
    no_options,
    EnvOptions,
    env,
    (reached_cluster_mistakes,),
    asks_cluster=True,
)
