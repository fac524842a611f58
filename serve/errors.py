"""Errors as RFC 9457 problems: one table from exception to status."""

import logging
from collections.abc import Sequence
from typing import Any

import fastapi
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from components import storing
from components.budgets import BudgetExceededError
from components.extracting import LanguageModelNeededError
from components.filtering import InvalidFilterError
from components.models import errors as model_errors
from components.retrieving import EmbeddingUnavailableError
from components.schemas import InvalidSchemaError
from components.structuring import StructuredAnswerError
from components.weights.catalogue import WeightsError
from modes.failures import QueryTimeoutError, UnsupportedInputError
from registry import BrokenModeError, UnknownModeError
from serve import jobs
from serve.access.errors import ForbiddenError, InvalidKeyError, MissingKeyError, TenantRequiredError
from serve.bodies import fields_beside, first_faults
from serve.chat.errors import openai_error, openai_status, speaks_openai
from serve.indexer import BrokenPipelineError, UnknownPipelineError
from serve.limiting import errors as limiting
from serve.parameters import did_you_mean
from serve.telemetry.outline import plainly
from serve.tenancy import told_of_unknown_tenant
from serve.traces.errors import TraceStoreError, UnknownTraceError

logger = logging.getLogger("thresher.error")


class UnknownJobError(LookupError):
    """There is no such job."""

    def __init__(self, job_id: str) -> None:
        """
        Name the job.

        :param job_id: what was asked for.
        """
        super().__init__(
            f"there is no job '{job_id[:64]}'; finished jobs are forgotten after a while (JOB_TTL)"
        )


class InvalidCursorError(ValueError):
    """A cursor was not given by the list that it is for."""


class JobFinishedError(RuntimeError):
    """A finished job can't be cancelled."""


class NothingToStreamError(Exception):
    """A client that has seen all events of a job asks for more; 204 tells a browser not to connect again."""


class ServiceStoppingError(RuntimeError):
    """The server stops before an answer is complete."""

    retry_after = 1

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("the service stops, and the answer is not complete; ask again")


class UntrustedOriginError(ValueError):
    """A request comes from a page of a website that is not trusted, or calls the service by a foreign name."""

    def __init__(self, header: str, value: str) -> None:
        """
        Name the header.

        :param header: `Origin`, `Host` or `Sec-Fetch-Site`.
        :param value: what it says.
        """
        if header == "Sec-Fetch-Site":
            # Without an `Origin` nobody knows which page it was, so no setting can allow it.
            message = "a page of another website sent this; ask from a program, or on a page of this service"
        else:
            message = (
                f"{header} is '{value[:100]}', which is not this service's own; if it is one of yours, name its host "
                "in ALLOWED_HOSTS"
            )
        super().__init__(message)


class LimitError(ValueError):
    """A part of a request is over a limit of the settings."""

    def __init__(self, field: str, message: str) -> None:
        """
        Name the part.

        :param field: what it is called in the request.
        :param message: what is wrong with it.
        """
        super().__init__(f"{field}: {message}")
        self.errors = [{"field": field, "message": message}]


class FileTooLargeError(ValueError):
    """A file of an upload is over the limit for one file."""

    def __init__(self, name: str, max_bytes: int) -> None:
        """
        Name the file.

        :param name: the file's name.
        :param max_bytes: the limit.
        """
        super().__init__(
            f"the file '{name[:200]}' is larger than {max_bytes} bytes (MAX_FILE_BYTES); nothing was accepted"
        )


class UploadNotKeptError(jobs.QueueUnavailableError):
    """There is no room for an upload."""


