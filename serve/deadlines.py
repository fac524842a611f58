"""How long a caller waits for an answer: `X-Request-Timeout`, in seconds."""

import math
import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, Header

from serve.errors import LimitError

TIMEOUT_HEADER = "X-Request-Timeout"
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def timeout_of(headers: Mapping[str, str]) -> float | None:
    """
    Read how long a caller waits.

    :param headers: the request's headers, in which upper and lower case are one.
    :returns: the seconds; None when the caller does not say.
    :raises LimitError: if it is no number of seconds.
    """
    return _seconds(headers.get(TIMEOUT_HEADER))


async def request_timeout(
    x_request_timeout: Annotated[
        str | None,
        Header(
            description="Seconds to wait for the answer; `REQUEST_TIMEOUT` when left out, and at most.",
            json_schema_extra={"pattern": f"^{_NUMBER.pattern}$"},
        ),
    ] = None,
) -> float | None:
    """Give FastAPI's routes `timeout_of`, documented."""
    return _seconds(x_request_timeout)


RequestTimeout = Annotated[float | None, Depends(request_timeout)]


def _seconds(value: str | None) -> float | None:
    if value is None:
        return None
    # `float` takes more, such as `1_0` and `nan`.
    seconds = float(value) if _NUMBER.fullmatch(value) else 0.0
    if not 0 < seconds < math.inf:
        raise LimitError(TIMEOUT_HEADER, f"must be a number of seconds above 0, not '{value[:32]}'")
    return seconds
