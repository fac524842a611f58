"""The id of the request that is worked on, which every log line of it carries."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
# Who runs a job logs of it also when the work has been left.
_requests: OrderedDict[str, str] = OrderedDict()
_MAX_REQUESTS = 1_000


@contextmanager
def bound_request_id(request_id: str | None, work: str | None = None) -> Iterator[None]:
    """
    Put a request's id on every line logged inside the `with` block.

    :param request_id: the id; None for none.
    :param work: the name of what is done for the request in the background, for `request_of`.
    """
    if work and request_id:
        _requests[work] = request_id
        while len(_requests) > _MAX_REQUESTS:
            _requests.popitem(last=False)
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def request_of(work: str) -> str | None:
    """
    Tell which request some work in the background is for.

    :param work: its name.
    :returns: the request's id; None where the work was not done here, or long ago.
    """
    return _requests.get(work)


def current_request_id() -> str | None:
    """:returns: The id of the request that is worked on; None outside of one."""
    return _request_id.get()
