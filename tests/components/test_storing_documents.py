"""A tenant's documents as wholes, on a real embedded Chroma and on a real Chroma server."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from haystack import Document

from components.storing import (
    InvalidCursorError,
    SplittingMismatchError,
    TenantDocumentStores,
    UnknownDocumentError,
    UnknownTenantError,
)
from components.writing import TenantDocumentWriter


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.server)])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TenantDocumentStores]:
    prefix = f"t{uuid.uuid4().hex}_"
    if request.param == "embedded":
        made = TenantDocumentStores(path=tmp_path, embedding_model="axes", prefix=prefix)
    else:
        port = request.getfixturevalue("chroma_server")
        made = TenantDocumentStores(host="127.0.0.1", port=port, embedding_model="axes", prefix=prefix)
    yield made
    made.close()


def split(document_id: str, *texts: str, **meta: Any) -> list[Document]:
    """Make chunks as Haystack's splitters leave them."""
    return [
        Document(
            content=text,
            embedding=[1.0, float(number)],
            meta={"document_id": document_id, "split_idx_start": 10 * number, **meta},
        )
        for number, text in enumerate(texts)
    ]


def write(stores: TenantDocumentStores, *chunks: Document) -> None:
    """Write chunks as the indexing pipeline does."""
    TenantDocumentWriter(stores).run(documents=list(chunks), tenant_id="acme")


def test_the_state_of_documents(stores: TenantDocumentStores) -> None:
    """A document's state tells its version, when it was accepted and whether it is whole."""
    write(stores, *split("d", "one", "two", fingerprint="f", accepted_at=5.0))
    states = asyncio.run(stores.get("acme").document_states_async(["d", "unknown"]))
    assert list(states) == ["d"]
    state = states["d"]
    assert (state.fingerprint, state.accepted_at, state.chunks, state.complete) == ("f", 5.0, 2, True)
    assert stores.get("acme").document_states([]) == {}


def test_touching_keeps_older_versions_out(stores: TenantDocumentStores) -> None:
    """A document accepted again unchanged can't be replaced by what was accepted in between; time never goes back."""
    write(stores, *split("d", "one", fingerprint="f", accepted_at=1.0))
    store = stores.get("acme")
    asyncio.run(store.touch_async({"d": 9.0, "unknown": 9.0}))
    store.touch({"d": 3.0})
    write(stores, *split("d", "between", fingerprint="g", accepted_at=5.0))
    assert [chunk.content for chunk in store.get_document("d")[1]] == ["one"]
    assert store.document_states(["d"])["d"].accepted_at == 9.0


def test_documents_are_listed_in_pages(stores: TenantDocumentStores) -> None:
    """Pages hold every document once, with what is known of it, also while documents are deleted and added."""
    for number in range(7):
        write(
            stores,
            *split(f"d{number}", "one", "two", title="T", source="a.md", job_id="j", language="en"),
        )
    store = stores.get("acme")
    first, cursor = asyncio.run(store.list_documents_async(limit=3))
    assert [info.id for info in first] == ["d0", "d1", "d2"]
    info = first[0]
    assert (info.title, info.chunks, info.source, info.job_id) == ("T", 2, "a.md", "j")
    assert info.meta == {"language": "en"}
    assert info.ingested_at is not None
    store.delete_document("d0")
    write(stores, *split("d7", "new"))
    second, cursor = store.list_documents(3, cursor)
    third, end = store.list_documents(3, cursor)
    assert [info.id for info in second + third] == ["d3", "d4", "d5", "d6", "d7"]
    assert end is None


@pytest.mark.parametrize("cursor", ["x", "ä", "bnVsbA==", "WzEsMl0=", "Wy0xLCAieCJd"])
def test_a_made_up_cursor_is_refused(stores: TenantDocumentStores, cursor: str) -> None:
    """Only cursors that a page gave are taken."""
    with pytest.raises(InvalidCursorError):
        stores.get_or_create("acme").list_documents(cursor=cursor)


def test_a_document_is_read_in_order(stores: TenantDocumentStores) -> None:
    """A document comes with its chunks in the order of the text, more than a write holds."""
    texts = [f"part {number}" for number in range(120)]
    write(stores, *reversed(split("d", *texts)), *split("other", "x"))
    info, chunks = asyncio.run(stores.get("acme").get_document_async("d"))
    assert (info.id, info.chunks) == ("d", 120)
    assert [chunk.content for chunk in chunks] == texts
    with pytest.raises(UnknownDocumentError, match="'nothing'"):
        stores.get("acme").get_document("nothing")


def test_deleting_a_document(stores: TenantDocumentStores) -> None:
    """All its chunks go, another document's stay; the second time it is unknown."""
    write(stores, *split("d", "one", "two"), *split("other", "x"))
    assert asyncio.run(stores.delete_document_async("acme", "d")) == 2
    assert stores.get("acme").count_documents() == 1
    with pytest.raises(UnknownDocumentError):
        stores.delete_document("acme", "d")


def test_documents_written_before_there_were_versions(stores: TenantDocumentStores) -> None:
    """Chunks of an older make are listed, read and replaced like others."""
    stores.get_or_create("acme").write_documents(
        [
            Document(
                id=f"{number:064x}",
                content=f"part {number}",
                embedding=[1.0, number],
                meta={"document_id": "d", "title": "", "chunk_index": number, "start": number},
            )
            for number in range(3)
        ]
    )
    store = stores.get("acme")
    (info,), _ = store.list_documents()
    assert (info.id, info.chunks, info.fingerprint) == ("d", 3, None)
    assert [chunk.content for chunk in store.get_document("d")[1]] == ["part 0", "part 1", "part 2"]
    write(stores, *split("d", "new"))
    assert store.count_documents() == 1


def test_another_splitting_of_one_pipeline_is_refused(stores: TenantDocumentStores) -> None:
    """A pipeline that splits otherwise than before is named with both values; another pipeline is taken on."""
    splitting = {"splitter": {"type": "S", "split_length": 1000}}
    with stores.indexing("acme", "ingest", splitting):
        write(stores, *split("d", "one"))
    changed = {"splitter": {"type": "S", "split_length": 500}}
    expected = r"split_length was 1000 and is now 500.*thresher reindex --tenant acme"
    with pytest.raises(SplittingMismatchError, match=expected), stores.indexing("acme", "ingest", changed):
        pass
    with stores.indexing("acme", "pages", changed), stores.indexing("acme", "pages", changed):
        write(stores, *split("e", "two"))
    with pytest.raises(SplittingMismatchError), stores.indexing("acme", "pages", splitting):
        pass
    assert stores.get("acme").get_document("e")[0].pipeline == "pages"


def test_a_dropped_tenant_is_unknown(stores: TenantDocumentStores) -> None:
    """Nothing of a dropped tenant can be found; dropping it again tells that there was nothing."""
    write(stores, *split("d", "one"))
    assert asyncio.run(stores.drop_async("acme"))
    with pytest.raises(UnknownTenantError):
        stores.get("acme")
    assert not stores.drop("acme")
