"""deploy/grafana.json, deploy/alerts.yml and docs/operating.md: they name metrics that there are, and leave out none.

promtool of Prometheus 2.42 found nothing in them: see docs/operating.md. This is what can be held without it.
"""

import json
import re
from typing import Any

import pytest
import yaml

from sluice.pipelines.progress.metric_table import COUNTER, HISTOGRAM, METRICS, PROCESS_METRICS, table
from tests.support.paths import ROOT
from tests.support.promql import faults, names_of

PAGE = (ROOT / "docs" / "operating.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana.json").read_text())
(GROUP,) = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in GROUP["rules"]}
PANELS: dict[str, dict[str, Any]] = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}

# What Prometheus adds to all that it scrapes.
_SCRAPED = {"job", "instance"}
# What it tells itself of each target: whether it answers.
_UP = "up"


def samples() -> dict[str, set[str]]:
    """Returns the labels of each sample, by its name."""
    found = {name: set(_SCRAPED) for name in (*PROCESS_METRICS, _UP)}
    for metric in METRICS:
        labels = {*metric.labels, *_SCRAPED}
        if metric.kind == HISTOGRAM:
            found |= {f"{metric.name}_sum": labels, f"{metric.name}_count": labels}
            found[f"{metric.name}_bucket"] = {*labels, "le"}
        else:
            found[metric.name] = labels
    return found


def family(sample: str) -> str:
    """Returns the metric of a sample."""
    names = {metric.name for metric in METRICS if metric.kind == HISTOGRAM}
    shortened = re.sub("_(bucket|sum|count)$", "", sample)
    return shortened if shortened in names else sample


def expressions() -> dict[str, str]:
    found = {name: rule["expr"] for name, rule in ALERTS.items()}
    for title, panel in PANELS.items():
        found |= {f"{title} {target['refId']}": target["expr"] for target in panel["targets"]}
    return found


@pytest.mark.parametrize("name", expressions())
def test_an_expression_asks_for_metrics_that_there_are(name: str) -> None:
    assert faults(expressions()[name], samples()) == []


WRONG = {
    "sum(rate(sluice_rows_read_total[5m])": "is missing",
    "sum(rate(sluice_rows_read_total[5m])))": "closes nothing",
    "sum(rate(sluice_rows_red_total[5m]))": "there is no metric sluice_rows_red_total",
    "smu(rate(sluice_rows_read_total[5m]))": "smu is no function",
    'sum(rate(sluice_rows_failed_total{stag="bind"}[5m]))': "has a label stag",
    "sum by (stag) (rate(sluice_rows_failed_total[5m]))": "has a label stag",
    "sum(rate(sluice_rows_read_total))": "1 metrics are rated, and 0 have a range",
    "sum(sluice_rows_read_total)": "sluice_rows_read_total is a counter",
    "rate(sluice_draining[5m])": "rated without being one",
    "sluice_predict_latency_seconds > 1": "there is no metric sluice_predict_latency_seconds",
    "max_over_time(sluice_draining)": "1 metrics are rated, and 0 have a range",
    "max_over_time(sluice_rows_read_total[5m])": "is a counter",
    "sluice_draining ? 1": "what is '? 1'",
}


@pytest.mark.parametrize("expression", WRONG)
def test_a_wrong_expression_is_found(expression: str) -> None:
    assert any(WRONG[expression] in fault for fault in faults(expression, samples())), faults(expression, samples())


def test_the_dashboard_shows_every_metric() -> None:
    shown = {
        family(name) for panel in PANELS.values() for target in panel["targets"] for name in names_of(target["expr"])
    }
    left_out = {"process_virtual_memory_bytes", "process_start_time_seconds"}
    assert shown == {metric.name for metric in METRICS} | {*PROCESS_METRICS} - left_out


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    assert {"title", "uid", "panels", "templating", "time", "schemaVersion"} <= set(DASHBOARD)
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    for name in ("job", "instance"):
        asked = re.match(r"label_values\((\w+)", variables[name]["query"])
        assert asked and asked[1] in samples()
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) and len(PANELS) == sum(panel["type"] != "row" for panel in DASHBOARD["panels"])
    for panel in PANELS.values():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        assert all('job=~"$job",instance=~"$instance"' in target["expr"] for target in panel["targets"])


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", ALERTS)
def test_the_page_says_what_to_do_at_an_alert(name: str) -> None:
    assert ALERTS[name]["labels"]["severity"] in ("page", "ticket") and ALERTS[name]["annotations"]["summary"]
    (section,) = re.findall(rf"(?ms)^### {name}\n(.*?)(?=^###? |\Z)", PAGE)
    assert "**Look at**" in section and "**Do**" in section, section


def test_the_page_has_a_section_for_no_other_alert() -> None:
    assert set(re.findall(r"\bSluice[A-Z]\w+", PAGE)) == set(ALERTS)


def test_the_page_has_every_metric_with_the_alert_to_set() -> None:
    assert table() in PAGE
    alerted = {family(name) for rule in ALERTS.values() for name in names_of(rule["expr"])} - {_UP}
    (quiet,) = re.findall(r"(?ms)^These wake nobody.*?\n\n", PAGE)
    named = set(re.findall(r"`((?:sluice|process)_\w+)`", quiet))
    assert not named & alerted
    assert named | alerted == {metric.name for metric in METRICS} | {*PROCESS_METRICS}


# Its labels' values are few and known, and all are there from the start.
_KNOWN_LABELS = {"sluice_rows_finished_total": ("outcome",)}


def test_an_alert_rates_only_counters_that_are_there_before_they_count() -> None:
    """A series that begins with its first failures has no rise that `rate` or `increase` could see."""
    labels = {metric.name: metric.labels for metric in METRICS if metric.kind == COUNTER}
    rated = {name for rule in ALERTS.values() for name in names_of(rule["expr"]) if name in labels}
    assert "sluice_restarts_total" in rated
    assert {name: labels[name] for name in rated if labels[name]} == _KNOWN_LABELS


def test_a_process_that_is_lost_is_told_whatever_its_job_is_called() -> None:
    expression = ALERTS["SluiceProcessLost"]["expr"]
    assert expression == "up == 0 and on (job, instance) max_over_time(sluice_start_time_seconds[1d])"


def test_versions_are_compared_within_a_model() -> None:
    expression = ALERTS["SluiceVersionsDiffer"]["expr"]
    assert re.findall(r"by \(([^)]*)\)", expression) == ["job, model", "job, model, version"]


def test_a_source_that_is_not_pulled_yet_wakes_nobody() -> None:
    assert 'and ignoring (state) sluice_state{state="paused"} == 1' in ALERTS["SluiceSourceUnreachable"]["expr"]


def test_throttling_is_a_share_of_the_time_of_a_process() -> None:
    assert ALERTS["SluiceThrottled"]["expr"].startswith("avg by (job)")
