"""The processors' settings: read from the environment, all mistakes reported at once."""

import pytest

from processors.settings import Settings, SettingsError

CLUSTER = {
    "INFOWAY_BOOTSTRAP": "kafka:9092",
    "INFOWAY_REGISTRY": "http://registry:8080/apis/ccompat/v7",
}


@pytest.mark.parametrize(
    ("given", "records"),
    [({}, 2000), ({"INFOWAY_BATCH_RECORDS": ""}, 2000), ({"INFOWAY_BATCH_RECORDS": "7"}, 7)],
)
def test_the_size_of_a_batch_is_a_setting(given, records):
    assert Settings.from_environment({**CLUSTER, **given}).batch_records == records


def test_every_option_reaches_the_computations():
    given = {
        "INFOWAY_UPDATE_MS": "1000",
        "INFOWAY_EMIT_MS": "500",
        "INFOWAY_WATERMARK_DELAY_MS": "0",
        "INFOWAY_ACTIVITY": "tick-5, volume-1",
    }
    settings = Settings.from_environment({**CLUSTER, **given})
    assert (settings.update_ms, settings.emit_ms, settings.topology.activity) == (
        1000,
        500,
        ("tick-5", "volume-1"),
    )
    assert (settings.event_time.watermark_delay_ms, settings.event_time.revision_horizon_ms) == (
        0,
        600_000,
    )
    with pytest.raises(SettingsError, match="INFOWAY_EMIT_MS='0'"):
        Settings.from_environment({**CLUSTER, "INFOWAY_EMIT_MS": "0"})
    with pytest.raises(SettingsError, match=r"activity bars: 'tick-0\.5'"):
        Settings.from_environment({**CLUSTER, "INFOWAY_ACTIVITY": "tick-0.5"})


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "100001"])
def test_a_batch_that_cannot_be_is_reported_with_every_other_mistake(text):
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(
            {**CLUSTER, "INFOWAY_PARTITIONS": "x", "INFOWAY_BATCH_RECORDS": text}
        )
    assert "INFOWAY_PARTITIONS='x'" in str(raised.value)
    assert f"INFOWAY_BATCH_RECORDS={text!r}: expected a whole number from 1 to 100000" in str(
        raised.value
    )
