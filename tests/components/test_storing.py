"""The document store on a real embedded Chroma and on a real Chroma server."""

import asyncio
import contextlib
import os
import socket
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from haystack import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy

from components.storing import (
    DocumentStoreUnavailableError,
    EmbeddingMismatchError,
    InvalidTenantError,
    TenantDocumentStores,
    UnknownTenantError,
)
from components.storing.connecting import keep_write_ahead_log


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.server)])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TenantDocumentStores]:
    prefix = f"t{uuid.uuid4().hex}_"
    if request.param == "embedded":
        made = TenantDocumentStores(path=tmp_path, embedding_model="axes", prefix=prefix, batch_size=10)
    else:
        port = request.getfixturevalue("chroma_server")
        made = TenantDocumentStores(
            host="127.0.0.1", port=port, embedding_model="axes", prefix=prefix, batch_size=10
        )
    yield made
    made.close()


def chunk(number: int, direction: list[float]) -> Document:
    return Document(
        id=f"chunk-{number}",
        content=f"text {number}",
        embedding=direction,
        meta={"document_id": f"doc-{number % 3}", "number": number},
    )


def test_scores_are_similarities(stores: TenantDocumentStores) -> None:
    """The nearest chunk comes first, with the largest score, between 0 and 1, and without its embedding."""
    store = stores.get_or_create("acme")
    store.write_documents([chunk(1, [1.0, 0.0]), chunk(2, [1.0, 1.0]), chunk(3, [-1.0, 0.0])])
    found = asyncio.run(store.search_embeddings_async([[2.0, 0.0]], 3))[0]
    assert [document.id for document in found] == ["chunk-1", "chunk-2", "chunk-3"]
    assert [document.score for document in found] == pytest.approx([1.0, 0.7071, 0.0], abs=1e-3)
    assert all(document.embedding is None for document in found)


def test_writing_twice_keeps_one_copy(stores: TenantDocumentStores) -> None:
    """More documents than a batch holds are all written, and writing them again changes nothing."""
    store = stores.get_or_create("acme")
    chunks = [chunk(number, [1.0, float(number)]) for number in range(25)]
    assert store.write_documents(chunks) == 25
    asyncio.run(store.write_documents_async(chunks))
    assert store.count_documents() == 25


def test_duplicate_policies(stores: TenantDocumentStores) -> None:
    """FAIL refuses an id that exists, SKIP leaves it alone."""
    store = stores.get_or_create("acme")
    store.write_documents([chunk(1, [1.0, 0.0])])
    with pytest.raises(DuplicateDocumentError):
        store.write_documents([chunk(1, [0.0, 1.0])], DuplicatePolicy.FAIL)
    assert store.write_documents([chunk(1, [0.0, 1.0]), chunk(2, [0.0, 1.0])], DuplicatePolicy.SKIP) == 1


def test_tenants_do_not_see_each_other(stores: TenantDocumentStores) -> None:
    """What one tenant wrote, under the same id too, another does not find."""
    stores.get_or_create("a").write_documents([chunk(1, [1.0, 0.0])])
    stores.get_or_create("b").write_documents(
        [Document(id="chunk-1", content="b's", embedding=[1.0, 0.0], meta={"x": 1})]
    )
    assert stores.get("a").search_embeddings([[1.0, 0.0]], 5)[0][0].content == "text 1"


def test_filters_join_content_and_metadata(stores: TenantDocumentStores) -> None:
    """One AND may hold conditions on the content and on metadata."""
    store = stores.get_or_create("acme")
    store.write_documents([chunk(number, [1.0, float(number)]) for number in range(20)])
    filters = {
        "operator": "AND",
        "conditions": [
            {"field": "meta.number", "operator": ">=", "value": 10},
            {"field": "content", "operator": "contains", "value": "9"},
        ],
    }
    assert [document.id for document in store.search_embeddings([[1.0, 0.0]], 9, filters)[0]] == ["chunk-19"]


def test_concurrent_creation_makes_one_collection(stores: TenantDocumentStores) -> None:
    """Threads that create one tenant's collection at once all get it."""
    errors: list[Exception] = []
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        try:
            stores.get_or_create("new").write_documents([chunk(number, [1.0, float(number)])])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert stores.get("new").count_documents() == 8


