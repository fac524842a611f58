"""Vector search in one tenant's documents: text in, documents out."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from haystack import Document, component
from haystack.components.embedders.types import TextEmbedder

from components.breaking import CircuitOpenError
from components.events import emit
from components.ranking import rank_by_terms
from components.storing import TenantDocumentStores
from components.terms import TermWeights
from components.weights.catalogue import WeightsError

_found: ContextVar[dict[tuple[Any, ...], list[Document]] | None] = ContextVar("searches", default=None)
_left_out: ContextVar[frozenset[str]] = ContextVar("left_out", default=frozenset())


@contextmanager
def remembered_searches() -> Iterator[None]:
    """Make the same search only once inside the `with` block, however many components ask for it."""
    token = _found.set({})
    try:
        yield
    finally:
        _found.reset(token)


@contextmanager
def leaving_out(chunk_ids: frozenset[str]) -> Iterator[None]:
    """
    Find some chunks no more inside the `with` block.

    :param chunk_ids: which, because it is known already that they don't help.
    """
    token = _left_out.set(chunk_ids)
    try:
        yield
    finally:
        _left_out.reset(token)


class EmbeddingUnavailableError(RuntimeError):
    """
    The question could not be embedded: the embedding model's server does not answer, or refused.

    :param retry_after: seconds after which the server is asked again, where it is left alone.
    """

    def __init__(self, retry_after: int | None = None) -> None:
        super().__init__("the question could not be embedded; is the embedding model up?")
        self.retry_after = retry_after


@component
class TenantRetriever:
    """
    Retrieves the chunks of a tenant that are nearest to a query, and may rank them by the query's terms too.

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
        term_weights: TermWeights | None = None,
        candidates: int = 0,
        term_weight: float = 0.5,
    ) -> None:
        """
        Create a retriever.

        :param document_stores: every tenant's store.
        :param text_embedder: embeds the query with the model that embedded the documents.
        :param top_k: chunks to retrieve when a run does not say.
        :param default_top_k: the service's number, which counts when `top_k` is not given.
        :param term_weights: how telling each word is; needed with `candidates`.
        :param candidates: how many chunks the vector search gives, of which the `top_k` best are kept after ranking
            them by the question's terms too; 0 for vector search alone.
        :param term_weight: how much the share of the question's terms counts beside similarity, which counts 1.
        """
        self.document_stores = document_stores
        self.text_embedder = text_embedder
        self.top_k = top_k or default_top_k
        self.term_weights = term_weights or TermWeights()
        self.candidates = candidates
        self.term_weight = term_weight

    def warm_up(self) -> None:
        """Load the embedding model and the vocabulary."""
        self.term_weights.warm_up()
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
        :returns: `documents`, best first; `score` is cosine similarity cut to 0..1, or with `candidates` its weighted
            mean with the share of the question's terms.
        :raises UnknownTenantError: if the tenant has no documents.
        :raises InvalidFilterError: if the filters can't be read.
        :raises DocumentStoreUnavailableError: if Chroma does not answer.
        :raises EmbeddingUnavailableError: if the question could not be embedded.
        """
        store = self.document_stores.get(tenant_id)
        with _embedding_errors():
            embedding = self.text_embedder.run(text=query)["embedding"]
        found = store.search_embeddings([embedding], self._wanted(top_k), filters)
        return {"documents": self._best(query, found[0], top_k)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        tenant_id: str = "default",
        top_k: int | None = None,
        filters: dict[str, Any] | None = None,
    ) -> dict[str, list[Document]]:
        """Retrieve chunks; see `run`."""
        search = self._search(query, tenant_id, top_k, filters)
        found = _found.get()
        documents = None if found is None else found.get(search)
        if documents is None:
            documents = self._best(query, await self._nearest(query, tenant_id, top_k, filters), top_k)
            if found is not None:
                found[search] = documents
        if left_out := _left_out.get():
            documents = [document for document in documents if document.id not in left_out]
        emit("retrieval", query=query, documents=documents)
        return {"documents": documents}

    async def _nearest(
        self, query: str, tenant_id: str, top_k: int | None, filters: dict[str, Any] | None
    ) -> list[Document]:
        store = await self.document_stores.get_async(tenant_id)
        with _embedding_errors():
            embedding = (await self.text_embedder.run_async(text=query))["embedding"]  # type: ignore[attr-defined]
        found = await store.search_embeddings_async([embedding], self._wanted(top_k), filters)
        return found[0]

    def _search(
        self, query: str, tenant_id: str, top_k: int | None, filters: dict[str, Any] | None
    ) -> tuple[Any, ...]:
        """Give all that the chunks found depend on."""
        own = (id(self.document_stores), id(self.text_embedder), self.candidates, self.term_weight)
        return query, tenant_id, top_k or self.top_k, repr(filters), id(self.term_weights), *own

    def _wanted(self, top_k: int | None) -> int:
        return max(top_k or self.top_k, self.candidates)

    def _best(self, query: str, documents: list[Document], top_k: int | None) -> list[Document]:
        if self.candidates:
            wanted = top_k or self.top_k
            documents = rank_by_terms(query, documents, wanted, self.term_weights, self.term_weight)
        return documents


@contextmanager
def _embedding_errors() -> Iterator[None]:
    # Each provider's client has errors of its own; only our own already say what to do.
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        seconds = error.retry_after if isinstance(error, CircuitOpenError) else None
        raise EmbeddingUnavailableError(seconds) from error