# Exception → status and kind of problem; the first that fits counts, so a subclass stands before its parent.
_PROBLEMS: list[tuple[type[Exception], int, str]] = [
    (MissingKeyError, 401, "missing-key"),
    (InvalidKeyError, 401, "invalid-key"),
    (ForbiddenError, 403, "forbidden"),
    (UntrustedOriginError, 403, "untrusted-origin"),
    (UnknownModeError, 404, "unknown-mode"),
    (storing.UnknownTenantError, 404, "unknown-tenant"),
    (storing.UnknownDocumentError, 404, "unknown-document"),
    (UnknownJobError, 404, "unknown-job"),
    (UnknownTraceError, 404, "unknown-trace"),
    (jobs.JobNotFoundError, 404, "unknown-job"),
    (UnknownPipelineError, 404, "unknown-pipeline"),
    (JobFinishedError, 409, "job-finished"),
    (jobs.NothingToRetryError, 409, "nothing-to-retry"),
    (jobs.IdempotencyConflictError, 409, "idempotency-conflict"),
    (storing.ReindexingError, 409, "reindexing"),
    (storing.EmbeddingMismatchError, 409, "embedding-mismatch"),
    (storing.IndexMismatchError, 409, "index-mismatch"),
    (jobs.SourcesGoneError, 410, "sources-gone"),
    (FileTooLargeError, 413, "file-too-large"),
    (LimitError, 422, "invalid-request"),
    (storing.InvalidCursorError, 422, "invalid-cursor"),
    (InvalidCursorError, 422, "invalid-cursor"),
    (storing.InvalidTenantError, 422, "invalid-tenant"),
    (TenantRequiredError, 422, "tenant-required"),
    (InvalidFilterError, 422, "invalid-filter"),
    (InvalidSchemaError, 422, "invalid-schema"),
    (UnsupportedInputError, 422, "unsupported-input"),
    (model_errors.UnknownModelError, 422, "unknown-model"),
    (model_errors.ContextLengthExceededError, 422, "prompt-too-long"),
    (model_errors.InvalidGenerationError, 422, "invalid-model-input"),
    (StructuredAnswerError, 502, "invalid-model-reply"),
    (LanguageModelNeededError, 503, "model-needed"),
    (BudgetExceededError, 503, "budget-exceeded"),
    (BrokenModeError, 503, "broken-mode"),
    (BrokenPipelineError, 503, "broken-pipeline"),
    (storing.DocumentStoreUnavailableError, 503, "document-store-unavailable"),
    (storing.DocumentStoreError, 502, "document-store-failed"),
    (ServiceStoppingError, 503, "service-stopping"),
    (limiting.UrlTooLongError, 414, "url-too-long"),
    (limiting.HeadersTooLargeError, 431, "headers-too-large"),
    (limiting.RateLimitedError, 429, "rate-limited"),
    (limiting.TooManyRequestsError, 429, "too-many-requests"),
    (limiting.OverloadedError, 503, "overloaded"),
    (WeightsError, 503, "model-files-missing"),
    (EmbeddingUnavailableError, 503, "embedding-unavailable"),
    (model_errors.ModelLoadError, 503, "model-unavailable"),
    (model_errors.ModelUnavailableError, 503, "model-unavailable"),
    (model_errors.ModelBusyError, 503, "model-busy"),
    (model_errors.GenerationTimeoutError, 504, "model-timeout"),
    (model_errors.ModelError, 502, "model-failed"),
    (jobs.TenantQueueFullError, 429, "tenant-queue-full"),
    (jobs.QueueFullError, 503, "queue-full"),
    (jobs.QueueUnavailableError, 503, "job-store-unavailable"),
    (TraceStoreError, 503, "trace-store-unavailable"),
    (QueryTimeoutError, 504, "query-timeout"),
    (TimeoutError, 504, "timeout"),
]
# Kinds of what answers before a route does, for which there is no exception.
_OTHER_KINDS = {"not-found": 404, "body-too-large": 413}
# What a client is told in place of a message that is for the log: it may hold addresses and paths of the service.
_TOLD: dict[type[Exception], str] = {
    model_errors.ModelLoadError: "the language model's file is missing or can't be loaded; the log says which",
    model_errors.ModelBusyError: (
        "too many calls wait for the language model already (LLM_QUEUE); try again after the seconds in Retry-After"
    ),
    jobs.QueueUnavailableError: "the job store does not answer; try again after the seconds in Retry-After",
}
_RETRY_AFTER_SECONDS = 5
NOT_KEPT = {"Cache-Control": "no-store"}
"""Keeps an answer out of the caches of browsers and proxies, which may keep even a 404 that does not say so."""
_HTTP_KINDS = {400: "bad-request", 404: "not-found", 405: "method-not-allowed", 415: "unsupported-media-type"}


_NO_OBJECT = "the body must be a JSON object, sent with Content-Type: application/json"
_UNREADABLE = {
    "type": "json_invalid",
    "loc": ("body",),
    "ctx": {"error": "it is not UTF-8, or nested too deeply"},
}
# What pydantic says in words of Python, in words of the API.
_MESSAGES = {
    "missing": "is missing",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "enum": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_long": "has more than {max_length} {unit}",
    "too_long": "has more than {max_length} {unit}",
}


