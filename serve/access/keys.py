"""API keys, and the form in which they are kept: never themselves, only their SHA-256."""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from components.storing import InvalidTenantError, check_tenant_id
from serve.access.callers import Caller, Role
from serve.access.errors import KeysError

ANY_TENANT = "*"
_PREFIX = "thr_"
_BYTES = 32


def _tenant(value: str) -> str:
    try:
        return value if value == ANY_TENANT else check_tenant_id(value)
    except InvalidTenantError as error:
        raise ValueError(str(error)) from None


class ApiKey(BaseModel):
    """A key as it is kept."""

    # What is not understood is refused: a misspelt `expires_at` would give a key that never ends.
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    tenants: Annotated[tuple[Annotated[str, AfterValidator(_tenant)], ...], Field(min_length=1)]
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    name: Annotated[str | None, Field(max_length=200)] = None
    created_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None

    def has_expired(self) -> bool:
        """:returns: Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)

    def caller(self) -> Caller:
        """:returns: Whoever shows the key."""
        tenants = None if ANY_TENANT in self.tenants else frozenset(self.tenants)
        return Caller(self.id, tenants, frozenset(self.roles))


class KeySet(BaseModel):
    """The keys of a file, or of `API_KEYS`."""

    model_config = ConfigDict(extra="forbid")

    keys: tuple[ApiKey, ...] = ()

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        ids = [key.id for key in self.keys]
        if twice := next((key_id for key_id in ids if ids.count(key_id) > 1), None):
            raise ValueError(f"two keys have the id '{twice}'")
        return self


def new_key(
    tenants: Iterable[str], roles: Iterable[Role], name: str | None = None, expires_at: datetime | None = None
) -> tuple[str, ApiKey]:
    """
    Make a key.

    :param tenants: whom it is for; `*` for every tenant.
    :param roles: what it is for.
    :param name: what people call it.
    :param expires_at: when it ends; None for never.
    :returns: the key, which nothing keeps, and what is kept of it.
    """
    secret = _PREFIX + secrets.token_urlsafe(_BYTES)
    kept = ApiKey(
        id=f"key_{secrets.token_hex(6)}",
        sha256=digest(secret.encode()),
        tenants=tuple(dict.fromkeys(tenants)),
        roles=tuple(dict.fromkeys(roles)),
        name=name,
        created_at=datetime.now(UTC).replace(microsecond=0),
        expires_at=expires_at,
    )
    return secret, kept


def digest(secret: bytes) -> str:
    """
    Give what is kept of a key. A random key of 256 bits needs no slow hash.

    :param secret: the key.
    :returns: its SHA-256.
    """
    return hashlib.sha256(secret).hexdigest()


def read_keys(text: str | bytes, source: str) -> tuple[ApiKey, ...]:
    """
    Read keys.

    :param text: JSON, `{"keys": […]}`.
    :param source: where it comes from, for errors.
    :returns: the keys.
    :raises KeysError: if it has another form; the message repeats no value of it.
    """
    try:
        return KeySet.model_validate_json(text).keys
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        told = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the JSON'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in faults[:5]
        )
        raise KeysError(
            f"{source} holds no valid API keys: {told}; mend it, or take it away, which ends its keys, and make new "
            "ones with `thresher keys create`"
        ) from None
