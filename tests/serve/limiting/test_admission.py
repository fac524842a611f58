"""Which questions are answered now, and which refused."""

import asyncio
import selectors
from collections import Counter
from collections.abc import Coroutine
from statistics import median
from typing import Any

import pytest

from components.fairness import set_share
from serve.limiting.admission import Admission
from serve.limiting.errors import OverloadedError


class QuickTime(selectors.DefaultSelector):
    """Lets an event loop's time pass without waiting, so that a test knows it to the millisecond."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.passed += max(timeout or 0.0, 0.0)
        return super().select(0)


def run_in_quick_time(test: Coroutine[Any, Any, None]) -> None:
    """Run a test in a loop of its own time."""
    time = QuickTime()
    loop = asyncio.SelectorEventLoop(time)
    loop.time = lambda: time.passed  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(test)


async def visit(admission: Admission, key: str, hold: float = 0.0, patient: bool = False) -> float:
    """Come in as somebody, and stay for a while; gives the seconds that were left."""
    set_share(key=key)
    async with admission.question("acme", 60, patient) as left:
        await asyncio.sleep(hold)
    return left


async def refused_after(admission: Admission, key: str, hold: float = 0.0) -> float | None:
    """Come in as somebody; gives the seconds until a refusal, or nothing."""
    begin = asyncio.get_running_loop().time()
    try:
        await visit(admission, key, hold)
    except OverloadedError:
        return asyncio.get_running_loop().time() - begin
    return None


@pytest.mark.parametrize("callers", [1, 60])
def test_one_too_many_is_refused_soon(callers: int) -> None:
    """Of a crowd of one caller, or of one question each, few come in or wait for a place; the others hear at once."""

    async def crowd() -> None:
        admission = Admission(lambda: 4)
        asked = [refused_after(admission, f"{number % callers}", hold=0.3) for number in range(60)]
        waits = [wait for wait in await asyncio.gather(*asked) if wait is not None]
        # Callers who have nothing yet wait for a place, as many as there are places.
        assert len(waits) == 60 - (4 if callers == 1 else 8)
        assert max(waits) < 0.1
        assert (admission.taken, admission.waiting) == (0, 0)

    run_in_quick_time(crowd())


def test_whoever_has_nothing_waits_a_few_answers_long() -> None:
    """Where answers take longer than they used to, whoever waits for a place hears after a few of their usual times."""

    async def wait() -> None:
        admission = Admission(lambda: 1)
        for _ in range(30):
            await visit(admission, "quick", hold=2)
        holder = asyncio.create_task(visit(admission, "slow", hold=60))
        await asyncio.sleep(0.01)
        waited = await refused_after(admission, "polite")
        assert waited is not None
        assert 2 < waited < 7
        holder.cancel()

    run_in_quick_time(wait())


def test_a_caller_with_many_tenants_leaves_others_room_to_wait() -> None:
    """However many tenants a caller asks for at a time, another caller can still wait for the next place."""

    async def beside_tenants() -> None:
        admission = Admission(lambda: 2)

        async def ask(key: str, tenant: str) -> None:
            set_share(key=key)
            async with admission.question(tenant, 60):
                await asyncio.sleep(0.2)

        flood = [asyncio.create_task(ask("flood", f"tenant-{number}")) for number in range(10)]
        await asyncio.sleep(0.01)
        await ask("polite", "acme")
        outcomes = await asyncio.gather(*flood, return_exceptions=True)
        assert Counter(map(type, outcomes)) == {type(None): 3, OverloadedError: 7}

    run_in_quick_time(beside_tenants())


def test_whoever_has_nothing_yet_waits_for_the_next_place() -> None:
    """A caller with nothing under way is not refused for another one's crowd, and its time goes on meanwhile."""

    async def beside_a_crowd() -> None:
        admission = Admission(lambda: 1)
        crowd = [asyncio.create_task(visit(admission, "crowd", hold=0.2)) for _ in range(5)]
        await asyncio.sleep(0.01)
        assert await visit(admission, "polite") < 60 - 0.1
        outcomes = await asyncio.gather(*crowd, return_exceptions=True)
        assert Counter(map(type, outcomes)) == {float: 1, OverloadedError: 4}

    run_in_quick_time(beside_a_crowd())


def test_a_patient_question_waits_for_its_turn() -> None:
    """The questions of a batch wait however many are before them, and their time begins when their turn has come."""

    async def batch() -> None:
        admission = Admission(lambda: 2)
        lefts = await asyncio.gather(*(visit(admission, "batch", 0.05, patient=True) for _ in range(8)))
        assert lefts == [60] * 8

    run_in_quick_time(batch())


def test_a_large_crowd_that_asks_again_is_slowed_down() -> None:
    """Whoever asks again at once, many times, waits longer for each refusal, yet less than a tenth of a second."""

    async def flood() -> None:
        admission = Admission(lambda: 1)
        holder = asyncio.create_task(visit(admission, "crowd", hold=30))
        await asyncio.sleep(0.01)
        rounds = []
        for _ in range(3):
            waits = await asyncio.gather(*(refused_after(admission, "crowd") for _ in range(60)))
            rounds.append(median(wait for wait in waits if wait is not None))
        holder.cancel()
        assert rounds[0] < rounds[2]
        assert 0.06 < rounds[2] < 0.1

    run_in_quick_time(flood())


def test_there_may_be_any_number_of_questions() -> None:
    """Without a most, nobody is counted."""

    async def many() -> None:
        admission = Admission(lambda: None)
        assert await asyncio.gather(*(visit(admission, "crowd", 0.01) for _ in range(50))) == [60] * 50

    run_in_quick_time(many())


@pytest.mark.parametrize("leave", [0.0, 0.01, 0.05])
def test_who_leaves_gives_the_place_back(leave: float) -> None:
    """Cancelled while it waits, while it is refused, or inside, a question leaves nothing behind."""

    async def leaving() -> None:
        admission = Admission(lambda: 2)
        tasks = [asyncio.create_task(visit(admission, "crowd", 10)) for _ in range(6)]
        await asyncio.sleep(leave)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (admission.taken, admission.waiting) == (0, 0)
        await asyncio.gather(visit(admission, "a"), visit(admission, "b"))

    run_in_quick_time(leaving())
