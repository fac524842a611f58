"""Writing a document's chunks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from haystack import Document

from components.pacing import WorkCancelled, paced_by
from components.storing import EmbeddingMismatchError, TenantDocumentStores, UnknownTenantError
from components.writing import TenantDocumentWriter, as_versions


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[TenantDocumentStores]:
    made = TenantDocumentStores(path=tmp_path)
    yield made
    made.close()


def split(document_id: str, *texts: str, **meta: Any) -> list[Document]:
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
                **meta,
            },
        )
        for number, text in enumerate(texts)
    ]


class Ending:
    """A pacer that ends a write, a row at a time, in its middle."""

    others_wait = False

    def __init__(self, ending: BaseException, before: Callable[[], None] = lambda: None) -> None:
        self.ending = ending
        self.before = before
        self.rows = 0
        self.ended = False

    def pause(self) -> None:
        if self.rows == 2 and not self.ended:
            self.ended = True
            with paced_by(Unpaced()):
                self.before()
            raise self.ending

    def rows_at_once(self, default: int) -> int:
        self.rows += 1
        return 1


class Unpaced:
    """A pacer that lets all work go on."""

    others_wait = False

    def pause(self) -> None:
        pass

    def rows_at_once(self, default: int) -> int:
        return default


def contents(stores: TenantDocumentStores) -> set[str | None]:
    """Give the texts of a tenant's chunks."""
    return {document.content for document in stores.get("acme").filter_documents()}


def test_writing_twice_keeps_one_copy(stores: TenantDocumentStores) -> None:
    """The same document written twice has the same chunks, and counts as written both times."""
    writer = TenantDocumentWriter(stores)
    for _ in range(2):
        result = writer.run(documents=split("d", "one", "two"), tenant_id="acme")
        assert result == {"documents_written": 2, "written": {"d": 2}}
    assert stores.get("acme").count_documents() == 2


def test_a_changed_document_loses_its_stale_chunks(stores: TenantDocumentStores) -> None:
    """Chunks that the new version no longer has are gone; another document's stay."""
    writer = TenantDocumentWriter(stores)
    writer.run(documents=split("d", "one", "two", "three") + split("other", "four"), tenant_id="acme")
    writer.run(documents=split("d", "one", "2"), tenant_id="acme")
    assert contents(stores) == {"one", "2", "four"}


def test_replacing_leaves_no_gap(stores: TenantDocumentStores) -> None:
    """At every moment of a replacement the old version or the new one is there as a whole."""
    writer = TenantDocumentWriter(stores)
    writer.run(documents=split("d", "old 1", "old 2", "old 3", accepted_at=1.0), tenant_id="acme")
    seen: list[set[str | None]] = []

    class Watcher:
        def pause(self) -> None:
            seen.append(contents(stores))

        def rows_at_once(self, default: int) -> int:
            return 1

    with paced_by(Watcher()):
        writer.run(documents=split("d", "new 1", "new 2", accepted_at=2.0), tenant_id="acme")
    assert len(seen) == 3
    assert all({"old 1", "old 2", "old 3"} <= texts or {"new 1", "new 2"} <= texts for texts in seen)
    assert contents(stores) == {"new 1", "new 2"}


def test_a_cancelled_write_leaves_the_old_version(stores: TenantDocumentStores) -> None:
    """When the pacer ends a write in its middle, nothing of the new version stays."""
    writer = TenantDocumentWriter(stores)
    writer.run(documents=split("d", "old", accepted_at=1.0), tenant_id="acme")

    with pytest.raises(WorkCancelled), paced_by(Ending(WorkCancelled())):
        writer.run(documents=split("d", "new 1", "new 2", "new 3", accepted_at=2.0), tenant_id="acme")
    assert contents(stores) == {"old"}


@pytest.mark.parametrize(
    ("accepted_at", "ending"),
    [(1.0, KeyboardInterrupt()), (2.0, KeyboardInterrupt()), (2.0, WorkCancelled())],
)
def test_what_another_process_finished_stays(
    stores: TenantDocumentStores, accepted_at: float, ending: BaseException
) -> None:
    """Who lost its job to another process, or is cancelled beside another job, deletes nothing that those wrote."""
    texts = ("one", "two", "three")

    def other_process() -> None:
        # A store object of its own has a lock of its own, as in another process.
        stores.forget("acme")
        rival = split("d", *texts, accepted_at=accepted_at, fingerprint="f")
        assert TenantDocumentWriter(stores).run(rival, "acme")["written"] == {"d": 3}

    writer = TenantDocumentWriter(stores)
    with pytest.raises(type(ending)), paced_by(Ending(ending, other_process)):
        writer.run(split("d", *texts, accepted_at=1.0, fingerprint="f"), "acme")
    assert contents(stores) == {*texts}
    assert stores.get("acme").document_states(["d"])["d"].complete


def test_a_cancelled_job_makes_no_collection(stores: TenantDocumentStores) -> None:
    """A job that is cancelled before its first write, as by a deletion of the tenant, leaves nothing."""

    class Cancelled(Unpaced):
        def pause(self) -> None:
            raise WorkCancelled

    with pytest.raises(WorkCancelled), paced_by(Cancelled()):
        TenantDocumentWriter(stores).run(split("d", "one"), "acme")
    with pytest.raises(UnknownTenantError):
        stores.get("acme")


