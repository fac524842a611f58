"""Documents put together again from their chunks."""

from typing import Any

from haystack import Document

# What a chunk has because of where it stands, and its document has not.
_PLACE_META = frozenset({"chunks", "chunk_index", "sections", "start"})
_CHUNKS_OWN = ("page", "section")


def whole_document(name: str, chunks: list[Document]) -> Document:
    """
    Put a document together again.

    :param name: its id.
    :param chunks: its chunks, in any order, with `start` and `chunk_index` in their metadata.
    :returns: the document; each chunk stands where it stood.
    """
    chunks = sorted(chunks, key=lambda chunk: (chunk.meta.get("chunk_index", 0), chunk.meta.get("start", 0)))
    places = [int(chunk.meta.get("start", 0)) for chunk in chunks]
    if len(set(places)) < len(places):
        # Split by something that tells no places.
        text = "\n\n".join(chunk.content or "" for chunk in chunks)
    else:
        text = ""
        for place, chunk in sorted(zip(places, chunks, strict=True), key=lambda pair: pair[0]):
            content = chunk.content or ""
            # Where two chunks overlap, they say the same.
            text += _blank(text, chunk, place - len(text)) + content[max(0, len(text) - place) :]
    # Page and section belong to the chunk, unless all have the same.
    common = {
        key: value
        for key, value in chunks[0].meta.items()
        if key not in _CHUNKS_OWN or all(chunk.meta.get(key) == value for chunk in chunks)
    }
    meta: dict[str, Any] = {key: value for key, value in common.items() if key not in _PLACE_META}
    return Document(id=name, content=text, meta=meta)


def _blank(text: str, following: Document, length: int) -> str:
    """:returns: What lay between two chunks: white space, with the page breaks that the second one's page tells of."""
    content = following.content or ""
    lead = content[: len(content) - len(content.lstrip())]
    breaks = int(following.meta.get("page") or 1) - 1 - text.count("\f") - lead.count("\f")
    return ("\f" * max(0, breaks))[:length].ljust(length, "\n") if length > 0 else ""
