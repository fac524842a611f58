"""The process that others are forked from, ready to convert; started when first wanted, and anew when it is killed."""

import atexit
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

# Neither keys nor addresses: a converter that a file has taken over would find them.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")

_ENDING_SECONDS = 0.2


@dataclass(frozen=True)
class NewProcess:
    """A process that waits for what to convert, and which nursery it is from."""

    connection: socket.socket
    generation: int


class Nursery:
    """
    Gives processes that have loaded the converters already: forking one takes milliseconds, loading a second.

    Safe for any number of threads.
    """

    def __init__(self) -> None:
        """Make a nursery; its process is started with the first that is wanted of it."""
        self._lock = threading.Lock()
        self._parent: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._generation = 0

    def process(self) -> NewProcess:
        """
        Give a process.

        :returns: a connection to it; it ends when the connection does.
        """
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            self._start_if_needed()
            try:
                self._hand_over(theirs)
            except OSError:
                self._stop()
                self._start_if_needed()
                self._hand_over(theirs)
            return NewProcess(ours, self._generation)

    def runs(self, generation: int) -> bool:
        """
        Say whether a nursery is still there.

        :param generation: which one.
        :returns: whether it runs.
        """
        with self._lock:
            if generation != self._generation or self._parent is None:
                return False
            try:
                # Its connections are closed a little before it can be seen to have ended.
                self._parent.wait(_ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                return True
            return False

    def close(self) -> None:
        """End the process and all that it has forked."""
        with self._lock:
            self._stop()

    def _hand_over(self, connection: socket.socket) -> None:
        assert self._control is not None
        socket.send_fds(self._control, [b"+"], [connection.fileno()])

    def _start_if_needed(self) -> None:
        if self._parent is not None and self._parent.poll() is None:
            return
        self._stop()
        ours, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= {
            # A program run with -c or -m, and a notebook, have their directory on the path as "".
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONDONTWRITEBYTECODE": "1",
            # Threads of numerical libraries would not survive the fork, and each reserves memory.
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        with theirs:
            self._parent = subprocess.Popen(
                [sys.executable, "-P", "-m", "components.converting.sandbox_process"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                # Not in the terminal's group: Ctrl+C is for the service, which ends this process itself.
                start_new_session=True,
            )
        self._control = ours
        self._generation += 1

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._parent is not None:
            with suppress(ProcessLookupError):
                self._parent.kill()
            self._parent.wait()
            self._parent = None


NURSERY = Nursery()
atexit.register(NURSERY.close)