def test_unknown_tenant_is_not_created_by_reading(stores: TenantDocumentStores) -> None:
    """Reading a tenant without documents is an error, again and again."""
    for _ in range(2):
        with pytest.raises(UnknownTenantError, match="no documents"):
            asyncio.run(stores.get_async("nobody"))


@pytest.mark.parametrize("tenant_id", ["", "a b", "../x", "-a", "a-", "a" * 65, "ä", "a\n"])
def test_malformed_tenants_are_refused(tenant_id: str) -> None:
    """A tenant id that Chroma or a path could misread is refused before Chroma sees it."""
    with pytest.raises(InvalidTenantError):
        TenantDocumentStores().get_or_create(tenant_id)


def test_another_embedding_model_is_refused(tmp_path: Path) -> None:
    """A collection filled with one embedding model is not searched with another."""
    first = TenantDocumentStores(path=tmp_path, embedding_model="first")
    first.get_or_create("acme").write_documents([chunk(1, [1.0, 0.0])])
    first.close()
    second = TenantDocumentStores(path=tmp_path, embedding_model="second")
    with pytest.raises(EmbeddingMismatchError, match=r"'first'.*'second'"):
        second.get("acme")
    second.close()


def test_deleting_nothing_is_no_error(stores: TenantDocumentStores) -> None:
    """An empty list and unknown ids can be deleted."""
    store = stores.get_or_create("acme")
    store.delete_documents([])
    store.delete_documents(["unknown"])
    assert store.count_documents() == 0


def test_a_server_that_is_away_is_named_so() -> None:
    """Without a Chroma server the error says so instead of hanging."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        stores = TenantDocumentStores(host="127.0.0.1", port=taken.getsockname()[1], timeout=2)
        with pytest.raises(DocumentStoreUnavailableError):
            asyncio.run(stores.ping())
        stores.close()


def test_a_server_that_hangs_meets_the_deadline() -> None:
    """A server that accepts and never answers costs no more than the deadline."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        stores = TenantDocumentStores(host="127.0.0.1", port=silent.getsockname()[1], timeout=0.5)
        with pytest.raises(DocumentStoreUnavailableError):
            asyncio.run(stores.ping())
        stores.close()


def test_the_embedded_database_keeps_a_write_ahead_log(tmp_path: Path) -> None:
    """Small writes don't wait for the disk longer than they must, in a database made before too."""
    (tmp_path / "chroma").mkdir()
    made = TenantDocumentStores(path=tmp_path / "chroma", embedding_model="axes")
    made.get_or_create("acme").write_documents([chunk(1, [1.0, 0.0])])
    made.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "chroma/chroma.sqlite3")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="nothing lists the open files here")
def test_a_closed_database_is_open_nowhere(tmp_path: Path) -> None:
    """Whoever opens it next breaks no locks of Chroma's, which closes its files later than its client."""
    for number in range(20):
        made = TenantDocumentStores(path=tmp_path, embedding_model="axes")
        made.get_or_create("acme").write_documents([chunk(number, [1.0, 0.0])])
        made.close()
        assert not open_files(tmp_path)


def open_files(folder: Path) -> list[str]:
    """Give the files below a folder that this process has open."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # The one that lists them.
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [link for link in links if link.startswith(f"{folder}/chroma.sqlite3")]


def test_documents_need_no_metadata(tmp_path: Path) -> None:
    """A chunk that came from elsewhere may have none."""
    stores = TenantDocumentStores(path=tmp_path, embedding_model="axes")
    store = stores.get_or_create("acme")
    assert store.write_documents([Document(id="bare", content="text", embedding=[1.0, 0.0])]) == 1
    assert [found.id for found in store.search_embeddings([[1.0, 0.0]], 1)[0]] == ["bare"]
    stores.close()


def test_a_database_that_is_none_is_left_to_chroma_to_refuse(tmp_path: Path) -> None:
    """What keeps the log hides no fault of the file."""
    database = tmp_path / "chroma.sqlite3"
    database.write_bytes(b"no database at all" * 100)
    keep_write_ahead_log(database)
    assert database.read_bytes() == b"no database at all" * 100
