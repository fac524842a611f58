"""What becomes of a job's documents: pipelines by name, the index contract, and indexing anew."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from modes.indexing import IndexingPipeline
from registry import ModeRegistry
from serve.indexer import Indexer
from serve.jobs import JobInput, LoadedSource, PostponeError
from serve.jobs.faults import JobFailedError
from settings import BUILTIN_PIPELINES, Settings
from tests.serve.conftest import RunningServer, finished, without_llm

INGEST = (BUILTIN_PIPELINES / "ingest.yml").read_text("utf-8")
TEXTS_ONLY = """
components:
  splitter:
    type: haystack.components.preprocessors.document_splitter.DocumentSplitter
    init_parameters: {split_by: word, split_length: 10}
  embedder:
    type: components.document_embedding.ModelDocumentEmbedder
  writer:
    type: components.writing.TenantDocumentWriter
connections:
  - {sender: splitter.documents, receiver: embedder.documents}
  - {sender: embedder.documents, receiver: writer.documents}
inputs:
  documents: splitter.documents
  tenant_id: writer.tenant_id
outputs:
  documents_written: writer.documents_written
metadata: {description: Texts in chunks of ten words.}
"""


def post(client: httpx.Client, tenant_id: str, *documents: dict, **more: Any) -> dict:
    """Index documents and give the finished job."""
    body = {"tenant_id": tenant_id, "documents": list(documents), **more}
    response = client.post("/ingest/", json=body)
    assert response.status_code == 202, response.text
    return finished(client, response.json())


def held(client: httpx.Client, tenant_id: str) -> dict[str, int]:
    """Give the number of chunks of each document of a tenant."""
    items = client.get("/documents", params={"tenant_id": tenant_id, "limit": 500}).json()["items"]
    return {item["document_id"]: item["chunks"] for item in items}


def pipelines(folder: Path, **files: str) -> Path:
    """Make a folder of pipelines."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.yml").write_text(content, "utf-8")
    return folder


def test_a_pipeline_is_chosen_by_the_request(tmp_path: Path) -> None:
    """`pipeline` names one; one that takes no files, one with faults and one that is not there say so."""
    folder = pipelines(tmp_path / "pipelines", words=TEXTS_ONLY, faulty="components: {}")
    with RunningServer(without_llm(tmp_path, pipelines_dir=folder)) as client:
        listed = client.get("/pipelines").json()["items"]
        assert {(item["name"], item["takes_files"]) for item in listed} == {
            ("ingest", True),
            ("words", False),
        }
        text = {"id": "a", "text": "word " * 30}
        assert post(client, "acme", text, pipeline="words")["chunks_ok"] == 3
        assert client.get("/documents?tenant_id=acme").json()["items"][0]["pipeline"] == "words"
        for pipeline, status, kind, part in (
            ("nope", 404, "unknown-pipeline", "there are: ingest, words"),
            ("faulty", 503, "broken-pipeline", "faulty"),
            ("words", 422, "invalid-request", "takes no files; those that do: ingest"),
        ):
            form = {"tenant_id": "acme", "pipeline": pipeline}
            response = client.post("/ingest/files", files=[("files", ("a.txt", b"text"))], data=form)
            assert (response.status_code, response.json()["type"]) == (status, f"urn:thresher:problem:{kind}")
            assert part in response.json()["detail"]
        state = client.get("/ready").json()
        assert state["pipelines"] == ["ingest", "words"]
        assert any("faulty.yml" in problem for problem in state["problems"])


def test_what_gives_no_text_is_skipped(client: httpx.Client) -> None:
    """An empty file is skipped with the reason, beside one that is indexed."""
    files = [("files", ("empty.txt", b"")), ("files", ("full.txt", b"Some text."))]
    job = finished(client, client.post("/ingest/files?tenant_id=empty", files=files).json())
    assert (job["status"], job["documents_ok"], job["documents_skipped"]) == ("done", 1, 1)
    assert [source["status"] for source in job["sources"]] == ["skipped", "ok"]
    assert job["sources"][0]["reason"]


