"""What Compose's profile `monitoring` shows: it scrapes what serves metrics, and the dashboard asks
the source that is provisioned."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from producers.feed.metrics import METRICS

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "infra" / "deploy" / "monitoring"
PROVISIONING = MONITORING / "grafana"
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PROMETHEUS = MONITORING / "prometheus.yml"
DASHBOARD = json.loads((PROVISIONING / "dashboards" / "infoway.json").read_text())


def test_every_service_that_serves_metrics_is_scraped_and_nothing_else():
    serving = {
        name: service["environment"]["INFOWAY_HTTP"]
        for name, service in SERVICES.items()
        if "INFOWAY_HTTP" in str(service)
    }
    [job] = yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]
    [discovery] = job["dns_sd_configs"]
    assert set(discovery["names"]) == set(serving)
    assert set(serving.values()) == {f"0.0.0.0:{discovery['port']}"}


def test_prometheus_takes_its_configuration():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: Debian's package prometheus has it")
    done = subprocess.run(
        [promtool, "check", "config", PROMETHEUS],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_datasource_is_the_prometheus_of_the_profile():
    [source] = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert SERVICES["prometheus"]["profiles"] == SERVICES["grafana"]["profiles"] == ["monitoring"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}


def test_panels_ask_for_metrics_that_are_served():
    served = {"up", "infoway_records_applied_total", "infoway_rows_published_total"}
    served |= {
        f"infoway_feed_{metric.name}{'_total' * (metric.kind == 'counter')}" for metric in METRICS
    }
    asked = {
        name
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        for name in re.findall(r"infoway_\w+", target["expr"])
    }
    assert asked <= served


def test_grafana_finds_the_dashboard_where_it_is_mounted():
    [provider] = yaml.safe_load((PROVISIONING / "dashboards" / "dashboards.yaml").read_text())[
        "providers"
    ]
    [mount] = SERVICES["grafana"]["volumes"]
    source, target, _ = mount.split(":")
    folder = ROOT / source / Path(provider["options"]["path"]).relative_to(target)
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert [path.name for path in folder.glob("*.json")] == [Path(home).name]
    assert str(Path(home).parent) == provider["options"]["path"]


def test_panels_ask_something_and_overlap_nowhere():
    cells = set()
    for panel in DASHBOARD["panels"]:
        assert all(target["expr"] for target in panel["targets"])
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in covered) < 24
        assert not cells & covered
        cells |= covered
