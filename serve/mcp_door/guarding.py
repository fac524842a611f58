"""Who may come through the door: no page of a website that a browser on this machine shows."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from serve.errors import UntrustedOriginError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_EVERY = "*"


class HostGuard:
    """
    Refuses requests of pages that have no business here, as the MCP specification asks.

    A website can give its own name the address 127.0.0.1 (DNS rebinding), and its pages then talk to a service on the
    machine of whoever looks at them. Their requests carry the website's name: in `Origin`, and in `Host`. Programs send
    no `Origin`, and may call a service that machines share by any name.

    Usage example:
    ```python
    guard = HostGuard(["rag.example.com"], only_local=True)
    guard.check({"host": "localhost:8000"})
    ```
    """

    def __init__(self, allowed: Iterable[str], only_local: bool) -> None:
        """
        Say which names are good.

        :param allowed: host names, besides this machine's own; `*` for every one.
        :param only_local: whether the service is bound to this machine alone, so that `Host` must be a good name too.
        """
        self._allowed = frozenset(name.lower() for name in (*_LOOPBACK, *allowed))
        self._only_local = only_local

    def check(self, headers: Mapping[str, str]) -> None:
        """
        Let a request pass, or not.

        :param headers: its headers.
        :raises UntrustedOriginError: if it comes from a page of another host, or calls this one by another name.
        """
        origin = headers.get("origin")
        if origin is not None and not self._is_allowed(origin):
            raise UntrustedOriginError("Origin", origin)
        host = headers.get("host", "")
        if self._only_local and not self._is_allowed(f"//{host}"):
            raise UntrustedOriginError("Host", host)

    def _is_allowed(self, url: str) -> bool:
        if _EVERY in self._allowed:
            return True
        try:
            return urlsplit(url).hostname in self._allowed
        except ValueError:
            return False