def test_texts_without_ids_may_repeat(client: httpx.Client) -> None:
    """The same text twice in a request is one document; with other metadata the last one counts."""
    same = {"text": "The same text."}
    job = post(client, "repeats", same, same, {**same, "meta": {"kind": "x"}})
    assert [source["status"] for source in job["sources"]] == ["skipped", "skipped", "ok"]
    [document] = client.get("/documents?tenant_id=repeats").json()["items"]
    assert document["meta"] == {"kind": "x"}


def test_a_text_that_repeats_in_a_job_counts_its_chunks_once(client: httpx.Client) -> None:
    """Every text has its outcome, in one batch or in several; the chunks are told with the first."""
    texts = ["Twice.", "Twice.", *(f"Text {number}." for number in range(100)), "Twice."]
    job = finished(client, client.post("/ingest/", json={"tenant_id": "counted", "texts": texts}).json())
    assert (job["total"], job["documents_ok"], job["chunks_ok"]) == (103, 103, 101)
    found = client.get(f"/ingest/{job['job_id']}/sources?limit=500").json()["items"]
    told = [
        (source["reason"], source["chunks"])
        for source in found
        if source["document_id"] == found[0]["document_id"]
    ]
    assert told == [(None, 1), ("unchanged", 0), ("unchanged", 0)]


