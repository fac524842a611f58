"""Work in slices: between them a component lets others run, and hears that its work is no longer wanted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


class WorkCancelled(BaseException):
    """
    Raised by a pacer: nobody wants the work any more, nor goes on with it later, so what is half done is taken back.

    Not an `Exception`, as a pipeline wraps those.
    """


class Pacer(Protocol):
    """Says how fast a piece of work may go."""

    @property
    def others_wait(self) -> bool:
        """Whether somebody waits for what this work takes the processor from."""

    def pause(self) -> None:
        """
        Wait as long as others need the processor.

        An exception raised here ends the work. Only after `WorkCancelled` nobody else has taken it up meanwhile.
        """

    def rows_at_once(self, default: int) -> int:
        """
        Say how large the next slice may be.

        :param default: the size for work that nobody waits beside.
        :returns: at least 1, and never more than `default`.
        """


_pacer: ContextVar[Pacer | None] = ContextVar("pacer", default=None)


@contextmanager
def paced_by(pacer: Pacer) -> Iterator[None]:
    """
    Let a pacer say how fast the work inside goes.

    :param pacer: the pacer; it holds for this thread or task, and for nobody else.
    """
    token = _pacer.set(pacer)
    try:
        yield
    finally:
        _pacer.reset(token)


def pause() -> None:
    """Let others run where they must; without a pacer, do nothing."""
    if (pacer := _pacer.get()) is not None:
        pacer.pause()


def others_wait() -> bool:
    """
    Say whether work should give way.

    :returns: whether somebody waits for what it takes the processor from; False without a pacer.
    """
    pacer = _pacer.get()
    return pacer is not None and pacer.others_wait


def rows_at_once(default: int) -> int:
    """
    Say how large the next slice may be.

    :param default: the size without a pacer, and for work that nobody waits beside.
    :returns: how many rows to take.
    """
    pacer = _pacer.get()
    return default if pacer is None else pacer.rows_at_once(default)


def slices(rows: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """
    Cut work into slices of the size that is right at the time, with a pause before each.

    Usage example:
    ```python
    for part in slices(chunks, most=256):
        collection.upsert(...)
    ```

    :param rows: the work.
    :param most: rows in a slice at most.
    :returns: the slices in order; none when there are no rows.
    """
    begin = 0
    while begin < len(rows):
        pause()
        end = begin + rows_at_once(most)
        yield rows[begin:end]
        begin = end
