"""Work in slices."""

from typing import Any

import pytest
from haystack import Document, component

from components.document_embedding import ROWS_AT_ONCE, ModelDocumentEmbedder
from components.pacing import others_wait, paced_by, pause, rows_at_once, slices


class Pacer:
    """Gives slices of one size, counts pauses, and raises at the one that it is told."""

    def __init__(self, rows: int, last: int = 1_000) -> None:
        self.rows = rows
        self.last = last
        self.pauses = 0

    @property
    def others_wait(self) -> bool:
        return True

    def pause(self) -> None:
        self.pauses += 1
        if self.pauses > self.last:
            raise InterruptedError("cancelled")

    def rows_at_once(self, default: int) -> int:
        return min(self.rows, default)


@component
class RecordingEmbedder:
    """Notes how many documents it is given at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        self.sizes.append(len(documents))
        return {"documents": documents}


def test_without_a_pacer_work_is_cut_into_the_largest_slices_and_never_waits() -> None:
    """What runs outside of a service takes as much at once as it may."""
    pause()

    assert rows_at_once(100) == 100
    assert not others_wait()
    assert list(slices("abcdefg", most=3)) == ["abc", "def", "g"]


def test_a_pacer_decides_about_each_slice_when_it_begins() -> None:
    """Work that has begun in large slices goes on in small ones when somebody begins to wait, and back."""
    pacer = Pacer(rows=4)
    with paced_by(pacer):
        parts = slices("abcdefghij", most=4)
        first = next(parts)
        pacer.rows = 1
        second = next(parts)
        pacer.rows = 100
        assert [first, second, *parts] == ["abcd", "e", "fghi", "j"]
    assert pacer.pauses == 4


def test_a_pacer_holds_only_inside_its_block() -> None:
    """One job's pacer does not slow another's work down."""
    with paced_by(Pacer(rows=1)):
        assert rows_at_once(10) == 1
        assert others_wait()
    assert rows_at_once(10) == 10
    assert not others_wait()


def test_no_work_has_no_slices_and_no_pause() -> None:
    """Nothing to do takes no time."""
    pacer = Pacer(rows=1)
    with paced_by(pacer):
        assert list(slices([], most=3)) == []
    assert pacer.pauses == 0


def test_documents_are_embedded_in_slices_and_stay_in_order() -> None:
    """Embedding gives way between slices, and loses or swaps no document by it."""
    documents = [Document(content=str(number)) for number in range(2 * ROWS_AT_ONCE + 1)]
    embedder = RecordingEmbedder()

    embedded = ModelDocumentEmbedder(document_embedder=embedder).run(documents=documents)["documents"]

    assert embedded == documents
    assert embedder.sizes == [ROWS_AT_ONCE, ROWS_AT_ONCE, 1]


def test_a_pause_that_raises_ends_the_embedding() -> None:
    """A cancelled job embeds no further slice."""
    embedder = RecordingEmbedder()
    documents = [Document(content=str(number)) for number in range(6)]

    with paced_by(Pacer(rows=2, last=1)), pytest.raises(InterruptedError):
        ModelDocumentEmbedder(document_embedder=embedder).run(documents=documents)

    assert embedder.sizes == [2]
