"""More tenants than embedded Chroma keeps open."""

import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import chromadb
import pytest
from chromadb.config import Settings
from haystack import Document

from components.storing import TenantDocumentStores
from components.storing import connecting as storing_connecting
from components.storing import stores as storing_stores

# More than the parts of Chroma's cache, each of which keeps one index; several meet in one part long before that.
TENANTS = 70


def chunk(tenant: int, number: int) -> Document:
    """Make a chunk that no other one of its tenant is near to."""
    direction = [0.0] * 8
    direction[number % 8] = 1.0
    meta = {"document_id": f"d{number}", "chunk_index": 0}
    return Document(id=f"{tenant}-{number}", content=f"{tenant} {number}", embedding=direction, meta=meta)


def missing(stores: TenantDocumentStores, tenant: int, count: int) -> set[str]:
    """Give the ids that a tenant's search does not find."""
    found = stores.get(f"t{tenant}").search_embeddings([[1.0] * 8], count)[0]
    return {f"{tenant}-{number}" for number in range(count)} - {document.id for document in found}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of many tenants, of three chunks each, the last one written alone."""
    path = tmp_path_factory.mktemp("many")
    stores = TenantDocumentStores(path=path, open_tenants=1)
    for tenant in range(TENANTS):
        store = stores.get_or_create(f"t{tenant}")
        store.write_documents([chunk(tenant, 0), chunk(tenant, 1)])
        store.write_documents([chunk(tenant, 2)])
    stores.close()
    return path


@pytest.fixture
def stores(folder: Path) -> Iterator[TenantDocumentStores]:
    made = TenantDocumentStores(path=folder, open_tenants=1)
    yield made
    made.close()


def test_every_tenant_is_found_whole(stores: TenantDocumentStores) -> None:
    """An index that was dropped from memory has all its chunks when it is read again, the last one too."""
    for _ in range(2):
        assert not any(missing(stores, tenant, 3) for tenant in range(TENANTS))


def test_writing_where_others_are_dropped(stores: TenantDocumentStores) -> None:
    """While one tenant grows and others are asked, nothing of it is lost, whichever index is dropped meanwhile."""
    errors: list[object] = []
    written = threading.Event()

    def ask(first: int) -> None:
        tenant = first
        while not written.is_set():
            tenant = (tenant + 7) % TENANTS
            try:
                errors.extend(missing(stores, tenant, 3))
            except Exception as error:
                errors.append(error)

    readers = [threading.Thread(target=ask, args=(first,)) for first in (1, 3)]
    for reader in readers:
        reader.start()
    for number in range(3, 8):
        stores.get_or_create("t0").write_documents([chunk(0, number)])
    written.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert not any(missing(stores, tenant, 3) for tenant in range(1, TENANTS))
    assert missing(stores, 0, 8) == set()


def test_collections_of_an_older_make_are_taken_over(tmp_path: Path) -> None:
    """Collections that Chroma does not write to disk at once lose nothing when they are dropped from memory."""
    storing_connecting.keep_write_ahead_log(tmp_path / "chroma.sqlite3")
    client = chromadb.PersistentClient(str(tmp_path), Settings(anonymized_telemetry=False))
    for tenant in range(TENANTS):
        metadata = {"hnsw:space": "cosine", "embedding_model": ""}
        rows = client.create_collection(f"tenant_t{tenant}", metadata=metadata, embedding_function=None)
        chunks = [chunk(tenant, number) for number in range(3)]
        rows.upsert(
            ids=[made.id for made in chunks],
            documents=[made.content or "" for made in chunks],
            embeddings=[made.embedding for made in chunks],
            metadatas=[made.meta for made in chunks],
        )
    client.close()
    stores = TenantDocumentStores(path=tmp_path, open_tenants=1)
    for _ in range(2):
        assert not any(missing(stores, tenant, 3) for tenant in range(TENANTS))
    stores.close()


_WRITER = """
import sys
from pathlib import Path
from components.storing import TenantDocumentStores
from tests.components.test_many_tenants import TENANTS, chunk

stores = TenantDocumentStores(path=Path(sys.argv[1]), open_tenants=1)
for number in range(8):
    for tenant in range(TENANTS):
        stores.get_or_create(f"t{tenant}").write_documents([chunk(tenant, number)])
        print(tenant, number, flush=True)
"""


def test_what_was_written_before_a_crash_is_found(tmp_path: Path) -> None:
    """After a kill each chunk whose write returned is found, also once its index was dropped from memory."""
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    counts: dict[int, int] = {}
    assert writer.stdout is not None
    for line in writer.stdout:
        tenant, number = map(int, line.split())
        counts[tenant] = number + 1
        if (tenant, number) == (5, 1):
            writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    stores = TenantDocumentStores(path=tmp_path, open_tenants=1)
    for _ in range(2):
        lost = {tenant: missing(stores, tenant, count) for tenant, count in counts.items()}
        assert not any(lost.values()), lost
    stores.close()


def test_handles_are_bounded(stores: TenantDocumentStores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many tenants' handles are kept; one that is gone is made again."""
    monkeypatch.setattr(storing_stores, "_MOST_HANDLES", 5)
    for tenant in range(20):
        stores.get(f"t{tenant}")
    assert len(stores._handles) == 5
    assert missing(stores, 2, 3) == set()


@pytest.mark.parametrize(
    ("limits", "wanted", "size", "raised"),
    [
        ((1024, 1024), 100, 128, None),
        ((1024, 1024), 1_000, 128, None),
        ((256, 256), 100, 64, None),
        ((1024, 4096), 256, 256, 1536),
        ((1024, resource.RLIM_INFINITY), 1_000, 1024, 5376),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 1, 64, None),
    ],
)
def test_open_indexes_fit_the_file_limit(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], wanted: int, size: int, raised: int | None
) -> None:
    """The cache is as large as is asked for where files may be opened for it; the soft limit is raised if it can be."""
    changed = []
    monkeypatch.setattr(storing_connecting.resource, "getrlimit", lambda kind: limits)
    monkeypatch.setattr(storing_connecting.resource, "setrlimit", lambda kind, to: changed.append(to))
    assert storing_connecting.cache_size(wanted) == size
    assert changed == ([] if raised is None else [(raised, limits[1])])
