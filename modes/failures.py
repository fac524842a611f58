"""What a run of a pipeline can fail with, whatever its components raise."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from haystack.core.errors import PipelineRuntimeError


class UnsupportedInputError(ValueError):
    """A mode was given an input that its file does not declare."""


class QueryTimeoutError(TimeoutError):
    """A mode had no answer in time; `stage` names what was running, where that is known."""

    def __init__(self, seconds: float, stage: str | None) -> None:
        """
        Say what was running.

        :param seconds: how long the answer was waited for.
        :param stage: the stage, or in a mode without stages the component, that was running.
        """
        doing = f"; {stage} was running" if stage else ""
        super().__init__(f"there was no answer after {round(seconds, 2):g} s{doing}")
        self.stage = stage


@asynccontextmanager
async def time_limit(seconds: float | None, running: Callable[[], str | None]) -> AsyncIterator[None]:
    """
    Stop what takes too long.

    :param seconds: how long it may take.
    :param running: names the stage that is running when the time is over.
    :raises QueryTimeoutError: if it takes longer; what else runs out of time inside raises its own error.
    """
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            yield
    except TimeoutError as error:
        if seconds is None or not deadline.expired():
            raise
        raise QueryTimeoutError(seconds, running()) from error


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise what a component raised instead of Haystack's wrapper around it."""
    try:
        yield
    except PipelineRuntimeError as error:
        own = own_error(error)
        # Not `from error`, which own caused: whoever follows the causes would go round for ever.
        raise own from own.__cause__


def own_error(error: BaseException) -> BaseException:
    """
    Look into Haystack's wrappers, of which a stage inside a mode adds another one.

    :param error: what a pipeline raised.
    :returns: what a component raised.
    """
    while isinstance(error, PipelineRuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error
