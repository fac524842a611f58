"""Several processes that write the same documents through a real Chroma server."""

import multiprocessing
import random
import uuid

import pytest
from haystack import Document

from components.storing import TenantDocumentStores
from components.writing import TenantDocumentWriter

NAMES = ("a", "b", "c")
VERSIONS = 10


def version(name: str, number: int) -> list[Document]:
    """Make the chunks of a document's version; versions differ in length."""
    return [
        Document(
            content=f"{name} {number} part {part}",
            embedding=[1.0, float(part)],
            meta={"document_id": name, "split_idx_start": part * 10, "accepted_at": float(number)},
        )
        for part in range(3 + number % 4)
    ]


def write_versions(port: int, prefix: str, first: int, barrier: "multiprocessing.Barrier") -> None:  # type: ignore[valid-type]
    """Write every second version of all documents in some order, a row at a time."""
    stores = TenantDocumentStores(host="127.0.0.1", port=port, prefix=prefix, batch_size=1)
    writer = TenantDocumentWriter(stores)
    numbers = list(range(first, VERSIONS, 2))
    random.Random(first).shuffle(numbers)
    for number in numbers:
        barrier.wait()
        writer.run(documents=[chunk for name in NAMES for chunk in version(name, number)], tenant_id="acme")
    stores.close()


@pytest.mark.server
def test_two_processes_leave_one_version(chroma_server: int) -> None:
    """Whatever the order, in the end each document has the chunks of the version accepted last, and no others."""
    prefix = f"t{uuid.uuid4().hex}_"
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    writers = [
        context.Process(target=write_versions, args=(chroma_server, prefix, first, barrier))
        for first in (0, 1)
    ]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
    assert [process.exitcode for process in writers] == [0, 0]
    stores = TenantDocumentStores(host="127.0.0.1", port=chroma_server, prefix=prefix)
    held = sorted(str(document.content) for document in stores.get("acme").filter_documents())
    assert held == sorted(str(chunk.content) for name in NAMES for chunk in version(name, VERSIONS - 1))
    assert all(state.complete for state in stores.get("acme").document_states(NAMES).values())
    stores.close()
