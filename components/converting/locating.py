"""Each chunk knows where it stands: at which offset, on which page, in which section."""

import json
from typing import Any

from haystack import Document, component

from components.converting.merging import KIND_META
from components.converting.outlines import Outline

# Kinds whose text marks headings with `#`; a text that came without a file (None) does so too. In a plain text or a
# PDF, `#` is as likely to begin a comment or a command.
_HASHES = {None, "markdown", "html", "docx", "pptx", "xlsx", "json"}
_PAGED = {"pdf", "pptx", "xlsx"}


@component
class ChunkLocator:
    """
    Adds to each chunk the `page` and the `section` it stands in, whichever splitter made it.

    It also moves cuts that tear something: those inside a character (an emoji of several code points, a letter with
    its accents) and those between a heading and its text go before it. A chunk stays a piece of its document: its
    content is the document's text from its offset on.

    Usage example:
    ```python
    document = Document(content="# Hours\\n\\nNine to five.", meta={"document_id": "a"})
    chunks = DocumentSplitter(split_length=3).run([document])["documents"]
    ChunkLocator().run(documents=[document], chunks=chunks)["documents"][0].meta["section"]  # "Hours"
    ```
    """

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document], chunks: list[Document]) -> dict[str, list[Document]]:
        """
        Locate chunks.

        :param documents: the documents that were split, with `document_id` in their metadata.
        :param chunks: what a splitter made of them.
        :returns: `documents`, the chunks in order. `page` is there where a document has pages, `section` where it has
            headings. `sections` is there where more of them begin in the chunk: JSON with the place in the chunk and
            the section of each.
        """
        placers = {document.meta["document_id"]: _Placer(document) for document in documents}
        located = (placers[chunk.meta["document_id"]].place(chunk) for chunk in chunks)
        return {"documents": [chunk for chunk in located if chunk is not None]}


class _Placer:
    """Places the chunks of one document, which come in order."""

    def __init__(self, document: Document) -> None:
        self._text = document.content or ""
        kind = document.meta.get(KIND_META)
        self._outline = Outline(self._text, hashes=kind in _HASHES)
        self._paged = kind in _PAGED or self._outline.pages > 1
        self._from = 0
        self._count = 0

    def place(self, chunk: Document) -> Document | None:
        """Give the chunk with its place; None when the cuts around it moved together."""
        text = chunk.content or ""
        begin = self._find(text, chunk.meta.get("split_idx_start"))
        if begin is None:
            return self._numbered(chunk, text, dict(chunk.meta))
        start, end = self._outline.cut(begin), self._outline.cut(begin + len(text))
        if not self._text[start:end].strip():
            return None
        self._from = begin + 1
        meta = {**chunk.meta, "split_idx_start": start}
        first = self._outline.first_text(start, end)
        if self._paged:
            meta["page"] = self._outline.page(first)
        if section := self._outline.section(first):
            meta["section"] = section
        if later := self._outline.sections(first + 1, end):
            meta["sections"] = json.dumps([[place - start, name] for place, name in later])
        return self._numbered(chunk, self._text[start:end], meta)

    def _find(self, text: str, told: Any) -> int | None:
        if isinstance(told, int) and self._text.startswith(text, told):
            return told
        found = self._text.find(text, self._from)
        return found if found >= 0 else None

    def _numbered(self, chunk: Document, text: str, meta: dict[str, Any]) -> Document:
        # The splitter's own count of pages, which is 1 for a text that has none.
        meta.pop("page_number", None)
        meta["split_id"] = self._count
        self._count += 1
        return Document(id=chunk.id, content=text, meta=meta)
