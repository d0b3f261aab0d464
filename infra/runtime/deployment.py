"""Where the pipeline runs: a named cluster and registry, or the embedded stack; with its topics
made and its schemas registered."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from infra import topology
from infra.embedded.stack import Stack
from infra.topology.found import found_on
from schemas.clients.registry import Registry
from schemas.errors import SettingsWrong
from schemas.topics import Topology

UPDATE_MS = "1000"


class HalfNamed(SettingsWrong):
    """Only one of broker and registry was named."""


class ClusterUnnamed(SettingsWrong):
    """A command needs a cluster, and none is named."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One namespace on one cluster."""

    bootstrap: str
    registry_url: str
    topology: Topology
    schema_ids: dict[str, int]
    """By full name, at least of the topics that producers write."""
    embedded: bool
    look_after: Callable[[], None] = lambda: None
    """To be called now and then: starts an embedded server anew that has ended."""

    @property
    def environment(self) -> dict[str, str]:
        """The settings of the processors' workers."""
        return {
            "INFOWAY_BOOTSTRAP": self.bootstrap,
            "INFOWAY_REGISTRY": self.registry_url,
            "INFOWAY_PREFIX": self.topology.prefix,
            "INFOWAY_INTERVALS": ",".join(self.topology.intervals),
            "INFOWAY_WINDOWS": ",".join(self.topology.windows),
            "INFOWAY_ACTIVITY": ",".join(self.topology.activity),
            **(
                {"INFOWAY_PARTITIONS": str(self.topology.partitions)}
                if self.topology.partitions
                else {}
            ),
        }

    @property
    def partitions(self) -> dict[str, int]:
        """Number of partitions of each topic, by its name in the contract."""
        return {
            self.topology.contract_name(topic.name): topic.partitions
            for topic in self.topology.topics()
        }


@contextmanager
def deployed(
    names: Topology, data: Path, kafka_port: int = 0, registry_port: int = 0
) -> Iterator[Deployment]:
    """Make the topology on the cluster that INFOWAY_BOOTSTRAP and INFOWAY_REGISTRY name, else on an
    embedded stack over `data`."""
    bootstrap, registry_url = (
        os.environ.get("INFOWAY_BOOTSTRAP", ""),
        os.environ.get("INFOWAY_REGISTRY", ""),
    )
    if bool(bootstrap) != bool(registry_url):
        raise HalfNamed(
            "set both INFOWAY_BOOTSTRAP and INFOWAY_REGISTRY, or neither for the embedded ones"
        )
    if bootstrap:
        yield _on(bootstrap, registry_url, names, embedded=False)
        return
    with Stack(data, kafka_port, registry_port) as stack:
        yield replace(
            _on(stack.bootstrap, stack.registry_url, names, embedded=True),
            look_after=stack.look_after,
        )


def settings_of_workers(source: str) -> dict[str, str]:
    """Return what all workers of a run have in common beside the cluster and its topology."""
    return {
        "INFOWAY_SOURCE": source,
        # the live page shows the bar that is open, unless the operator says otherwise
        "INFOWAY_UPDATE_MS": os.environ.get("INFOWAY_UPDATE_MS", UPDATE_MS),
    }


def named_cluster() -> tuple[str, str]:
    """Return the addresses of broker and registry that the environment names; raises
    ClusterUnnamed."""
    bootstrap, registry_url = (
        os.environ.get("INFOWAY_BOOTSTRAP"),
        os.environ.get("INFOWAY_REGISTRY"),
    )
    if not bootstrap or not registry_url:
        raise ClusterUnnamed(
            "name the cluster: INFOWAY_BOOTSTRAP=HOST:PORT "
            "INFOWAY_REGISTRY=http://HOST:PORT/apis/ccompat/v7"
        )
    return bootstrap, registry_url


def existing(names: Topology) -> Deployment:
    """Return what `topology apply` has made for producers on the named cluster, and make nothing;
    it has the cluster's number of partitions if `names` has none.

    Raises ClusterUnnamed, NotApplied, TopologyError, TopicHidden and RegistryError.
    """
    bootstrap, registry_url = named_cluster()
    if names.partitions is None:
        names = replace(names, partitions=found_on(bootstrap, names.prefix).partitions)
    ids = topology.looked_up(bootstrap, Registry(registry_url), names)
    return Deployment(bootstrap, registry_url, names, ids, embedded=False)


def _on(bootstrap: str, registry_url: str, names: Topology, embedded: bool) -> Deployment:
    ids = topology.apply(bootstrap, Registry(registry_url), names)
    return Deployment(bootstrap, registry_url, names, ids, embedded)
