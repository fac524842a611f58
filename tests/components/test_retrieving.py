"""Searching a tenant's documents."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from haystack import Document

from components.breaking import Breaker
from components.embedding import OnnxDocumentEmbedder, OnnxEmbeddingModel, OnnxTextEmbedder
from components.ranking import rank_by_terms
from components.retrieving import EmbeddingUnavailableError, TenantRetriever
from components.served_embedding import EmbeddingServer
from components.storing import TenantDocumentStores
from components.terms import TermWeights
from components.writing import TenantDocumentWriter

TEXTS = {
    "tower": "The Eiffel Tower in Paris is 330 metres tall.",
    "lake": "Lake Constance is 63 km long.",
    "fruit": "Bananas are rich in potassium.",
}


@pytest.fixture(scope="module")
def stores(
    embedding_model: OnnxEmbeddingModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TenantDocumentStores]:
    made = TenantDocumentStores(path=tmp_path_factory.mktemp("chroma"))
    documents = [
        Document(content=text, meta={"document_id": name, "title": ""}) for name, text in TEXTS.items()
    ]
    embedded = OnnxDocumentEmbedder(embedding_model).run(documents)["documents"]
    TenantDocumentWriter(made).run(embedded, "acme")
    yield made
    made.close()


@pytest.mark.parametrize("candidates", [0, 20])
def test_run_and_run_async_find_the_same(
    stores: TenantDocumentStores, embedding_model: OnnxEmbeddingModel, candidates: int
) -> None:
    """Both ways give the nearest chunks, best first, with scores between 0 and 1, with and without ranking."""
    retriever = TenantRetriever(stores, OnnxTextEmbedder(embedding_model), candidates=candidates)
    found = retriever.run("How tall is the tower?", "acme", top_k=2)["documents"]
    assert found[0].content == TEXTS["tower"]
    assert len(found) == 2
    assert 1 >= (found[0].score or 0) >= (found[1].score or 0) >= 0
    assert asyncio.run(retriever.run_async("How tall is the tower?", "acme", top_k=2))["documents"] == found


def test_fewer_chunks_than_asked_for_are_no_error(
    stores: TenantDocumentStores, embedding_model: OnnxEmbeddingModel
) -> None:
    """A small collection gives what it has."""
    assert (
        len(TenantRetriever(stores, OnnxTextEmbedder(embedding_model)).run("lake", "acme", 50)["documents"])
        == 3
    )


def test_terms_lift_the_chunk_that_holds_the_name(tokenizer_path: Path) -> None:
    """Of two chunks about as similar, the one with the question's rare word comes first."""
    documents = [
        Document(content="The company reported record profits last year.", score=0.62, meta={"title": ""}),
        Document(content="Zyxorp reported record profits last year.", score=0.60, meta={"title": ""}),
    ]
    ranked = rank_by_terms("What did Zyxorp report?", documents, 2, TermWeights(tokenizer_path), 0.5)
    assert ranked[0].content == documents[1].content
    assert documents[0].score == 0.62


def test_the_title_counts_as_text(tokenizer_path: Path) -> None:
    """A term in the title lifts a chunk as one in its text does."""
    documents = [
        Document(content="It has three floors.", score=0.5, meta={"title": "Other"}),
        Document(content="It has three floors.", score=0.5, meta={"title": "Zyxorp Tower"}),
    ]
    best = rank_by_terms("How many floors has Zyxorp?", documents, 1, TermWeights(tokenizer_path), 0.5)
    assert best[0].meta["title"] == "Zyxorp Tower"


def test_a_server_that_is_left_alone_is_asked_again_when_the_error_says(stores: TenantDocumentStores) -> None:
    """The error has the seconds that are left of those for which the embedding model's server is not asked."""
    breaker = Breaker("the embedder", seconds=17)
    breaker.trip()
    embedder: Any = EmbeddingServer("openai", "m", "http://127.0.0.1:9/v1", breaker=breaker).text_embedder()
    retriever = TenantRetriever(stores, embedder)
    with pytest.raises(EmbeddingUnavailableError) as raised:
        asyncio.run(retriever.run_async("How tall is the tower?", "acme"))
    assert raised.value.retry_after == 17
