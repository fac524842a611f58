"""Sources in, documents out."""

import pytest
from haystack import Document
from haystack.dataclasses import ByteStream

from components.converting.errors import EmptySourceError, SourceError
from components.converting.merging import SourceMerger
from components.converting.routing import NOTE_META

SOURCE = ByteStream(b"...", {"document_id": "a", "title": "A", "owner": "ann"})


def part(text: str, **meta: object) -> Document:
    """What a converter gives."""
    return Document(
        content=text, meta={"document_id": "a", "file_path": "/tmp/x", "docx": {"author": "b"}, **meta}
    )


def test_a_source_gives_one_document_with_its_own_metadata() -> None:
    """Several documents of one source become its pages, and nothing of the converter's metadata is kept."""
    outputs = SourceMerger(100).run(sources=[SOURCE], xlsx=[part("one"), part("two")])
    [document] = outputs["documents"]
    assert document.content == "one\ftwo"
    assert {key: value for key, value in document.meta.items() if key != "_kind"} == SOURCE.meta
    assert outputs["notes"] == {}


@pytest.mark.parametrize(
    ("kind", "text", "title"),
    [
        ("markdown", "Draft.\n\n## Part\n\n# The `handbook`\n\n# Later", "The handbook"),
        ("html", "# Hours\n\nNine to five.", "Hours"),
        ("markdown", "## Part\n\nText.", "b.md"),
        ("text", "# A comment", "b.md"),
        ("xlsx", "# Sheet1\n\na, b", "b.md"),
    ],
)
def test_a_file_without_a_title_gets_one(kind: str, text: str, title: str) -> None:
    """It is called by its first heading of level 1, else by its name; a title that was given stays."""
    for given, expected in (("", title), ("Given", "Given")):
        source = ByteStream(b"...", {"document_id": "a", "title": given, "source": "folder/b.md"})
        [document] = SourceMerger(100).run(sources=[source], **{kind: [part(text)]})["documents"]
        assert document.meta["title"] == expected


def test_ligatures_become_letters() -> None:
    """A word is found however a PDF printed it."""
    [document] = SourceMerger(100).run(sources=[SOURCE], pdf=[part("speciﬁcation of oﬃces")])["documents"]
    assert document.content == "specification of offices"


def test_what_was_left_out_is_noted() -> None:
    """Notes of converters, and pages of a PDF that have no text, are told."""
    outputs = SourceMerger(100).run(sources=[SOURCE], pdf=[part("one\f\f ", **{NOTE_META: "a stain"})])
    assert outputs["notes"] == {"a": "a stain; 2 of 3 pages have no text (pictures are not read)"}


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({"text": [part(" \n")]}, "no text"),
        ({"text": [part("\u200b\ufeff\u00ad")]}, "no text"),
        ({"pdf": [part("\f")]}, "no text layer"),
        ({"html": [part("")]}, "a script would fill it"),
    ],
)
def test_a_source_without_text_is_told(outputs: dict[str, list[Document]], reason: str) -> None:
    """What a converter skipped, or found empty, never passes as indexed."""
    with pytest.raises(EmptySourceError, match=reason):
        SourceMerger(100).run(sources=[SOURCE], **outputs)


def test_a_source_that_no_converter_took_is_told() -> None:
    """A pipeline that leaves a kind of file unconnected does not pass it off as empty."""
    with pytest.raises(SourceError, match="no converter for files of its kind"):
        SourceMerger(100).run(sources=[SOURCE], text=[])


def test_a_source_with_too_much_text_is_refused() -> None:
    """The limit on characters holds for plain text too."""
    with pytest.raises(SourceError, match=r"more than 100 characters \(CONVERT_MAX_CHARS\)"):
        SourceMerger(100).run(sources=[SOURCE], text=[part("x" * 101)])


def test_texts_pass_through() -> None:
    """Texts that came without a file are handed on as they are, but for blank ones."""
    text = Document(content="hello", meta={"document_id": "b"})
    documents = SourceMerger(100).run(documents=[text, Document(content=" ")])["documents"]
    assert documents == [text]
