"""One process at a time on a data directory, and where the others find it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout


class DataDirInUseError(RuntimeError):
    """Another process has the data directory."""


class DataDirLock:
    """
    Holds a data directory.

    Two processes on one embedded Chroma directory corrupt it, so a second one is refused. The holder may leave the
    address of its service, so that commands can talk to it.
    """

    def __init__(self, data_dir: Path) -> None:
        """
        Name the directory; nothing is locked yet.

        :param data_dir: the directory; made when it is not there.
        """
        self.data_dir = data_dir
        self._address = data_dir / "service.json"
        self._lock = FileLock(data_dir / "lock", thread_local=False)

    def acquire(self) -> None:
        """
        Take the directory.

        :raises DataDirInUseError: if another process has it; says which and what to do.
        """
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            holder = running_service(self.data_dir)
            who = f"the service at {holder.url} (process {holder.pid})" if holder else "another process"
            raise DataDirInUseError(
                f"{self.data_dir} is in use by {who}: stop that one, or set DATA_DIR to another directory"
            ) from None
        except OSError as error:
            raise DataDirInUseError(
                f"{self.data_dir} can't be used: {error.strerror}; set DATA_DIR"
            ) from None
        self._address.unlink(missing_ok=True)

    def announce(self, url: str) -> None:
        """
        Leave the address of the service that holds the directory.

        :param url: base URL.
        """
        partial = self._address.with_suffix(".partial")
        partial.write_text(json.dumps({"pid": os.getpid(), "url": url}), "utf-8")
        partial.replace(self._address)

    def release(self) -> None:
        """Give the directory back."""
        if self._lock.is_locked:
            self._address.unlink(missing_ok=True)
            self._lock.release()


@dataclass(frozen=True)
class RunningService:
    """A service that holds a data directory."""

    pid: int
    url: str


def running_service(data_dir: Path) -> RunningService | None:
    """
    Find the service that holds a data directory.

    :param data_dir: the directory.
    :returns: the service, or None when there is none, or it left no address (yet).
    """
    try:
        left = json.loads((data_dir / "service.json").read_text("utf-8"))
        return RunningService(int(left["pid"]), str(left["url"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
