"""Errors in OpenAI's form, for everything under `/v1/`."""

from typing import Any

PREFIX = "/v1/"
# OpenAI's own names, which clients know.
_CODES = {"unknown-mode": "model_not_found", "prompt-too-long": "context_length_exceeded"}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# What a request calls the things that problems are named after.
_PARAMS = {
    "unknown-mode": "model",
    "unknown-model": "llm",
    "unknown-tenant": "tenant_id",
    "invalid-tenant": "tenant_id",
}


def openai_status(status: int) -> int:
    """
    Give the status that OpenAI's protocol has for one of ours.

    :param status: our status.
    :returns: 400 for 422, which it does not use; else the same.
    """
    return 400 if status == 422 else status


def openai_error(problem: dict[str, Any]) -> dict[str, Any]:
    """
    Write a problem as OpenAI does.

    :param problem: the problem, as `serve.errors` makes it.
    :returns: the body, with `error`; its `code` is the kind of problem, its `param` the field that is wrong.
    """
    status, kind = problem["status"], problem["type"].rpartition(":")[2]
    fault = "server_error" if status >= 500 else "invalid_request_error"
    wrong = [error["field"] for error in problem.get("errors", ()) if error["field"]]
    return {
        "error": {
            "message": problem["detail"],
            "type": _TYPES.get(status, fault),
            "param": wrong[0] if wrong else _PARAMS.get(kind),
            "code": _CODES.get(kind, kind.replace("-", "_")),
            "request_id": problem["request_id"],
        }
    }
