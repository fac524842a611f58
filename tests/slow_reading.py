"""A component that takes its time, for tests of what happens meanwhile."""

import time
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream

SLOW_PIPELINE = """
components:
  reader:
    type: tests.slow_reading.SlowReader
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
    """Reads text files, each in a quarter of a second."""

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Read files.

        :param sources: the files.
        :returns: `documents`, one for each.
        """
        time.sleep(0.25 * len(sources))
        documents = [Document(content=source.data.decode(), meta=dict(source.meta)) for source in sources]
        return {"documents": documents}
