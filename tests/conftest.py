"""What every test may ask for: the embedded stack, started once a run, and the recordings where they are."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from infra.embedded.stack import Stack

# a busy machine is no failure
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

RECORDINGS = Path(
    os.environ.get("INFOWAY_RECORDINGS") or Path(__file__).parents[2] / "shared" / "recordings"
)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A real broker and registry for the whole run."""
    with Stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
def namespace() -> str:
    """A prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:8]}."


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings with their truth; they bear no licence to redistribute and are not part of the project."""
    if not RECORDINGS.is_dir():
        pytest.skip(f"no recordings in {RECORDINGS}: name their folder by INFOWAY_RECORDINGS")
    return RECORDINGS
