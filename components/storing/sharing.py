"""A lock for many readers or one writer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedLock:
    """
    Lets in either any number of readers or one writer; a waiting writer goes before readers that come later.

    Usage example:
    ```python
    lock = SharedLock()
    with lock.reading():
        ...
    with lock.writing():
        ...
    ```
    """

    def __init__(self) -> None:
        """Make an open lock."""
        self._changed = threading.Condition()
        self._readers = 0
        self._writers = 0
        self._written = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep writers out inside the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep everybody else out inside the block."""
        with self._changed:
            self._writers += 1
            self._changed.wait_for(lambda: not self._readers and not self._written)
            self._written = True
        try:
            yield
        finally:
            with self._changed:
                self._written = False
                self._writers -= 1
                self._changed.notify_all()
