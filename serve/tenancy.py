"""Whose request is this: the one place that decides which tenant a caller may name."""

from typing import Annotated

from fastapi import Depends

from components.storing import check_tenant_id

DEFAULT_TENANT = "default"


class Tenancy:
    """Decides which tenants a caller may name. Without keys, any well-formed one."""

    def tenant(self, requested: str | None) -> str:
        """
        Decide the tenant of a request.

        :param requested: the tenant that the caller names; None for the default one.
        :returns: the tenant to work for.
        :raises InvalidTenantError: if the id has a wrong form.
        """
        return check_tenant_id(DEFAULT_TENANT if requested is None else requested)


async def caller_tenancy() -> Tenancy:
    """:returns: The caller's tenancy. A coroutine, for FastAPI calls what is none in a thread."""
    return Tenancy()


CallerTenancy = Annotated[Tenancy, Depends(caller_tenancy)]
