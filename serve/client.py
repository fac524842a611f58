"""Asking and ingesting from the command line: through the service that holds the data, or without one."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from components.storing import check_tenant_id
from modes.results import QueryResult
from registry import ModeRegistry
from serve.locking import DataDirInUseError, DataDirLock, running_service
from serve.service import INDEXING, as_document
from settings import Settings

Progress = Callable[[int], None]
"""Called with the number of documents done since the last call."""

_POLL_SECONDS = 0.3
_UPLOAD_DOCUMENTS = 200
_UPLOAD_BYTES = 8_000_000


@dataclass
class Ingested:
    """What became of documents: how many were indexed, in how many chunks, and what was wrong with the others."""

    documents: int = 0
    chunks: int = 0
    errors: list[str] = field(default_factory=list)


class ServiceError(RuntimeError):
    """The running service refused or failed; the message is its own."""


class Client(Protocol):
    """What the commands need, however it is done."""

    where: str
    """Says who answers."""

    def ask(
        self, question: str, mode: str, tenant_id: str, top_k: int | None, model: str | None
    ) -> QueryResult:
        """Answer a question."""

    def ingest(self, documents: Sequence[dict[str, Any]], tenant_id: str, progress: Progress) -> Ingested:
        """Index documents and say what became of them."""


class LocalClient:
    """Opens the data directory itself."""

    where = "in this process"

    def __init__(self, registry: ModeRegistry) -> None:
        """
        Use a registry.

        :param registry: the modes.
        """
        self.registry = registry

    def ask(
        self, question: str, mode: str, tenant_id: str, top_k: int | None, model: str | None
    ) -> QueryResult:
        """
        Answer a question.

        :param question: the question.
        :param mode: which mode answers.
        :param tenant_id: whose documents.
        :param top_k: chunks to retrieve.
        :param model: another language model.
        :returns: the answer.
        """
        return self.registry[mode].run(question, tenant_id, top_k, model)

    def ingest(self, documents: Sequence[dict[str, Any]], tenant_id: str, progress: Progress) -> Ingested:
        """
        Index documents.

        :param documents: each with `id`, `text`, `title` and `meta`.
        :param tenant_id: whose they are.
        :param progress: told of each batch.
        :returns: what became of them.
        """
        check_tenant_id(tenant_id)
        chunks = 0
        batch = self.registry.settings.ingest_batch_size
        for begin in range(0, len(documents), batch):
            part = [as_document(data) for data in documents[begin : begin + batch]]
            chunks += sum(self.registry.indexing[INDEXING].run(tenant_id, part).written.values())
            progress(len(part))
        return Ingested(len(documents), chunks)


class HttpClient:
    """Talks to the service that holds the data directory."""

    def __init__(self, url: str, timeout: float) -> None:
        """
        Name the service.

        :param url: its base URL.
        :param timeout: seconds one call may take.
        """
        self.where = f"the service at {url}"
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False)

    def ask(
        self, question: str, mode: str, tenant_id: str, top_k: int | None, model: str | None
    ) -> QueryResult:
        """Answer a question; see `LocalClient.ask`."""
        body = {"q": question, "mode": mode, "tenant_id": tenant_id, "k": top_k, "model": model}
        return QueryResult.model_validate(self._call("POST", "/query/", json=body))

    def ingest(self, documents: Sequence[dict[str, Any]], tenant_id: str, progress: Progress) -> Ingested:
        """Index documents; see `LocalClient.ingest`."""
        result = Ingested()
        for part in _uploads(documents):
            body = {"tenant_id": tenant_id, "documents": part}
            job = self._follow(self._call("POST", "/ingest/", json=body), progress)
            result.documents += job["documents_ok"]
            result.chunks += job["chunks_ok"]
            result.errors += _errors_of(job)
        return result

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _follow(self, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
        done = 0
        while True:
            finished = job["documents_ok"] + job["documents_failed"]
            progress(finished - done)
            done = finished
            if job["status"] == "done":
                return job
            if job["status"] in ("failed", "cancelled"):
                raise ServiceError(
                    f"job {job['job_id']} {job['status']}: {job['error'] or 'no reason given'}"
                )
            time.sleep(_POLL_SECONDS)
            job = self._call("GET", f"/ingest/{job['job_id']}")

    def _call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **more)
        except httpx.HTTPError as error:
            raise ServiceError(f"{self.where} does not answer: {error}") from None
        if response.is_error:
            try:
                detail = response.json()["detail"]
            except (ValueError, KeyError, TypeError):
                detail = response.reason_phrase
            raise ServiceError(f"{self.where} answered {response.status_code}: {detail}")
        return dict(response.json())


def _uploads(documents: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Part documents into requests that the service takes."""
    part: list[dict[str, Any]] = []
    size = 0
    for document in documents:
        more = len(json.dumps(document, ensure_ascii=False).encode())
        if part and (len(part) == _UPLOAD_DOCUMENTS or size + more > _UPLOAD_BYTES):
            yield part
            part, size = [], 0
        part.append(document)
        size += more
    if part:
        yield part


def _errors_of(job: dict[str, Any]) -> list[str]:
    errors = [f"{error['document_id']}: {error['error']}" for error in job["errors"]]
    if unnamed := job["documents_failed"] - len(errors):
        errors.append(f"{unnamed} more documents of job {job['job_id']} failed")
    return errors


@contextmanager
def open_client(settings: Settings) -> Iterator[Client]:
    """
    Reach the data: through the service that holds it, else by opening it here.

    :param settings: say where the data is.
    :returns: the client.
    :raises DataDirInUseError: if another process has the data and is no service.
    """
    lock = DataDirLock(settings.data_dir)
    try:
        lock.acquire()
    except DataDirInUseError:
        service = running_service(settings.data_dir)
        if service is None:
            raise
        client = HttpClient(service.url, settings.request_timeout + 10)
        try:
            yield client
        finally:
            client.close()
        return
    try:
        with ModeRegistry(settings) as registry:
            yield LocalClient(registry)
    finally:
        lock.release()
