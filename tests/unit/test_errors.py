"""Errors that a user can mend have one root, and each has its exit code."""

import pytest

from infra.cli import main as cli
from infra.ingest.producer_process import KeyMissing
from infra.runtime.exit_codes import Code, code_of
from infra.runtime.supervisor import WorkerFailed
from infra.topology.cluster import ClusterAway, TopologyError
from producers.delivery.errors import BrokerUnreachable, PublishError
from producers.transport.endpoint import FeedRefused, KeyRefused
from producers.vendor.answers import RestError
from producers.vendor.symbols import BadSymbol, BadSymbols
from schemas.clients.registry import RegistryError, UnknownSchema
from schemas.errors import InfowayError


def made(kind):
    """An error of a class, whatever its constructor asks for."""
    return kind.__new__(kind)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyMissing("x"), Code.SETTINGS_WRONG),
        (made(KeyRefused), Code.VENDOR_REFUSED),
        (made(FeedRefused), Code.VENDOR_REFUSED),
        (RestError("x", refused=True), Code.VENDOR_REFUSED),
        (RestError("x", retryable=True), Code.FAILED),
        (made(BrokerUnreachable), Code.CLUSTER_AWAY),
        (ClusterAway("x"), Code.CLUSTER_AWAY),
        (RegistryError("x"), Code.CLUSTER_AWAY),
        (made(UnknownSchema), Code.CLUSTER_AWAY),
        (PublishError("x"), Code.FAILED),
        (TopologyError("x"), Code.FAILED),
        (WorkerFailed("x", 78), 78),
        (WorkerFailed("x"), Code.FAILED),
    ],
)
def test_the_cause_of_an_error_decides_the_exit_code(error, code):
    assert isinstance(error, InfowayError)
    assert code_of(error) == code


def test_an_error_of_several_mistakes_has_a_line_for_each():
    error = BadSymbols([BadSymbol("a", "is bad", "say b"), BadSymbol("c", "is bad", "say d")])
    assert error.lines == ("symbol 'a' is bad: say b", "symbol 'c' is bad: say d")
    assert InfowayError("one").lines == ("one",)


def ended(monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr(cli, "begin", fail)
    with pytest.raises((SystemExit, LookupError)) as raised:
        cli.main(["plan-subscriptions"])
    return raised.value


def test_the_command_line_catches_the_root_and_lets_a_bug_show_its_traceback(monkeypatch, capsys):
    class Mendable(InfowayError):
        """Known to no list."""

    assert ended(monkeypatch, Mendable("do this")).code == Code.FAILED
    assert capsys.readouterr().err == "infoway-streams: do this\n"
    assert isinstance(ended(monkeypatch, LookupError("a bug")), LookupError)
