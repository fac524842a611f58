"""How many calls of a language model run at once, and how many may wait for their turn."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from components.fairness import CrowdedError, FairPlaces, LateError
from components.models.errors import GenerationTimeoutError, ModelBusyError


class CallSlots:
    """
    Lets some calls through at once; further ones wait for their turn, and those beyond are refused.

    Callers take turns, each with their own calls in order; see `components.fairness`.

    ### Usage example
    ```python
    from components.models.slots import CallSlots

    slots = CallSlots(concurrency=2, max_waiting=100)
    with slots.held(timeout=120, model="qwen3"):
        print(slots.waiting)  # ask the model here
    ```
    """

    def __init__(self, concurrency: int, max_waiting: int) -> None:
        """
        Begin with every slot free.

        :param concurrency: Calls at once, of all threads and event loops together.
        :param max_waiting: Calls that may wait.
        """
        self._places = FairPlaces(concurrency, max_waiting)

    @property
    def taken(self) -> int:
        """How many calls run."""
        return self._places.taken

    @property
    def waiting(self) -> int:
        """How many calls wait for their turn."""
        return self._places.waiting

    @contextmanager
    def held(self, timeout: float, model: str) -> Iterator[None]:
        """
        Hold a slot for what happens inside.

        :param timeout: Seconds to wait for it.
        :param model: The model, for messages.
        :raises ModelBusyError: If too many wait already.
        :raises GenerationTimeoutError: If none gets free in time.
        """
        with self._told(timeout, model), self._places.held(timeout):
            yield

    @asynccontextmanager
    async def held_async(self, timeout: float, model: str) -> AsyncIterator[None]:
        """
        Hold a slot for what happens inside; see `held`.

        :param timeout: Seconds to wait for it.
        :param model: The model, for messages.
        :raises ModelBusyError: If too many wait already.
        :raises GenerationTimeoutError: If none gets free in time.
        """
        with self._told(timeout, model):
            async with self._places.held_async(timeout):
                yield

    @contextmanager
    def _told(self, timeout: float, model: str) -> Iterator[None]:
        try:
            yield
        except CrowdedError as error:
            raise ModelBusyError(f"{model} is busy, and {self.waiting} calls wait for it already") from error
        except LateError as error:
            raise GenerationTimeoutError(f"{model} was busy for {timeout:g} s") from error


@asynccontextmanager
async def time_limit(seconds: float, what: str) -> AsyncIterator[None]:
    """
    End what happens inside after some time.

    :param seconds: How long it may take.
    :param what: What it did meanwhile, for the message.
    :raises GenerationTimeoutError: If it takes longer.
    """
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            yield
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise GenerationTimeoutError(f"{what} for {seconds:g} s") from error
