"""What the service says: answers, events and problems."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx

from serve.commands.json_lines import json_value, lines_in

Json = dict[str, Any]

_NOT_OURS = "what answers is not this service: its reply can't be read"
NAME_THE_TENANT = "the key in API_KEY is for several tenants: name the one that is meant with --tenant"
"""What a user hears of the problem `tenant-required`, who knows no `tenant_id`."""
_SECONDS_IN_HEADER = "the seconds in Retry-After"
_OWN_KEY = "; this command sends the key in API_KEY, and `thresher keys create` makes one"
_ADVICE = {
    "missing-key": _OWN_KEY,
    "invalid-key": _OWN_KEY,
    "forbidden": "; this command sends the key in API_KEY",
}


class ServiceError(RuntimeError):
    """The service refused or failed; the message is its own."""

    def __init__(
        self, message: str, status: int = 0, kind: str = "", retry_after: float | None = None
    ) -> None:
        """
        Say what the service said.

        :param message: for the user.
        :param status: HTTP status; 0 where there was no answer.
        :param kind: kind of problem, such as `queue-full`.
        :param retry_after: seconds after which it is worth to try again, where the service named them.
        """
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.retry_after = retry_after


def answer_in(response: httpx.Response) -> Json:
    """
    Read a response.

    :param response: the response.
    :returns: what it holds.
    :raises ServiceError: if that is a problem, or another program than the service answered.
    """
    if response.is_success:
        try:
            return dict(json_value(response.content)) if response.content else {}
        except (ValueError, TypeError):
            raise ServiceError(_NOT_OURS, response.status_code) from None
    problem = problem_in(response)
    wait = wait_in(response)
    raise ServiceError(told(problem, wait), response.status_code, kind_of(problem), wait)


def told(problem: Json, wait: float | None = None) -> str:
    """
    Say what a problem is to somebody who sees a command, and no field and no header of HTTP.

    :param problem: the problem.
    :param wait: seconds after which it is worth to try again, where the service named them.
    :returns: what is wrong, and what to do.
    """
    kind, detail = kind_of(problem), str(problem["detail"])
    if kind == "tenant-required":
        return NAME_THE_TENANT
    span = "a while" if wait is None else "1 second" if wait == 1 else f"{wait:g} seconds"
    if _SECONDS_IN_HEADER in detail:
        detail = detail.replace(_SECONDS_IN_HEADER, span)
    elif wait is not None:
        detail += f"; try again after {span}"
    return detail + _ADVICE.get(kind, "")


def problem_in(response: httpx.Response) -> Json:
    """
    Read the problem in a response.

    :param response: the response.
    :returns: the problem; made from the status where another program than the service answered.
    """
    with suppress(ValueError):
        problem = json_value(response.content)
        if isinstance(problem, dict) and isinstance(problem.get("detail"), str):
            return problem
    return {"status": response.status_code, "detail": response.reason_phrase}


def kind_of(problem: Json) -> str:
    """
    Say what kind of problem one is.

    :param problem: the problem.
    :returns: the kind, such as `queue-full`; empty where there is none.
    """
    return str(problem.get("type", "")).rpartition(":")[2]


def wait_in(response: httpx.Response) -> float | None:
    """
    Read when it is worth to try again.

    :param response: the response.
    :returns: seconds; None where the service named none.
    """
    wait = response.headers.get("Retry-After", "")
    return float(wait) if wait.isdecimal() else None


def events_in(response: httpx.Response) -> Iterator[tuple[str, Json]]:
    """
    Read the events of an answer while they come.

    :param response: the response, whose body was not read yet.
    :returns: the events by kind, last `result`.
    :raises ServiceError: if one of them is an error, or the connection breaks.
    """
    kind = ""
    try:
        for line in lines_in(response.iter_bytes()):
            field, _, value = line.partition(b": ")
            if field == b"event":
                kind = value.decode()
            elif field == b"data" and kind == "error":
                problem = json_value(value)
                wait = problem.get("retry_after")
                raise ServiceError(told(problem, wait), problem["status"], kind_of(problem), wait)
            elif field == b"data":
                yield kind, json_value(value)
                if kind == "result":
                    return
    except httpx.TransportError as error:
        raise ServiceError(f"the connection broke in the middle of the answer: {error}") from None
    raise ServiceError("the answer broke off before its end")
