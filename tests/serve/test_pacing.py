"""How jobs give way to queries; the time is told by the tests, so nothing here waits."""

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from components.pacing import others_wait, pause, rows_at_once
from serve.pacing import (
    LONGEST_REST,
    MOMENT,
    PROBE_MOMENT,
    RESTS,
    ROWS_WHILE_ASKED,
    Activity,
    ActivityMiddleware,
)


class Time:
    """A clock that stands still, but for what is slept."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def activity(time: Time) -> Activity:
    return Activity(clock=time.clock, sleep=time.sleep)


def nothing() -> None:
    """A check of a job that nobody cancels."""


def test_slices_are_large_and_without_rests_while_nobody_asks(activity: Activity, time: Time) -> None:
    """An ingest that nobody waits beside goes at full speed."""
    with activity.paced(nothing):
        assert rows_at_once(256) == 256
        assert not others_wait()
        time.now += 0.2
        pause()
    assert time.slept == 0


def test_slices_are_small_with_rests_while_a_query_is_answered(activity: Activity, time: Time) -> None:
    """The queries get a share of the time, however much there is to index."""
    with activity.paced(nothing), activity.answering():
        assert rows_at_once(256) == ROWS_WHILE_ASKED
        assert rows_at_once(4) == 4
        assert others_wait()
        time.now += 0.01
        pause()
    assert time.slept == pytest.approx(0.01 * RESTS)


@pytest.mark.parametrize("moment", [MOMENT, PROBE_MOMENT])
def test_slices_stay_small_for_a_moment_after_an_answer(
    activity: Activity, time: Time, moment: float
) -> None:
    """Who asks one question after the other finds no large write between them; later ones are large again."""
    with activity.paced(nothing):
        with activity.answering(moment):
            pass
        time.now += moment / 2
        assert rows_at_once(256) == ROWS_WHILE_ASKED
        time.now += moment
        assert rows_at_once(256) == 256


def test_a_probe_does_not_shorten_the_moment_after_a_query(activity: Activity, time: Time) -> None:
    """The longest moment counts, whichever answer was the last."""
    with activity.answering():
        pass
    with activity.answering(PROBE_MOMENT):
        pass
    time.now += 2 * PROBE_MOMENT
    assert activity.busy


def test_an_answer_that_fails_is_no_longer_waited_for(activity: Activity, time: Time) -> None:
    """A query that ends with an error does not slow the jobs down for ever."""
    with pytest.raises(LookupError), activity.answering():
        raise LookupError
    time.now += 2 * MOMENT
    assert not activity.busy


def test_two_jobs_rest_more_than_one(activity: Activity, time: Time) -> None:
    """Two jobs at once leave the queries no less time than one does."""
    with activity.answering(), activity.paced(nothing), activity.paced(nothing):
        time.now += 0.01
        pause()
    assert time.slept == pytest.approx(0.01 * (1 + 2 * RESTS))


def test_a_rest_is_short_however_long_the_slice_was(activity: Activity, time: Time) -> None:
    """Embedding does not hold the interpreter, so a second of it is no reason to rest a second."""
    with activity.paced(nothing), activity.answering():
        time.now += 5
        pause()
    assert 0 < time.slept <= LONGEST_REST


def test_a_cancelled_job_ends_at_its_next_pause(activity: Activity) -> None:
    """What the check of a job raises comes out of the pause, and the job no longer counts."""

    def cancelled() -> None:
        raise InterruptedError("cancelled")

    with pytest.raises(InterruptedError), activity.paced(cancelled):
        pause()
    assert activity.jobs == 0


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("/query/", True),
        ("/health", True),
        ("/documents", True),
        ("/ingest/", False),
        ("/ingest/0123", False),
    ],
)
def test_requests_are_counted_but_those_about_jobs(activity: Activity, path: str, counts: bool) -> None:
    """Whoever waits for an answer is given way; watching a job does not slow it down."""
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(activity.busy)

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        pass

    asyncio.run(ActivityMiddleware(app, activity)({"type": "http", "path": path}, receive, send))

    assert seen == [counts]
