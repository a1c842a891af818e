"""The alert rules and the board that we ship, on a real Prometheus that scrapes the real service."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api import health, latency, metrics
from tests.architecture.test_layers import ROOT
from tests.http.cast import build_world
from tests.http.test_errors import JOB
from tests.http.wire import ask, serving, until
from tests.services import Prometheus

HERE = Path(__file__).parent
SHIPPED = ROOT / "deploy" / "prometheus"
ALERTS = [rule for group in yaml.safe_load((SHIPPED / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
BOARD = json.loads((ROOT / "deploy" / "grafana" / "mxfleet.json").read_text())
ON_BOARD = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
PAGE = (ROOT / "docs" / "operating.md").read_text()
SERIES = re.compile(r"\b(?:mxfleet|process)_\w+(?:\{[^}]*\})?|\bup\{[^}]*\}")


@pytest.fixture
def prometheus(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[Prometheus]:
    """It scrapes the service, which has a job in its queue, an answer and a failure behind it, and no worker."""
    monkeypatch.setattr(health, "SCRAPED", metrics.Cached(metrics.scrape, 0.5))
    build_world().alice.post("jobs/", JOB)
    latency.observe("/api/v1/jobs/", 500, 0.1)
    with serving() as port:
        ask(port)
        server = Prometheus(f"127.0.0.1:{port}")
        try:
            server.start()
            yield server
        finally:
            server.stop()


def found(prometheus: Prometheus, query: str) -> list[Any]:
    """The series that a query gives now."""
    return list(prometheus.api("query", query=query)["result"])


def test_every_query_of_the_board_and_every_series_of_an_alert_is_there(prometheus: Prometheus) -> None:
    queries = {query.replace("$__rate_interval", "1m") for query in ON_BOARD}
    queries |= {series for rule in ALERTS for series in SERIES.findall(rule["expr"])}
    assert len(queries) > 30
    missing = set(queries)

    def is_complete() -> bool:
        missing.difference_update({query for query in missing if found(prometheus, query)})
        return not missing

    try:
        until(is_complete, 30)  # a rate needs two scrapes
    except AssertionError:
        pytest.fail(f"without series: {sorted(missing)}")
    for rule in ALERTS:
        found(prometheus, rule["expr"])
    silent = {each["metric"]["queue"] for each in found(prometheus, "max by (queue) (mxfleet_workers) == 0")}
    assert silent == {"control", "scheduler", "ssh.0", "ssh.1"}

    def states() -> dict[str, tuple[str, str]]:
        rules = prometheus.api("rules")["groups"][0]["rules"]
        return {rule["name"]: (rule["health"], rule["state"]) for rule in rules}

    until(lambda: states()["MxfleetQueueWithoutWorker"] == ("ok", "pending"))
    until(lambda: {state for state, _ in states().values()} == {"ok"})
    assert states()["MxfleetDown"] == ("ok", "inactive")


def test_alerts_fire_when_they_should_and_not_before() -> None:
    run("promtool", "test", "rules", *HERE.glob("alerts*.yml"))


def test_of_each_alert_it_is_shown_when_it_fires_and_when_it_does_not() -> None:
    shown: set[tuple[str, bool]] = set()
    for path in HERE.glob("alerts*.yml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            shown |= {(each["alertname"], bool(each.get("exp_alerts"))) for each in case["alert_rule_test"]}
    assert shown == {(rule["alert"], fires) for rule in ALERTS for fires in (True, False)}


def test_the_configuration_and_its_rules_are_sound() -> None:
    said = run("promtool", "check", "config", "--lint-fatal", SHIPPED / "prometheus.yml")
    assert f"{len(ALERTS)} rules found" in said


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_in_a_sentence_what_is_wrong_and_where_it_is_told_what_to_do(rule: dict[str, Any]) -> None:
    told = rule["annotations"]
    assert len(told["summary"].split()) > 3
    assert rule["labels"]["severity"] in ("critical", "warning")
    page, _, anchor = told["runbook"].partition("#")
    assert (page, anchor) == ("docs/operating.md", rule["alert"].lower())
    assert f"\n#### {rule['alert']}\n" in PAGE


def test_every_figure_is_in_the_table_and_on_the_board_or_in_an_alert(db: None) -> None:
    latency.observe("/healthz", 200, 0.1)
    families = re.findall(r"^# TYPE (mxfleet_\w+) ", metrics.scrape().decode(), re.M)
    assert len(families) > 20
    asked = " ".join([*ON_BOARD, *(rule["expr"] for rule in ALERTS)])
    assert [name for name in families if f"| `{name}`" not in PAGE] == []
    assert [name for name in families if name not in asked] == []
    assert set(re.findall(r"^\| `(mxfleet_\w+)", PAGE, re.M)) == set(families)
