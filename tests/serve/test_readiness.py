"""What is known of a dependency: asked in the background, one question at a time, and not turned by one accident."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from components.breaking import Breaker
from serve import readiness
from serve.readiness import Dependency, Readiness


class Fake:
    """A dependency that a test breaks, which counts its questions."""

    def __init__(self) -> None:
        self.there = True
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = self.under_way = self.most = 0

    async def ask(self) -> None:
        self.asked += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.answers.wait()
            if not self.there:
                raise ConnectionError("10.1.2.3 refused user:secret")
        finally:
            self.under_way -= 1

    def dependency(self, **options: Any) -> Dependency:
        return Dependency("chroma", self.ask, lambda _: "does not answer", **options)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASK_SECONDS", "AGAIN_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(readiness, name, 0.02)


def test_one_accident_turns_nothing_and_a_second_does() -> None:
    """A dependency goes down with the second failure in a row and comes back with the second answer."""
    fake = Fake()
    dependency = fake.dependency()

    async def statuses(*there: bool) -> list[str]:
        seen = []
        for fake.there in there:
            await dependency.look()
            seen.append(dependency.status)
        return seen

    down = "does not answer"
    assert asyncio.run(statuses(True, False, True, False, False)) == ["ok", "ok", "ok", "ok", down]
    assert asyncio.run(statuses(True, False, True, True)) == [down, down, down, "ok"]


def test_the_first_answer_counts_at_once() -> None:
    """Where nothing is known yet, one failure is enough."""
    fake = Fake()
    fake.there = False
    dependency = fake.dependency()
    asyncio.run(dependency.look())
    assert dependency.status == "does not answer"


def watching(fake: Fake, scenario: Callable[[Readiness], Awaitable[None]], **options: Any) -> None:
    """Run a scenario that is given the readiness of one dependency."""

    async def run() -> None:
        watched = Readiness([fake.dependency(**options)])
        watched.start()
        try:
            await asyncio.wait_for(scenario(watched), 10)
        finally:
            await watched.close()

    asyncio.run(run())


async def until(watched: Readiness, status: str) -> None:
    for _ in range(1_000):
        if (await watched.statuses())["chroma"] == status:
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"it never was {status!r}")


def test_a_hang_is_noticed_with_one_question() -> None:
    """A question that is not answered in time is a failure and is not asked beside itself; its answer counts."""
    fake = Fake()

    async def scenario(watched: Readiness) -> None:
        await until(watched, "ok")
        fake.answers.clear()
        await until(watched, "does not answer")
        await asyncio.sleep(0.1)
        fake.answers.set()
        await until(watched, "ok")

    watching(fake, scenario)
    assert fake.most == 1


def test_who_asks_often_does_not_ask_the_dependency_more_often() -> None:
    """A thousand probes read what is known."""
    fake = Fake()

    async def scenario(watched: Readiness) -> None:
        begin = time.monotonic()
        for _ in range(1_000):
            await watched.statuses()
        # Of many questions there can be no more than fit into the time.
        assert fake.asked <= 2 + (time.monotonic() - begin) / 0.02

    watching(fake, scenario)


def test_what_is_well_and_costs_is_asked_seldom() -> None:
    """One question stands for a while, also where there are no calls; a call that failed has it asked at once."""
    fake, breaker = Fake(), Breaker("the model's server")

    async def scenario(watched: Readiness) -> None:
        await until(watched, "ok")
        await asyncio.sleep(0.2)
        assert fake.asked == 1
        fake.there = False
        breaker.failed()
        await until(watched, "does not answer")
        assert breaker.state == "closed"  # it is not kept open: real calls may go well all the same
        fake.there = True
        await until(watched, "ok")
        await asyncio.sleep(0.05)
        asked = fake.asked
        await asyncio.sleep(0.2)
        assert fake.asked == asked

    watching(fake, scenario, breaker=breaker, spared=True)


def test_a_call_that_goes_well_spares_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """While calls go well nothing is asked; when they end, the next question comes after the usual pause."""
    monkeypatch.setattr(readiness, "CALM_SECONDS", 0.6)
    fake, breaker = Fake(), Breaker("the model's server")

    async def scenario(watched: Readiness) -> None:
        await until(watched, "ok")
        begin = time.monotonic()
        while time.monotonic() - begin < 0.9:
            breaker.succeeded()
            await asyncio.sleep(0.02)
        assert fake.asked == 1
        fake.there = False
        await until(watched, "does not answer")

    watching(fake, scenario, breaker=breaker, spared=True)


def test_the_log_says_what_is_in_the_way_and_quotes_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The line has the type of the first cause and the address; a message may have secrets."""
    fake = Fake()

    async def ask() -> None:
        try:
            raise ConnectionRefusedError(111, "10.1.2.3 refused user:secret")
        except OSError as error:
            raise RuntimeError("the body of an answer") from error

    with caplog.at_level(logging.WARNING, logger="thresher.ready"):
        asyncio.run(Dependency("llm", ask, lambda _: "away", where="10.0.0.1:80").look())
        fake.there = False
        asyncio.run(fake.dependency().look())
    assert caplog.messages == [
        "not ready: llm: away (ConnectionRefusedError, 10.0.0.1:80)",
        "not ready: chroma: does not answer (ConnectionError)",
    ]
