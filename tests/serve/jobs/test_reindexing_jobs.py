"""Jobs that index a tenant anew: how many there are."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from haystack import Document

from components.storing import TenantDocumentStores
from components.writing import TenantDocumentWriter
from serve.holdings import Holdings, reindexing_job
from serve.jobs import JobQueue
from tests.job_parts import Gate, finished, with_queue


def test_one_job_indexes_a_tenant_anew(tmp_path: Path) -> None:
    """Of many who ask at once all get the same job; who asks when it has ended gets another one."""
    stores = TenantDocumentStores(path=tmp_path / "chroma")
    chunk = Document(content="one", embedding=[1.0, 0.5], meta={"document_id": "a", "accepted_at": 1.0})
    TenantDocumentWriter(stores).run([chunk], "acme")
    registry: Any = SimpleNamespace(resources=SimpleNamespace(document_stores=stores), indexing={})
    work = Gate()

    async def scenario(queue: JobQueue) -> None:
        holdings = Holdings(registry, queue)
        [job_id] = {
            job.job_id for job in await asyncio.gather(*(holdings.reindex("acme", "r") for _ in range(4)))
        }
        assert await reindexing_job(queue, "acme") == job_id
        work.open.set()
        await finished(queue, job_id)
        assert await reindexing_job(queue, "acme") is None
        again = await holdings.reindex("acme", "r")
        assert again.job_id != job_id
        await finished(queue, again.job_id)

    with_queue(scenario, tmp_path, work)
    stores.close()
