"""Indexing a tenant anew beside its collection in use, on a real embedded Chroma and on a real Chroma server."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromadb
import pytest
from haystack import Document

from components.storing import (
    EmbeddingMismatchError,
    Generation,
    ReindexingError,
    TenantDocumentStores,
    UnknownTenantError,
    contract,
)
from components.storing.rebuilding import whole_document
from components.writing import TenantDocumentWriter

SPLITTING = {"splitter": {"split_length": 10}}


class Place:
    """One database, which several processes may open with different embedding models."""

    def __init__(self, **where: Any) -> None:
        self.where = where
        self.prefix = f"t{uuid.uuid4().hex}_"
        self.opened: list[TenantDocumentStores] = []

    def open(self, embedding_model: str = "first") -> TenantDocumentStores:
        """Open the database as another process would."""
        stores = TenantDocumentStores(**self.where, prefix=self.prefix, embedding_model=embedding_model)
        self.opened.append(stores)
        return stores


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.server)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "embedded":
        made = Place(path=tmp_path)
    else:
        made = Place(host="127.0.0.1", port=request.getfixturevalue("chroma_server"))
    yield made
    for stores in made.opened:
        stores.close()


def write(stores: TenantDocumentStores, document: Document, length: int = 10) -> None:
    """Split, embed and write a document."""
    text = document.content or ""
    chunks = [
        Document(
            content=text[start : start + length],
            embedding=[1.0, float(start)],
            meta={**document.meta, "split_idx_start": start},
        )
        for start in range(0, len(text), length)
    ]
    TenantDocumentWriter(stores).run(documents=chunks, tenant_id="acme")


def document(name: str, text: str, **meta: Any) -> Document:
    """Make a document as the service gives it to a pipeline."""
    return Document(id=name, content=text, meta={"document_id": name, "accepted_at": 1.0, **meta})


def copy(stores: TenantDocumentStores, generation: Generation, length: int = 5) -> None:
    """Write what is outstanding into a generation."""
    with generation.indexing("ingest", {"splitter": {"split_length": length}}):
        for whole in generation.documents(generation.outstanding()):
            write(stores, whole, length)


def test_a_new_generation_takes_the_place_of_the_old_one(place: Place) -> None:
    """With another embedding model configured the old texts are indexed anew, and found once the switch is made."""
    old = place.open("first")
    with old.indexing("acme", "ingest", SPLITTING):
        write(
            old, document("d", "a text of some length", title="T", fingerprint="f", job_id="j", kind="note")
        )
    new = place.open("second")
    with pytest.raises(EmbeddingMismatchError, match=r"'first'.*'second'.*thresher reindex --tenant acme"):
        new.get("acme")
    generation = Generation.begin(new, "acme")
    copy(new, generation)
    assert generation.outstanding() == []
    assert old.get("acme").count_documents() == 3
    generation.switch(grace=0)
    store = new.get("acme")
    info, chunks = store.get_document("d")
    assert [chunk.content for chunk in chunks] == ["a tex", "t of ", "some ", "lengt", "h"]
    assert (info.title, info.fingerprint, info.job_id, info.meta) == ("T", "f", "j", {"kind": "note"})
    assert store.search_embeddings([[1.0, 0.0]], 9)[0]
    first = new.catalogue.first("acme")
    assert first is not None
    assert first.count() == 0


def test_generations_follow_each_other(place: Place) -> None:
    """A second and third reindex replace the one before, and dropping the tenant removes them all."""
    stores = place.open()
    write(stores, document("d", "some text"))
    for length in (5, 3, 2):
        generation = Generation.begin(stores, "acme")
        copy(stores, generation, length)
        generation.switch(grace=0)
        texts = [chunk.content for chunk in stores.get("acme").get_document("d")[1]]
        assert "".join(map(str, texts)) == "some text"
        assert len(texts) == -(-9 // length)
    assert collections(stores, place) == {"acme", "acme.g3"}
    stores.drop("acme")
    assert collections(stores, place) == set()


def test_what_changes_meanwhile_is_not_lost(place: Place) -> None:
    """Documents written, changed, touched and deleted while the new generation fills are so in the end."""
    stores = place.open()
    for name in ("same", "changed", "deleted"):
        write(stores, document(name, f"text of {name}"))
    generation = Generation.begin(stores, "acme")
    copy(stores, generation)
    write(stores, document("changed", "another text", accepted_at=2.0))
    write(stores, document("new", "a new text"))
    stores.delete_document("acme", "deleted")
    assert sorted(generation.outstanding()) == ["changed", "new"]
    copy(stores, generation)
    assert generation.outstanding() == []
    generation.switch(grace=0)
    whole = {info.id for info in stores.get("acme").list_documents()[0]}
    assert whole == {"same", "changed", "new"}
    texts = stores.get("acme").get_document("changed")[1]
    assert "".join(str(chunk.content) for chunk in texts) == "another text"


def test_a_generation_goes_on_where_it_stopped(place: Place) -> None:
    """Begun again by another process it keeps what was copied; with other settings it begins anew."""
    stores = place.open()
    for name in ("a", "b"):
        write(stores, document(name, "some text"))
    first = Generation.begin(stores, "acme")
    with first.indexing("ingest", SPLITTING):
        write(stores, document("a", "some text"))
    again = Generation.begin(place.open(), "acme", {"ingest": SPLITTING})
    assert again.name == first.name
    assert again.outstanding() == ["b"]
    other = Generation.begin(stores, "acme", {"ingest": {"splitter": {"split_length": 99}}})
    assert other.outstanding() == ["a", "b"]
    with pytest.raises(ReindexingError):
        again.switch(grace=0)
    other.abandon()
    with pytest.raises(ReindexingError):
        other.switch(grace=0)
    assert stores.get("acme").count_documents() == 2


def test_a_tenant_whose_dropping_was_interrupted_can_be_written_again(place: Place) -> None:
    """What is left of a dropped tenant is in nobody's way."""
    stores = place.open()
    write(stores, document("d", "some text"))
    generation = Generation.begin(stores, "acme")
    copy(stores, generation)
    generation.switch(grace=0)
    stores.catalogue.delete(generation.name)
    stores = place.open()
    with pytest.raises(UnknownTenantError):
        stores.get("acme")
    write(stores, document("e", "a new text"))
    assert [info.id for info in stores.get("acme").list_documents()[0]] == ["e"]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_switch_that_is_interrupted_loses_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A crash while the old rows are deleted leaves the new ones in use, and the next reindex tidies up."""
    stores = place.open()
    write(stores, document("d", "some text"))
    generation = Generation.begin(stores, "acme")
    copy(stores, generation)
    modify, steps = chromadb.Collection.modify, iter(range(9))

    def crash_at_step(collection: chromadb.Collection, **changes: Any) -> None:
        if next(steps) == step:
            raise KeyboardInterrupt
        modify(collection, **changes)

    monkeypatch.setattr(chromadb.Collection, "modify", crash_at_step)
    with pytest.raises(KeyboardInterrupt):
        generation.switch(grace=0)
    monkeypatch.undo()
    stores = place.open()
    assert stores.get("acme").count_documents() == 2
    following = Generation.begin(stores, "acme")
    assert collections(stores, place) == {"acme", "acme.g1", "acme.g2"}
    following.abandon()
    assert stores.get("acme").count_documents() == 2
    assert collections(stores, place) == {"acme", "acme.g1"}
    stores.drop("acme")
    assert collections(stores, place) == set()


def test_a_dropped_tenant_leaves_no_generation(place: Place) -> None:
    """A batch of a reindex that goes on after the tenant was dropped makes no collection."""
    stores = place.open()
    write(stores, document("d", "some text"))
    generation = Generation.begin(stores, "acme")
    whole = generation.documents(generation.outstanding())
    stores.drop("acme")
    with pytest.raises(UnknownTenantError), generation.indexing("ingest", {}):
        write(stores, *whole)
    assert collections(stores, place) == set()


def test_a_writer_of_another_pipeline_does_not_undo_a_switch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noting a new pipeline's splitting just when a reindex switches loses neither, and no document."""
    stores = place.open()
    write(stores, document("d", "some text"))
    generation = Generation.begin(stores, "acme")
    copy(stores, generation)
    record = stores.catalogue.record_splitting

    def late(*told: Any) -> None:
        # The writer has looked already which collection is in use.
        monkeypatch.undo()
        assert generation.switch(grace=0)
        record(*told)

    monkeypatch.setattr(stores.catalogue, "record_splitting", late)
    with stores.indexing("acme", "second", SPLITTING):
        write(stores, document("e", "another text"))
    stores.forget("acme")
    assert {info.id for info in stores.get("acme").list_documents()[0]} == {"d", "e"}
    assert stores.get("acme").collection_name.endswith(".g1")


