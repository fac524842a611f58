"""What is deleted stays deleted, whatever is under way."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from haystack import Document

from components.pacing import paced_by
from components.storing import Generation, TenantDocumentStores, UnknownTenantError
from components.writing import TenantDocumentWriter
from modes.indexing import IndexingResult
from modes.results import QueryResult
from serve.errors import describe
from serve.holdings import Holdings
from serve.indexer import DELETED, Indexer
from serve.jobs import JobInput, JobInterrupted, LoadedSource
from serve.traces.errors import RunsNotForgottenError, TraceStoreError
from serve.traces.keeping import RunKeeper
from serve.traces.sqlite_store import SqliteTraceStore
from serve.watching import FinishedRun


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[TenantDocumentStores]:
    made = TenantDocumentStores(path=tmp_path)
    yield made
    made.close()


def write(stores: TenantDocumentStores, *documents: Document) -> dict[str, int]:
    """Write documents of one chunk each."""
    chunks = [
        Document(
            content=document.content,
            embedding=[1.0, 0.5],
            meta={"document_id": document.id, "accepted_at": 1.0},
        )
        for document in documents
    ]
    written: dict[str, int] = TenantDocumentWriter(stores).run(chunks, "acme")["written"]
    return written


def held(stores: TenantDocumentStores) -> list[str]:
    """Give the ids of the tenant's documents."""
    return [info.id for info in stores.get("acme").list_documents()[0]]


def test_a_deletion_at_the_end_of_a_reindex_stays(stores: TenantDocumentStores) -> None:
    """A document deleted after the last comparison is not in the new index either."""

    async def mark_deleted(tenant_id: str, document_id: str) -> None:
        pass

    registry: Any = SimpleNamespace(resources=SimpleNamespace(document_stores=stores))
    jobs: Any = SimpleNamespace(mark_deleted=mark_deleted)
    write(stores, Document(id="a", content="one"), Document(id="b", content="two"))
    generation = Generation.begin(stores, "acme")
    with generation.indexing("ingest", {}):
        write(stores, *generation.documents(generation.outstanding()))
    assert generation.outstanding() == []
    assert asyncio.run(Holdings(registry, jobs).delete_document("acme", "a")) == 1
    assert generation.switch(grace=0)
    assert held(stores) == ["b"]


def test_a_cancel_leaves_no_deleted_document(stores: TenantDocumentStores) -> None:
    """What a job wrote of a document that was deleted meanwhile goes, though the job is cancelled just then."""
    deleted: dict[str, float] = {}

    class Cancelled:
        others_wait = False

        def pause(self) -> None:
            if deleted:
                raise JobInterrupted

        def rows_at_once(self, default: int) -> int:
            return default

    class Pipeline:
        name, fingerprint, splitting = "ingest", "", {}

        def run(self, tenant_id: str, documents: list[Document], files: list[Any]) -> IndexingResult:
            written = write(stores, *documents)
            deleted["a"] = float("inf")
            return IndexingResult(written, {})

    registry: Any = SimpleNamespace(
        resources=SimpleNamespace(document_stores=stores), indexing={"ingest": Pipeline()}, broken={}
    )
    indexer = Indexer(registry, lambda tenant_id, ids: deleted, lambda tenant_id: None)
    job = JobInput(job_id="j", tenant_id="acme", total=1, created_at=1.0)
    with paced_by(Cancelled()):
        [result] = indexer.work(job, [LoadedSource(id="a", accepted_at=1e10, text="text")])
    assert result.reason == DELETED
    assert held(stores) == []


def test_a_text_sent_again_takes_what_a_later_one_left(stores: TenantDocumentStores) -> None:
    """Rows of a version that never was finished go once the one before is accepted again, without any indexing."""

    class Pipeline:
        name, fingerprint, splitting = "ingest", "", {}
        runs = 0

        def run(self, tenant_id: str, documents: list[Document], files: list[Any]) -> IndexingResult:
            self.runs += 1
            chunks = [
                Document(content=item.content, embedding=[1.0, 0.5], meta=item.meta) for item in documents
            ]
            return IndexingResult(TenantDocumentWriter(stores).run(chunks, tenant_id)["written"], {})

    pipeline = Pipeline()
    registry: Any = SimpleNamespace(
        resources=SimpleNamespace(document_stores=stores), indexing={"ingest": pipeline}, broken={}
    )
    indexer = Indexer(registry, lambda tenant_id, ids: {}, lambda tenant_id: None)
    job = JobInput(job_id="j", tenant_id="acme", total=1, created_at=1.0)
    indexer.work(job, [LoadedSource(id="a", accepted_at=1.0, text="text")])
    fragment = Document(
        id="f" * 16 + "-x",
        content="later",
        embedding=[1.0, 0.5],
        meta={"document_id": "a", "accepted_at": 2.0, "chunk_index": 1},
    )
    stores.get("acme").write_documents([fragment])
    [result] = indexer.work(job, [LoadedSource(id="a", accepted_at=3.0, text="text")])
    assert (result.reason, pipeline.runs) == ("unchanged", 1)
    assert [chunk.content for chunk in stores.get("acme").filter_documents()] == ["text"]


class Runs(SqliteTraceStore):
    """A store of runs that can be away."""

    away = False

    def forget(self, tenant_id: str) -> int:
        if self.away:
            raise TraceStoreError("away")
        return super().forget(tenant_id)


def test_what_is_asked_while_a_tenant_is_deleted_is_not_kept(
    stores: TenantDocumentStores, tmp_path: Path
) -> None:
    """A question that ends after the deletion of its tenant leaves no run; where runs can't be forgotten it is told."""

    async def nothing(*_: Any) -> list[Any]:
        return []

    def question() -> FinishedRun:
        began, answered = datetime.now(UTC), QueryResult(mode="crag", answer="330 metres.")
        return FinishedRun("r1", "crag", "How tall?", (), {"tenant_id": "acme"}, began, 1.0, answered)

    async def ask_and_delete() -> None:
        assert await holdings.delete_tenant("acme") == 0
        runs.ended(under_way)
        assert await runs.find("r1", lambda _: True) == []
        write(stores, Document(id="a", content="one"))
        runs.ended(question())
        store.away = True
        with pytest.raises(RunsNotForgottenError, match="away") as raised:
            await holdings.delete_tenant("acme")
        assert describe(raised.value)[:2] == (503, "trace-store-unavailable")
        assert "delete the tenant again" in describe(raised.value)[2]
        assert len(await runs.find("r1", lambda _: True)) == 1
        with pytest.raises(UnknownTenantError):
            stores.get("acme")
        store.away = False
        assert await holdings.delete_tenant("acme") == 0
        assert await runs.find("r1", lambda _: True) == []
        with pytest.raises(UnknownTenantError):
            await holdings.delete_tenant("acme")

    registry: Any = SimpleNamespace(resources=SimpleNamespace(document_stores=stores))
    jobs: Any = SimpleNamespace(mark_deleted=nothing, unfinished=nothing, forget_sources=nothing)
    store = Runs(tmp_path / "runs", ttl=60, max_runs=10)
    runs = RunKeeper(store, keeps_content=True, is_tenant=lambda _: True)
    holdings = Holdings(registry, jobs, runs)
    write(stores, Document(id="a", content="one"))
    under_way = question()
    asyncio.run(ask_and_delete())
    runs.close()
