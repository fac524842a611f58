"""A component that takes its time, for tests of what happens meanwhile."""

import time
from pathlib import Path
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.pacing import pause

SLOW_PIPELINE = """
components:
  reader:
    type: tests.slow_reading.SlowReader
    init_parameters: {quick: QUICK}
  embedder:
    type: components.document_embedding.ModelDocumentEmbedder
  writer:
    type: components.writing.TenantDocumentWriter
connections:
  - {sender: reader.documents, receiver: embedder.documents}
  - {sender: embedder.documents, receiver: writer.documents}
inputs:
  sources: reader.sources
  tenant_id: writer.tenant_id
outputs:
  documents_written: writer.documents_written
metadata:
  description: One chunk for each file, slowly.
"""


@component
class SlowReader:
    """Reads one text file; with the next ones it waits until a file says that it may be quick."""

    def __init__(self, quick: str) -> None:
        """
        Create a reader.

        :param quick: path of the file that says so.
        """
        self.quick = quick
        self._files_read = 0

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Read files.

        :param sources: the files.
        :returns: `documents`, one for each.
        """
        while self._files_read and not Path(self.quick).exists():
            time.sleep(0.02)
            pause()
        self._files_read += len(sources)
        documents = [Document(content=source.data.decode(), meta=dict(source.meta)) for source in sources]
        return {"documents": documents}
