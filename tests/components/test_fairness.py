"""Places that are handed out in turn."""

import asyncio
import functools
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from components.fairness import RECENT_SECONDS, CrowdedError, FairPlaces, LateError, set_share

FLOOD, POLITE = ("flood", "acme"), ("polite", "acme")


def in_a_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run a test that is a coroutine function."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        asyncio.run(test(**given))

    return run


class Clock:
    """A time that a test sets."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def crowd(
    places: FairPlaces, shares: Iterable[tuple[str, str]], work: Callable[[], Awaitable[Any]] | None = None
) -> tuple[list[asyncio.Task[None]], list[tuple[str, str]]]:
    """Have one task for each share want a place, and note in which order they get it."""
    order: list[tuple[str, str]] = []

    async def visit(share: tuple[str, str]) -> None:
        set_share(*share)
        async with places.held_async(10):
            order.append(share)
            await (work() if work else asyncio.sleep(0))

    return [asyncio.create_task(visit(share)) for share in shares], order


async def turns() -> None:
    """Let every task come as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


@in_a_loop
async def test_free_places_go_to_each_caller_in_turn() -> None:
    """Whoever comes last and alone waits for one turn of the crowd, and not for all of it."""
    tasks, order = crowd(FairPlaces(1, 100), [*[FLOOD] * 20, *[POLITE] * 3])
    await asyncio.gather(*tasks)
    assert order[:6].count(POLITE) == 3
    assert Counter(order) == {FLOOD: 20, POLITE: 3}


@in_a_loop
async def test_a_key_with_many_tenants_is_one_caller() -> None:
    """A crowd does not get more turns by asking for many tenants, and its tenants take turns among themselves."""
    many = [("flood", f"tenant-{number % 5}") for number in range(20)]
    tasks, order = crowd(FairPlaces(1, 100), [*many, *[POLITE] * 3])
    await asyncio.gather(*tasks)
    assert order[:6].count(POLITE) == 3
    assert {tenant for key, tenant in order[:9] if key == "flood"} == {
        f"tenant-{number}" for number in range(5)
    }


@in_a_loop
async def test_a_place_is_kept_for_whoever_was_there_lately() -> None:
    """While another caller comes now and then, a crowd never holds all places; alone it does."""
    clock, gate = Clock(), asyncio.Event()
    places = FairPlaces(3, 100, clock)
    polite, _ = crowd(places, [POLITE])
    await asyncio.gather(*polite)
    flood, _ = crowd(places, [FLOOD] * 5, gate.wait)
    await turns()
    assert places.taken == 2
    polite, order = crowd(places, [POLITE], gate.wait)
    await turns()
    assert order == [POLITE]
    gate.set()
    await asyncio.gather(*flood, *polite)
    clock.seconds += RECENT_SECONDS + 1
    gate.clear()
    flood, _ = crowd(places, [FLOOD] * 5, gate.wait)
    await turns()
    assert places.taken == 3
    gate.set()
    await asyncio.gather(*flood)


@in_a_loop
async def test_the_last_of_the_crowd_goes_when_the_waiting_room_is_full() -> None:
    """A full waiting room sends away the newest of the largest crowd, and lets in the one who comes alone."""
    gate = asyncio.Event()
    places = FairPlaces(1, 4, Clock())
    tasks, order = crowd(places, [*[FLOOD] * 5, POLITE], gate.wait)
    await turns()
    assert [type(task.exception()) for task in tasks if task.done()] == [CrowdedError]
    assert tasks[4].done()
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert Counter(order) == {FLOOD: 4, POLITE: 1}


@in_a_loop
async def test_who_waits_too_long_goes() -> None:
    """A wait ends after its time, and leaves nothing behind."""
    places = FairPlaces(1, 4)
    async with places.held_async(1):
        with pytest.raises(LateError):
            async with places.held_async(0.01):
                pass
        assert (places.taken, places.waiting) == (1, 0)
    assert places.taken == 0


@in_a_loop
async def test_an_error_inside_is_passed_on() -> None:
    """What fails in a place gives it back, also with an error that tells of a time that is over."""
    places = FairPlaces(1, 4)
    with pytest.raises(TimeoutError):
        async with places.held_async(1):
            raise TimeoutError
    assert places.taken == 0


@pytest.mark.parametrize("seed", range(5))
@in_a_loop
async def test_no_place_is_lost_however_callers_leave(seed: int) -> None:
    """Cancelled at any moment, nobody keeps a place, and never are more held than there are."""
    chance = random.Random(seed)
    places = FairPlaces(3, 8)
    shares = [("a", "x"), ("a", "y"), ("b", "x"), ("c", "z")]

    async def visit() -> None:
        set_share(*chance.choice(shares))
        async with places.held_async(chance.choice([0.001, 1])):
            assert places.taken <= 3
            await asyncio.sleep(chance.random() / 500)

    tasks = [asyncio.create_task(visit()) for _ in range(100)]
    for task in chance.sample(tasks, 50):
        await asyncio.sleep(0)
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    wrong = [
        each
        for each in outcomes
        if not isinstance(each, CrowdedError | LateError | asyncio.CancelledError | None)
    ]
    assert wrong == []
    assert (places.taken, places.waiting) == (0, 0)
    async with AsyncExitStack() as stack:
        for key in "abc":
            set_share(key, "x")
            await stack.enter_async_context(places.held_async(1))


def test_threads_share_the_places_with_tasks() -> None:
    """Places are one number for all threads and event loops."""
    places = FairPlaces(2, 100)
    most, lock = [0], threading.Lock()

    def note() -> None:
        with lock:
            most[0] = max(most[0], places.taken)

    def in_thread() -> None:
        for _ in range(20):
            with places.held(10):
                note()

    async def in_loop() -> None:
        for _ in range(20):
            async with places.held_async(10):
                note()
                await asyncio.sleep(0)

    threads = [threading.Thread(target=in_thread) for _ in range(3)]
    threads += [threading.Thread(target=lambda: asyncio.run(in_loop())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 2
    assert (places.taken, places.waiting) == (0, 0)
