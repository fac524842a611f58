"""Vector search in one tenant's documents: text in, documents out."""

from typing import Any

from haystack import Document, component
from haystack.components.embedders.types import TextEmbedder

from components.storing import TenantDocumentStores


@component
class TenantRetriever:
    """
    Retrieves the chunks of a tenant that are nearest to a query.

    The embedder is inside, because Haystack copies what passes between components and an embedding is dear to copy.
    Tenant, `top_k` and filters are inputs: one pipeline serves every tenant.

    Usage example:
    ```python
    retriever = TenantRetriever(document_stores=stores, text_embedder=embedder)
    documents = retriever.run(query="Who wrote it?", tenant_id="acme")["documents"]
    ```
    """

    def __init__(
        self,
        document_stores: TenantDocumentStores,
        text_embedder: TextEmbedder,
        top_k: int | None = None,
        default_top_k: int = 5,
    ) -> None:
        """
        Create a retriever.

        :param document_stores: every tenant's store.
        :param text_embedder: embeds the query with the model that embedded the documents.
        :param top_k: chunks to retrieve when a run does not say.
        :param default_top_k: the service's number, which counts when `top_k` is not given.
        """
        self.document_stores = document_stores
        self.text_embedder = text_embedder
        self.top_k = top_k or default_top_k

    def warm_up(self) -> None:
        """Load the embedding model."""
        if hasattr(self.text_embedder, "warm_up"):
            self.text_embedder.warm_up()

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        tenant_id: str = "default",
        top_k: int | None = None,
        filters: dict[str, Any] | None = None,
    ) -> dict[str, list[Document]]:
        """
        Retrieve chunks.

        :param query: the question.
        :param tenant_id: whose documents.
        :param top_k: how many chunks at most.
        :param filters: Haystack filters over the chunks' metadata and content.
        :returns: `documents`, best first; `score` is cosine similarity cut to 0..1.
        :raises UnknownTenantError: if the tenant has no documents.
        :raises InvalidFilterError: if the filters can't be read.
        :raises DocumentStoreUnavailableError: if Chroma does not answer.
        """
        store = self.document_stores.get(tenant_id)
        embedding = self.text_embedder.run(text=query)["embedding"]
        return {"documents": store.search_embeddings([embedding], top_k or self.top_k, filters)[0]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        tenant_id: str = "default",
        top_k: int | None = None,
        filters: dict[str, Any] | None = None,
    ) -> dict[str, list[Document]]:
        """Retrieve chunks; see `run`."""
        store = await self.document_stores.get_async(tenant_id)
        embedding = (await self.text_embedder.run_async(text=query))["embedding"]  # type: ignore[attr-defined]
        found = await store.search_embeddings_async([embedding], top_k or self.top_k, filters)
        return {"documents": found[0]}
