"""What schemathesis checks of every response beside its own checks: an error is a problem, and an explained one."""

import json
from typing import Any

import schemathesis

from serve.errors import status_of

# A caller that waits for a millisecond is answered so, and one of a crowd.
EXPLAINED = frozenset({"query-timeout", "overloaded", "model-busy"})
_FORMS = ("application/problem+json", "application/json")


@schemathesis.check
def errors_are_problems(ctx: Any, response: Any, case: Any) -> None:
    """Refuse an error without its kind, an unexplained 5xx, and a kind with another status than its own."""
    if response.status_code < 400:
        return
    body, kind = _read(response)
    if response.status_code >= 500 and kind not in EXPLAINED and not case.path.startswith("/ready"):
        raise AssertionError(f"an unexplained {response.status_code}: {body}")
    assert kind, f"an error without its kind: {body}"
    if "urn:thresher:problem:" in body and kind != "method-not-allowed":
        assert response.status_code == status_of(kind), f"{kind} with the status {response.status_code}"
    assert (
        json.loads(body).get("request_id", response.headers["x-request-id"][0])
        == (response.headers["x-request-id"][0])
    )


def _read(response: Any) -> tuple[str, str]:
    """:returns: The body and the kind of problem that it tells, in our form or in OpenAI's."""
    body = response.content.decode("utf-8", "replace")
    if response.headers.get("content-type", [""])[0].partition(";")[0] not in _FORMS:
        return body, ""
    told = json.loads(body)
    if "error" in told:
        return body, str(told["error"]["code"]).replace("_", "-")
    return body, str(told.get("type", "")).removeprefix("urn:thresher:problem:")
