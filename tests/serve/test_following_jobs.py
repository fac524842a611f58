"""Listing, following, cancelling and repeating jobs over HTTP."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.storing import InvalidTenantError
from modes.indexing import IndexingPipeline
from serve.tenancy import Tenancy
from tests.serve.conftest import RunningServer, finished, without_llm


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service that works on one job at a time, two documents at a time."""
    settings = without_llm(tmp_path_factory.mktemp("jobs"), ingest_workers=1, ingest_batch_size=2)
    with RunningServer(settings) as client:
        yield client


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Lets as many batches through as it is released; all of them at the end."""
    permits = threading.Semaphore(0)
    run = IndexingPipeline.run

    def wait_and_run(self: IndexingPipeline, *args: Any, **more: Any) -> Any:
        permits.acquire()
        return run(self, *args, **more)

    monkeypatch.setattr(IndexingPipeline, "run", wait_and_run)
    yield permits
    permits.release(1_000)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Ids of documents that can't be indexed while they are in this set."""
    ids: set[str] = set()
    run = IndexingPipeline.run

    def fail_or_run(self: IndexingPipeline, tenant_id: str, documents: Any = (), sources: Any = ()) -> Any:
        if found := ids & {document.meta["document_id"] for document in documents}:
            raise ValueError(f"{sorted(found)} can't be indexed")
        return run(self, tenant_id, documents, sources)

    monkeypatch.setattr(IndexingPipeline, "run", fail_or_run)
    return ids


def post(client: httpx.Client, tenant_id: str, *ids: str, **more: Any) -> dict[str, Any]:
    """Send one document for each id."""
    documents = [{"id": name, "text": f"The text of {name}."} for name in ids]
    response = client.post("/ingest/", json={"tenant_id": tenant_id, "documents": documents}, **more)
    assert response.status_code == 202, response.text
    return response.json()


def events(client: httpx.Client, job_id: str, last: str | None = None) -> list[tuple[str, str | None, Any]]:
    """Read a job's stream to its end: name, id and data of each event."""
    headers = {"Last-Event-ID": last} if last else {}
    seen = []
    with client.stream("GET", f"/ingest/{job_id}/events", headers=headers) as response:
        if response.status_code == 204:
            return []
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        for block in response.read().decode().strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if fields:
                seen.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return seen


def test_jobs_are_listed_in_pages(service: httpx.Client) -> None:
    """A tenant's jobs come newest first, in pages, by status; another tenant's never."""
    jobs = [finished(service, post(service, "lists", f"d{number}")) for number in range(3)]
    first = service.get("/ingest/", params={"tenant_id": "lists", "limit": 2}).json()
    rest = service.get("/ingest/", params={"tenant_id": "lists", "cursor": first["next"]}).json()
    listed = [job["job_id"] for job in first["items"] + rest["items"]]
    assert listed == [job["job_id"] for job in reversed(jobs)]
    assert rest["next"] is None
    assert len(service.get("/ingest/?tenant_id=lists&status=done").json()["items"]) == 3
    assert service.get("/ingest/?tenant_id=lists&status=failed").json()["items"] == []
    assert service.get("/ingest/?tenant_id=nobody").json() == {"items": [], "next": None}


@pytest.mark.parametrize("query", ["cursor=x", "cursor=%00", "limit=0", "status=finished", "tenant_id=a+b"])
def test_wrong_pages_are_a_422(service: httpx.Client, query: str) -> None:
    """Cursors, limits and statuses that can't be are refused."""
    assert service.get(f"/ingest/?{query}").status_code == 422


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("POST", "/retry"), ("GET", "/events"), ("GET", "/sources")],
)
def test_unknown_and_foreign_jobs_are_404(service: httpx.Client, method: str, path: str) -> None:
    """A job that is not there, or that is not of the tenant that is named, is not found."""
    job = finished(service, post(service, "owner", "a"))
    for url in (
        f"/ingest/{'0' * 32}{path}",
        f"/ingest/x{path}",
        f"/ingest/{job['job_id']}{path}?tenant_id=else",
    ):
        response = service.request(method, url)
        assert response.status_code == 404, url
        assert response.json()["type"] == "urn:thresher:problem:unknown-job"


def test_a_job_is_found_only_if_tenancy_allows_its_tenant(
    service: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one place that decides on tenants is asked about the job's own, whether or not the URL names one."""
    job = finished(service, post(service, "closed", "a"))

    def refuse(self: Tenancy, requested: str | None) -> str:
        raise InvalidTenantError("not yours")

    monkeypatch.setattr(Tenancy, "tenant", refuse)
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/retry"),
        ("GET", "/events"),
        ("GET", "/sources"),
    ):
        response = service.request(method, f"/ingest/{job['job_id']}{path}")
        assert response.json()["type"] == "urn:thresher:problem:unknown-job"


