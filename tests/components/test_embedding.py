import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from haystack import Document

from components.embedding import NICENESS, OnnxDocumentEmbedder, OnnxEmbeddingModel, OnnxTextEmbedder
from components.pacing import paced_by

LAKE = "The lake is 40 metres deep."


def test_vectors_have_length_one_and_follow_meaning(embedding_model: OnnxEmbeddingModel) -> None:
    """Each row has the declared dimension and length one, and a related text is closer than another."""
    vectors = embedding_model.encode(["How deep is the lake?", LAKE, "Bread is baked from flour."])
    assert vectors.shape == (3, embedding_model.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


def test_a_batch_gives_the_vectors_of_single_calls(embedding_model: OnnxEmbeddingModel) -> None:
    """Sorting by length and padding change neither the order nor, but for rounding, the vectors."""
    texts = [LAKE * n for n in (9, 1, 5, 2, 7, 3, 8, 4, 6, 1)]
    batch = embedding_model.encode(texts)
    single = np.vstack([embedding_model.encode([text]) for text in texts])
    assert ((batch * single).sum(axis=1) > 0.99).all()


@pytest.mark.parametrize("text", ["", "\x00", "\ud800 lone", "🌾" * 50, "x" * 1_000_000, "湖有多深?"])
def test_any_string_has_a_vector(embedding_model: OnnxEmbeddingModel, text: str) -> None:
    """Empty, broken, foreign and enormous texts are embedded like any other."""
    vectors = embedding_model.encode([text])
    assert np.isfinite(vectors).all()
    assert abs(np.linalg.norm(vectors) - 1) < 1e-3


def test_no_texts_give_no_rows(embedding_model: OnnxEmbeddingModel) -> None:
    """An empty list is an empty array of the right width."""
    assert embedding_model.encode([]).shape == (0, 384)


def test_threads_may_share_the_model(embedding_model: OnnxEmbeddingModel) -> None:
    """Eight threads that start at once get the vectors that one thread gets."""
    expected = embedding_model.encode([LAKE])
    start = threading.Barrier(8)

    def encode(_: int) -> np.ndarray:
        start.wait()
        return embedding_model.encode([LAKE])

    with ThreadPoolExecutor(8) as pool:
        for vectors in pool.map(encode, range(8)):
            np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Making the model is cheap; loading it says which file is missing."""
    model = OnnxEmbeddingModel(tokenizer_path=tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        model.warm_up()


def test_a_wrong_dimension_is_refused(embedding_model: OnnxEmbeddingModel) -> None:
    """A model whose vectors have another length than declared does not load."""
    wrong = OnnxEmbeddingModel(embedding_model.tokenizer_path, dimension=768)
    with pytest.raises(ValueError, match="length 384, not 768"):
        wrong.warm_up()


def test_document_embedder_gives_copies(embedding_model: OnnxEmbeddingModel) -> None:
    """What comes in keeps no embedding; what goes out has the same ids and lists of floats."""
    embedder = OnnxDocumentEmbedder(embedding_model)
    documents = [Document(content=LAKE, meta={"title": "Lake"}), Document(content="Bread.")]
    embedded = embedder.run(documents)["documents"]
    assert [document.id for document in embedded] == [document.id for document in documents]
    assert all(document.embedding is None for document in documents)
    assert isinstance(embedded[0].embedding, list)
    assert type(embedded[0].embedding[0]) is float


def test_document_embedder_reads_the_title(embedding_model: OnnxEmbeddingModel) -> None:
    """The title is embedded before the content, and an empty one leaves no trace."""
    embedder = OnnxDocumentEmbedder(embedding_model)
    documents = [Document(content=LAKE, meta={"title": title}) for title in ("Loch Ness", "")]
    titled, untitled = (document.embedding for document in embedder.run(documents)["documents"])
    np.testing.assert_allclose(titled, embedding_model.encode([f"Loch Ness\n{LAKE}"])[0], atol=1e-2)
    np.testing.assert_allclose(untitled, embedding_model.encode([LAKE])[0], atol=1e-2)


def test_async_runs_give_what_run_gives(embedding_model: OnnxEmbeddingModel) -> None:
    """run and run_async of both embedders return the same keys and values."""
    text, documents = OnnxTextEmbedder(embedding_model), OnnxDocumentEmbedder(embedding_model)
    assert asyncio.run(text.run_async(LAKE)) == text.run(LAKE)
    assert asyncio.run(documents.run_async([Document(content=LAKE)])) == documents.run(
        [Document(content=LAKE)]
    )


def test_embedding_leaves_the_event_loop(embedding_model: OnnxEmbeddingModel) -> None:
    """run_async computes in another thread than the loop's."""
    threads: list[str] = []

    class Watching(OnnxEmbeddingModel):
        def encode(self, texts):  # type: ignore[no-untyped-def]
            threads.append(threading.current_thread().name)
            return embedding_model.encode(texts)

    watching = Watching(embedding_model.tokenizer_path)
    asyncio.run(OnnxTextEmbedder(watching).run_async(LAKE))
    asyncio.run(OnnxDocumentEmbedder(watching).run_async([Document(content=LAKE)]))
    assert [name.rsplit("_", 1)[0] for name in threads] == ["embed-text", "embed-documents"]


class SomebodyWaits:
    """The pacer of a job beside which somebody waits for an answer."""

    others_wait = True

    def pause(self) -> None:
        pass

    def rows_at_once(self, default: int) -> int:
        return default


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux only")
def test_documents_are_embedded_by_threads_that_give_way_while_somebody_waits(
    embedding_model: OnnxEmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor goes to questions first; without any, documents are embedded at full speed."""
    seen = []
    encode = embedding_model.encode

    def watched(texts: list[str]) -> np.ndarray:
        seen.append(_niceness())
        return encode(texts)

    monkeypatch.setattr(embedding_model, "encode", watched)
    before = _niceness()
    embedder = OnnxDocumentEmbedder(embedding_model)
    embedder.run([Document(content=LAKE)])
    with paced_by(SomebodyWaits()):
        embedder.run([Document(content=LAKE)])

    assert seen == [before, max(before, NICENESS)]
    assert _niceness() == before


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
