"""Threads that work in the context of whoever gives them work: its request id, its trace, the listener of its run."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any


class ContextThreads(ThreadPoolExecutor):
    """
    A `ThreadPoolExecutor` that takes the context along, as `asyncio.to_thread` does.

    Usage example:
    ```python
    threads = ContextThreads(2, thread_name_prefix="embed")
    vector = await asyncio.get_running_loop().run_in_executor(threads, model.encode, text)
    ```
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """
        Hand in some work.

        :param fn: what to call.
        :param args: its arguments.
        :param kwargs: its arguments by name.
        :returns: what comes of it.
        """
        return super().submit(copy_context().run, fn, *args, **kwargs)
