"""What a run, or a part of it, may spend on language models, and how long it may take."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Unit = Literal["llm_calls", "tokens", "seconds"]
_SPENT = {
    "llm_calls": "needs more calls of the language model than the {limit:g} that its budget allows",
    "tokens": "used the {limit:g} tokens that its budget allows",
    "seconds": "had nothing after the {limit:g} s that its budget allows",
}


class BudgetExceededError(RuntimeError):
    """A run, or a part of it, has spent what its mode allows."""

    def __init__(self, unit: Unit, limit: float, component: str | None) -> None:
        """
        Say whose budget is spent.

        :param unit: which part of the budget.
        :param limit: how much there was.
        :param component: the part of the mode whose budget it was; None for that of the whole run.
        """
        owner = "the mode" if component is None else f"'{component}'"
        super().__init__(f"{owner} {_SPENT[unit].format(limit=limit)}")
        self.unit = unit
        self.component = component


@dataclass(frozen=True)
class Limits:
    """How much may be spent; None for as much as it takes."""

    llm_calls: int | None = None
    tokens: int | None = None
    """Of prompts and replies together. The call that goes over them is the last one."""
    seconds: float | None = None


class _Account:
    """What has been spent of some limits, by all tasks and threads of a run."""

    def __init__(self, limits: Limits, component: str | None) -> None:
        self.limits = limits
        self.component = component
        self._calls = self._tokens = 0
        self._lock = threading.Lock()

    def call(self) -> None:
        limits = self.limits
        with self._lock:
            if limits.llm_calls is not None and self._calls >= limits.llm_calls:
                raise BudgetExceededError("llm_calls", limits.llm_calls, self.component)
            if limits.tokens is not None and self._tokens >= limits.tokens:
                raise BudgetExceededError("tokens", limits.tokens, self.component)
            self._calls += 1

    def add(self, tokens: int) -> None:
        with self._lock:
            self._tokens += tokens


_accounts: ContextVar[tuple[_Account, ...]] = ContextVar("budgets", default=())
_longest: ContextVar[float | None] = ContextVar("longest_budget", default=None)


@asynccontextmanager
async def limited(limits: Limits, component: str | None = None) -> AsyncIterator[None]:
    """
    Hold what happens inside the `with` block, also in the tasks and threads that it starts, to limits.

    :param limits: the limits; those of blocks around it hold too.
    :param component: the part of a mode that is limited; None for a whole run.
    :raises BudgetExceededError: if the time is over. Before a call of a language model, `charge_call` raises it.
    """
    longest = _longest.get()
    seconds = limits.seconds
    if seconds is not None and longest is not None:
        seconds = min(seconds, longest)
    account = _accounts.set((*_accounts.get(), _Account(limits, component)))
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            yield
    except TimeoutError as error:
        if seconds is None or not timeout.expired():
            raise
        raise BudgetExceededError("seconds", seconds, component) from error
    finally:
        _accounts.reset(account)


@contextmanager
def leaving_time(seconds: float | None) -> Iterator[None]:
    """
    Cut the time limits inside the `with` block short, so that there is time left for something else.

    :param seconds: the most that each counts; None leaves them as they are.
    """
    token = _longest.set(seconds)
    try:
        yield
    finally:
        _longest.reset(token)


def charge_call() -> None:
    """
    Count a call of a language model, as it begins: one that still waits for its turn is none.

    :raises BudgetExceededError: if there is none left to make.
    """
    for account in _accounts.get():
        account.call()


def charge_tokens(tokens: int) -> None:
    """
    Count the tokens of a call.

    :param tokens: of its prompt and reply.
    """
    for account in _accounts.get():
        account.add(tokens)
