"""Errors in OpenAI's form, for everything under `/v1/`."""

import re
from typing import Any

_PREFIX = "/v1"
_OPTION = re.compile(r"generation_kwargs\.(\w+)")
# OpenAI's own names, which clients know.
_CODES = {"unknown-mode": "model_not_found", "prompt-too-long": "context_length_exceeded"}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# What a request calls the things that problems are named after.
_PARAMS = {
    "unknown-mode": "model",
    "unknown-model": "llm",
    "unknown-tenant": "tenant_id",
    "invalid-tenant": "tenant_id",
    "tenant-required": "tenant_id",
    "invalid-filter": "filters",
}


def speaks_openai(path: str) -> bool:
    """
    Say whether a route's errors have OpenAI's form.

    :param path: the path that was asked for.
    :returns: whether it is `/v1` or below.
    """
    return path == _PREFIX or path.startswith(f"{_PREFIX}/")


def openai_status(status: int) -> int:
    """
    Give the status that OpenAI's protocol has for one of ours.

    :param status: our status.
    :returns: 400 for 422, which it does not use; else the same.
    """
    return 400 if status == 422 else status


def openai_error(problem: dict[str, Any], path: str = "") -> dict[str, Any]:
    """
    Write a problem as OpenAI does.

    :param problem: the problem, as `serve.errors` makes it.
    :param path: the path that was asked for, which decides what some fields are called.
    :returns: the body, with `error`; its `code` is the kind of problem, its `param` the field that is wrong.
    """
    status, kind = problem["status"], problem["type"].rpartition(":")[2]
    fault = "server_error" if status >= 500 else "invalid_request_error"
    wrong = [error["field"] for error in problem.get("errors", ()) if error["field"]]
    return {
        "error": {
            # A caller sends the options of the model by themselves.
            "message": _OPTION.sub(r"\1", problem["detail"]),
            "type": _TYPES.get(status, fault),
            "param": wrong[0] if wrong else _param(kind, problem["detail"], path),
            "code": _CODES.get(kind, kind.replace("-", "_")),
            "request_id": problem["request_id"],
        }
    }


def _param(kind: str, detail: str, path: str) -> str | None:
    if kind == "invalid-schema":
        return "text.format" if path.startswith(f"{_PREFIX}/responses") else "response_format"
    if kind == "invalid-model-input" and (option := _OPTION.match(detail)):
        return option[1]
    return _PARAMS.get(kind)
