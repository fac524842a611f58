"""Cutting texts and records."""

import pytest
from haystack import Document

from components.converting.locating import ChunkLocator
from components.converting.merging import KIND_META
from components.converting.splitting import RecordAwareSplitter

SEPARATORS = ["\f", "\n\n", "\n", ". ", "。", " "]


def split(text: str, kind: str = "text", length: int = 1_000) -> list[Document]:
    """Split and locate a text."""
    document = Document(content=text, meta={"document_id": "a", KIND_META: kind})
    chunks = RecordAwareSplitter(length, separators=SEPARATORS).run(documents=[document])["documents"]
    for chunk in chunks:
        assert text[chunk.meta["split_idx_start"] :].startswith(chunk.content or "?")
    assert "".join(chunk.content or "" for chunk in chunks) == text
    return ChunkLocator().run(documents=[document], chunks=chunks)["documents"]


@pytest.mark.parametrize("kind", ["csv", "json", "xlsx"])
def test_each_record_is_a_chunk(kind: str) -> None:
    """Records are not put together, but for short ones; a heading stays with its first record."""
    records = [f"name: {letter * 85}\nplace: {letter * 85}" for letter in "abc"]
    chunks = split("# Sheet\n\n" + "\n\n".join(records) + "\n\nx: " + "1" * 20 + "\n\ny: 2", kind)
    assert [(chunk.content or "").split() for chunk in chunks] == [
        ["#", "Sheet", *records[0].split()], records[1].split(), records[2].split(), ["x:", "1" * 20, "y:", "2"]
    ]  # fmt: skip
    assert len(split("\n\n".join(records), "text")) == 1


def test_short_records_make_no_crowd_of_chunks() -> None:
    """They are put together up to 200 characters, but not across sheets, and none is torn."""
    rows = [f"number: {number}\nname: item {number}" for number in range(1_000)]
    chunks = [chunk.content or "" for chunk in split("\n\n".join(rows) + "\f" + "\n\n".join(rows), "xlsx")]
    assert max(map(len, chunks)) <= 200
    assert len(chunks) < 400
    assert all(chunk.startswith("number: ") for chunk in chunks)
    assert sum(chunk.startswith("number: 0\n") for chunk in chunks) == 2


def test_a_long_record_is_cut_like_text() -> None:
    """No chunk is longer than its limit because it is a record."""
    chunks = split("text: " + "word " * 1_000 + "\n\nname: x", "csv")
    assert max(len(chunk.content or "") for chunk in chunks) <= 1_000
    assert (chunks[-1].content or "").strip() == "name: x"


@pytest.mark.parametrize(
    "text",
    [
        "x" * 120_000,
        "word " * 80_000,
        "这是一个很长的句子。" * 4_000,
        "short\n" * 20_000,
        "a " + "b" * 50_000 + " c",
        "\n\n".join("p" * 400 for _ in range(300)),
    ],
)
def test_any_text_gives_chunks_of_sensible_size(text: str) -> None:
    """No giant chunk goes to the embedder, and short lines make no crowd of chunks."""
    chunks = split(text)
    assert max(len(chunk.content or "") for chunk in chunks) <= 1_000
    assert len(chunks) <= len(text) / 400 + 3


def test_sentences_are_kept_whole() -> None:
    """Where a line is longer than a chunk, it is cut between sentences, in Chinese too."""
    for sentence in ("This is the sentence that stands here. ", "这是一个很长的句子，它就在这里。"):
        assert all(
            (chunk.content or "").strip().endswith(sentence.strip()) for chunk in split(sentence * 200)
        )