class ProblemError(fastapi.HTTPException):
    """An error for Hayhooks' routes, which let only an `HTTPException` through; keeps the kind of problem."""

    def __init__(self, error: Exception) -> None:
        """
        Say what a client is told.

        :param error: what a mode raised.
        """
        self.error = error
        status, self.kind, detail = describe(error)
        super().__init__(status, detail, _retry_after(error, status))


def problem_response(
    scope: Scope, status: int, kind: str, detail: str, headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """
    Answer with a problem (RFC 9457), or under `/v1/` with an error in OpenAI's form.

    :param scope: the request's ASGI scope.
    :param status: HTTP status.
    :param kind: what kind of problem, in words joined by `-`; it ends the URN in `type`.
    :param detail: what went wrong this time, and what to do.
    :param headers: further headers.
    :param more: further members of the problem.
    :returns: the response.
    """
    state = scope.setdefault("state", {})
    # For whoever counts them.
    state["problem"] = kind
    body = _problem(status, kind, detail, state.get("request_id", ""), **more)
    headers = {**NOT_KEPT, **(headers or {})}
    if speaks_openai(scope["path"]):
        return JSONResponse(openai_error(body, scope["path"]), openai_status(status), headers)
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def _problem(status: int, kind: str, detail: str, request_id: str, **more: Any) -> dict[str, Any]:
    return {
        "type": f"urn:thresher:problem:{kind}",
        "title": kind.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "request_id": request_id,
        **more,
    }


def describe(error: Exception) -> tuple[int, str, str]:
    """
    Say what a client is told of an error.

    :param error: what a mode, a store or a queue raised, or what is wrong with a request.
    :returns: status, kind of problem and detail; of an error that is not in the table, 500 and no detail of it.
    """
    if isinstance(error, RequestValidationError):
        told = (f"{field}: {message}" if field else message for field, message in _faults(error))
        return 422, "invalid-request", "; ".join(told)
    for error_type, status, kind in _PROBLEMS:
        if isinstance(error, error_type):
            if isinstance(error, storing.UnknownTenantError):
                return status, kind, told_of_unknown_tenant(error)
            plain = getattr(error, "told", "") or _TOLD.get(type(error))
            return status, kind, plain or str(error) or kind.replace("-", " ")
    return 500, "internal-error", "The request failed; the log has the reason under this request id."


def status_of(kind: str) -> int:
    """
    Tell the status of a kind of problem.

    :param kind: the kind.
    :returns: its HTTP status.
    :raises KeyError: if there is no such kind.
    """
    return _OTHER_KINDS.get(kind) or {known: status for _, status, known in _PROBLEMS}[kind]


def problem_of(error: Exception, request_id: str) -> dict[str, Any]:
    """
    Make the problem of an error that is told inside an answer, as an event or as one result of many, and log it.

    :param error: what a mode raised.
    :param request_id: the request's id.
    :returns: the problem.
    """
    status, kind, detail = describe(error)
    _log(kind, status, error)
    seconds = _seconds_to_wait(error, status)
    # There is no header for it where a problem is a part of an answer.
    waiting = {} if seconds is None else {"retry_after": seconds}
    return _problem(status, kind, detail, request_id, **_more(error), **waiting)


def install(app: FastAPI) -> None:
    """
    Answer every error of an application with a problem.

    :param app: the application.
    """
    app.add_exception_handler(RequestValidationError, _invalid_request)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http_error)  # type: ignore[arg-type]
    for error_type, _, _ in _PROBLEMS:
        app.add_exception_handler(error_type, _known_error)
    app.add_exception_handler(NothingToStreamError, _nothing_left)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(Exception, _unforeseen_error)


async def _known_error(request: Request, error: Exception) -> JSONResponse:
    status, kind, detail = describe(error)
    _log(kind, status, error)
    headers = _retry_after(error, status)
    return problem_response(request.scope, status, kind, detail, headers, **_more(error))


def _log(kind: str, status: int, error: Exception) -> None:
    # While a part of the service is away, each request is refused: a line for it, and not a page. Of those for which
    # there is no room there are most when there is no time to write: their access line is enough.
    if status > 500 and not isinstance(error, limiting.OverloadedError):
        logger.warning("%s: %s", kind, plainly(error))
        logger.debug("%s", kind, exc_info=error)
    elif status == 500:
        logger.error("%s", kind, exc_info=error)


async def _nothing_left(_: Request, __: Exception) -> Response:
    return Response(status_code=204)


