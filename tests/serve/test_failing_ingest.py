"""Documents that the real indexing pipeline refuses."""

from pathlib import Path

from components.storing import TenantDocumentStores
from tests.serve.conftest import RunningServer, finished, without_llm


def test_a_refused_document_fails_its_job_and_no_other(tmp_path: Path) -> None:
    """The job ends as failed with the reason, and the worker goes on to the next one."""
    settings = without_llm(tmp_path, ingest_workers=1)
    foreign = TenantDocumentStores(path=settings.data_dir / "chroma", embedding_model="another-model")
    foreign.get_or_create("foreign")
    foreign.close()
    with RunningServer(settings) as client:
        refused = client.post("/ingest/", json={"tenant_id": "foreign", "texts": ["one", "two"]}).json()
        accepted = client.post("/ingest/", json={"tenant_id": "acme", "texts": ["three"]}).json()
        refused = finished(client, refused)
        assert refused["status"] == "failed"
        assert refused["documents_failed"] == 2
        assert "were embedded with 'another-model'" in refused["error"]
        assert finished(client, accepted)["status"] == "done"
        problem = client.post("/query/", json={"q": "x", "tenant_id": "foreign"})
        assert problem.status_code == 409


def test_jobs_on_one_document_end_in_the_later_version(tmp_path: Path) -> None:
    """A small job overtakes a large one, and its newer version of a document stays."""
    with RunningServer(without_llm(tmp_path, ingest_workers=2)) as client:
        filler = [{"text": f"Filler number {number}. " * 20} for number in range(60)]
        old = {"tenant_id": "acme", "documents": [*filler, {"id": "same", "text": "The code is OLD."}]}
        new = {"tenant_id": "acme", "documents": [{"id": "same", "text": "The code is NEW."}]}
        jobs = [client.post("/ingest/", json=body).json() for body in (old, new)]
        assert {finished(client, job)["status"] for job in jobs} == {"done"}
        only = {"field": "document_id", "operator": "==", "value": "same"}
        found = client.post("/query/", json={"q": "code", "tenant_id": "acme", "filters": only}).json()
        assert [document["text"] for document in found["documents"]] == ["The code is NEW."]