def test_the_outcome_of_each_document_is_told_in_pages(service: httpx.Client, poison: set[str]) -> None:
    """Sources come in the order in which they were sent, with their outcome, by status."""
    poison.add("d3")
    job = finished(service, post(service, "outcomes", *(f"d{number}" for number in range(5))))
    path = f"/ingest/{job['job_id']}/sources"
    first = service.get(path, params={"limit": 3}).json()
    rest = service.get(path, params={"cursor": first["next"]}).json()
    items = first["items"] + rest["items"]
    assert [(item["position"], item["document_id"]) for item in items] == [(n, f"d{n}") for n in range(5)]
    assert [item["status"] for item in items] == ["ok", "ok", "ok", "failed", "ok"]
    [failed] = service.get(path, params={"status": "failed"}).json()["items"]
    assert (failed["position"], "can't be indexed" in failed["reason"]) == (3, True)


def test_a_waiting_job_is_cancelled_at_once(service: httpx.Client, gate: threading.Semaphore) -> None:
    """200 with the cancelled job; it can't be cancelled again."""
    ahead, waiting = post(service, "cancel", "a"), post(service, "cancel", "b")
    response = service.delete(f"/ingest/{waiting['job_id']}")
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    assert [source["status"] for source in response.json()["sources"]] == ["cancelled"]
    again = service.delete(f"/ingest/{waiting['job_id']}")
    assert (again.status_code, again.json()["type"]) == (409, "urn:thresher:problem:job-finished")
    gate.release(10)
    assert finished(service, ahead)["status"] == "done"


def test_a_running_job_is_cancelled_and_says_what_it_wrote(
    service: httpx.Client, gate: threading.Semaphore
) -> None:
    """A job is cancelled at its next batch; its sources say which documents were written."""
    job = post(service, "stop", *(f"d{number}" for number in range(6)))
    gate.release()
    while service.get(f"/ingest/{job['job_id']}").json()["documents_ok"] < 2:
        time.sleep(0.02)
    response = service.delete(f"/ingest/{job['job_id']}")
    assert response.status_code == 202
    gate.release(10)
    job = finished(service, job)
    assert job["status"] == "cancelled"
    statuses = [source["status"] for source in job["sources"]]
    assert statuses[:2] == ["ok", "ok"]
    assert statuses[-2:] == ["cancelled", "cancelled"]
    held = service.get("/documents?tenant_id=stop").json()["items"]
    assert len(held) == job["documents_ok"] == statuses.count("ok")


def test_only_what_failed_is_run_again(service: httpx.Client, poison: set[str]) -> None:
    """A retry keeps the job's id, runs the failed documents alone, and is refused when none is left."""
    poison.update(["b", "d"])
    job = finished(service, post(service, "retry", "a", "b", "c", "d"))
    assert (job["status"], job["documents_ok"], job["documents_failed"]) == ("done", 2, 2)
    poison.remove("b")
    response = service.post(f"/ingest/{job['job_id']}/retry", headers={"X-Request-ID": "again"})
    assert response.status_code == 202
    assert response.headers["location"] == f"/ingest/{job['job_id']}"
    job = finished(service, response.json())
    assert (job["documents_ok"], job["documents_failed"], job["request_id"]) == (3, 1, "again")
    poison.clear()
    job = finished(service, service.post(f"/ingest/{job['job_id']}/retry").json())
    assert (job["documents_ok"], job["documents_failed"], job["chunks_ok"]) == (4, 0, 4)
    refused = service.post(f"/ingest/{job['job_id']}/retry")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:thresher:problem:nothing-to-retry")


def test_a_job_is_followed_by_events(service: httpx.Client, poison: set[str]) -> None:
    """Each document's outcome, the progress, and at the end the job; read again from the middle, only the rest."""
    poison.add("d3")
    job = post(service, "events", *(f"d{number}" for number in range(5)))
    seen = events(service, job["job_id"])
    outcomes = [(key, data["document_id"], data["status"]) for name, key, data in seen if name == "source"]
    assert [outcome[1:] for outcome in outcomes] == [
        (f"d{number}", "failed" if number == 3 else "ok") for number in range(5)
    ]
    assert any(name == "progress" for name, _, _ in seen)
    name, last, data = seen[-1]
    assert (name, data["job_id"], data["status"]) == ("done", job["job_id"], "done")
    resumed = events(service, job["job_id"], last=outcomes[2][0])
    assert [data.get("position") for name, _, data in resumed if name == "source"] == [3, 4]
    assert events(service, job["job_id"], last=last) == []
    for strange in ("x", "0:-1", f"0:{10**30}", "7:1"):
        assert len(events(service, job["job_id"], last=strange)) == 6
    poison.clear()
    service.post(f"/ingest/{job['job_id']}/retry")
    assert len([name for name, _, _ in events(service, job["job_id"], last=last) if name == "source"]) == 5