async def _client_gone(_: Request, __: Exception) -> Response:
    # Nobody reads it; the status is for the access line.
    return Response(status_code=400)


async def _unforeseen_error(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises it again after this answer, and the request's middleware logs it.
    return problem_response(request.scope, *describe(error))


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    if error.status_code == 400 and isinstance(error.__cause__, UnicodeDecodeError | RecursionError):
        # FastAPI's answer to JSON that Python can't read, where other faults of JSON are a 422.
        return await _invalid_request(request, RequestValidationError([_UNREADABLE]))
    kind = error.kind if isinstance(error, ProblemError) else _HTTP_KINDS.get(error.status_code, "http-error")
    headers, detail, more = dict(error.headers or {}), str(error.detail), {}
    if isinstance(error, ProblemError):
        _log(error.kind, error.status_code, error.error)
        more = _more(error.error)
    elif detail == "Not Found":
        detail = f"there is no route {request.url.path[:200]}; /docs shows those there are"
    elif detail == "Method Not Allowed":
        headers["Allow"] = ", ".join(_methods(request))
        detail = f"this route does not take {request.method}; it takes {headers['Allow']}"
    return problem_response(request.scope, error.status_code, kind, detail, headers, **more)


def _methods(request: Request) -> list[str]:
    methods = ("GET", "POST", "DELETE")
    # `/ingest/files` fits `/ingest/{job_id}` too, but is something else.
    if described := request.app.openapi()["paths"].get(request.scope["path"]):
        return [method for method in methods if method.lower() in described]
    routes = request.app.router.routes
    return [
        method
        for method in methods
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def _more(error: Exception) -> dict[str, Any]:
    if isinstance(error, RequestValidationError):
        return {"errors": [{"field": field, "message": message} for field, message in _faults(error)]}
    return {"errors": error.errors} if isinstance(error, LimitError) else {}


async def _invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
    completed = RequestValidationError([_completed(request, fault) for fault in first_faults(error.errors())])
    return await _known_error(request, completed)


def _faults(error: RequestValidationError) -> list[tuple[str, str]]:
    # Never `input`: it may hold what JSON can't, and is the caller's own.
    return [(_field(fault["loc"]), _message(fault)) for fault in error.errors()]


def _seconds_to_wait(error: Exception, status: int) -> int | None:
    told: int | None = getattr(error, "retry_after", None)
    return _RETRY_AFTER_SECONDS if told is None and status == 503 else told


def _retry_after(error: Exception, status: int) -> dict[str, str] | None:
    seconds = _seconds_to_wait(error, status)
    return None if seconds is None else {"Retry-After": str(seconds)}


def _completed(request: Request, fault: dict[str, Any]) -> dict[str, Any]:
    """Add to an unknown field of a body that FastAPI has read which fields there are."""
    body = getattr(request.scope.get("route"), "body_field", None)
    if fault["type"] != "extra_forbidden" or "ctx" in fault or body is None:
        return fault
    return {**fault, "ctx": {"known": fields_beside(body.field_info.annotation, fault["loc"][1:])}}


def _message(fault: dict[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        known = fault.get("ctx", {}).get("known", ())
        hint = did_you_mean(str(fault["loc"][-1]), known)
        return f"is unknown; there are {', '.join(known)}{hint}" if known else "is unknown"
    values = fault.get("ctx", {})
    if fault["type"] == "json_invalid":
        subject = "" if _field(fault["loc"]) else "the body "
        return f"{subject}is not valid JSON: {values.get('error', 'cannot be parsed')}"
    if values.get("min_length") == 1:
        return "must not be empty"
    if fault["type"] == "missing" and tuple(fault["loc"]) == ("body",):
        return _NO_OBJECT
    if fault["type"] in _MESSAGES:
        unit = "entries" if values.get("field_type") in ("List", "Dictionary") else "characters"
        return _MESSAGES[fault["type"]].format(**values, unit=unit)
    if fault["type"] in ("model_attributes_type", "model_type") and len(fault["loc"]) == 1:
        return _NO_OBJECT
    return str(fault["msg"]).removeprefix("Value error, ")


def _field(place: Sequence[Any]) -> str:
    # Only what comes first names a part of the request: a field may be called "query" too.
    parts = place[1:] if place and place[0] in ("body", "query", "path", "header") else place
    if len(parts) == 1 and isinstance(parts[0], int):
        # Where the JSON of a body breaks off; the message says it.
        return ""
    return ".".join(str(part) for part in parts)
