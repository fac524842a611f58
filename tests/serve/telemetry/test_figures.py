"""What Prometheus is told of real requests, runs, model calls and jobs, and what dashboard and alerts ask for."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from components.storing import UnknownTenantError
from modes.results import QueryResult
from serve.errors import _PROBLEMS
from serve.telemetry import run_metrics
from serve.telemetry.run_metrics import RunMetrics
from serve.watching import FinishedRun
from tests.cluster import ROOT
from tests.serve.conftest import KeyedServer, finished
from tests.serve.telemetry.conftest import Watched
from tests.stub_llm import Behaviour

FOLDER = ROOT / "observability"
OURS = re.compile(r"\b(?:thresher|process)_[a-z_]+")
ASKED = {"q": "How tall is the tower?", "tenant_id": "acme"}


def test_requests_are_counted_by_route(watched: Watched) -> None:
    """A route with parameters is one label, and so are all paths that are no route."""
    unknown = 'thresher_http_requests_total{method="GET",route="(none)",status="4xx"}'
    before = watched.values([unknown])
    for number in range(20):
        watched.client.get(f"/nothing/{number}")
        watched.client.get(f"/documents/nothing-{number}", params={"tenant_id": "acme"})
    text = watched.figures()
    assert "nothing" not in text
    assert watched.values([unknown])[unknown] - before[unknown] == 20
    route = "/documents/{document_id}"
    assert f'thresher_http_requests_total{{method="GET",route="{route}",status="4xx"}}' in text
    assert f'thresher_http_request_duration_seconds_count{{route="{route}"}}' in text
    assert 'thresher_problems_total{kind="unknown-document"}' in text


def test_runs_are_counted_with_what_they_tell(watched: Watched) -> None:
    """A question counts by mode and outcome, with stages, grades, strategy, model calls, tokens and its tenant."""
    names = {
        'thresher_runs_total{mode="crag",outcome="ok"}': 2,
        'thresher_run_duration_seconds_count{mode="crag"}': 2,
        'thresher_first_token_seconds_count{mode="crag"}': 1,
        'thresher_stage_duration_seconds_count{mode="crag",stage="corrective_search"}': 2,
        'thresher_strategies_total{mode="crag",strategy="CORRECT"}': 2,
        'thresher_grades_total{label="CORRECT",mode="crag"}': 2,
        'thresher_llm_calls_total{model="stub",outcome="ok"}': 2,
        'thresher_llm_tokens_total{kind="prompt",model="stub"}': 14,
        'thresher_tenant_runs_total{tenant="acme"}': 2,
    }
    before = watched.values(names)
    for stream in (False, True):
        body = {**ASKED, "mode": "crag", "stream": stream}
        assert watched.client.post("/query/", json=body).status_code == 200
    assert {name: value - before[name] for name, value in watched.values(names).items()} == names


def test_a_deleted_tenant_is_told_no_more(watched: Watched) -> None:
    """With a tenant goes its label."""
    told = 'thresher_tenant_runs_total{tenant="leaver"}'
    job = watched.client.post("/ingest/", json={"tenant_id": "leaver", "texts": ["The tower."]}).json()
    finished(watched.client, job)
    assert watched.client.post("/query/", json={**ASKED, "tenant_id": "leaver"}).status_code == 200
    assert told in watched.figures()
    assert watched.client.delete("/tenants/leaver").status_code == 200
    assert "leaver" not in watched.figures()


def test_tenants_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of tenants all others share a label; one that is gone, here or elsewhere, makes room."""

    def ended(tenant_id: str, error: Exception | None = None) -> None:
        result = None if error else QueryResult(mode="crag", answer="")
        runs.ended(
            FinishedRun(
                "r1", "crag", "?", (), {"tenant_id": tenant_id}, datetime.now(UTC), 1.0, result, error
            )
        )

    def told() -> dict[str, float]:
        [family] = [family for family in registry.collect() if family.name == "thresher_tenant_runs"]
        return {sample.labels["tenant"]: sample.value for sample in family.samples}

    monkeypatch.setattr(run_metrics, "MOST_TENANTS", 2)
    registry = CollectorRegistry()
    runs = RunMetrics(registry, {"crag"}, {"a", "b", "c", "d"}.__contains__)
    for tenant_id in ("a", "b", "c", "d", "nobody"):
        ended(tenant_id)
    assert told() == {"a": 1, "b": 1, "(other)": 2}
    runs.forget("a")
    ended("b", UnknownTenantError("b"))
    assert told() == {"(other)": 2}
    ended("c")
    assert told() == {"(other)": 2, "c": 1}