def test_unchanged_documents_cost_nothing(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held in this very version is recognised before the pipeline runs; what changed at all is not."""
    document = {"id": "a", "text": "Some text.", "title": "T", "meta": {"kind": "x"}}
    post(client, "unchanged", document)
    ran: list[str] = []
    run = IndexingPipeline.run

    def watched(self: IndexingPipeline, tenant_id: str, documents: Any = (), sources: Any = ()) -> Any:
        ran.extend(item.meta["document_id"] for item in documents)
        return run(self, tenant_id, documents, sources)

    monkeypatch.setattr(IndexingPipeline, "run", watched)
    job = post(client, "unchanged", document)
    assert (job["documents_ok"], job["chunks_ok"], ran) == (1, 1, [])
    assert job["sources"][0]["reason"] == "unchanged"
    for change in ({"text": "Other."}, {"title": "U"}, {"meta": {"kind": "y"}}):
        post(client, "unchanged", {**document, **change})
    assert ran == ["a", "a", "a"]


def test_another_splitting_is_refused_until_the_tenant_is_indexed_anew(tmp_path: Path) -> None:
    """A job under changed splitter settings fails once, with both values; reindexing applies them to all documents."""
    text = "\n\n".join(f"Paragraph {number} of the text, with a few words." for number in range(15))
    documents = [{"id": f"d{number}", "text": f"Document {number}.\n\n{text}"} for number in range(3)]
    with RunningServer(without_llm(tmp_path)) as client:
        post(client, "acme", *documents)
        before = held(client, "acme")
    assert INGEST.count("split_length: 1000") == 1
    folder = pipelines(
        tmp_path / "pipelines", ingest=INGEST.replace("split_length: 1000", "split_length: 200")
    )
    with RunningServer(without_llm(tmp_path, pipelines_dir=folder)) as client:
        refused = post(client, "acme", *({**document, "title": "New"} for document in documents))
        assert refused["status"] == "failed"
        assert "split_length was 1000 and is now 200" in refused["error"]
        assert held(client, "acme") == before
        response = client.post("/tenants/acme/reindex")
        assert response.status_code == 202
        job = finished(client, response.json())
        assert (job["kind"], job["status"], job["documents_ok"]) == ("reindex", "done", 3)
        after = held(client, "acme")
        assert after.keys() == before.keys()
        assert all(after[name] > before[name] for name in before)
        first = client.get("/documents/d0?tenant_id=acme&limit=500").json()
        assert len(first["items"]) == first["chunks"] == after["d0"]
        again = finished(client, client.post(f"/ingest/{refused['job_id']}/retry").json())
        assert (again["status"], again["documents_ok"]) == ("done", 3)
        assert {item["title"] for item in client.get("/documents?tenant_id=acme").json()["items"]} == {"New"}


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    """The built-in pipelines, and one with faults."""
    folder = pipelines(tmp_path / "pipelines", faulty="components: {}")
    with ModeRegistry(
        Settings.load(data_dir=tmp_path, llm_provider="extractive", pipelines_dir=folder)
    ) as found:
        yield found


def test_a_job_waits_for_a_pipeline_that_may_be_mended(registry: ModeRegistry) -> None:
    """A job whose pipeline has faults is postponed; one whose pipeline is gone fails with the names of the others."""
    indexer = Indexer(registry, deleted=lambda tenant_id, ids: {}, reindexed_by=lambda tenant_id: None)
    job = JobInput(job_id="0" * 32, tenant_id="acme", total=1, created_at=0.0, pipeline="faulty")
    with pytest.raises(PostponeError):
        indexer.prepare(job)
    with pytest.raises(JobFailedError, match="there are: ingest"):
        indexer.prepare(job.model_copy(update={"pipeline": "gone"}))


@pytest.mark.parametrize("resumed", ["later", "earlier"])
def test_what_an_interrupted_replacement_left_behind_goes(
    registry: ModeRegistry, monkeypatch: pytest.MonkeyPatch, resumed: str
) -> None:
    """When a run ends between writing a version and deleting the one before, its repetition deletes that."""
    indexer = Indexer(registry, deleted=lambda tenant_id, ids: {}, reindexed_by=lambda tenant_id: None)
    job = JobInput(job_id="0" * 32, tenant_id="acme", total=1, created_at=0.0)
    versions = {
        "earlier": LoadedSource(id="a", accepted_at=100.0, text="The old text."),
        "later": LoadedSource(id="a", accepted_at=200.0, text="The new text."),
    }
    other = "later" if resumed == "earlier" else "earlier"
    indexer.work(job, [versions[other]])
    store = registry.resources.document_stores.get("acme")

    def end(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as interrupted:
        interrupted.setattr(type(store), "settle", end)
        # Written as if nothing had been there when it was looked up.
        interrupted.setattr(type(store), "held_versions", lambda *_: {})
        with pytest.raises(SystemExit):
            indexer.work(job, [versions[resumed]])
    assert len(store.held_versions(["a"])["a"]) == 2
    [result] = indexer.work(job, [versions[resumed]])
    assert result.status == ("ok" if resumed == "later" else "skipped")
    assert [chunk.content for chunk in store.filter_documents()] == ["The new text."]


def test_what_a_deleted_document_left_behind_goes(registry: ModeRegistry) -> None:
    """A run that was interrupted after it wrote a document, which was deleted since, is made good by its repetition."""
    deleted: dict[str, float] = {}
    indexer = Indexer(registry, deleted=lambda tenant_id, ids: deleted, reindexed_by=lambda tenant_id: None)
    job = JobInput(job_id="0" * 32, tenant_id="acme", total=1, created_at=0.0)
    source = LoadedSource(id="a", accepted_at=100.0, text="Some text.")
    [result] = indexer.work(job, [source])
    assert (result.status, result.chunks) == ("ok", 1)
    [result] = indexer.work(job, [source])
    assert (result.status, result.reason) == ("ok", None)
    store = registry.resources.document_stores.get("acme")
    deleted["a"] = 200.0
    [result] = indexer.work(job, [source])
    assert (result.status, result.reason) == ("skipped", "the document was deleted after it was sent")
    assert store.document_states(["a"]) == {}
    [result] = indexer.work(job, [source.model_copy(update={"accepted_at": 300.0})])
    assert result.status == "ok"
    [result] = indexer.work(job, [source.model_copy(update={"accepted_at": 250.0, "text": "Older."})])
    assert (result.status, result.reason) == ("skipped", "a later version of the document is there already")
