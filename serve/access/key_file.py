"""The file of the API keys: read by the service, changed by `thresher keys`."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from serve.access.errors import KeyFileError, KeysError
from serve.access.keys import ApiKey, KeySet, read_keys

_LOCK_SECONDS = 10

Version = tuple[int, int, int]
"""What differs between two versions of a file: its inode, time of change and size."""


class KeyFile:
    """
    Keeps API keys in a JSON file, which is whole at any time and readable by its owner only.

    Usage example:
    ```python
    secret, key = new_key(["acme"], [Role.QUERY])
    KeyFile(Path("data/api_keys.json")).add(key)
    ```
    """

    def __init__(self, path: Path) -> None:
        """
        Name the file.

        :param path: where it is.
        """
        self.path = path

    def version(self) -> Version | None:
        """
        Tell whether the file is another one than before, without reading it.

        :returns: what the file's versions differ in; None when there is none.
        :raises KeyFileError: if that can't be told.
        """
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failed("read", error) from None
        return found.st_ino, found.st_ctime_ns, found.st_size

    def read(self) -> tuple[ApiKey, ...]:
        """
        Read the keys.

        :returns: the keys; none where there is no file.
        :raises KeyFileError: if the file can't be read.
        :raises KeysError: if it has another form.
        """
        try:
            return read_keys(self.path.read_bytes(), str(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise self._failed("read", error) from None

    def add(self, key: ApiKey) -> None:
        """
        Add a key.

        :param key: the key.
        :raises KeysError: if the file can't be read or written.
        """
        with self._locked():
            self._write((*self.read(), key))

    def remove(self, key_id: str) -> ApiKey:
        """
        Remove a key.

        :param key_id: which.
        :returns: what was kept of it.
        :raises KeysError: if there is none of this id, or the file can't be read or written.
        """
        with self._locked():
            keys = self.read()
            for key in keys:
                if key.id == key_id:
                    self._write(tuple(other for other in keys if other is not key))
                    return key
        raise KeysError(f"{self.path} has no key '{key_id[:64]}'; `thresher keys list` shows those it has")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time change the file, so that no change is lost."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=_LOCK_SECONDS, mode=0o600):
                yield
        except Timeout:
            raise KeysError(f"another process changes {self.path}; try again") from None
        except OSError as error:
            raise self._failed("changed", error) from None

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        # What the name stands for, so that a link stays a link.
        target = self.path.resolve()
        text = KeySet(keys=keys).model_dump_json(indent=2, exclude_none=True) + "\n"
        # Made with the mode 0600.
        handle, partial = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise

    def _failed(self, done: str, error: OSError) -> KeyFileError:
        return KeyFileError(
            f"{self.path} can't be {done}: {error.strerror}; API_KEYS_FILE says which file it is"
        )
