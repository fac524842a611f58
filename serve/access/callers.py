"""Who calls: what a key allows, or what is allowed where nobody asks for one."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from starlette.types import Scope

from serve.access.errors import ForbiddenError


class Role(StrEnum):
    """What a key is for. None contains another."""

    QUERY = "query"
    INGEST = "ingest"
    ADMIN = "admin"


EVERY_ROLE = frozenset(Role)


@dataclass(frozen=True)
class Caller:
    """
    Who sent a request.

    :param key_id: the id of the caller's key; None where nobody asked for one.
    :param tenants: the tenants that the caller may name; None for any.
    :param roles: what the caller may do.
    :param named_tenant: the bearer token where there are no keys: it is the id of the caller's tenant then.
    """

    key_id: str | None = None
    tenants: frozenset[str] | None = None
    roles: frozenset[Role] = EVERY_ROLE
    named_tenant: str | None = field(default=None, repr=False)

    def check_all_tenants(self) -> None:
        """
        Let the caller pass if it may name every tenant.

        :raises ForbiddenError: if it may not.
        """
        if self.tenants is not None:
            raise ForbiddenError(
                "this is about all tenants, so it needs an API key that is for every one ('*')"
            )


NOBODY = Caller(tenants=frozenset(), roles=frozenset())
"""Who shows no key where one is needed; the open routes are all there is for it."""


def caller_of(connection: Any) -> Caller:
    """
    Tell who sent a request.

    :param connection: the request, after `AccessMiddleware`.
    :returns: the caller; a request that came by another way is nobody's.
    """
    scope: Scope = connection.scope
    caller: Caller = scope.get("state", {}).get("caller", NOBODY)
    return caller
