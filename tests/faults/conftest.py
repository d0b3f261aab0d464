"""Fleets of workers on the run's broker."""

import drill
import pytest
from pipelines import tally


@pytest.fixture
def make_fleet(stack, namespace, tmp_path):
    made = []

    def make(pipeline=tally, **settings):
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(
            drill.Fleet(
                stack.bootstrap,
                f"{namespace}{len(made)}",
                directory,
                3,
                pipeline,
                **{"session": 3, **settings},
            )
        )
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()