def test_fragments_go_when_the_text_before_is_sent_again(stores: TenantDocumentStores) -> None:
    """A version that never was finished does not hide the whole one before, and goes when that is accepted again."""
    writer = TenantDocumentWriter(stores)
    old = split("d", "old", accepted_at=1.0, fingerprint="v1")
    writer.run(old, "acme")
    with pytest.raises(KeyboardInterrupt), paced_by(Ending(KeyboardInterrupt())):
        writer.run(split("d", "new 1", "new 2", "new 3", accepted_at=2.0, fingerprint="v2"), "acme")
    state = stores.get("acme").document_states(["d"])["d"]
    assert (state.fingerprint, state.complete, state.alone) == ("v1", True, False)
    writer.run(split("d", "old", accepted_at=3.0, fingerprint="v1"), "acme")
    assert contents(stores) == {"old"}


def test_equal_texts_in_different_places_are_different_chunks() -> None:
    """A document that repeats itself keeps every chunk, and so do two tenants with one text."""
    (ours,), (theirs,) = (as_versions(split("d", "same", "same"), tenant) for tenant in ("acme", "other"))
    assert len({chunk.id for chunk in [*ours.chunks, *theirs.chunks]}) == 4


def test_a_chunk_knows_its_place() -> None:
    """A chunk has its document's id and title, and where it begins, and nothing that Chroma can't store."""
    (version,) = as_versions(
        split("d", "one", "two", accepted_at=5.0, job_id="j", source="a.md", _kind="markdown"), "acme"
    )
    head, second = (chunk.meta for chunk in version.chunks)
    common = {"document_id": "d", "title": "", "accepted_at": 5.0, "source": "a.md"}
    assert second == {**common, "start": 100, "chunk_index": 1}
    assert head.pop("fingerprint")
    assert head.pop("ingested_at") > 0
    assert head == {**common, "start": 0, "chunk_index": 0, "chunks": 2, "job_id": "j", "_kind": "markdown"}


def test_the_fingerprint_makes_the_version() -> None:
    """The ids of a version follow from the fingerprint that the document was given, or else from what it says."""
    given, again, other = (as_versions(split("d", "one", fingerprint=f), "acme")[0] for f in "aab")
    assert given.chunks[0].id == again.chunks[0].id != other.chunks[0].id
    assert given.chunks[0].meta["fingerprint"] == "a"
    untold, titled = as_versions(split("d", "one"), "t"), as_versions(split("d", "one", title="T"), "t")
    assert untold[0].name != titled[0].name


def test_a_chunk_of_no_document_is_refused() -> None:
    """Without a document id there is nothing to replace later."""
    with pytest.raises(ValueError, match="document_id"):
        as_versions([Document(content="x")], "acme")


def test_writing_nothing_creates_no_collection(stores: TenantDocumentStores) -> None:
    """No chunks, no collection."""
    result = TenantDocumentWriter(stores).run(documents=[], tenant_id="acme")
    assert result == {"documents_written": 0, "written": {}}
    with pytest.raises(UnknownTenantError):
        stores.get("acme")


def test_the_version_accepted_later_stays(stores: TenantDocumentStores) -> None:
    """Jobs may end in another order than they were accepted in; the later version wins all the same."""
    writer = TenantDocumentWriter(stores)
    old = split("d", "old", "older", accepted_at=1.0)
    new = split("d", "new", accepted_at=2.0)
    assert writer.run(documents=new, tenant_id="acme")["written"] == {"d": 1}
    assert writer.run(documents=old, tenant_id="acme")["written"] == {"d": 0}
    assert contents(stores) == {"new"}


def test_of_one_document_given_twice_the_later_counts(stores: TenantDocumentStores) -> None:
    """Two versions in one run leave the one accepted later."""
    both = split("d", "new", accepted_at=2.0) + split("d", "old", "older", accepted_at=1.0)
    assert TenantDocumentWriter(stores).run(documents=both, tenant_id="acme")["written"] == {"d": 1}
    assert contents(stores) == {"new"}


def test_what_a_broken_write_left_is_cleaned_up(stores: TenantDocumentStores) -> None:
    """A version of which only some chunks were written is finished when it is written again."""
    (version,) = as_versions(split("d", "one", "two", "three", accepted_at=1.0), "acme")
    store = stores.get_or_create("acme")
    store.write_documents(version.chunks[2:])
    assert not store.document_states(["d"])["d"].complete
    writer = TenantDocumentWriter(stores)
    writer.run(documents=split("d", "one", "two", "three", accepted_at=1.0), tenant_id="acme")
    assert store.document_states(["d"])["d"].complete
    store.write_documents(version.chunks[2:])
    writer.run(documents=split("d", "new", accepted_at=2.0), tenant_id="acme")
    assert contents(stores) == {"new"}


def test_embeddings_of_another_dimension_are_refused(stores: TenantDocumentStores) -> None:
    """The error names both dimensions and says what to do, and nothing is written."""
    writer = TenantDocumentWriter(stores)
    writer.run(documents=split("d", "one"), tenant_id="acme")
    wider = [Document(content="x", embedding=[1.0] * 3, meta={"document_id": "e"})]
    with pytest.raises(
        EmbeddingMismatchError, match=r"2 dimensions.*gives 3.*thresher reindex --tenant acme"
    ):
        writer.run(documents=wider, tenant_id="acme")
    assert contents(stores) == {"one"}


def test_a_tenant_dropped_by_another_process_is_made_anew(
    stores: TenantDocumentStores, tmp_path: Path
) -> None:
    """When the collection is gone, writing makes it again instead of failing until a restart."""
    writer = TenantDocumentWriter(stores)
    writer.run(documents=split("d", "one"), tenant_id="acme")
    held = stores.get("acme")
    other = TenantDocumentStores(path=tmp_path)
    assert other.drop("acme")
    with pytest.raises(UnknownTenantError):
        held.search_embeddings([[1.0, 0.0]], 1)
    assert writer.run(documents=split("d", "one"), tenant_id="acme")["documents_written"] == 1
    assert stores.get("acme").search_embeddings([[1.0, 0.0]], 1)[0][0].content == "one"
    other.close()
