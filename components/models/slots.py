"""How many calls of a language model run at once, and how many may wait for their turn."""

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from components.models.errors import GenerationTimeoutError, ModelBusyError


class CallSlots:
    """
    Lets some calls through at once; further ones wait in order, and those beyond are refused.

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

        :param concurrency: Calls at once, of all threads, and of each event loop.
        :param max_waiting: Calls that may wait.
        """
        self.concurrency = concurrency
        self.max_waiting = max_waiting
        self.waiting = 0
        self._lock = threading.Lock()
        self._threads = threading.BoundedSemaphore(concurrency)
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
        self._loops = weakref.WeakKeyDictionary()

    @contextmanager
    def held(self, timeout: float, model: str) -> Iterator[None]:
        """
        Hold a slot for what happens inside.

        :param timeout: Seconds to wait for it.
        :param model: The model, for messages.
        :raises ModelBusyError: If too many wait already.
        :raises GenerationTimeoutError: If none gets free in time.
        """
        if not self._threads.acquire(blocking=False):
            with self._in_the_queue(model):
                if not self._threads.acquire(timeout=timeout):
                    raise GenerationTimeoutError(f"{model} was busy for {timeout:g} s")
        try:
            yield
        finally:
            self._threads.release()

    @asynccontextmanager
    async def held_async(self, timeout: float, model: str) -> AsyncIterator[None]:
        """
        Hold a slot for what happens inside; see `held`.

        :param timeout: Seconds to wait for it.
        :param model: The model, for messages.
        :raises ModelBusyError: If too many wait already.
        :raises GenerationTimeoutError: If none gets free in time.
        """
        loop = asyncio.get_running_loop()
        slots = self._loops.get(loop)
        if slots is None:
            slots = self._loops[loop] = asyncio.Semaphore(self.concurrency)
        if slots.locked():
            with self._in_the_queue(model):
                async with time_limit(timeout, f"{model} was busy"):
                    await slots.acquire()
        else:
            await slots.acquire()
        try:
            yield
        finally:
            slots.release()

    @contextmanager
    def _in_the_queue(self, model: str) -> Iterator[None]:
        with self._lock:
            if self.waiting >= self.max_waiting:
                raise ModelBusyError(f"{model} is busy, and {self.waiting} calls wait for it already")
            self.waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self.waiting -= 1


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
