"""Service, workers, Redis and Chroma as processes of their own, which are stopped, killed and started again."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.heartbeat import Heartbeat, living_workers
from serve.worker import Worker, WorkerNotNeededError
from settings import Settings
from tests.cluster import ROOT, Cluster, running_cluster
from tests.crashing import CrashProtocol

pytestmark = pytest.mark.server

SECONDS = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with running_cluster(
        folder, redis=True, INGEST_BATCH_SIZE="4", CHROMA_TIMEOUT="5", METRICS_PORT="0"
    ) as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Iterator[httpx.Client]:
    with cluster.client() as client:
        yield client


def until(condition: Callable[[], Any]) -> Any:
    """Wait for something that is sure to come, for as long as a busy machine may need."""
    deadline = time.monotonic() + SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, "nothing happened for too long"
        time.sleep(0.05)
    return result


def post(client: httpx.Client, tenant: str, count: int, **headers: str) -> dict[str, Any]:
    documents = [{"id": f"d{n}", "text": f"Text {n} of {tenant}."} for n in range(count)]
    answer = client.post("/ingest/", json={"tenant_id": tenant, "documents": documents}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


def ended(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        now = client.get(f"/ingest/{job['job_id']}").json()
        return now if now["status"] in ("done", "failed", "cancelled") else None

    return until(found)


def states(cluster: Cluster) -> dict[int, str]:
    return living_workers(Path(cluster.environment["DATA_DIR"]))


def logs(cluster: Cluster) -> str:
    return "".join(worker.log() for worker in cluster.workers)


def check(cluster: Cluster, what: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from serve.cli import main; main()", "worker", "--check", what]
    return subprocess.run(
        command, cwd=ROOT, env=cluster.environment, capture_output=True, text=True, check=False
    )


def test_a_worker_works_with_the_request_id_on_its_lines(cluster: Cluster, client: httpx.Client) -> None:
    """What the service accepts a worker indexes, and logs under the id of the request that brought it."""
    job = ended(client, post(client, "acme", 10, **{"X-Request-ID": "from-the-caller"}))
    assert (job["status"], job["documents_ok"]) == ("done", 10)
    lines = [line for line in logs(cluster).splitlines() if job["job_id"] in line]
    assert len(lines) >= 2
    assert {json.loads(line)["request_id"] for line in lines} == {"from-the-caller"}
    assert "begins" not in cluster.service.log(), "the service must leave the work to workers"
    found = client.post("/query/", json={"q": "Text 3 of acme.", "tenant_id": "acme"}).json()
    assert found["documents"]


def test_a_worker_shows_what_it_works_on(cluster: Cluster, client: httpx.Client) -> None:
    """With METRICS_PORT a worker counts its own work, and sees the whole queue."""
    assert ended(client, post(client, "counted", 3))["status"] == "done"
    urls = [
        line["message"].split()[-1]
        for line in map(json.loads, logs(cluster).splitlines())
        if "metrics: " in line["message"]
    ]
    texts = [httpx.get(url, trust_env=False).text for url in urls]
    assert any('thresher_jobs_ended_total{kind="ingest",status="done"}' in text for text in texts)
    assert all('thresher_jobs{state="pending"} 0.0' in text for text in texts)
    assert all('thresher_breaker_state{dependency="redis",state="closed"} 1.0' in text for text in texts)


def test_sigterm_hands_the_job_over(cluster: Cluster, client: httpx.Client) -> None:
    """A worker that is stopped exits with 0 soon, and another one goes on without waiting for a lease to end."""
    job = post(client, "stopped", 400)
    begun = until(lambda: [worker for worker in cluster.workers if f"{job['job_id']} begins" in worker.log()])
    assert begun[0].stop() == 0
    assert "Traceback" not in begun[0].log()
    job = ended(client, job)
    assert (job["status"], job["documents_ok"], job["attempts"]) == ("done", 400, 2)
    begun[0].start()


def test_redis_away(cluster: Cluster, client: httpx.Client) -> None:
    """Without Redis jobs are refused, questions are answered, workers wait and say so once; then all goes on."""
    assert cluster.redis is not None
    ended(client, post(client, "away", 4))
    job = post(client, "away", 300)
    cluster.redis.kill()
    late = cluster.workers[1]
    late.kill()
    late.start()
    answer = client.post("/ingest/", json={"tenant_id": "away", "texts": ["x"]})
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    until(lambda: client.get("/ready").status_code == 503)
    assert any(problem.startswith("jobs: ") for problem in client.get("/ready").json()["problems"])
    assert client.get("/health").status_code == 200
    assert client.post("/query/", json={"q": "Text 1", "tenant_id": "away"}).status_code == 200
    until(lambda: states(cluster).get(late.pid, "ok") != "ok")
    assert check(cluster, "alive").returncode == 0
    cluster.redis.start()
    job = ended(client, job)
    assert (job["status"], job["documents_ok"]) == ("done", 300)
    until(lambda: client.get("/ready").status_code == 200)
    until(lambda: states(cluster).get(late.pid) == "ok")
    assert check(cluster, "ready").returncode == 0
    for process in (cluster.service, *cluster.workers):
        lines = [line for line in process.log().splitlines() if "Redis" in line or "retrying" in line]
        assert len(lines) < 25, lines


def test_redis_that_comes_back_empty(cluster: Cluster, client: httpx.Client) -> None:
    """When Redis has lost everything the log says so, the lost jobs are unknown, and new ones run."""
    assert cluster.redis is not None
    lost = ended(client, post(client, "lost", 4))
    cluster.redis.flush()
    until(lambda: "Redis has lost its data" in logs(cluster))
    assert client.get(f"/ingest/{lost['job_id']}").status_code == 404
    job = ended(client, post(client, "lost", 6))
    assert (job["status"], job["documents_ok"]) == ("done", 6)
    assert [source["reason"] for source in job["sources"]].count("unchanged") == 4


def test_nothing_is_lost_or_doubled(cluster: Cluster) -> None:
    """Workers, Redis and Chroma are killed in the middle of the jobs: every job ends, every chunk is there once."""
    assert cluster.redis is not None
    assert cluster.chroma is not None
    protocol = CrashProtocol(cluster, tenants=2, jobs=2, documents=150)
    protocol.post()
    for victim in (cluster.workers[0], cluster.redis, cluster.chroma):
        time.sleep(0.5)
        victim.kill()
        victim.start()
    outcome = protocol.outcome(SECONDS)
    assert outcome.faults == []
    assert outcome.documents == 2 * 225
    assert {job["status"] for job in outcome.jobs} == {"done"}


def test_one_machine_needs_no_worker(tmp_path: Path) -> None:
    """Without Redis a worker has nothing to take jobs from, and says what to do."""
    with pytest.raises(WorkerNotNeededError, match="`thresher serve` works on the jobs itself"):
        Worker(Settings.load(data_dir=tmp_path, llm_provider="extractive", redis_url=None))


def test_files_of_killed_workers_are_taken_away(tmp_path: Path) -> None:
    """A worker that starts removes what workers killed long ago have left, and leaves the living alone."""
    folder = tmp_path / "workers"
    folder.mkdir()
    for name, age in (("host-1.json", 7_200), ("host-2.partial", 7_200), ("host-3.json", 30)):
        (folder / name).write_text("{}")
        os.utime(folder / name, (time.time() - age,) * 2)
    Heartbeat(tmp_path).begin()
    assert [path.name for path in folder.iterdir()] == ["host-3.json"]
    Heartbeat(tmp_path / "new").begin()


def test_no_worker_is_found_where_none_runs(tmp_path: Path) -> None:
    """The check for probes fails when no worker has shown itself."""
    assert living_workers(tmp_path) == {}
