"""Which cluster a command asks: the one that the environment names, else the embedded stack that
runs over the data folder; and what its topics were made of."""

import argparse
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.cli.options import given, is_given
from infra.embedded.running import Found, NoRun, find
from infra.kafka.waiting import interruptible
from infra.topology.found import TopologyFound, found_on
from schemas.clients.kafka import without

ADDRESSES = ("INFOWAY_BOOTSTRAP", "INFOWAY_REGISTRY")
DATA = Path("data")


def add_data(command: argparse.ArgumentParser) -> None:
    """Add the folder whose stack is asked."""
    command.add_argument(
        "--data",
        type=Path,
        default=DATA,
        help="data folder of the running stack to ask, if INFOWAY_BOOTSTRAP names no cluster "
        "(default: data)",
    )


def is_named() -> bool:
    """Return whether the environment names a cluster, or a half of one."""
    return any(os.environ.get(name) for name in ADDRESSES)


def running_stack(data: Path) -> Found:
    """Return the run whose embedded stack is to be asked; raises NoRun, which says what to do."""
    try:
        found = find(data)
    except NoRun as error:
        raise NoRun(
            f"{error}: start a stack by `infoway-streams up`, name its folder by --data, or name a "
            "cluster: INFOWAY_BOOTSTRAP=HOST:PORT "
            "INFOWAY_REGISTRY=http://HOST:PORT/apis/ccompat/v7"
        ) from None
    if found.run.bootstrap is None or found.run.registry_url is None:
        raise NoRun(
            f"what runs over {found.folder} uses the cluster that it was given: name it here, too, "
            "by INFOWAY_BOOTSTRAP and INFOWAY_REGISTRY"
        )
    return found


def environment_of(found: Found) -> dict[str, str]:
    """Return the settings that name a running stack."""
    run = found.run
    return {
        "INFOWAY_BOOTSTRAP": run.bootstrap or "",
        "INFOWAY_REGISTRY": run.registry_url or "",
        **({"INFOWAY_PREFIX": run.prefix} if run.prefix else {}),
    }


@contextmanager
def cluster_named(data: Path) -> Iterator[None]:
    """Have a cluster named in this process's environment within the block: the running stack if
    none is, without the settings of another cluster's security. Raises NoRun."""
    before = dict(os.environ)
    try:
        _enter(data)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _enter(data: Path) -> None:
    if is_named():
        return
    settings = environment_of(running_stack(data))
    for name in set(os.environ) - set(without(os.environ)):
        del os.environ[name]
    for name, value in settings.items():
        # a prefix that was named counts
        if name != "INFOWAY_PREFIX" or not os.environ.get(name):
            os.environ[name] = value


def read_back(parsed: argparse.Namespace) -> None:
    """Set what neither an option nor the environment says of the topology to what the cluster has.
    Raises ClusterAway."""
    open_parts = [name for name in PARTS if not is_given(parsed, name)]
    if not open_parts:
        return
    _, prefix = given(parsed, "prefix")
    bootstrap = os.environ["INFOWAY_BOOTSTRAP"]
    found = interruptible(lambda: found_on(bootstrap, prefix)) or TopologyFound()
    set_parts(open_parts, found)


def set_parts(names: Iterable[str], found: TopologyFound) -> None:
    """Set parts of the topology, in the environment, to what the cluster has."""
    for name in names:
        value = getattr(found, name)
        text = ",".join(value) if isinstance(value, tuple) else str(value or "")
        if text:
            os.environ[f"INFOWAY_{name.upper()}"] = text


PARTS = ("intervals", "windows", "activity", "partitions")
