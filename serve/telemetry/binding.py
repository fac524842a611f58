"""The id of the request that is worked on, which every log line of it carries."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


@contextmanager
def bound_request_id(request_id: str | None) -> Iterator[None]:
    """
    Put a request's id on every line logged inside the `with` block.

    :param request_id: the id; None for none.
    """
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def current_request_id() -> str | None:
    """:returns: The id of the request that is worked on; None outside of one."""
    return _request_id.get()
