"""Pages, sections and clean cuts of chunks."""

import unicodedata

import pytest
from haystack import Document
from haystack.components.preprocessors import DocumentSplitter, RecursiveDocumentSplitter

from components.converting.locating import ChunkLocator
from components.converting.merging import KIND_META
from components.converting.outlines import Outline

FAMILY = "👩‍👩‍👧‍👦"
MARKDOWN = """\
# Guide { #guide }

Intro.

## [Hours](x.html) ##

Nine to five.

```sh
# no heading
```

Sunday
------

Closed.

# **Prices**

### Deep

Free.
"""
RST = """\
=====
Guide
=====

Intro.

Hours
=====

# a comment, no heading

Sunday
------

Closed.

Prices
======
"""


def located(text: str, kind: str | None = None, length: int = 40) -> list[Document]:
    """Split a text into small chunks and locate them."""
    meta = {"document_id": "a"} if kind is None else {"document_id": "a", KIND_META: kind}
    document = Document(content=text, meta=meta)
    splitter = RecursiveDocumentSplitter(
        split_length=length, split_overlap=0, split_unit="char", separators=["\n\n", " "]
    )
    chunks = splitter.run([document])["documents"]
    return ChunkLocator().run(documents=[document], chunks=chunks)["documents"]


def section(text: str, of: str, hashes: bool = True) -> str:
    """Give the section that some words stand in."""
    return Outline(text, hashes).section(text.index(of))


def test_sections_are_paths_of_headings() -> None:
    """Headings with `#` or underlined count, without their marks; those in code and front of deeper ones do not."""
    assert section(MARKDOWN, "Intro") == "Guide"
    assert section(MARKDOWN, "Nine") == "Guide > Hours"
    assert section(MARKDOWN, "# no heading") == "Guide > Hours"
    assert section(MARKDOWN, "Closed") == "Guide > Sunday"
    assert section(MARKDOWN, "Free") == "Prices > Deep"


def test_underlines_rank_by_their_first_use_in_restructured_text() -> None:
    """In reStructuredText and plain text, the underline that comes first is the highest, and `#` begins a comment."""
    assert section(RST, "a comment", hashes=False) == "Hours"
    assert section(RST, "Closed", hashes=False) == "Hours > Sunday"
    assert section(RST + "\nFree.", "Free", hashes=False) == "Prices"


@pytest.mark.parametrize(
    "text",
    [
        "a\n\nlong line above\n---\n\nx",
        "| a |\n|---|\n\nx",
        "- item\n------\n\nx",
        "text\nmore\n====\n\nx",
        "#!bin\n\nx",
    ],
)
def test_what_only_looks_like_a_heading_is_none(text: str) -> None:
    """Rules, tables, items and the middle of a paragraph are no headings."""
    assert section(text, "x") == ""


def test_chunks_say_where_they_are() -> None:
    """A chunk begins with its heading, names its section, and is the document's text from its offset on."""
    chunks = located(MARKDOWN, length=25)
    assert {chunk.meta["section"] for chunk in chunks} == {
        "Guide",
        "Guide > Hours",
        "Guide > Sunday",
        "Prices > Deep",
    }
    for number, chunk in enumerate(chunks):
        assert chunk.meta["split_id"] == number
        assert MARKDOWN[chunk.meta["split_idx_start"] :].startswith(chunk.content or "?")
        assert (
            not (chunk.content or "")
            .rstrip()
            .endswith(("##", "Hours](x.html) ##", "Sunday\n------", "### Deep"))
        )
    assert "".join(chunk.content or "" for chunk in chunks) == MARKDOWN


def test_pages_are_counted_by_form_feeds() -> None:
    """`page` is the page of a chunk's first words; a text without pages has none."""
    pages = [
        "first page of it",
        "",
        "the third page is longer than one chunk can be",
        "last page of the file, long too",
    ]
    chunks = located("\f".join(pages), "pdf", length=20)
    for chunk in chunks:
        assert (chunk.content or "").split()[0] in pages[chunk.meta["page"] - 1]
    assert chunks[-1].meta["page"] == 4
    assert located("one page", "pdf")[0].meta["page"] == 1
    assert "page" not in located("no pages")[0].meta


def test_any_splitter_will_do() -> None:
    """Chunks of another splitter, with overlap and without offsets, are found in the text."""
    document = Document(content=MARKDOWN, meta={"document_id": "a"})
    chunks = DocumentSplitter(split_by="line", split_length=2, split_overlap=1).run([document])["documents"]
    for chunk in chunks:
        del chunk.meta["split_idx_start"]
    placed = ChunkLocator().run(documents=[document], chunks=chunks)["documents"]
    assert placed[-1].meta["section"] == "Prices > Deep"
    for chunk in placed:
        assert MARKDOWN[chunk.meta["split_idx_start"] :].startswith(chunk.content or "?")


@pytest.mark.parametrize(
    "character", [FAMILY, "e\u0301", "🇩🇪", "👍🏽", "กำ", "क्षि", "각", "Z\u0351\u036b\u0343\u036a"]
)
def test_no_character_is_torn(character: str) -> None:
    """A cut never comes inside what a reader sees as one character, however many code points it has."""
    text = "ab" + character * 60
    chunks = located(text, length=25)
    assert len(chunks) > 2
    assert "".join(chunk.content or "" for chunk in chunks) == text
    for chunk in chunks[1:]:
        assert (chunk.content or "").startswith(character)


def test_an_endless_character_is_cut_all_the_same() -> None:
    """A letter with thousands of accents is no reason for a chunk without end."""
    chunks = located("e" + "\u0301" * 5_000, length=500)
    assert max(len(chunk.content or "") for chunk in chunks) <= 1_000
    assert unicodedata.combining("\u0301")


def test_a_document_of_headings_alone_is_cut_all_the_same() -> None:
    """Headings move to the text below them only as far as that is near."""
    text = "\n\n".join(f"# Heading {number}" for number in range(500))
    chunks = located(text, length=200)
    assert "".join(chunk.content or "" for chunk in chunks) == text
    assert max(len(chunk.content or "") for chunk in chunks) <= 600
