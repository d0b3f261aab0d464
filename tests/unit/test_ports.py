"""Ports for the embedded servers: free, distinct, and where no outgoing connection takes them."""

import socket

import pytest

from infra.embedded.ports import PortInUse, free_ports


def test_free_ports_are_distinct_and_below_those_of_outgoing_connections():
    ports = free_ports(0, 0, 0)
    assert len(set(ports)) == 3
    assert max(ports) < 32768


def test_a_named_port_keeps_its_place():
    [named] = free_ports(0)
    chosen, kept, other = free_ports(0, named, 0)
    assert kept == named
    assert named not in (chosen, other)


def test_a_port_that_is_taken_is_refused_by_number():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            PortInUse,
            match=f"port {port} on 127.0.0.1 is in use: stop what listens there, or name another port",
        ):
            free_ports(0, port)


def test_one_port_named_twice_is_refused():
    [port] = free_ports(0)
    with pytest.raises(PortInUse, match=f"port {port} "):
        free_ports(port, port)