def test_a_viewer_does_not_hold_up_the_end_of_the_service(tmp_path: Path, gate: threading.Semaphore) -> None:
    """The stream of an unfinished job ends when the service stops; the job goes on at the next start."""
    seen: list[str] = []
    with RunningServer(without_llm(tmp_path, worker_grace=0.1)) as client:
        job = post(client, "acme", "a")
        url = f"{client.base_url}/ingest/{job['job_id']}/events"
        watching = threading.Event()

        def watch() -> None:
            with httpx.stream("GET", url, timeout=60, trust_env=False) as response:
                for line in response.iter_lines():
                    seen.append(line)
                    watching.set()

        viewer = threading.Thread(target=watch)
        viewer.start()
        assert watching.wait(30)
    viewer.join()
    assert "event: progress" in seen
    assert "event: done" not in seen


def test_one_key_is_one_job(service: httpx.Client) -> None:
    """A hundred repeats at once under one idempotency key give one job; another body under it is a conflict."""
    headers = {"Idempotency-Key": "the-key"}
    bodies = [
        b'{"tenant_id": "keys", "texts": ["one", "two"]}',
        b'{ "texts" : ["\\u006fne", "two"],  "tenant_id":"keys", "pipeline": "ingest" }',
    ]
    headers["Content-Type"] = "application/json"
    with ThreadPoolExecutor(20) as pool:
        replies = list(
            pool.map(
                lambda number: service.post("/ingest/", content=bodies[number % 2], headers=headers),
                range(100),
            )
        )
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.json()["job_id"] for reply in replies}) == 1
    assert len(service.get("/ingest/?tenant_id=keys").json()["items"]) == 1
    other = service.post("/ingest/", json={"tenant_id": "keys", "texts": ["three"]}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (409, "urn:thresher:problem:idempotency-conflict")
    foreign = service.post("/ingest/", json={"tenant_id": "keys2", "texts": ["three"]}, headers=headers)
    assert foreign.status_code == 202
    assert (
        service.post("/ingest/", json={"texts": ["x"]}, headers={"Idempotency-Key": "x" * 300}).status_code
        == 422
    )


def test_a_full_queue_refuses_before_it_reads(tmp_path: Path, gate: threading.Semaphore) -> None:
    """429 for the tenant that has too many jobs, 503 when all have; both say when to try again."""
    settings = without_llm(tmp_path, ingest_workers=1, max_queued_jobs=3, max_queued_jobs_per_tenant=2)
    with RunningServer(settings) as client:
        for _ in range(2):
            post(client, "busy", "a")
        known = client.post("/ingest/?tenant_id=busy", content=b"never parsed")
        unknown = client.post("/ingest/", json={"tenant_id": "busy", "texts": ["x"]})
        for response in (known, unknown):
            assert response.status_code == 429
            assert response.headers["retry-after"]
            assert response.json()["type"] == "urn:thresher:problem:tenant-queue-full"
        post(client, "other", "a")
        for path in ("/ingest/", "/ingest/files", "/ingest/?tenant_id=third"):
            response = client.post(path, content=b"never parsed")
            assert response.status_code == 503
            assert response.headers["retry-after"]
            assert response.json()["type"] == "urn:thresher:problem:queue-full"
        assert client.get("/health").status_code == 200
        gate.release(10)


def test_more_documents_than_a_job_may_have_are_refused(tmp_path: Path) -> None:
    """Texts and files over MAX_DOCUMENTS_PER_JOB are a 422 that names the setting."""
    with RunningServer(without_llm(tmp_path, max_documents_per_job=2)) as client:
        texts = client.post("/ingest/", json={"texts": ["a", "b", "c"]})
        files = client.post("/ingest/files", files=[("files", (f"{n}.txt", b"text")) for n in range(3)])
        for response in (texts, files):
            assert response.status_code == 422
            assert "MAX_DOCUMENTS_PER_JOB" in response.json()["detail"]
