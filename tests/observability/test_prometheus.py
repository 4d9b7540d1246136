"""A real Prometheus scrapes a real service and evaluates its rules and dashboard queries."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from local import ROOT
from tests.conftest import running_service
from tests.support.client import Api, OverHttp
from tests.support.prometheus import FOLDER, Prometheus, configuration, running
from wallets.access import rights
from wallets.api.urls import urlpatterns
from wallets.observability.request_context import template_of

pytestmark = pytest.mark.brokers


T = TypeVar("T")

TOKEN = "only-Prometheus-knows-it"
DASHBOARD = json.loads((FOLDER / "grafana/dashboards/walletsvc.json").read_text())
RULES = [
    rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
EVERY_QUERY = [*QUERIES, *(rule["expr"] for rule in RULES)]
NAME = re.compile(r"\bwalletsvc[_:][a-z0-9_:]+")


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with running_service(WORKERS="2", METRICS_TOKEN=TOKEN) as address:
        yield address


@pytest.fixture(scope="module")
def deposits(service: str) -> int:
    """Make deposits; return their number."""
    sender = OverHttp(service)
    with closing(sender.connection):
        api = Api(sender)
        wallet = api.open()
        assert {api.deposit(wallet, "1").status for _ in range(25)} == {201}
        assert api.withdraw(wallet, "1000").status == 409
        assert api.balance(wallet) == "25.00"
    return 25


@pytest.fixture(scope="module")
def prometheus(service: str, deposits: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    with running(folder, service.removeprefix("http://"), TOKEN) as prometheus:
        yield prometheus


def promtool(*arguments: str) -> str:
    return subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def exported(service: str) -> set[str]:
    """Return the names of all exported metrics, including those without samples."""
    with closing(OverHttp(service).connection) as connection:
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        text = connection.getresponse().read().decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    ends = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + end for name, kind in kinds.items() for end in ends.get(kind, ("",))}


# --- Files ------------------------------------------------------------------------------------------
def test_promtool_accepts_configuration_and_rules(tmp_path: Path) -> None:
    promtool("check", "config", str(configuration(tmp_path, "127.0.0.1:1", TOKEN, "15s")))
    promtool("check", "config", "--syntax-only", str(FOLDER / "prometheus.yml"))
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(FOLDER / "rules.yml"))


def test_each_alert_has_a_test_in_which_it_fires() -> None:
    promtool("test", "rules", str(FOLDER / "rules_test.yml"))
    tested = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    fired = {
        case["alertname"] for test in tested for case in test.get("alert_rule_test", []) if case["exp_alerts"]
    }
    assert fired == set(ALERTS)


def test_duration_panel_and_alert_cover_all_money_routes() -> None:
    scopes = {rights.DEPOSIT, rights.WITHDRAW, rights.TRANSFER, rights.HOLD}
    views = {template_of(f"api/v1/{at.pattern}"): at.lookup_str.rpartition(".")[2] for at in urlpatterns}
    needed = {route: set(rights.NEEDED[view].get("POST", ())) for route, view in views.items()}
    [titled] = [panel for panel in DASHBOARD["panels"] if panel["title"] == "Duration of an operation"]
    for query in (ALERTS["WalletsvcSlow"]["expr"], *(target["expr"] for target in titled["targets"])):
        [pattern] = re.findall('route=~"([^"]+)"', query)
        watched = {route for route, needs in needed.items() if needs and re.fullmatch(pattern, route)}
        assert watched == {route for route, needs in needed.items() if needs & scopes}


def test_each_alert_has_a_runbook_section() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page[page.index("\n## Alerts\n") :]
    headings = re.findall(r"^### (\w+)$", re.split(r"\n## (?!Alerts)", section)[0], re.MULTILINE)
    assert headings == list(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_dashboard_panels_are_unique_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(taken) == len(set(taken)), "panels overlap"
    assert max(x for x, _ in taken) < 24
    given = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert {panel["datasource"]["uid"] for panel in panels} == {given["datasources"][0]["uid"]}


# --- Live -------------------------------------------------------------------------------------------
def test_queries_use_exactly_the_exported_metrics(service: str, deposits: int) -> None:
    queried = {name for query in EVERY_QUERY for name in NAME.findall(query)}
    # Metrics of another worker may be a second late.
    exported_names = until(
        lambda: exported(service), lambda exported_names: queried - exported_names <= RECORDED
    )
    assert queried - exported_names == RECORDED & queried
    assert queried >= RECORDED
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in exported_names}
    assert families - {re.sub("_(bucket|sum|count)$", "", name) for name in queried} == set()


def test_prometheus_scrapes_the_service(prometheus: Prometheus, service: str, deposits: int) -> None:
    (target,) = prometheus.query_api("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert target["scrapeUrl"] == f"{service}/metrics"
    assert prometheus.value('sum(walletsvc_operations_total{type="DEPOSIT",outcome="COMPLETED"})') == deposits
    rejected = 'walletsvc_operations_total{outcome="REJECTED",reason="insufficient_funds"}'
    assert prometheus.value(f"sum({rejected})") == 1
    assert prometheus.value("walletsvc_database_up") == 1
    # The next scrape includes a worker that has just started.
    assert until(lambda: prometheus.value("walletsvc_workers"), lambda workers: workers == 2) == 2


def test_prometheus_evaluates_every_rule(prometheus: Prometheus) -> None:
    rules = until(
        lambda: rules_of(prometheus), lambda rules: all(one["health"] != "unknown" for one in rules)
    )
    assert {rule["name"] for rule in rules} == set(ALERTS) | RECORDED
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    alerts = prometheus.query_api("alerts")["alerts"]
    firing = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    assert "WalletsvcDown" not in firing
    fill = "walletsvc:queue:fill_ratio{queue='committer'}"
    assert until(lambda: prometheus.value(fill), lambda value: value is not None) == 0


def rules_of(prometheus: Prometheus) -> list[Any]:
    return [rule for group in prometheus.query_api("rules")["groups"] for rule in group["rules"]]


def until(read: Callable[[], T], holds: Callable[[T], bool]) -> T:
    deadline = time.monotonic() + 60
    while not holds(found := read()):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def test_prometheus_accepts_every_dashboard_query(prometheus: Prometheus) -> None:
    for query in QUERIES:
        prometheus.query_api("query", query=query.replace("$__rate_interval", "1m"))