def test_a_switch_that_another_process_undoes_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who changes what the first collection says, as it was before a switch, makes nobody delete what is in use."""
    stores = place.open()
    write(stores, document("d", "some text"))
    generation = Generation.begin(stores, "acme")
    copy(stores, generation)
    stale = stores.catalogue.first("acme")
    assert stale is not None
    monkeypatch.setattr(
        "components.storing.generations.time.sleep",
        lambda seconds: contract.record_splitting(stale, "second", SPLITTING),
    )
    assert not generation.switch(grace=0)
    monkeypatch.undo()
    assert stores.get("acme").count_documents() == 1
    assert generation.outstanding() == []
    assert generation.switch(grace=0)
    assert stores.get("acme").count_documents() == 2


def collections(stores: TenantDocumentStores, place: Place) -> set[str]:
    """Give the names of all collections, without the prefix."""
    names = [collection.name for collection in stores._connection.client().list_collections()]
    return {name.removeprefix(place.prefix) for name in names if name.startswith(place.prefix)}


def test_who_holds_the_old_collection_finds_the_new_one(place: Place) -> None:
    """A store opened before a switch goes on to answer after the old collection is deleted."""
    stores = place.open()
    write(stores, document("d", "some text"))
    for _ in range(2):
        held = stores.get("acme")
        generation = Generation.begin(stores, "acme")
        copy(stores, generation)
        generation.switch(grace=0)
    assert held.search_embeddings([[1.0, 0.0]], 1)[0][0].content == "some "


@pytest.mark.server
@pytest.mark.parametrize("place", ["server"], indirect=True)
def test_reading_after_a_switch_in_another_process(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finds the new generation once its knowledge is older than a few seconds."""
    monkeypatch.setattr("components.storing.stores.FRESH_SECONDS", 0.0)
    reader, stores = place.open(), place.open()
    write(stores, document("d", "some text"))
    assert reader.get("acme").count_documents() == 1
    generation = Generation.begin(stores, "acme")
    copy(stores, generation)
    generation.switch(grace=0)
    assert reader.get("acme").count_documents() == 2


