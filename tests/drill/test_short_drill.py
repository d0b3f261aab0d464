"""The short form of the drill, part of every run of the tests: half a minute of the faults that
matter most, all checks on; and each check is seen to notice what it is for."""

from pathlib import Path

import pytest
from evidence import RAW
from run import run
from schedule import Schedule
from tampered import BARS, VWAP, blind

from processors.kernels.compiled import AVAILABLE

SHORT = Path(__file__).parent / "schedules" / "short.json"


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_half_a_minute_of_faults_breaks_nothing_and_each_check_would_notice(ground, tmp_path):
    schedule = Schedule.read(SHORT)
    drilled = run(*ground, tmp_path, schedule, rate=4.0)
    seen = drilled.evidence
    assert not drilled.figures["not placed"]
    assert drilled.figures["faults"] == len(schedule.faults)
    assert all(seen.raw_rows[topic] for topic in RAW)
    assert all(seen.committed[topic] for topic in (VWAP, BARS, "infoway.late"))
    assert drilled.figures["symbols in kernels"] or not AVAILABLE
    assert drilled.violations == {}, drilled.figures
    assert blind(seen, drilled.recomputed) == []
