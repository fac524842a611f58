"""Whether the service asks for keys, and who a request comes from."""

import logging

from starlette.datastructures import Headers

from serve.access.callers import NOBODY, Caller
from serve.access.errors import InvalidKeyError, KeysError, MissingKeyError
from serve.access.key_file import KeyFile
from serve.access.keyring import Keyring
from serve.access.keys import read_keys
from settings import Settings

logger = logging.getLogger("thresher.access.keys")

KEY_HEADERS = ("authorization", "x-api-key")
_WHAT_TO_DO = (
    "make one with `thresher keys create --tenant NAME --role query --role ingest` (they are kept in {file}, or given "
    "in API_KEYS); or set AUTH=off if something before the service decides who may come in"
)


class Access:
    """
    Knows the keys, and tells callers by them.

    Usage example:
    ```python
    access = Access(settings)
    caller = access.caller(request.headers)
    ```
    """

    def __init__(self, settings: Settings, for_itself: bool = False) -> None:
        """
        Read the keys, and refuse a service that everybody on a network could use.

        :param settings: the service's settings.
        :param for_itself: whether the process that serves is its own caller, and gets a key for that.
        :raises KeysError: if the keys can't be read, or there is none where AUTH or HOST asks for one.
        """
        given = settings.api_keys.get_secret_value() if settings.api_keys else None
        fixed = read_keys(given, "API_KEYS") if given else ()
        self.keyring = Keyring(KeyFile(settings.keys_file), fixed)
        """The keys."""
        self.own_key = self.keyring.add_passing() if for_itself else None
        """What the process itself may show as its key."""
        self._may_change = settings.auth == "auto"
        self._is_on = settings.auth == "on" or (self._may_change and not settings.bound_to_loopback)
        what_to_do = _WHAT_TO_DO.format(file=settings.keys_file)
        if self._is_on and self.keyring.is_empty:
            why = (
                "AUTH is on" if settings.auth == "on" else f"HOST is {settings.host}, which others can reach"
            )
            raise KeysError(f"{why}, and there is no API key that holds: {what_to_do}")
        if settings.auth == "off" and not settings.bound_to_loopback:
            logger.warning(
                "AUTH is off and HOST is %s: whoever reaches the port may read, change and delete every tenant's "
                "documents",
                settings.host,
            )
        self._closed_is_told = False
        self._what_to_do = what_to_do
        self._tell_if_closed()

    @property
    def is_on(self) -> bool:
        """Whether callers need keys: once there were some, until the process ends."""
        if self._may_change and not self._is_on:
            self._is_on = self.keyring.exists
        return self._is_on

    @property
    def is_off_by_choice(self) -> bool:
        """Whether AUTH=off says that something before the service decides who may come in."""
        return not (self._is_on or self._may_change)

    @property
    def is_closed(self) -> bool:
        """Whether nobody can come in: keys are asked for, and none holds, or none any more."""
        return self.is_on and self.keyring.is_empty

    @property
    def has_unread_keys(self) -> bool:
        """Whether the file of the keys has changed into one that can't be read."""
        self.keyring.refresh()
        return self.keyring.fault is not None

    def caller(self, headers: Headers) -> Caller:
        """
        Tell who sends a request.

        :param headers: the request's headers.
        :returns: the caller.
        :raises MissingKeyError: if a key is needed and there is none.
        :raises InvalidKeyError: if it is none of ours, or there are two.
        """
        if not self.is_on:
            return Caller(named_tenant=bearer_token(headers))
        self._tell_if_closed()
        shown = _shown_keys(headers)
        if not shown:
            raise MissingKeyError
        found = self.keyring.find(shown.pop()) if len(shown) == 1 else None
        if found is None:
            raise InvalidKeyError
        return found

    def _tell_if_closed(self) -> None:
        closed = self.is_closed
        if closed and not self._closed_is_told:
            logger.warning("no API key holds, so nobody can come in: %s", self._what_to_do)
        self._closed_is_told = closed

    def known_caller(self, headers: Headers) -> Caller:
        """
        Tell who sends a request to a route that is open to all.

        :param headers: the request's headers.
        :returns: the caller; without a good key nobody.
        """
        try:
            return self.caller(headers)
        except (MissingKeyError, InvalidKeyError):
            return NOBODY


def bearer_token(headers: Headers) -> str | None:
    """
    Read a request's bearer token.

    :param headers: its headers.
    :returns: the token of `Authorization: Bearer`; None without one, and for another scheme.
    """
    return _token(headers.get("authorization", ""))


def _token(authorization: str) -> str | None:
    scheme, _, given = authorization.strip().partition(" ")
    return (given.strip() if scheme.lower() == "bearer" else "") or None


def _shown_keys(headers: Headers) -> set[bytes]:
    # All of them: where a proxy looks at the first and we at the last, somebody else's key could count.
    shown = {_token(value) for value in headers.getlist("authorization")}
    shown |= {value.strip() for value in headers.getlist("x-api-key")}
    return {key.encode("latin-1") for key in shown if key}
