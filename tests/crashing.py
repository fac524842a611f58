"""The crash protocol: post jobs, end processes at random moments, and see that nothing is lost and nothing doubled."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.hashing import HashingResources
from settings import Settings
from tests.cluster import Cluster

ENDED = ("done", "failed", "cancelled")
LONG_EVERY = 10


@dataclass
class Outcome:
    """What came of a run of the protocol."""

    jobs: list[dict[str, Any]]
    documents: int = 0
    chunks: int = 0
    faults: list[str] = field(default_factory=list)


def text_of(tenant: str, job: int, number: int) -> str:
    """
    Make a document that is like no other; every tenth is several chunks long.

    :param tenant: whose.
    :param job: in which job.
    :param number: which of it.
    :returns: the text.
    """
    begin = f"Document {number} of job {job} of tenant {tenant}."
    if number % LONG_EVERY:
        return begin
    return " ".join([begin, *(f"Sentence {count} of document {number}, job {job}." for count in range(60))])


class CrashProtocol:
    """
    Jobs of several tenants, whose documents overlap: what a later job brings replaces what an earlier one brought.

    Usage example:
    ```python
    with running_cluster(folder, redis=True) as cluster:
        protocol = CrashProtocol(cluster, tenants=2, jobs=3, documents=100)
        protocol.post()
        for blow in protocol.blows(seed=1):
            blow()
        outcome = protocol.outcome(deadline=60)
    ```
    """

    def __init__(self, cluster: Cluster, *, tenants: int, jobs: int, documents: int) -> None:
        """
        :param cluster: the running processes.
        :param tenants: how many tenants.
        :param jobs: how many jobs each of them posts.
        :param documents: how many documents are in each job; half of them are in the next job too, with other text.
        """
        self._cluster = cluster
        self._tenants = [f"tenant{number}" for number in range(tenants)]
        self._jobs = jobs
        self._documents = documents
        self._ids: list[str] = []
        self._expected: dict[str, dict[str, str]] = {tenant: {} for tenant in self._tenants}

    def post(self) -> None:
        """Post all jobs, each until it is accepted, and the last one three times."""
        with self._cluster.client() as client:
            for job in range(self._jobs):
                for tenant in self._tenants:
                    first = job * self._documents // 2
                    texts = {
                        f"d{number}": text_of(tenant, job, number)
                        for number in range(first, first + self._documents)
                    }
                    self._expected[tenant] |= texts
                    self._ids.append(self._accepted(client, tenant, job, texts))
            again = [self._accepted(client, tenant, job, texts) for _ in range(2)]
        assert again == [self._ids[-1]] * 2, "a repeated request made another job"

    def blows(self, seed: int, servers: bool = True) -> Iterator[Callable[[], None]]:
        """
        Give blows at random: kill -9 of one of our processes, now and then of Redis or Chroma, and start it again.

        :param seed: for the random choices.
        :param servers: whether Redis and Chroma are hit too.
        :returns: without end.
        """
        chance = random.Random(seed)
        cluster = self._cluster
        while True:
            if (
                servers
                and cluster.redis is not None
                and cluster.chroma is not None
                and chance.random() < 0.25
            ):
                server = chance.choice([cluster.redis, cluster.chroma])
            else:
                server = None
            victim = server or chance.choice(cluster.killable)
            away = chance.uniform(0.0, 1.5)

            def blow(victim: Any = victim, away: float = away) -> None:
                victim.kill()
                time.sleep(away)
                victim.start()

            yield blow

    def outcome(self, deadline: float) -> Outcome:
        """
        Wait for the end of all jobs, stop our processes, and compare what is in Chroma with what was posted.

        :param deadline: seconds to wait at most.
        :returns: the jobs, and every fault found.
        """
        with self._cluster.client() as client:
            jobs = [self._ended(client, job_id, time.monotonic() + deadline) for job_id in self._ids]
        for process in self._cluster.killable:
            process.stop()
        outcome = Outcome(jobs)
        for job in jobs:
            outcome.faults += _faults_of_job(job, self._documents)
        for tenant, expected in self._expected.items():
            self._compare(tenant, expected, outcome)
        return outcome

    def _accepted(self, client: httpx.Client, tenant: str, job: int, texts: dict[str, str]) -> str:
        documents = [{"id": key, "text": text} for key, text in texts.items()]
        headers = {"Idempotency-Key": f"{tenant}-{job}"}
        until = time.monotonic() + 120
        while True:
            try:
                answer = client.post(
                    "/ingest/", json={"tenant_id": tenant, "documents": documents}, headers=headers
                )
                if answer.status_code < 300:
                    return str(answer.json()["job_id"])
                assert answer.status_code == 503, answer.text
            except httpx.TransportError:
                pass
            assert time.monotonic() < until, "the job was not accepted"
            time.sleep(0.2)

    @staticmethod
    def _ended(client: httpx.Client, job_id: str, until: float) -> dict[str, Any]:
        job: dict[str, Any] = {}
        while job.get("status") not in ENDED:
            try:
                answer = client.get(f"/ingest/{job_id}")
                if answer.status_code == 200:
                    job = answer.json()
                else:
                    assert answer.status_code == 503, answer.text
            except httpx.TransportError:
                pass
            assert time.monotonic() < until, f"the job did not end: {job or job_id}"
            time.sleep(0.1)
        return job

    def _compare(self, tenant: str, expected: dict[str, str], outcome: Outcome) -> None:
        chunks = asyncio.run(self._chunks(tenant))
        found: dict[str, list[Any]] = {}
        for chunk in chunks:
            found.setdefault(chunk.meta["document_id"], []).append(chunk)
        for key in sorted(expected.keys() ^ found.keys()):
            outcome.faults.append(f"{tenant}/{key} is {'missing' if key in expected else 'too many'}")
        for key, parts in found.items():
            parts.sort(key=lambda chunk: chunk.meta["start"])
            if "".join(chunk.content for chunk in parts) != expected.get(key):
                places = [(chunk.meta["chunk_index"], chunk.meta["start"]) for chunk in parts]
                outcome.faults.append(f"{tenant}/{key} holds other chunks than its text: {places}")
        outcome.documents += len(found)
        outcome.chunks += len(chunks)

    async def _chunks(self, tenant: str) -> list[Any]:
        environment = self._cluster.environment
        names = ("DATA_DIR", "CHROMA_HOST", "CHROMA_PORT")
        settings = Settings.load(
            **{name.lower(): environment[name] for name in names if name in environment},
            llm_provider="extractive",
        )
        resources = HashingResources(settings)
        try:
            return list(await (await resources.document_stores.get_async(tenant)).filter_documents_async())
        finally:
            resources.close()


def _faults_of_job(job: dict[str, Any], total: int) -> list[str]:
    faults = []
    if job["status"] != "done" and not job["error"]:
        faults.append(f"job {job['job_id']} is {job['status']} without a reason")
    counted = job["documents_ok"] + job["documents_skipped"] + job["documents_failed"]
    if (job["total"], counted) != (total, total):
        faults.append(f"job {job['job_id']} counts {counted} of {job['total']} documents")
    outcomes = Counter(source["status"] for source in job["sources"])
    if job["documents_failed"]:
        faults.append(f"job {job['job_id']}: {dict(outcomes)}, {job['sources'][:3]}")
    return faults
