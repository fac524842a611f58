"""Why somebody may not come in, or not do what they want."""

from collections.abc import Iterable


class AccessError(Exception):
    """A request is refused for who sends it."""

    challenge: str | None = None
    """`WWW-Authenticate` of the answer."""


class MissingKeyError(AccessError):
    """A request brings no key where one is needed."""

    challenge = 'Bearer realm="thresher"'

    def __init__(self) -> None:
        """Say how to send one."""
        super().__init__(
            "this service asks for an API key: send it as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'"
        )


class InvalidKeyError(AccessError):
    """The key of a request is none of the service's; which of the reasons holds is nobody's business."""

    challenge = 'Bearer realm="thresher", error="invalid_token"'

    def __init__(self) -> None:
        """Name the possible reasons."""
        super().__init__(
            "the API key is unknown, revoked or expired, or the request brings two different ones"
        )


class ForbiddenError(AccessError):
    """A key is good, but not for this."""

    @classmethod
    def without_role(cls, roles: Iterable[str]) -> "ForbiddenError":
        """
        Name the roles that would do.

        :param roles: the roles, of which a key needs one.
        :returns: the error.
        """
        needed = " or ".join(f"'{role}'" for role in roles)
        return cls(f"this needs an API key with the role {needed}" if needed else "no API key allows this")


class TenantRequiredError(ValueError):
    """A request has to name the tenant, since its key is for several."""

    def __init__(self) -> None:
        """Say how."""
        super().__init__("the API key is for several tenants: name the one that is meant in 'tenant_id'")


class KeysError(RuntimeError):
    """The service's keys can't be read or changed, or there are none where there must be."""


class KeyFileError(KeysError):
    """The system lets nobody read or change the file of the keys, perhaps only for now."""