def test_a_write_that_a_switch_overtakes_is_repeated(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written to the old collection while the switch was made is in the new one, too."""
    stores = place.open()
    write(stores, document("d", "some text"))
    generation = Generation.begin(stores, "acme")
    copy(stores, generation)
    kept = stores.get_or_create("acme")
    generation.switch(grace=0)
    given = [kept]
    get_or_create = stores.get_or_create
    monkeypatch.setattr(
        stores, "get_or_create", lambda tenant_id: given.pop() if given else get_or_create(tenant_id)
    )
    write(stores, document("late", "late text"))
    assert stores.get("acme").get_document("late")[0].chunks == 1


def test_an_unknown_tenant_has_nothing_to_index_anew(place: Place) -> None:
    """Without documents there is no generation to begin."""
    with pytest.raises(UnknownTenantError):
        Generation.begin(place.open(), "nobody")


def chunks_at(*places: tuple[int, str], **meta: Any) -> list[Document]:
    """Make stored chunks at offsets."""
    return [
        Document(content=text, meta={"start": start, "chunk_index": number, "document_id": "d", **meta})
        for number, (start, text) in enumerate(places)
    ]


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ([(0, "one "), (4, "two")], "one two"),
        ([(0, "one two"), (4, "two three")], "one two three"),
        ([(0, "one"), (5, "two")], "one\n\ntwo"),
        ([(0, "one"), (0, "two")], "one\n\ntwo"),
    ],
)
def test_chunks_make_a_text_again(places: list[tuple[int, str]], text: str) -> None:
    """Chunks stand where they stood: next to each other, overlapping, or apart; without offsets as paragraphs."""
    assert whole_document("d", chunks_at(*places)[::-1]).content == text


def test_page_breaks_between_chunks_come_back() -> None:
    """Blank pages that no chunk holds are told by the page of the chunk that follows."""
    first, second = chunks_at((0, "one"), (7, "\ftwo"))
    first.meta["page"], second.meta["page"] = 1, 4
    assert whole_document("d", [first, second]).content == "one\f\f\n\n\ftwo"


def test_only_what_all_chunks_share_is_the_documents_own() -> None:
    """A page that each chunk has is kept; pages that differ are not the document's."""
    first, second = chunks_at((0, "a"), (1, "b"))
    assert whole_document("d", chunks_at((0, "a"), (1, "b"), page=3)).meta == {"document_id": "d", "page": 3}
    first.meta["page"], second.meta["page"] = 1, 2
    assert whole_document("d", [first, second]).meta == {"document_id": "d"}
