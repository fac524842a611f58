"""Writing a document's chunks."""

from pathlib import Path

import pytest
from haystack import Document

from components.storing import TenantDocumentStores, UnknownTenantError
from components.writing import TenantDocumentWriter, as_chunk


def split(document_id: str, *texts: str) -> list[Document]:
    """Make chunks as Haystack's splitters leave them."""
    return [
        Document(
            content=text,
            embedding=[1.0, float(number)],
            meta={
                "document_id": document_id,
                "split_id": number,
                "split_idx_start": number * 100,
                "_split_overlap": [{}],
            },
        )
        for number, text in enumerate(texts)
    ]


def test_writing_twice_keeps_one_copy(tmp_path: Path) -> None:
    """The same document written twice has the same chunks."""
    stores = TenantDocumentStores(path=tmp_path)
    writer = TenantDocumentWriter(stores)
    for _ in range(2):
        assert writer.run(documents=split("d", "one", "two"), tenant_id="acme") == {"documents_written": 2}
    assert stores.get("acme").count_documents() == 2
    stores.close()


def test_a_changed_document_loses_its_stale_chunks(tmp_path: Path) -> None:
    """Chunks that the new version no longer has are gone; another document's stay."""
    stores = TenantDocumentStores(path=tmp_path)
    writer = TenantDocumentWriter(stores)
    writer.run(documents=split("d", "one", "two", "three") + split("other", "four"), tenant_id="acme")
    writer.run(documents=split("d", "one", "2"), tenant_id="acme")
    texts = {document.content for document in stores.get("acme").filter_documents()}
    assert texts == {"one", "2", "four"}
    stores.close()


def test_equal_texts_in_different_places_are_different_chunks() -> None:
    """A document that repeats itself keeps every chunk, and so do two tenants with one text."""
    first, second = (as_chunk(chunk, "acme") for chunk in split("d", "same", "same"))
    assert first.id != second.id
    assert first.id != as_chunk(split("d", "same")[0], "other").id


def test_a_chunk_knows_its_place() -> None:
    """A chunk has the document's id, its title, and where it begins, and nothing that Chroma can't store."""
    chunk = as_chunk(split("d", "one", "two")[1], "acme")
    assert chunk.meta.pop("accepted_at") > 0
    assert chunk.meta == {"document_id": "d", "title": "", "start": 100, "chunk_index": 1}


def test_a_chunk_of_no_document_is_refused() -> None:
    """Without a document id there is nothing to replace later."""
    with pytest.raises(ValueError, match="document_id"):
        as_chunk(Document(content="x"), "acme")


def test_writing_nothing_creates_no_collection(tmp_path: Path) -> None:
    """No chunks, no collection."""
    stores = TenantDocumentStores(path=tmp_path)
    assert TenantDocumentWriter(stores).run(documents=[], tenant_id="acme") == {"documents_written": 0}
    stores.close()


def test_the_version_accepted_later_stays(tmp_path: Path) -> None:
    """Jobs may end in another order than they were accepted in; the later version wins all the same."""
    stores = TenantDocumentStores(path=tmp_path)
    writer = TenantDocumentWriter(stores)
    old, new = split("d", "old", "older"), split("d", "new")
    for chunks, accepted_at in ((old, 1.0), (new, 2.0)):
        for chunk in chunks:
            chunk.meta["accepted_at"] = accepted_at
    assert writer.run(documents=new, tenant_id="acme") == {"documents_written": 1}
    assert writer.run(documents=old, tenant_id="acme") == {"documents_written": 0}
    assert {document.content for document in stores.get("acme").filter_documents()} == {"new"}
    stores.close()


def test_a_tenant_dropped_by_another_process_is_made_anew(tmp_path: Path) -> None:
    """When the collection is gone, writing makes it again instead of failing until a restart."""
    stores = TenantDocumentStores(path=tmp_path)
    writer = TenantDocumentWriter(stores)
    writer.run(documents=split("d", "one"), tenant_id="acme")
    other = TenantDocumentStores(path=tmp_path)
    other._connect().delete_collection("tenant_acme")
    with pytest.raises(UnknownTenantError):
        stores.get("acme").search_embeddings([[1.0, 0.0]], 1)
    assert writer.run(documents=split("d", "one"), tenant_id="acme") == {"documents_written": 1}
    assert stores.get("acme").search_embeddings([[1.0, 0.0]], 1)[0][0].content == "one"
    other.close()
    stores.close()
