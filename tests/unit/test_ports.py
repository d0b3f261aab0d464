"""Ports for the embedded servers: free, distinct, and where no outgoing connection takes them."""

import socket

import pytest

from infra.embedded.ports import KeptPorts, PortInUse, free_ports


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
            match=f"port {port} on 127.0.0.1 is in use: stop what listens there, or name "
            "another port",
        ):
            free_ports(0, port)


def test_one_port_named_twice_is_refused():
    [port] = free_ports(0)
    with pytest.raises(PortInUse, match=f"port {port} "):
        free_ports(port, port)


def test_the_ports_of_a_folder_stay_and_a_taken_one_is_replaced_and_said(tmp_path, caplog):
    kept = KeptPorts(tmp_path)
    first = kept.taken(0, 0)
    assert kept.taken(0, 0)[:2] == first[:2]
    assert not caplog.text
    with socket.socket() as other:
        other.bind(("127.0.0.1", first[1]))
        other.listen()
        second = kept.taken(0, 0)
        assert second[0] == first[0]
        assert second[1] not in first
        assert f"port {first[1]} on 127.0.0.1, which the registry had before, is in use" in (
            caplog.text
        )
        with pytest.raises(PortInUse, match=f"port {first[1]} "):
            kept.taken(0, first[1])
    # the new address is the one that clients know now
    assert kept.taken(0, 0)[:2] == second[:2]
    [named] = free_ports(0)
    assert kept.taken(named, 0)[:2] == [named, second[1]]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"kafka": 1}', '{"kafka": "21000", "registry": 1}',
             '{"kafka": 70000, "registry": 21000}', '{"kafka": true, "registry": 21000}', "null"],
)  # fmt: skip
def test_a_file_of_ports_that_is_none_is_written_anew(tmp_path, text):
    (tmp_path / "ports.json").write_text(text)
    first = KeptPorts(tmp_path).taken(0, 0)
    assert KeptPorts(tmp_path).taken(0, 0)[:2] == first[:2]
