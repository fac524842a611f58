"""Whose request is this: the one place that decides which tenant a caller may name."""

from contextvars import ContextVar
from typing import Annotated

from fastapi import Depends, Request

from components.storing import InvalidTenantError, UnknownTenantError, check_tenant_id
from serve.access import Caller, caller_of
from serve.access.errors import TenantRequiredError

DEFAULT_TENANT = "default"
# Errors name the tenant; only the request knows whether that name is a token.
_caller_token: ContextVar[str | None] = ContextVar("caller_token", default=None)


class Tenancy:
    """
    Decides which tenants a caller may name: those of its key. Without keys, any well-formed one.

    Usage example:
    ```python
    tenancy = Tenancy(Caller(named_tenant="acme"))
    tenancy.tenant(None)    # "acme"
    tenancy.tenant("demo")  # "demo"
    ```
    """

    def __init__(self, caller: Caller) -> None:
        """
        Remember who calls.

        :param caller: the caller.
        """
        self._caller = caller

    def tenant(self, requested: str | None) -> str:
        """
        Decide the tenant of a request.

        :param requested: the tenant that the request names; None for the caller's own.
        :returns: the tenant to work for.
        :raises InvalidTenantError: if the id has a wrong form.
        :raises UnknownTenantError: if it is not one of the caller's, whether or not there is such a tenant.
        :raises TenantRequiredError: if none is named and the caller has several.
        """
        if requested is None:
            return self._own()
        check_tenant_id(requested)
        if self._caller.tenants is not None and requested not in self._caller.tenants:
            raise UnknownTenantError.without_documents(requested)
        return requested

    def check_all_tenants(self) -> None:
        """
        Let only a caller pass who may name every tenant, to what can't be told whose documents it reads.

        :raises ForbiddenError: if the caller may not.
        """
        self._caller.check_all_tenants()

    def _own(self) -> str:
        tenants = self._caller.tenants
        if tenants is not None and len(tenants) == 1:
            return next(iter(tenants))
        if tenants is not None or self._caller.key_id is not None:
            raise TenantRequiredError
        token = self._caller.named_tenant
        if token is None:
            return DEFAULT_TENANT
        try:
            return check_tenant_id(token)
        except InvalidTenantError as error:
            # Without the token itself: it may be somebody's key for another service.
            raise InvalidTenantError(
                f"the bearer token (API key) names the tenant here, and this one is no tenant id: {error}; "
                "send the tenant's id as the key, or name the tenant in 'tenant_id'"
            ) from None


def tenancy_of(request: Request) -> Tenancy:
    """
    Tell what the caller of a request may name.

    :param request: the request.
    :returns: the caller's tenancy.
    """
    caller = caller_of(request)
    _caller_token.set(caller.named_tenant)
    return Tenancy(caller)


def told_of_unknown_tenant(error: UnknownTenantError) -> str:
    """
    Tell the caller that a tenant has nothing, without repeating the token where that named the tenant.

    :param error: the error of the request that `tenancy_of` was last asked about.
    :returns: what is wrong, and what to do.
    """
    token = _caller_token.get()
    if token is None or f"tenant '{token}'" not in str(error):
        return str(error)
    return (
        "the bearer token (API key) names the tenant here, and that tenant has no documents; send the tenant's id as "
        "the key, name the tenant in 'tenant_id', or ingest documents for it first"
    )


async def caller_tenancy(request: Request) -> Tenancy:
    """:returns: The caller's tenancy. A coroutine, for FastAPI calls what is none in a thread."""
    return tenancy_of(request)


CallerTenancy = Annotated[Tenancy, Depends(caller_tenancy)]
