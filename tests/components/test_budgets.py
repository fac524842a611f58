import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest

from components.budgets import BudgetExceededError, Limits, charge_call, charge_tokens, leaving_time, limited


async def spend(limits: Limits, work: Coroutine[Any, Any, Any], component: str | None = None) -> None:
    async with limited(limits, component):
        await work


async def calls(count: int, tokens: int = 0) -> None:
    for _ in range(count):
        charge_call()
        charge_tokens(tokens)


@pytest.mark.parametrize(
    ("limits", "allowed", "unit"),
    [
        (Limits(llm_calls=3), 3, "llm_calls"),
        (Limits(tokens=21), 3, "tokens"),
        (Limits(tokens=20), 2, "tokens"),
    ],
)
def test_a_spent_budget_allows_no_further_call(limits: Limits, allowed: int, unit: str) -> None:
    """So many calls are made as the budget allows, and the next one is refused before it is made."""
    asyncio.run(spend(limits, calls(allowed, tokens=10)))
    with pytest.raises(BudgetExceededError, match="'grader'") as raised:
        asyncio.run(spend(limits, calls(allowed + 1, tokens=10), "grader"))
    assert (raised.value.unit, raised.value.component) == (unit, "grader")


def test_a_part_is_held_to_the_limits_of_the_whole() -> None:
    """Calls inside a limited part count for the part and for what is around it, and for nothing after it."""

    async def work() -> None:
        async with limited(Limits(llm_calls=3)):
            async with limited(Limits(llm_calls=2), "grader"):
                await calls(2)
            await calls(1)
            with pytest.raises(BudgetExceededError, match="the mode"):
                charge_call()
        charge_call()

    asyncio.run(work())


def test_tasks_and_threads_share_a_budget() -> None:
    """Of calls made at the same time by tasks and by threads, no more than the budget are let through."""

    def let_through() -> bool:
        try:
            charge_call()
        except BudgetExceededError:
            return False
        return True

    async def one() -> bool:
        return let_through()

    async def work() -> int:
        async with limited(Limits(llm_calls=10)):
            tasks = await asyncio.gather(*(one() for _ in range(8)))
            with ThreadPoolExecutor(4) as pool:
                threads = list(
                    pool.map(lambda context: context.run(let_through), [copy_context() for _ in range(8)])
                )
        return sum(tasks) + sum(threads)

    assert asyncio.run(work()) == 10


@pytest.mark.parametrize("share", [None, 60.0, 0.01])
def test_time_is_limited_and_cut_short_where_some_must_be_left(share: float | None) -> None:
    """The time limit ends what runs, the sooner when time has to be left; what times out inside keeps its own error."""

    async def work() -> None:
        with leaving_time(share):
            async with limited(Limits(seconds=0.02), "search"):
                await asyncio.Event().wait()

    with pytest.raises(BudgetExceededError, match="'search'") as raised:
        asyncio.run(work())
    assert raised.value.unit == "seconds"
    assert f"{min(share or 1, 0.02):g} s" in str(raised.value)

    async def late() -> None:
        raise TimeoutError("the server's")

    with pytest.raises(TimeoutError, match="the server's"):
        asyncio.run(spend(Limits(seconds=5), late()))
