"""The topology of a deployment on a cluster: what is wanted, what is there, and the way from one to
the other."""

from infra.topology.applying import Refused, apply
from infra.topology.cluster import TopologyError, looked_up

__all__ = ["Refused", "TopologyError", "apply", "looked_up"]
