"""What the service is made of, from its settings: registry, jobs, and the lock on its data."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import ollama
import openai
from haystack import Document

from components.storing import DocumentStoreError, DocumentStoreUnavailableError
from modes.results import QueryResult
from registry import ModeRegistry
from resources import Resources
from serve.errors import LimitError
from serve.ingestion_schemas import DocumentInput, IngestBody
from serve.jobs import JobQueue
from serve.jobs.runner import causes, is_transient
from serve.locking import DataDirLock
from serve.schemas import Ready
from serve.telemetry import bound_request_id
from settings import Settings

logger = logging.getLogger("thresher.service")

INDEXING = "ingest"
_CHECK_SECONDS = 3.0


class IndexingUnavailableError(RuntimeError):
    """The indexing pipeline has faults; its jobs wait until it is mended."""


class Service:
    """
    The running parts behind the HTTP routes and the command line.

    Making one takes the lock on `DATA_DIR`; `close` gives it back.
    """

    def __init__(self, settings: Settings, resources: Resources | None = None) -> None:
        """
        Take the data directory and load every mode; models are loaded by `start`.

        :param settings: the service's settings.
        :param resources: shared objects to use instead of those that the settings describe.
        :raises DataDirInUseError: if another process has the data directory.
        """
        self.settings = settings
        self.lock = DataDirLock(settings.data_dir)
        self.lock.acquire()
        try:
            self.registry = ModeRegistry(settings, resources)
        except BaseException:
            self.lock.release()
            raise
        self.jobs = JobQueue(
            self._index,
            data_dir=settings.data_dir,
            workers=settings.ingest_workers,
            batch_size=settings.ingest_batch_size,
            max_jobs=settings.max_queued_jobs,
            bind=_bind_job,
            transient=_may_pass,
        )
        self._warming: asyncio.Task[None] | None = None
        shared = self.registry.resources
        logger.info(
            "documents: %s Chroma; embeddings: %s", shared.document_stores.location, shared.embedding_name
        )
        for fault in self.registry.faults:
            logger.error("%s", fault)

    async def start(self) -> None:
        """Begin to work on jobs, and to load the models in the background."""
        await self.jobs.start()
        self._warming = asyncio.create_task(asyncio.to_thread(self._warm_up))

    async def close(self) -> None:
        """Stop working, give everything back, and release the data directory."""
        try:
            await self.jobs.close()
            if self._warming is not None:
                await asyncio.gather(self._warming, return_exceptions=True)
            await self.registry.resources.close_async()
            await asyncio.to_thread(self.registry.close)
        finally:
            self.lock.release()

    async def ask(
        self,
        query: str,
        mode: str,
        tenant_id: str,
        top_k: int | None = None,
        model: str | None = None,
        filters: dict[str, Any] | None = None,
    ) -> QueryResult:
        """
        Answer a question for a caller of the API, under the service's limits.

        :param query: the question.
        :param mode: which mode answers.
        :param tenant_id: whose documents.
        :param top_k: chunks to retrieve.
        :param model: another language model, of those allowed.
        :param filters: Haystack filters.
        :returns: the answer.
        :raises LimitError: if the question or `top_k` is over its limit.
        :raises TimeoutError: if it takes longer than `REQUEST_TIMEOUT`.
        """
        if len(query) > self.settings.max_question_chars:
            limit = self.settings.max_question_chars
            raise LimitError(
                "q", f"has {len(query)} characters; at most {limit} (MAX_QUESTION_CHARS) are accepted"
            )
        if top_k is not None and top_k > self.settings.max_top_k:
            limit = self.settings.max_top_k
            raise LimitError("k", f"is {top_k}; at most {limit} (MAX_TOP_K) are accepted")
        async with asyncio.timeout(self.settings.request_timeout):
            return await self.registry[mode].run_async(query, tenant_id, top_k, model, filters)

    async def readiness(self) -> Ready:
        """
        Ask every dependency whether it can serve, all at once and no longer than a few seconds.

        :returns: what is there and what is in the way.
        """
        chroma, jobs, llm = await asyncio.gather(
            _state(self.registry.resources.document_stores.ping()),
            _state(self.jobs.ping()),
            _state(self.registry.resources.chat_models.check_async()),
        )
        loading = self._warming is None or not self._warming.done()
        problems = [f"{fault.file.name}:{fault.line}: {fault.message}" for fault in self.registry.faults]
        if INDEXING not in self.registry.indexing and not problems:
            problems.append(f"there is no indexing pipeline '{INDEXING}'")
        if not loading and self._warming is not None and self._warming.exception() is not None:
            problems.append("the models could not be loaded; the log says why")
        problems += [
            f"{name}: {state}"
            for name, state in (("chroma", chroma), ("jobs", jobs), ("llm", llm))
            if state != "ok"
        ]
        return Ready(
            status="degraded" if problems else "loading" if loading else "ok",
            chroma=chroma,
            store=self.registry.resources.document_stores.location,
            llm={**self.registry.resources.chat_models.describe(), "status": llm},
            embeddings=self.registry.resources.embedding_name,
            jobs=jobs,
            modes=list(self.registry),
            problems=problems,
        )

    def _warm_up(self) -> None:
        try:
            self.registry.warm_up()
        except Exception:
            logger.exception("the models could not be loaded")
            raise
        logger.info("ready: modes %s", ", ".join(self.registry))

    def _index(self, documents: list[dict[str, Any]], tenant_id: str) -> int:
        if INDEXING not in self.registry.indexing:
            raise IndexingUnavailableError(
                f"the pipeline '{INDEXING}' could not be loaded; GET /ready says why"
            )
        whole = [as_document(data) for data in documents]
        return sum(self.registry.indexing[INDEXING].run(tenant_id, whole).written.values())


def job_documents(body: IngestBody) -> list[dict[str, Any]]:
    """
    Name the documents of a request.

    :param body: the request.
    :returns: documents with `id`, `text`, `title`, `meta` and `accepted_at`; an id is made from the text where there
        is none.
    """
    now = time.time()
    documents = body.documents or [DocumentInput(text=text) for text in body.texts or []]
    return [
        {
            "id": document.id or _id_from(document.text),
            "text": document.text,
            "title": document.title,
            "meta": document.meta,
            "accepted_at": now,
        }
        for document in documents
    ]


def as_document(data: dict[str, Any]) -> Document:
    """
    Make the Haystack document that the indexing pipeline takes.

    :param data: `id`, `text`, `title`, `meta`, and when it was accepted, where it waited since.
    :returns: the document.
    """
    meta = {**data["meta"], "document_id": data["id"], "title": data["title"] or ""}
    meta["accepted_at"] = data.get("accepted_at") or time.time()
    return Document(id=data["id"], content=data["text"], meta=meta)


def _id_from(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


async def _state(check: Any) -> str:
    try:
        await asyncio.wait_for(check, _CHECK_SECONDS)
    except TimeoutError:
        return "does not answer"
    except DocumentStoreError as error:
        return str(error)
    except Exception as error:
        logger.warning("readiness: %s: %s", type(error).__name__, error)
        return "unavailable"
    return "ok"


def _may_pass(error: BaseException) -> bool:
    transient = (
        DocumentStoreUnavailableError,
        IndexingUnavailableError,
        httpx.TransportError,
        openai.APIConnectionError,
        openai.InternalServerError,
        openai.RateLimitError,
    )
    return any(
        isinstance(cause, transient) or (isinstance(cause, ollama.ResponseError) and cause.status_code >= 429)
        for cause in causes(error)
    ) or is_transient(error)


@contextmanager
def _bind_job(request_id: str, _job_id: str) -> Iterator[None]:
    with bound_request_id(request_id or None):
        yield


__all__ = ["INDEXING", "Service", "as_document", "job_documents"]
