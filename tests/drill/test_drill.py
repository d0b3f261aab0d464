"""The long check of the drill: a minute of random faults of a fixed seed, the schedules that once
found something, and a mistake planted in the worker. `make drill-check` runs it."""

from pathlib import Path

import pytest
from run import run
from schedule import Schedule, draw
from tampered import blind

SCHEDULES = Path(__file__).parent / "schedules"
KEPT = sorted(path.stem for path in SCHEDULES.glob("*.json") if path.stem != "short")


@pytest.mark.timeout(600)
def test_a_minute_of_random_faults_breaks_nothing_and_each_check_would_notice(ground, tmp_path):
    # one test: two processes that share the tests would run the drill twice
    drilled = run(*ground, tmp_path, draw(2, 60, 3))
    assert not drilled.figures["not placed"]
    assert drilled.figures["faults"] > 10
    assert drilled.violations == {}, drilled.figures
    assert blind(drilled.evidence, drilled.recomputed) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", KEPT)
def test_a_schedule_that_once_found_something_finds_nothing(ground, tmp_path, name):
    drilled = run(*ground, tmp_path, Schedule.read(SCHEDULES / f"{name}.json"))
    assert drilled.violations == {}, drilled.figures


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("mutation", "check"),
    [
        ("lost_record", "C"),
        ("doubled_record", "C"),
        ("swapped_pair", "E"),
        ("state_key_not_written", "J"),
    ],
)
def test_the_oracle_finds_a_mistake_planted_in_the_worker(ground, tmp_path, mutation, check):
    result = run(*ground, tmp_path, draw(1, 6, 20, ("Odd",)), mutation)
    assert check in result.violations, result.figures
