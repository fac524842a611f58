"""Texts are cut where their parts end, tables and JSON between their records."""

import re
from collections.abc import Iterator

from haystack import Document, component
from haystack.components.preprocessors import RecursiveDocumentSplitter

from components.converting.merging import KIND_META

_OF_RECORDS = {"csv", "json", "xlsx"}
# The last record ends with the text.
_RECORD_END = re.compile(r"\n\n+|\f|\Z")


@component
class RecordAwareSplitter:
    """
    Haystack's `RecursiveDocumentSplitter`, but for the records of tables and JSON: each is a chunk of its own.

    A chunk of many records means a little of each, and a question about one of them finds it badly. Only short ones
    are put together, for each chunk costs its embedding.

    Usage example:
    ```python
    splitter = RecordAwareSplitter(split_length=1000, separators=["\\n\\n", "\\n", " "])
    chunks = splitter.run(documents=[Document(content=text, meta={"document_id": "a"})])["documents"]
    ```
    """

    def __init__(
        self, split_length: int = 1_000, record_length: int = 200, separators: list[str] | None = None
    ) -> None:
        """
        Create a splitter.

        :param split_length: characters of a chunk at most.
        :param record_length: short records are put together up to so many characters.
        :param separators: what to cut at, the best first; what has none of them is cut at `split_length`.
        """
        self.record_length = record_length
        self.splitter = RecursiveDocumentSplitter(
            split_length=split_length, split_overlap=0, split_unit="char", separators=separators
        )

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """
        Split documents.

        :param documents: the documents.
        :returns: `documents`, the chunks, with `split_idx_start`, their offset in the document's text.
        """
        texts = [document for document in documents if document.meta.get(KIND_META) not in _OF_RECORDS]
        chunks: list[Document] = self.splitter.run(documents=texts)["documents"] if texts else []
        for document in documents:
            if document.meta.get(KIND_META) in _OF_RECORDS:
                chunks += self._records(document)
        return {"documents": chunks}

    def _records(self, document: Document) -> Iterator[Document]:
        text = document.content or ""
        for start, end in self._spans(text):
            piece = Document(id=document.id, content=text[start:end])
            for part in self.splitter.run(documents=[piece])["documents"]:
                place = start + part.meta["split_idx_start"]
                yield Document(content=part.content, meta={**document.meta, "split_idx_start": place})

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        start = end = 0
        for separator in _RECORD_END.finditer(text):
            if separator.end() - start > self.record_length and end > start:
                yield start, end
                start = end
            end = separator.end()
            if separator[0] == "\f":
                yield start, end
                start = end
        if end > start:
            yield start, end
