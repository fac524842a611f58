"""Heartbeat: a file by which a worker, which speaks no HTTP, shows that it lives and what it does."""

import json
import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("thresher.worker")

BEAT_SECONDS = 5.0
# After so long without a beat the worker hangs or is dead.
STALE_SECONDS = 60.0
# Machines that share the folder may differ in their clocks; a living worker would write its file again.
FORGET_SECONDS = 3_600.0


class Heartbeat:
    """
    The file of one worker under `DATA_DIR/workers`, written anew every few seconds.

    Usage example:
    ```python
    heartbeat = Heartbeat(Path("data"))
    heartbeat.begin()
    heartbeat.beat("ok")
    print(living_workers(Path("data")))
    heartbeat.end()
    ```
    """

    def __init__(self, data_dir: Path) -> None:
        """
        :param data_dir: where the file lies; other workers may share it.
        """
        self._path = _folder(data_dir) / f"{socket.gethostname()}-{os.getpid()}.json"
        self._complained = False

    def begin(self) -> None:
        """Take away the files of workers that were killed: whoever is silent for so long does not come back."""
        for path in self._path.parent.glob("*"):
            with suppress(OSError):  # another worker was quicker
                if time.time() - path.stat().st_mtime > FORGET_SECONDS:
                    path.unlink()

    def beat(self, state: str) -> None:
        """
        Show that the worker lives.

        :param state: "ok", or what keeps it from working.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps({"pid": os.getpid(), "state": state}), "utf-8")
            partial.replace(self._path)
        except OSError as error:
            if not self._complained:
                log.warning("can't write %s, so `thresher worker --check` fails: %s", self._path, error)
                self._complained = True

    def end(self) -> None:
        """Take the file away."""
        self._path.unlink(missing_ok=True)


def living_workers(data_dir: Path) -> dict[int, str]:
    """
    Find the workers of this machine.

    :param data_dir: their data directory.
    :returns: process id → state of each that has shown itself lately.
    """
    workers = {}
    for path in _folder(data_dir).glob(f"{socket.gethostname()}-*.json"):
        try:
            if time.time() - path.stat().st_mtime <= STALE_SECONDS:
                left = json.loads(path.read_text("utf-8"))
                workers[int(left["pid"])] = str(left["state"])
        except (OSError, ValueError, KeyError):  # it has just gone
            continue
    return workers


def _folder(data_dir: Path) -> Path:
    return data_dir / "workers"
