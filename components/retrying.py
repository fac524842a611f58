"""Asking once more where a connection broke, and where asking twice does no harm."""

from collections.abc import Callable
from typing import Any

import stamina
from stamina import instrumentation

# It would log each pause, which while a dependency is away is a line for each of its callers.
instrumentation.set_on_retry_hooks(())


def two_attempts(
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool], pause: float
) -> Any:
    """
    Make a call again when it failed the first time.

    :param on: which errors are worth it.
    :param pause: seconds between the two.
    :returns: what to iterate over, in a coroutine too; each step is a context manager around one attempt.
    """
    return stamina.retry_context(on=on, attempts=2, timeout=None, wait_initial=pause, wait_jitter=0)
