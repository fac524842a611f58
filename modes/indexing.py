"""An indexing pipeline: a checked pipeline that turns texts and files into chunks in the store."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from haystack import Document
from haystack.dataclasses import ByteStream

from modes.failures import UnsupportedInputError, own_errors
from modes.named import NamedPipeline

INDEXING_INPUTS = ("documents", "sources", "tenant_id")
INDEXING_TYPES: dict[str, Any] = {
    "documents_written": int,
    "written": dict[str, int],
    "notes": dict[str, str],
}


@dataclass
class IndexingResult:
    """
    What became of some documents.

    `written` gives the number of chunks by document id: 0 where a later version of the document is there already. A
    document that is not in it gave nothing to index. `notes` says, by document id, what of a document was left out.
    """

    written: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


class IndexingPipeline(NamedPipeline):
    """A pipeline that writes documents; made by `ModeRegistry`."""

    @property
    def takes_files(self) -> bool:
        """Whether it can be given files; every indexing pipeline can be given texts."""
        return "sources" in self.inputs

    @cached_property
    def splitting(self) -> dict[str, Any]:
        """The settings of its splitters, by component: what decides where documents are cut."""
        components: dict[str, dict[str, Any]] = self.checked.content["components"]
        return {
            name: {"type": data["type"], **data.get("init_parameters", {})}
            for name, data in components.items()
            if data["type"].endswith("Splitter")
        }

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what the file says but for its comments and description: another one indexes otherwise."""
        meaning = {key: value for key, value in self.checked.content.items() if key != "metadata"}
        return hashlib.sha256(json.dumps(meaning, sort_keys=True, default=str).encode()).hexdigest()

    def run(
        self, tenant_id: str, documents: Sequence[Document] = (), sources: Sequence[ByteStream] = ()
    ) -> IndexingResult:
        """
        Index texts and files.

        :param tenant_id: whose they are.
        :param documents: whole texts with `document_id` in their metadata.
        :param sources: whole files, likewise.
        :returns: how many chunks each document gave, and what was left out.
        :raises SourceError: if one of them can't be indexed.
        :raises EmptySourceError: if there is nothing to index in a file.
        :raises UnsupportedInputError: if there are files and the pipeline takes none.
        """
        if sources and not self.takes_files:
            raise UnsupportedInputError(f"the indexing pipeline '{self.name}' takes texts only, no files")
        result = IndexingResult()
        for part in self._runs(list(documents), list(sources)):
            outputs = self._run({"tenant_id": tenant_id, **part})
            names = [item.meta["document_id"] for items in part.values() for item in items]
            written = outputs.get("written")
            result.written.update({names[0]: outputs["documents_written"]} if written is None else written)
            result.notes.update(outputs.get("notes") or {})
        return result

    def _run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        with own_errors():
            outputs = self.pipeline.run(
                self.checked.feed(inputs), include_outputs_from=self.checked.read_from
            )
        return self.checked.read(outputs)

    def _runs(self, documents: list[Document], sources: list[ByteStream]) -> Iterator[dict[str, list[Any]]]:
        """Give the inputs of each run, by their public name; each run is given all that the file declares."""
        if "documents" not in self.inputs:
            sources, documents = [*map(_as_source, documents), *sources], []
        if "written" in self.outputs:
            runs = [(documents, sources)] if documents or sources else []
        else:
            # The total of a run would not say which document gave how much.
            runs = [([document], []) for document in documents] + [([], [source]) for source in sources]
        for some_documents, some_sources in runs:
            yield {"documents": some_documents, "sources": some_sources}


def _as_source(document: Document) -> ByteStream:
    text = (document.content or "").encode("utf-8")
    return ByteStream(text, dict(document.meta), "text/plain; charset=utf-8")
