"""The commands' way to the data: through the service that holds it, or through one started in this process."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx

from serve.access.errors import TenantRequiredError
from serve.commands.replies import NAME_THE_TENANT, Json, ServiceError, answer_in, events_in
from serve.locking import DataDirInUseError, DataDirLock, RunningService, running_service
from settings import Settings

if TYPE_CHECKING:
    from serve.commands.local import LocalService

# A service that starts has the data directory before it has an address.
_ADDRESS_LOOKS = 50
_ADDRESS_SECONDS = 0.1
_RETRY_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0)
_PAGE = 100


@dataclass(frozen=True)
class OutgoingFile:
    """A file to upload: its name is the id of its document."""

    name: str
    title: str
    content: bytes


class Client:
    """
    Asks the service that holds the data directory; where none runs, one is started in this process.

    A call is repeated when the connection breaks, for no call does its work twice: another service, or this process,
    has taken over by then.

    Usage example:
    ```python
    with Client(Settings.load()) as client:
        for job in client.jobs("acme"):
            print(job["job_id"], job["status"])
    ```
    """

    def __init__(self, settings: Settings, works: bool = False) -> None:
        """
        Remember where the data is; nothing is opened yet.

        :param settings: the settings.
        :param works: whether a service in this process works on jobs; otherwise they wait for another one.
        """
        self.settings = settings
        self._works = works
        self._timeout = settings.request_timeout + 10
        self._open = ExitStack()
        self._http: httpx.Client | None = None
        self._local: LocalService | None = None
        self.here = False
        """Whether the service runs in this process."""

    def __enter__(self) -> Self:
        """Reach the service."""
        self._reach()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection, and the service when it runs here."""
        self.close()

    def close(self) -> None:
        """Close the connection; a service in this process stops at the end of the batches under way."""
        self._http = self._local = None
        self._open.close()

    @property
    def headers(self) -> dict[str, str]:
        """:returns: What each request to the service that was reached last has to bring."""
        key = self._local.api_key if self._local else self._api_key
        # Not as a bearer token, which names the tenant where nobody is asked for a key.
        return {"X-API-Key": key} if key else {}

    @property
    def tenant_here(self) -> str | None:
        """
        Decide the tenant where the user names none and the service runs in this process.

        :returns: the tenant; None where another service decides it.
        :raises ServiceError: if the user's key is for several.
        """
        if self._local is None:
            return None
        try:
            return self._local.tenant_of(self._api_key)
        except TenantRequiredError:
            raise ServiceError(NAME_THE_TENANT, 422, "tenant-required") from None

    def reach_again(self) -> str:
        """
        Find the service anew, or become it, after a connection broke.

        :returns: its base URL.
        """
        self.close()
        self._reach()
        return self.url

    @property
    def url(self) -> str:
        """:returns: The base URL of the service that was reached last."""
        return str(self._http.base_url) if self._http is not None else ""

    def check_mode(self, name: str) -> None:
        """
        Check that there is a mode, before much is asked of it.

        :param name: the mode.
        :raises ServiceError: if there is none of this name.
        """
        self._call("GET", _path("modes", name))

    def ask(
        self,
        question: str,
        mode: str,
        tenant_id: str | None,
        top_k: int | None,
        model: str | None,
        explain: bool | None = None,
    ) -> Json:
        """
        Answer a question.

        :param question: the question.
        :param mode: which mode answers.
        :param tenant_id: whose documents; None leaves that to the service, as everywhere here.
        :param top_k: chunks to retrieve.
        :param model: another language model.
        :param explain: whether the answer is to have an explanation.
        :returns: the answer, as `QueryResult` reads it.
        """
        return self.query(_asked(question, mode, tenant_id, top_k, model, explain))

    def query(self, body: Json) -> Json:
        """
        Answer a question that is given with all that `POST /query/` takes.

        :param body: the request's body.
        :returns: the answer.
        """
        return self._call("POST", "/query/", json=body)

    def runs(self, request_id: str, tenant_id: str | None) -> list[Json]:
        """
        Tell how the answers of a request came about.

        :param request_id: the request's id.
        :param tenant_id: whose; None for any that may be read.
        :returns: its runs, as `KeptRun` reads them.
        """
        params = {} if tenant_id is None else {"tenant_id": tenant_id}
        runs: list[Json] = self._call("GET", _path("traces", request_id), params=params)["items"]
        return runs

    def tell(
        self,
        question: str,
        mode: str,
        tenant_id: str | None,
        top_k: int | None,
        model: str | None,
        explain: bool | None = None,
    ) -> Iterator[tuple[str, Json]]:
        """
        Answer a question while telling what happens; see `ask`.

        :param question: the question.
        :param mode: which mode answers.
        :param tenant_id: whose documents; None leaves that to the service, as everywhere here.
        :param top_k: chunks to retrieve.
        :param model: another language model.
        :param explain: whether the answer is to have an explanation.
        :returns: the events by kind, last `result`.
        :raises ServiceError: if the answer can't be made.
        """
        body = {**_asked(question, mode, tenant_id, top_k, model, explain), "stream": True}

        def begin(http: httpx.Client) -> httpx.Response:
            request = http.build_request("POST", "/query/", json=self._with_tenant(body))
            response = http.send(request, stream=True)
            if not response.is_success:
                response.read()
            return response

        with closing(self._sent(begin)) as response:
            if not response.is_success:
                answer_in(response)
            yield from events_in(response)

    def upload(
        self, files: Sequence[OutgoingFile], tenant_id: str | None, pipeline: str | None, key: str
    ) -> Json:
        """
        Send files to be indexed.

        :param files: the files.
        :param tenant_id: whose they are.
        :param pipeline: another indexing pipeline than the usual one.
        :param key: idempotency key: the same upload again gives the same job.
        :returns: the job.
        """
        # The name in a form can't hold every character, so the id says it once more.
        named = {file.name.replace('"', "%22"): file for file in files}
        told = {name: {"id": file.name, "title": file.title} for name, file in named.items()}
        return self._call(
            "POST",
            "/ingest/files",
            params={"tenant_id": tenant_id},
            data={"metadata": json.dumps(told)} | ({"pipeline": pipeline} if pipeline else {}),
            files=[("files", (name, file.content)) for name, file in named.items()],
            headers={"Idempotency-Key": key},
        )

    def reindex(self, tenant_id: str) -> Json:
        """
        Build a tenant's index anew.

        :param tenant_id: the tenant.
        :returns: the job.
        """
        return self._call("POST", f"{_path('tenants', tenant_id)}/reindex")

    def job(self, job_id: str) -> Json:
        """
        Tell the state of a job.

        :param job_id: the job.
        :returns: the job.
        """
        return self._call("GET", _path("ingest", job_id))

    def jobs(
        self, tenant_id: str | None, status: str | None = None, limit: int | None = None
    ) -> Iterator[Json]:
        """
        List a tenant's jobs, newest first.

        :param tenant_id: the tenant.
        :param status: only those that stand so.
        :param limit: at most so many.
        :returns: the jobs.
        """
        return self._pages("/ingest/", {"tenant_id": tenant_id, "status": status}, limit)

    def cancel(self, job_id: str) -> Json:
        """
        Cancel a job.

        :param job_id: the job.
        :returns: the job as it then stands.
        """
        return self._call("DELETE", _path("ingest", job_id))

    def retry(self, job_id: str) -> Json:
        """
        Run what failed in a job again.

        :param job_id: the job.
        :returns: the job, pending again.
        """
        return self._call("POST", f"{_path('ingest', job_id)}/retry")

    def documents(self, tenant_id: str | None, limit: int | None = None) -> Iterator[Json]:
        """
        List a tenant's documents.

        :param tenant_id: the tenant.
        :param limit: at most so many.
        :returns: the documents.
        """
        return self._pages("/documents", {"tenant_id": tenant_id}, limit)

    def document(self, tenant_id: str | None, document_id: str) -> Json:
        """
        Give a document with its chunks.

        :param tenant_id: whose it is.
        :param document_id: the document.
        :returns: the document; `items` are all its chunks.
        """
        path, wanted = _path("documents", document_id), {"tenant_id": tenant_id}
        document = self._call("GET", path, params={**wanted, "limit": 1})
        return {**document, "items": list(self._pages(path, wanted, None)), "next": None}

    def delete_document(self, tenant_id: str | None, document_id: str) -> Json:
        """
        Delete a document.

        :param tenant_id: whose it is.
        :param document_id: the document.
        :returns: what was deleted.
        """
        return self._call("DELETE", _path("documents", document_id), params={"tenant_id": tenant_id})

    def drop_tenant(self, tenant_id: str) -> Json:
        """
        Delete a tenant with all its documents.

        :param tenant_id: the tenant.
        :returns: what was deleted.
        """
        return self._call("DELETE", _path("tenants", tenant_id))

    def _pages(self, path: str, wanted: Mapping[str, Any], limit: int | None) -> Iterator[Json]:
        asked = dict(wanted)
        left = limit
        while True:
            page = self._call("GET", path, params={**asked, "limit": min(left or _PAGE, _PAGE)})
            yield from page["items"][:left]
            left = None if left is None else left - len(page["items"])
            if not page.get("next") or (left is not None and left <= 0):
                return
            asked["cursor"] = page["next"]

    def _call(
        self, method: str, path: str, params: Json | None = None, json: Json | None = None, **more: Any
    ) -> Json:
        def send(http: httpx.Client) -> httpx.Response:
            params_now, json_now = self._with_tenant(params), self._with_tenant(json)
            return http.request(method, path, params=params_now, json=json_now, **more)

        return answer_in(self._sent(send))

    def _with_tenant(self, values: Json | None) -> Json | None:
        """Decide the tenant that a request leaves open, of the service that it goes to now; leave out what is open."""
        if values is None:
            return None
        named = (
            {**values, "tenant_id": values.get("tenant_id") or self.tenant_here}
            if "tenant_id" in values
            else values
        )
        return {name: value for name, value in named.items() if value is not None}

    def _sent(self, send: Callable[[httpx.Client], httpx.Response]) -> httpx.Response:
        for wait in _RETRY_SECONDS:
            time.sleep(wait)
            try:
                if self._http is None:
                    self._reach()
                assert self._http is not None
                return send(self._http)
            except (httpx.ReadTimeout, httpx.WriteTimeout):
                raise ServiceError(f"the service takes longer than {self._timeout:.0f} s") from None
            except httpx.TransportError as error:
                lost = error
                self.close()
        raise ServiceError(f"the service does not answer: {lost}") from None

    def _reach(self) -> None:
        """Find the service that has the data directory, or become it."""
        for looks_left in reversed(range(_ADDRESS_LOOKS)):
            try:
                service = _holder(self.settings)
                url = service.url if service else self._start()
                http = httpx.Client(
                    base_url=url, headers=self.headers, timeout=self._timeout, trust_env=False
                )
                self._http = self._open.enter_context(http)
                self.here = service is None
                return
            except DataDirInUseError:
                if not looks_left:
                    raise
                time.sleep(_ADDRESS_SECONDS)

    def _start(self) -> str:
        # Not before it is needed: it loads all that makes a service.
        from serve.commands.local import LocalService

        self._local = LocalService(self.settings, self._works)
        self._open.callback(self._local.close)
        return self._local.url

    @property
    def _api_key(self) -> str | None:
        return self.settings.api_key.get_secret_value() if self.settings.api_key else None


def _holder(settings: Settings) -> RunningService | None:
    """
    Find the service that holds the data directory.

    :param settings: say where it is.
    :returns: the service; None where nobody holds the directory.
    :raises DataDirInUseError: if one holds it that left no address (yet).
    """
    lock = DataDirLock(settings.data_dir)
    try:
        # Only who holds the lock is asked: an address may have stayed behind, and lead to somebody else.
        lock.acquire()
    except DataDirInUseError:
        if (service := running_service(settings.data_dir)) is None:
            raise
        return service
    lock.release()
    return None


def job_id_of(tenant_id: str, key: str) -> str:
    """
    Say which job an upload under an idempotency key is.

    :param tenant_id: whose files they are.
    :param key: the key.
    :returns: the job's id.
    """
    return hashlib.sha256(f"{tenant_id}\0{key}".encode()).hexdigest()[:32]


def _asked(
    question: str,
    mode: str,
    tenant_id: str | None,
    top_k: int | None,
    model: str | None,
    explain: bool | None,
) -> Json:
    return {
        "q": question,
        "mode": mode,
        "tenant_id": tenant_id,
        "k": top_k,
        "model": model,
        "explain": explain,
    }


def _path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)
