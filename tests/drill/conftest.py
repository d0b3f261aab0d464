"""The drill's own folder is on the path of its tests; and a broker that is struck."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A broker of a module's own, and a registry: no other test has them."""
    from run import stack_for_drills

    with stack_for_drills(tmp_path_factory.mktemp("drill")) as found:
        yield found
