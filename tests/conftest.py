"""What every test may ask for: the embedded stack, started once a run, and the recordings where
they are."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from kafka_proxy import KafkaProxy, Listeners

from infra.embedded.stack import Stack

# a busy machine is no failure, and the same commit gives the same result: INFOWAY_EXAMPLES=2000
# tries as many others, which are new each time
settings.register_profile(
    "untimed",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="INFOWAY_EXAMPLES" not in os.environ,
)
settings.register_profile("slow", settings.get_profile("untimed"), max_examples=15)
# kernels as plain Python are a hundred times as slow
settings.load_profile("slow" if os.environ.get("NUMBA_DISABLE_JIT") == "1" else "untimed")

RECORDINGS = Path(
    os.environ.get("INFOWAY_RECORDINGS") or Path(__file__).parents[2] / "shared" / "recordings"
)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let one heavy test run at a time; it waits before its own timeout begins."""
    if item.get_closest_marker("heavy") is None:
        yield
        return
    with (item.config.cache.mkdir("heavy") / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def listeners() -> Listeners:
    """Two listeners of the broker, for clients that reach it through a proxy."""
    return Listeners(2)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, listeners: Listeners) -> Iterator[Stack]:
    """A real broker and registry for the whole run."""
    with Stack(tmp_path_factory.mktemp("stack"), properties=listeners.properties) as running:
        yield running


@pytest.fixture
def proxy(stack: Stack, listeners: Listeners) -> Iterator[KafkaProxy]:
    """A way to the broker on which faults of the network are placed."""
    with listeners.proxy() as running:
        yield running


@pytest.fixture
def namespace() -> str:
    """A prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:8]}."


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings with their truth; they bear no licence to redistribute and are not
    part of the project."""
    if not RECORDINGS.is_dir():
        pytest.skip(f"no recordings in {RECORDINGS}: name their folder by INFOWAY_RECORDINGS")
    return RECORDINGS
