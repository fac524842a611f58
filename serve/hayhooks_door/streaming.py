"""What a wrapper's method gives, as one kind of stream that has a deadline and ends when nobody reads it."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import copy_context
from typing import Any, TypeVar

from starlette.exceptions import HTTPException

from modes.failures import QueryTimeoutError

logger = logging.getLogger("thresher.wrapper")
_END = object()
# Not the threads of everybody: a wrapper that blocks would hold up requests that have nothing to do with it.
_THREADS = ThreadPoolExecutor(40, "wrapper")
T = TypeVar("T")


class WrapperError(RuntimeError):
    """A wrapper's own code failed; what it raised is the cause, and for the log only."""

    def __init__(self, name: str) -> None:
        """
        Name the wrapper.

        :param name: what it is served as.
        """
        super().__init__(f"the wrapper '{name}' failed")


class _QuitError(RuntimeError):
    """A wrapper's code raised what ends a process, a task or a loop, and not only what it does."""


class Deadline:
    """When a wrapper has to be through; holds for its call and for all that its stream gives."""

    def __init__(self, seconds: float) -> None:
        """
        Begin now.

        :param seconds: how long the answer may take.
        """
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """
        Let what is inside the `with` block run until the deadline.

        :raises QueryTimeoutError: if it does not end before.
        """
        try:
            async with asyncio.timeout(self._end - time.monotonic()) as timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise QueryTimeoutError(self.seconds, None) from error


async def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """
    Run what may block, in one of the threads of wrappers.

    :param function: what to call.
    :param args: its arguments.
    :param kwargs: its arguments by name.
    :returns: what it gives.
    :raises Exception: as it does; in place of what would end the event loop, a `RuntimeError`.
    """

    def quiet() -> T:
        try:
            return function(*args, **kwargs)
        # An executor hands `StopIteration` to nobody, and an event loop ends with what is no `Exception`.
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                raise
            raise _QuitError(f"raised {type(error).__name__}") from error

    return await asyncio.get_running_loop().run_in_executor(_THREADS, copy_context().run, quiet)


@contextmanager
def safe_errors(name: str) -> Iterator[None]:
    """
    Keep what a wrapper raises from its callers, but for an `HTTPException`, by which it speaks to them.

    :param name: the wrapper's name.
    :raises WrapperError: in place of everything else.
    """
    try:
        yield
    except (HTTPException, QueryTimeoutError):
        raise
    # A wrapper that calls `sys.exit` would end the service for everybody.
    except (Exception, SystemExit) as error:
        raise WrapperError(name) from error


def is_stream(result: Any) -> bool:
    """
    Say whether a result is given piece by piece.

    :param result: what a wrapper's method gave.
    :returns: whether `items` can read it.
    """
    return isinstance(result, AsyncGenerator | Generator)


async def items(
    name: str, stream: AsyncGenerator[Any, None] | Generator[Any, None, None], deadline: Deadline
) -> AsyncGenerator[Any, None]:
    """
    Read a wrapper's stream; one that blocks is read in a thread.

    :param name: the wrapper's name.
    :param stream: what its method gave; closed when it has ended and when nobody reads on.
    :param deadline: when it has to be through.
    :returns: what the stream gives.
    :raises WrapperError: if the wrapper's code fails.
    :raises QueryTimeoutError: if it takes too long.
    """
    reader = _AsyncReader(stream) if isinstance(stream, AsyncGenerator) else _ThreadReader(stream)
    try:
        while True:
            with safe_errors(name):
                async with deadline.hold():
                    item = await reader.next()
            if item is _END:
                return
            yield item
    finally:
        await reader.close()


class _AsyncReader:
    def __init__(self, stream: AsyncGenerator[Any, None]) -> None:
        self._stream = stream

    async def next(self) -> Any:
        return await anext(self._stream, _END)

    async def close(self) -> None:
        try:
            await self._stream.aclose()
        except (Exception, SystemExit):
            logger.warning("a wrapper's stream could not be closed", exc_info=True)


class _ThreadReader:
    def __init__(self, stream: Generator[Any, None, None]) -> None:
        self._stream = stream
        self._reading: asyncio.Future[Any] | None = None

    async def next(self) -> Any:
        # Shielded: a thread can't be stopped, and the stream can't be closed before it is out of it.
        self._reading = asyncio.ensure_future(in_thread(next, self._stream, _END))
        return await asyncio.shield(self._reading)

    async def close(self) -> None:
        if self._reading is None or self._reading.done():
            await in_thread(self._close)
        else:
            loop = asyncio.get_running_loop()
            self._reading.add_done_callback(lambda _: loop.run_in_executor(_THREADS, self._close))

    def _close(self) -> None:
        try:
            self._stream.close()
        except BaseException:  # also what would end the event loop
            logger.warning("a wrapper's stream could not be closed", exc_info=True)
