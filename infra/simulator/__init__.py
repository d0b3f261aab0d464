"""A stand-in for the vendor: its WebSocket and REST on this machine, with recordings or synthetic
markets behind it."""

from infra.simulator.running import running_simulator
from infra.simulator.server import Simulator

__all__ = ["Simulator", "running_simulator"]
