"""Tenants' ids, and the names of their collections."""

import re

from components.storing.errors import InvalidTenantError

TENANT_PATTERN = r"^[a-zA-Z0-9](?:[a-zA-Z0-9_-]{0,62}[a-zA-Z0-9])?$"


def check_tenant_id(tenant_id: str) -> str:
    """
    Check the form of a tenant id.

    :param tenant_id: the id.
    :returns: the id.
    :raises InvalidTenantError: if it is not 1 to 64 letters, digits, `_` and `-`, beginning and ending with a letter
        or digit.
    """
    if not re.fullmatch(TENANT_PATTERN, tenant_id):
        raise InvalidTenantError(
            "a tenant id has 1 to 64 letters, digits, '_' or '-', and begins and ends with a letter or digit"
        )
    return tenant_id


def generation_name(first: str, number: int) -> str:
    """
    Name a further collection of a tenant; no tenant id holds a dot, so it is nobody else's.

    :param first: name of the tenant's first collection.
    :param number: which further one.
    :returns: the name.
    """
    return f"{first}.g{number}"
