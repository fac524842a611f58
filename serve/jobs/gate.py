"""BatchGate: lets batches run side by side, but one that may end the process all alone in it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CHECK_SECONDS = 0.25


class BatchGate:
    """
    Decides which batches of a process run at the same time.

    A process that dies takes all its batches with it. A batch at which one has died is tried again `alone`: if the
    process then dies again, no other batch can have done it.

    Usage example:
    ```python
    gate = BatchGate()
    with gate.shared(check=lambda: None):
        index(batch)
    ```
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._want_alone = 0

    @contextmanager
    def shared(self, check: Callable[[], None]) -> Iterator[None]:
        """
        Run beside other batches, but after each one that runs alone or waits for it.

        :param check: called a few times a second while this waits; what it raises ends the wait.
        """
        self._enter(lambda: not self._want_alone, check)
        try:
            yield
        finally:
            self._change(inside=-1)

    @contextmanager
    def alone(self, check: Callable[[], None]) -> Iterator[None]:
        """
        Run while no other batch does.

        :param check: called a few times a second while this waits; what it raises ends the wait.
        """
        self._change(want_alone=+1)
        try:
            self._enter(lambda: not self._inside, check)
            try:
                yield
            finally:
                self._change(inside=-1)
        finally:
            self._change(want_alone=-1)

    def _enter(self, is_free: Callable[[], bool], check: Callable[[], None]) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(is_free, CHECK_SECONDS):
                    self._inside += 1
                    return
            check()

    def _change(self, *, inside: int = 0, want_alone: int = 0) -> None:
        with self._changed:
            self._inside += inside
            self._want_alone += want_alone
            self._changed.notify_all()
