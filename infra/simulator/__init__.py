"""A stand-in for the vendor: its WebSocket and REST on this machine, with recordings or synthetic markets behind it."""

from infra.simulator.server import Simulator, running_simulator

__all__ = ["Simulator", "running_simulator"]
