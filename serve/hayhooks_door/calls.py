"""The request behind a call of Hayhooks' routes, which hand on its fields only."""

from contextvars import ContextVar
from dataclasses import dataclass

from fastapi import Depends, Request

from serve.deadlines import RequestTimeout
from serve.parameters import only_known_parameters
from serve.tenancy import Tenancy, tenancy_of


@dataclass(frozen=True)
class Call:
    """Who calls, and how long they wait."""

    request: Request
    timeout: float | None
    """Seconds, as `X-Request-Timeout` gives them."""

    @property
    def tenancy(self) -> Tenancy:
        """Which tenants the caller may name."""
        return tenancy_of(self.request)

    @property
    def seconds(self) -> float:
        """How long the answer may take: as long as the caller waits, and no longer than `REQUEST_TIMEOUT`."""
        limit: float = self.request.app.state.service.settings.request_timeout
        return limit if self.timeout is None else min(self.timeout, limit)


_current: ContextVar[Call] = ContextVar("call")


async def _remember(request: Request, timeout: RequestTimeout) -> None:
    _current.set(Call(request, timeout))


ROUTE_DEPENDENCIES = (Depends(only_known_parameters), Depends(_remember))


def current_call() -> Call:
    """
    Give the call that is being worked on.

    :returns: what a route with `ROUTE_DEPENDENCIES` has remembered.
    """
    return _current.get()
