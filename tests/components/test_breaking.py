"""The circuit breaker: when it opens, whom it lets through, and when it closes."""

import pytest

from components.breaking import Breaker, CircuitOpenError


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("Chroma", failures=3, seconds=10, clock=clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError, match="away"), breaker.guarding(is_away):
            raise ConnectionError("away")


def is_away(error: BaseException) -> bool:
    return "away" in str(error)


def test_failures_in_a_row_open_it(breaker: Breaker) -> None:
    """The last of them opens it; a success in between begins the count anew, what is no failure does not."""
    fail(breaker, 2)
    with breaker.guarding(is_away):
        pass
    fail(breaker, 2)
    with pytest.raises(ValueError, match="mine"), breaker.guarding(is_away):
        raise ValueError("mine")
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"


def test_an_open_one_refuses_at_once_and_says_for_how_long(breaker: Breaker, clock: Clock) -> None:
    """Nobody gets through, and the error has the seconds that are left, rounded up."""
    fail(breaker, 3)
    clock.now = 3.5
    with pytest.raises(CircuitOpenError, match="Chroma kept failing") as raised, breaker.guarding(is_away):
        pytest.fail("it was asked")
    assert raised.value.retry_after == 7


@pytest.mark.parametrize("works", [True, False])
def test_a_half_open_one_lets_one_through(breaker: Breaker, clock: Clock, works: bool) -> None:
    """While the one that was let through is at it the others are refused; its outcome decides."""
    fail(breaker, 3)
    clock.now = 10
    assert breaker.state == "half-open"
    breaker.check(trial=False)  # who only looks takes nobody's place
    breaker.check()
    with pytest.raises(CircuitOpenError):
        breaker.check()
    assert breaker.state == "half-open"
    breaker.succeeded() if works else breaker.failed()
    assert breaker.state == ("closed" if works else "open")
    if works:
        fail(breaker, 2)
        assert breaker.state == "closed"


def test_one_that_is_let_through_and_never_heard_of_again_blocks_nobody(
    breaker: Breaker, clock: Clock
) -> None:
    """After the same seconds the next one is let through, for the first was cancelled or hangs."""
    fail(breaker, 3)
    clock.now = 10
    breaker.check()
    clock.now = 19.9
    with pytest.raises(CircuitOpenError):
        breaker.check()
    clock.now = 20
    breaker.check()


def test_who_asked_before_it_opened_keeps_it_open_no_longer(breaker: Breaker, clock: Clock) -> None:
    """Calls that were under way fail one after the other; the seconds count from the one that opened it."""
    fail(breaker, 3)
    clock.now = 9
    breaker.failed()
    clock.now = 10
    breaker.check()


def test_a_sign_of_life_lets_the_next_one_through(breaker: Breaker) -> None:
    """What answers whether it is there gets a try before the seconds are over; its first failure opens it again."""
    fail(breaker, 3)
    breaker.seems_well()
    fail(breaker, 1)
    assert breaker.state == "open"


def test_one_is_kept_open_while_the_dependency_is_known_to_be_away(breaker: Breaker, clock: Clock) -> None:
    """It opens without a failure, stays open for longer each time, and nobody has to try meanwhile."""
    breaker.trip()
    clock.now = 9
    breaker.trip()
    clock.now = 18
    with pytest.raises(CircuitOpenError):
        breaker.check()
    breaker.seems_well()
    breaker.check()


def doubtful(error: BaseException) -> None:
    return None


def doubt(breaker: Breaker, asker: str, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError), breaker.guarding(doubtful, asker):
            raise ConnectionError("500")


def test_one_asker_takes_it_from_nobody(breaker: Breaker) -> None:
    """What may be due to what was asked opens it only when several askers had it with no success in between."""
    doubt(breaker, "mallory", 20)
    breaker.succeeded()
    doubt(breaker, "mallory", 2)
    assert breaker.state == "closed"
    doubt(breaker, "bob")
    assert breaker.state == "open"


def test_one_asker_does_not_keep_it_open(breaker: Breaker, clock: Clock) -> None:
    """A trial that shows nothing, or only a doubtful failure, lets the next caller try; two askers' open it again."""
    fail(breaker, 3)
    clock.now = 10
    doubt(breaker, "mallory", 5)
    with pytest.raises(ValueError, match="mine"), breaker.guarding(is_away):
        raise ValueError("mine")
    assert breaker.state == "half-open"
    doubt(breaker, "bob")
    assert breaker.state == "open"
    clock.now = 20
    doubt(breaker, "mallory", 5)
    with breaker.guarding(is_away):
        pass
    assert breaker.state == "closed"