def test_failures_are_counted_by_kind(watched: Watched) -> None:
    """What fails counts with its kind of problem, as run, call and answer; what nobody knows makes no label."""
    kind = "model-failed"
    names = [
        f'thresher_runs_total{{mode="standard",outcome="{kind}"}}',
        f'thresher_llm_calls_total{{model="stub",outcome="{kind}"}}',
        f'thresher_problems_total{{kind="{kind}"}}',
    ]
    before = watched.values(names)
    watched.stub.behaviour = Behaviour(raw=b"<html>")
    assert watched.client.post("/query/", json=ASKED).status_code == 502
    watched.stub.behaviour = Behaviour()
    watched.client.post("/query/", json={**ASKED, "mode": "unheard-of"})
    watched.client.post("/query/", json={**ASKED, "model": "unheard-of"})
    assert {name: value - before[name] for name, value in watched.values(names).items()} == dict.fromkeys(
        names, 1
    )
    assert "unheard-of" not in watched.figures()
    kinds = re.findall(r'outcome="([^"]+)"', watched.figures())
    assert set(kinds) <= {"ok", "left", "internal-error"} | {kind for _, _, kind in _PROBLEMS}


def test_jobs_are_counted(watched: Watched) -> None:
    """A job counts when it has ended, with its documents and chunks; none is waiting then."""
    names = {
        'thresher_jobs_ended_total{kind="ingest",status="done"}': 1,
        'thresher_jobs_ended_total{kind="ingest",status="failed"}': 1,
        'thresher_job_duration_seconds_count{kind="ingest"}': 2,
        'thresher_documents_total{status="ok"}': 2,
        'thresher_documents_total{status="failed"}': 1,
        "thresher_chunks_indexed_total": 2,
    }
    before = watched.values(names)
    documents = [{"id": f"n{number}", "text": f"Text {number}."} for number in range(2)]
    good = watched.client.post("/ingest/", json={"tenant_id": "counted", "documents": documents})
    broken = {"tenant_id": (None, "counted"), "files": ("x.pdf", b"no", "application/pdf")}
    for job in (good, watched.client.post("/ingest/files", files=broken)):
        finished(watched.client, job.json())
    assert {name: value - before[name] for name, value in watched.values(names).items()} == names
    now = {'thresher_jobs{state="pending"}': 0, "thresher_job_store_up": 1}
    assert watched.values(now) == now


def test_a_port_of_their_own_is_the_only_place(watched: Watched) -> None:
    """With METRICS_PORT the service's port has no metrics, and that port nothing else."""
    assert watched.client.get("/metrics").status_code == 404
    other = watched.metrics_url.replace("/metrics", "/query/")
    assert httpx.get(other, trust_env=False).status_code == 404


def test_metrics_on_the_service_port_need_a_key_for_everything(keyed: KeyedServer) -> None:
    """Where keys are asked for, only an administrator of all tenants sees the figures."""
    statuses = {
        who: keyed.client.get("/metrics", headers=keyed.shown(who)).status_code
        for who in ("acme", "reader", "admin", "operator")
    }
    assert statuses == {"acme": 403, "reader": 403, "admin": 403, "operator": 200}
    assert keyed.client.get("/metrics").status_code == 401
    assert "tenant=" not in keyed.client.get("/metrics", headers=keyed.shown("operator")).text


def documented() -> dict[str, set[str]]:
    """The labels by metric that docs/telemetry.md tells."""
    rows = re.findall(
        r"^\| `(thresher_\w+)` \| \w+ \| ([\w, ]*)\|", (ROOT / "docs/telemetry.md").read_text(), re.M
    )
    return {name: set(re.findall(r"\w+", labels)) for name, labels in rows}


def test_every_figure_is_documented_and_every_documented_one_is_there(watched: Watched) -> None:
    """docs/telemetry.md has one row for each metric, with its labels."""
    text = watched.figures()
    table = documented()
    kinds = dict(re.findall(r"^# TYPE (thresher_\w+) (\w+)$", text, re.M))
    assert kinds.keys() == table.keys()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if family.name.startswith("thresher_"):
                name = sample.name if sample.name in table else family.name
                assert set(sample.labels) - {"le"} == table[name], name


def queries() -> list[str]:
    """What the dashboard and the alert rules ask Prometheus."""
    board = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    alerts = yaml.safe_load((FOLDER / "prometheus-alerts.yml").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return asked + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def test_dashboard_and_alerts_ask_for_what_is_there(watched: Watched) -> None:
    """Each metric of a query is one of a real scrape, and each label one that it has."""
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", watched.figures(), re.M))
    table = documented()
    for query in queries():
        labels, names = {"job", "instance", "le"}, OURS.findall(query)
        assert names, query
        for name in names:
            family = re.sub(r"_(bucket|count|sum)$", "", name)
            assert name in kinds or kinds.get(family) == "histogram", query
            labels |= table.get(name, set()) | table.get(family, set())
        used = re.findall(r"(\w+)\s*(?:=~|!=|=)\s*\"", query)
        grouped = [label.strip() for by in re.findall(r"\bby \(([^)]*)\)", query) for label in by.split(",")]
        assert {*used, *grouped} <= labels, query


def test_the_dashboard_shows_every_figure() -> None:
    """No metric is left without a place to look at it."""
    shown = " ".join(queries())
    assert [name for name in documented() if name not in shown] == []


def test_the_observability_folder_is_named_in_the_page() -> None:
    """docs/telemetry.md names each file that can be loaded."""
    page = (ROOT / "docs/telemetry.md").read_text()
    assert [
        file.name for file in sorted(Path(FOLDER).iterdir()) if f"observability/{file.name}" not in page
    ] == []
