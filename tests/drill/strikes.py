"""How each kind of fault is carried out on a fleet: each call lasts as long as its fault."""

import resource
import signal
import time
from functools import singledispatch
from typing import TYPE_CHECKING

import outages
import psutil
from kafka_proxy import Api
from schedule import (
    JOINING,
    PRODUCER,
    BrokerDisk,
    Clock,
    DoubleSlot,
    Fault,
    FillSpool,
    FreezeBroker,
    FreezeProducer,
    FreezeWorker,
    JoinWorker,
    KillBroker,
    KillProducer,
    KillWorker,
    Network,
    Odd,
    Registry,
    Request,
    RestartBroker,
    SpoolDisk,
    Symbols,
    TerminateWorker,
    Vendor,
)

from infra.simulator import script

if TYPE_CHECKING:
    from fleet import Fleet


@singledispatch
def strike(fault: Fault, fleet: "Fleet") -> None:
    """Carry out a fault and end it again."""
    raise NotImplementedError(f"nothing carries out {fault}")


@strike.register(KillWorker)
def _(fault: KillWorker, fleet: "Fleet") -> None:
    fleet.signal(fault.slot, signal.SIGKILL)


@strike.register(TerminateWorker)
def _(fault: TerminateWorker, fleet: "Fleet") -> None:
    fleet.signal(fault.slot, signal.SIGTERM)


@strike.register(FreezeWorker)
def _(fault: FreezeWorker, fleet: "Fleet") -> None:
    _freeze(fleet, fault.slot, fault.seconds)


@strike.register(JoinWorker)
def _(fault: JoinWorker, fleet: "Fleet") -> None:
    with fleet.locks[JOINING]:
        fleet.wanted.add(JOINING)
        time.sleep(fault.seconds)
        fleet.wanted.discard(JOINING)
        fleet.signal(JOINING, signal.SIGTERM)


@strike.register(DoubleSlot)
def _(fault: DoubleSlot, fleet: "Fleet") -> None:
    fleet.doubled.add(fault.slot)
    fleet.start(fault.slot, double=True)
    time.sleep(fault.seconds)
    fleet.signal(f"{fault.slot}'", signal.SIGKILL)


@strike.register(RestartBroker)
def _(fault: RestartBroker, fleet: "Fleet") -> None:
    with fleet.locks["broker"], outages.stopped(fleet.stack, "kafka"):
        time.sleep(fault.seconds)


@strike.register(KillBroker)
def _(fault: KillBroker, fleet: "Fleet") -> None:
    with fleet.locks["broker"], outages.stopped(fleet.stack, "kafka", kill=True):
        time.sleep(fault.seconds)


@strike.register(FreezeBroker)
def _(fault: FreezeBroker, fleet: "Fleet") -> None:
    with fleet.locks["broker"], outages.frozen(fleet.stack, "kafka"):
        time.sleep(fault.seconds)


@strike.register(BrokerDisk)
def _(fault: BrokerDisk, fleet: "Fleet") -> None:
    with fleet.locks["broker"]:
        group = next(
            server.process_group for server in fleet.stack.servers if "kafka" in server.name
        )
        for process in psutil.Process(group).children():
            _limit_files(process.pid, NO_ROOM)
        time.sleep(fault.seconds)
        # its new process has all the room again
        with outages.stopped(fleet.stack, "kafka", kill=True):
            pass


@strike.register(SpoolDisk)
def _(fault: SpoolDisk, fleet: "Fleet") -> None:
    with fleet.locks[PRODUCER]:
        process = fleet.processes.get(PRODUCER)
        if process is None:
            return  # it is just being started again
        _limit_files(process.pid, LITTLE_ROOM)
        _cut_off(fleet, PRODUCER, fault.seconds)
        if process.poll() is None:
            _limit_files(process.pid, resource.RLIM_INFINITY)


@strike.register(Clock)
def _(fault: Clock, fleet: "Fleet") -> None:
    fleet.set_clock(fault.jump_ms)
    time.sleep(fault.seconds)
    fleet.set_clock(0)


@strike.register(Registry)
def _(fault: Registry, fleet: "Fleet") -> None:
    with fleet.locks["registry"]:
        fleet.registry.how = fault.how
        time.sleep(fault.seconds)
        fleet.registry.how = ""


@strike.register(KillProducer)
def _(fault: KillProducer, fleet: "Fleet") -> None:
    fleet.signal(PRODUCER, signal.SIGKILL)


@strike.register(FreezeProducer)
def _(fault: FreezeProducer, fleet: "Fleet") -> None:
    _freeze(fleet, PRODUCER, fault.seconds)


@strike.register(FillSpool)
def _(fault: FillSpool, fleet: "Fleet") -> None:
    _cut_off(fleet, PRODUCER, fault.seconds)


@strike.register(Vendor)
def _(fault: Vendor, fleet: "Fleet") -> None:
    fleet.vendor.strike(script.Fault(0, fault.do, fault.seconds, fault.delay))
    time.sleep(fault.seconds)


@strike.register(Network)
def _(fault: Network, fleet: "Fleet") -> None:
    if fault.how == "cut":
        _cut_off(fleet, fault.client, fault.seconds)
        return
    proxy = fleet.proxies[fault.client]
    with fleet.locks[f"way of {fault.client}"]:
        if fault.how == "freeze":
            proxy.freeze()
            time.sleep(fault.seconds)
            proxy.restore()
        else:
            proxy.delay_s = fault.delay
            time.sleep(fault.seconds)
            proxy.delay_s = 0.0


@strike.register(Request)
def _(fault: Request, fleet: "Fleet") -> None:
    proxy, api = fleet.proxies[fault.client], Api[fault.api]
    if fault.how == "hold":
        held = proxy.hold(api)
        time.sleep(fault.seconds)
        if held.struck:
            held.deliver(wait=False)
        proxy.lift(held)
    else:
        placed = (proxy.cut_answer if fault.how == "cut" else proxy.drop_answer)(api)
        time.sleep(fault.seconds)
        proxy.lift(placed)


@strike.register(Symbols)
def _(fault: Symbols, fleet: "Fleet") -> None:
    fleet.write_symbols(without=fault.symbol)
    time.sleep(fault.seconds)
    fleet.write_symbols()


@strike.register(Odd)
def _(fault: Odd, fleet: "Fleet") -> None:
    for _number in range(fault.count):
        fleet.odd_records.put(fault.what, fleet.any_symbol())


NO_ROOM, LITTLE_ROOM = 4_096, 16_384
"""Bytes that a file may have on a disk that is full: what is written beyond fails, as there."""


def _limit_files(pid: int, size: int) -> None:
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, most))


def _freeze(fleet: "Fleet", name: str, seconds: float) -> None:
    with fleet.locks[name]:
        process = fleet.processes.get(name)
        if process is None:
            return  # it is just being started again
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)


def _cut_off(fleet: "Fleet", client: str, seconds: float) -> None:
    with fleet.locks[f"way of {client}"]:
        fleet.proxies[client].refuse()
        time.sleep(seconds)
        fleet.proxies[client].restore()
