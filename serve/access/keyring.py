"""The keys that count now: those of the file, as it stands, and those of `API_KEYS`."""

import hmac
import logging
import time
from collections.abc import Callable

from serve.access.callers import EVERY_ROLE, Caller
from serve.access.errors import KeyFileError, KeysError
from serve.access.key_file import KeyFile, Version
from serve.access.keys import ANY_TENANT, ApiKey, digest, new_key

logger = logging.getLogger("thresher.access.keys")

_MOST_BYTES = 1_024
_RETRY_SECONDS = 1.0


class Keyring:
    """
    Finds the caller of a key, in the file's present version.

    Usage example:
    ```python
    keyring = Keyring(KeyFile(Path("data/api_keys.json")))
    caller = keyring.find(b"thr_...")
    ```
    """

    def __init__(
        self,
        file: KeyFile,
        fixed: tuple[ApiKey, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Read the keys.

        :param file: the file; there may be none yet.
        :param fixed: keys that hold as long as the process runs.
        :param clock: tells the time in seconds.
        :raises KeysError: if there is a file that can't be read.
        """
        self._file = file
        self._fixed = fixed
        self._clock = clock
        self._retry_at: float | None = None
        self._are_given = bool(fixed)
        self._version: Version | None = file.version()
        self._read = file.read()
        self.fault: str | None = None
        """What is wrong with the file as it stands now; the keys of the last good version go on."""

    @property
    def exists(self) -> bool:
        """Whether somebody has set up keys, even if none is left."""
        self.refresh()
        return self._are_given or self._version is not None

    @property
    def is_empty(self) -> bool:
        """Whether no key opens anything."""
        self.refresh()
        return all(key.has_expired() for key in self._keys)

    def find(self, secret: bytes) -> Caller | None:
        """
        Tell whose a key is.

        :param secret: what somebody shows as their key.
        :returns: the caller; None for a key that is unknown, revoked or expired.
        """
        self.refresh()
        if len(secret) > _MOST_BYTES:
            return None
        shown = digest(secret)
        found = None
        # To the end of the list, and each to its end: how long it takes tells nothing of the keys.
        for key in self._keys:
            if hmac.compare_digest(key.sha256, shown):
                found = key
        return None if found is None or found.has_expired() else found.caller()

    def add_passing(self) -> str:
        """
        Make a key that allows everything and ends with this process.

        :returns: the key.
        """
        secret, key = new_key([ANY_TENANT], EVERY_ROLE, "passing")
        self._fixed = (*self._fixed, key)
        return secret

    def refresh(self) -> None:
        """Read the file again if it has changed. Looking whether it has takes microseconds, so every request does."""
        now = self._clock()
        if self._retry_at is not None and now < self._retry_at:
            return
        try:
            version = self._file.version()
            if version == self._version and self._retry_at is None:
                return
            self._read = self._file.read()
        except KeyFileError as error:
            # It may pass, as too many open files do, and must not keep a key that is revoked by then.
            self._retry_at = now + _RETRY_SECONDS
            self._tell(error)
            return
        except KeysError as error:
            self._tell(error)
        else:
            self.fault = None
            logger.info("the API keys were read again: there are %d now", len(self._keys))
        self._version, self._retry_at = version, None

    def _tell(self, error: KeysError) -> None:
        if str(error) != self.fault:
            logger.error("%s; the keys that were there before go on", error)
        self.fault = str(error)

    @property
    def _keys(self) -> tuple[ApiKey, ...]:
        return self._fixed + self._read
