"""The OpenAPI document: FastAPI describes what a route gives, this adds every problem that it can answer with."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from serve.access.rules import rules_of
from serve.chat.errors import openai_status, speaks_openai
from serve.errors import status_of

_STORE = ("document-store-unavailable", "document-store-failed")
_HELD = (*_STORE, "unknown-tenant", "embedding-mismatch", "reindexing", "timeout")
_JOBS = ("job-store-unavailable", "timeout")
_TAKEN = (
    *_JOBS,
    "unknown-pipeline",
    "broken-pipeline",
    "idempotency-conflict",
    "tenant-queue-full",
    "queue-full",
    "body-too-large",
)
_ASKED = (
    *_HELD,
    "index-mismatch",
    "unknown-mode",
    "broken-mode",
    "body-too-large",
    "invalid-filter",
    "invalid-schema",
    "unsupported-input",
    "unknown-model",
    "prompt-too-long",
    "invalid-model-input",
    "invalid-model-reply",
    "model-needed",
    "model-files-missing",
    "model-unavailable",
    "model-busy",
    "model-timeout",
    "model-failed",
    "embedding-unavailable",
    "overloaded",
    "budget-exceeded",
    "query-timeout",
)
_ANY_REQUEST = ("untrusted-origin", "url-too-long", "headers-too-large")
_EVERYWHERE = (
    *_ANY_REQUEST,
    "missing-key",
    "invalid-key",
    "forbidden",
    "tenant-required",
    "invalid-tenant",
    "invalid-request",
    "rate-limited",
    "too-many-requests",
    "service-stopping",
)
PROBLEMS: dict[str, tuple[str, ...]] = {
    "GET /": (),
    "GET /health": (),
    "GET /ready": (),
    "GET /metrics": (),
    "GET /playground/{name}": ("not-found",),
    "GET /status": (),
    "GET /status/{pipeline_name}": ("not-found",),
    "POST /query/": _ASKED,
    "GET /query/": _ASKED,
    "POST /query/batch": ("body-too-large", "overloaded"),
    "GET /modes": (),
    "GET /modes/{mode}": ("unknown-mode", "broken-mode"),
    "GET /pipelines": (),
    "POST /ingest/": _TAKEN,
    "POST /ingest/files": (*_TAKEN, "file-too-large"),
    "GET /ingest/": (*_JOBS, "invalid-cursor"),
    "GET /ingest/{job_id}": (*_JOBS, "unknown-job"),
    "GET /ingest/{job_id}/sources": (*_JOBS, "unknown-job"),
    "GET /ingest/{job_id}/events": (*_JOBS, "unknown-job"),
    "DELETE /ingest/{job_id}": (*_JOBS, "unknown-job", "job-finished"),
    "POST /ingest/{job_id}/retry": (
        *_TAKEN,
        "unknown-job",
        "nothing-to-retry",
        "sources-gone",
    ),
    "GET /documents": (*_HELD, "invalid-cursor"),
    "GET /documents/{document_id}": (*_HELD, "unknown-document"),
    "DELETE /documents/{document_id}": (*_HELD, *_JOBS, "unknown-document"),
    "DELETE /tenants/{tenant_id}": (*_HELD, *_JOBS, "trace-store-unavailable"),
    "POST /tenants/{tenant_id}/reindex": (*_HELD, *_TAKEN),
    "GET /traces/{request_id}": ("unknown-trace", "trace-store-unavailable"),
    "GET /v1/models": (),
    "GET /v1/models/{model}": ("unknown-mode", "broken-mode"),
    "POST /v1/chat/completions": _ASKED,
    "POST /v1/responses": _ASKED,
}
# They answer with events instead of JSON where they are asked for them.
_STREAMED = ("POST /query/", "GET /query/", "POST /v1/chat/completions", "POST /v1/responses")
_EVENTS = {
    "itemSchema": {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("event", "data", "id")},
        "required": ["data"],
    }
}
_WAITING = (429, 503)
_REQUEST_ID = {
    "description": "The request's id, which every log line about it has.",
    "schema": {"type": "string"},
}
_RETRY_AFTER = {"description": "Seconds after which to try again.", "schema": {"type": "string"}}


class FieldFault(BaseModel):
    """What is wrong with one part of a request."""

    field: str
    message: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:thresher:problem:unknown-mode"])
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldFault] = Field(default_factory=list, description="What is wrong, part by part.")


class OpenAIFault(BaseModel):
    """What OpenAI's protocol tells of an error."""

    message: str
    type: str
    param: str | None
    code: str | None
    request_id: str


class OpenAIError(BaseModel):
    """An error in OpenAI's form, under `/v1/`."""

    error: OpenAIFault


def install(app: FastAPI) -> None:
    """
    Complete the OpenAPI document of an application whenever it is made.

    :param app: the application.
    """
    make = app.openapi
    completed: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal completed
        # Made anew by FastAPI when a route was added.
        if (document := make()) is not completed:
            _complete(document)
            completed = document
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def problems_of(operation: str) -> tuple[str, ...]:
    """
    Tell what a route may refuse, beside an unforeseen error.

    :param operation: method and path, as in `GET /modes`.
    :returns: the kinds of problems.
    """
    # Modes, plain pipelines and wrappers: their names are known when they are loaded.
    own = _ASKED if operation.endswith("/run") else PROBLEMS.get(operation, ())
    is_open = any(rule.is_open for rule in rules_of(*operation.split(" ")))
    return (*(_ANY_REQUEST if is_open else _EVERYWHERE), *own)


def _complete(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (Problem, OpenAIError):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            responses = operation["responses"]
            # FastAPI's guess: its own form of errors, which is not ours.
            responses.pop("422", None)
            name = f"{method.upper()} {path}"
            _add(responses, path, problems_of(name))
            if name in _STREAMED:
                responses["200"]["content"]["text/event-stream"] = _EVENTS
            for response in responses.values():
                response.setdefault("headers", {})["X-Request-ID"] = _REQUEST_ID
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _add(responses: dict[str, Any], path: str, kinds: Iterable[str]) -> None:
    openai = speaks_openai(path)
    media_type = "application/json" if openai else "application/problem+json"
    schema = {"$ref": f"#/components/schemas/{(OpenAIError if openai else Problem).__name__}"}
    for status, told in sorted(_by_status(kinds, openai).items()):
        response = responses.setdefault(str(status), {"description": f"Problem: {', '.join(told)}."})
        response.setdefault("content", {})[media_type] = {"schema": schema}
        if status in _WAITING:
            response.setdefault("headers", {})["Retry-After"] = _RETRY_AFTER


def _by_status(kinds: Iterable[str], openai: bool) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for kind in dict.fromkeys(kinds):
        status = status_of(kind)
        found.setdefault(openai_status(status) if openai else status, []).append(f"`{kind}`")
    return found
