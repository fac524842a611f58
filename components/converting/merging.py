"""What came out of the converters is held against what went in."""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.converting.errors import EmptySourceError, SourceError
from components.converting.kinds import KINDS
from components.converting.outlines import Outline
from components.converting.routing import NOTE_META

KIND_META = "_kind"
"""Metadata key of the kind of file that a document was; the store keeps it for when the document is indexed anew."""

# Printers' ligatures are what a PDF holds of "file" and "office"; nobody asks with them.
_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
# What only directs how other characters are shown is no text by itself.
_VISIBLE = re.compile("[^\\s\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_UNREAD = (
    "cannot be read: this indexing pipeline has no converter for files of its kind; choose another pipeline"
)
_EMPTY = {
    "pdf": "there is no text in it: it has no text layer (scanned pages are pictures, which are not read) or no pages",
    "html": "there is no text in it: the page is empty, or a script would fill it",
}


# Kinds whose first heading is what the document calls itself; that of a workbook is the name of a sheet.
_TITLED = {"markdown", "html", "docx", "pptx"}
_TITLE_CHARS = 20_000


@component
class SourceMerger:
    """
    Makes one document of each source, from what the converters made of it.

    Converters may make several documents of one file, such as one of each sheet: they are joined by page breaks.
    Some skip a file that they can't read and only log that: here every source must have given text. A document gets its
    source's metadata and nothing of the converter's; one without a title is called by its first heading, else by its
    file's name. Texts that came without a file pass through.

    There is an input for each kind of file besides `sources` and `documents`, and each may be left unconnected.

    Usage example:
    ```python
    merger = SourceMerger(convert_max_chars=1_000_000)
    page = ByteStream(b"...", meta={"document_id": "a", "title": "A"})
    sheets = [Document(content=text, meta={"document_id": "a"}) for text in ("one", "two")]
    merger.run(sources=[page], xlsx=sheets)["documents"][0].content  # "one\\ftwo"
    ```
    """

    def __init__(self, convert_max_chars: int) -> None:
        """
        Create a merger.

        :param convert_max_chars: characters that one source may give.
        """
        self.convert_max_chars = convert_max_chars
        component.set_input_type(self, "sources", list[ByteStream], [])
        component.set_input_type(self, "documents", list[Document], [])
        for kind in KINDS:
            component.set_input_type(self, kind, list[Document], [])

    @component.output_types(documents=list[Document], notes=dict[str, str])
    def run(self, **inputs: Any) -> dict[str, Any]:
        """
        Make documents.

        :param inputs: `sources`, all that went into the converters; `documents`, texts that need no converter; and
            what the converters made of the sources, under the name of each kind.
        :returns: `documents`, one for each source, and those texts that are not blank; `notes`, what was left out of
            a document, by document id.
        :raises EmptySourceError: if a source gave no text.
        :raises SourceError: if a source gave too much, or no converter took it.
        """
        documents = [
            document for document in inputs.get("documents") or () if (document.content or "").strip()
        ]
        notes: dict[str, str] = {}
        parts: dict[str, list[tuple[str, Document]]] = {}
        for kind in KINDS:
            for part in inputs.get(kind) or ():
                parts.setdefault(part.meta["document_id"], []).append((kind, part))
        for source in inputs.get("sources") or ():
            name = source.meta["document_id"]
            document, note = self._merge(source, parts.get(name, []))
            documents.append(document)
            if note:
                notes[name] = note
        return {"documents": documents, "notes": notes}

    def _merge(self, source: ByteStream, parts: list[tuple[str, Document]]) -> tuple[Document, str]:
        if not parts:
            raise SourceError(_UNREAD)
        kind = parts[0][0]
        pages = [(part.content or "").translate(_LIGATURES) for _, part in parts]
        if sum(map(len, pages)) > self.convert_max_chars:
            limit = f"{self.convert_max_chars:,} characters (CONVERT_MAX_CHARS)"
            raise SourceError(f"has too much text: more than {limit}")
        text = "\f".join(pages)
        if not _VISIBLE.search(text):
            raise EmptySourceError(_EMPTY.get(kind, "there is no text in it"))
        note = "; ".join(dict.fromkeys(_notes(kind, text, (part for _, part in parts))))
        meta = {**source.meta, KIND_META: kind}
        meta["title"] = meta.get("title") or _title(kind, text, meta.get("source") or "")
        return Document(id=meta["document_id"], content=text, meta=meta), note


def _title(kind: str, text: str, name: str) -> str:
    heading = Outline(text[:_TITLE_CHARS], hashes=True).title if kind in _TITLED else ""
    return heading or PurePosixPath(name).name


def _notes(kind: str, text: str, parts: Iterable[Document]) -> Iterator[str]:
    for part in parts:
        if part.meta.get(NOTE_META):
            yield part.meta[NOTE_META]
    pages = text.split("\f")
    blank = sum(not page.strip() for page in pages)
    if kind == "pdf" and blank:
        yield f"{blank} of {len(pages)} pages have no text (pictures are not read)"
