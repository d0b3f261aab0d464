"""The command of a single worker: beside an `up` it takes none of its slots and has its settings,
and it computes the topology that is there."""

import os

import pytest

from infra.cli.commands.running.worker import beside
from infra.embedded.running import StackRun, noted, started_at
from infra.runtime import worker as running_worker


@pytest.fixture
def run(tmp_path, monkeypatch):
    """This process as what runs over a folder, named by the environment."""
    for name in ("PREFIX", "UPDATE_MS"):
        monkeypatch.delenv(f"INFOWAY_{name}", raising=False)
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", "127.0.0.1:21001")
    folder = tmp_path / "simulated"
    with noted(folder, StackRun(os.getpid(), started_at(os.getpid()), 21001, 22002)):
        yield tmp_path


def test_beside_a_run_it_has_a_slot_of_its_own_and_the_settings_of_the_others(run, monkeypatch):
    settings = {
        "INFOWAY_SLOT": f"beside-{os.getpid()}",
        "INFOWAY_SOURCE": "simulated",
        "INFOWAY_UPDATE_MS": "1000",
    }
    assert beside(run) == settings
    monkeypatch.setenv("INFOWAY_UPDATE_MS", "250")
    assert beside(run) == settings | {"INFOWAY_UPDATE_MS": "250"}


@pytest.mark.parametrize(
    ("name", "value"), [("BOOTSTRAP", "127.0.0.1:21002"), ("PREFIX", "other.")]
)
def test_on_another_cluster_or_prefix_it_is_beside_nothing(run, monkeypatch, name, value):
    monkeypatch.setenv(f"INFOWAY_{name}", value)
    assert beside(run) == {}


def test_without_a_run_it_is_beside_nothing(tmp_path):
    assert beside(tmp_path) == {}


def test_a_topology_that_is_being_applied_is_not_computed_in_part(monkeypatch):
    """The topics of the second answer came while the worker started."""
    answers = [("1m",), ("1m", "5m")]

    class App:
        class app:  # noqa: N801
            engine = None

        trade_reader = None

    monkeypatch.setattr(running_worker, "import_module", lambda _: App)
    monkeypatch.setattr(running_worker, "cli", lambda: pytest.fail("the worker runs"))
    monkeypatch.setattr(running_worker.signal, "signal", lambda *_: None)
    monkeypatch.delenv("INFOWAY_HTTP", raising=False)
    with pytest.raises(SystemExit, match="the topology was just being applied"):
        running_worker.work(topology_there=lambda: answers.pop(0))
