"""Embedding documents with whichever model the service is set to."""

from typing import Any

from haystack import Document, component
from haystack.components.embedders.types import DocumentEmbedder

from components.pacing import slices

# Half a second of work for the built-in model, so that a cancelled job ends soon; a server gets enough at once.
ROWS_AT_ONCE = 32


@component
class ModelDocumentEmbedder:
    """
    Embeds documents with the service's embedder, built-in, Ollama's or OpenAI-compatible.

    A pipeline names this one, so that the provider is a setting and the file stays as it is.

    Usage example:
    ```python
    embedder = ModelDocumentEmbedder(document_embedder=OnnxDocumentEmbedder(model))
    chunks = embedder.run(documents=chunks)["documents"]
    ```
    """

    def __init__(self, document_embedder: DocumentEmbedder) -> None:
        """
        Create the component.

        :param document_embedder: the embedder that does the work.
        """
        self.document_embedder = document_embedder

    def warm_up(self) -> None:
        """Load the embedding model."""
        if hasattr(self.document_embedder, "warm_up"):
            self.document_embedder.warm_up()

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """
        Embed documents.

        They are embedded in slices with a pause before each; see `components.pacing`.

        :param documents: the documents; they are not changed.
        :returns: `documents` with embeddings, in the same order.
        """
        embedded: list[Document] = []
        for part in slices(documents, most=ROWS_AT_ONCE):
            embedded += self.document_embedder.run(documents=list(part))["documents"]
        return {"documents": embedded}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """Embed documents; see `run`."""
        embedded = await self.document_embedder.run_async(documents=documents)  # type: ignore[attr-defined]
        return {"documents": embedded["documents"]}
