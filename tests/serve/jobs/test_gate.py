"""BatchGate: what may end the process runs alone in it."""

import threading
import time
from collections.abc import Callable

import pytest

from serve.jobs.gate import BatchGate
from tests.job_parts import DEADLINE_SECONDS


def in_threads(*targets: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    return threads


def nothing() -> None:
    """Go on waiting."""


def test_batches_run_side_by_side() -> None:
    """Batches that are under no suspicion don't wait for each other."""
    gate = BatchGate()
    meeting = threading.Barrier(3, timeout=DEADLINE_SECONDS)

    def batch() -> None:
        with gate.shared(nothing):
            meeting.wait()

    for thread in in_threads(batch, batch, batch):
        thread.join()
    assert not meeting.broken


def test_suspect_runs_alone() -> None:
    """One that is to run alone waits for those under way, and who comes later waits for it."""
    gate = BatchGate()
    order: list[str] = []
    suspect_waits, late_waits = threading.Event(), threading.Event()

    def suspect() -> None:
        with gate.alone(suspect_waits.set):
            order.append("suspect begins")
            time.sleep(0.05)
            order.append("suspect ends")

    def late() -> None:
        with gate.shared(late_waits.set):
            order.append("late")

    with gate.shared(nothing):
        threads = in_threads(suspect)
        assert suspect_waits.wait(DEADLINE_SECONDS)
        threads += in_threads(late)
        assert late_waits.wait(DEADLINE_SECONDS)
        order.append("first ends")
    for thread in threads:
        thread.join()
    assert order == ["first ends", "suspect begins", "suspect ends", "late"]


def test_suspects_run_one_after_the_other() -> None:
    """Of several that are to run alone, each does."""
    gate = BatchGate()
    inside: list[int] = []
    most: list[int] = []

    def suspect() -> None:
        with gate.alone(nothing):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    for thread in in_threads(*[suspect] * 5):
        thread.join()
    assert most == [1] * 5


def test_wait_ends_when_the_check_says_so() -> None:
    """Who waits may be called off, and is in nobody's way then."""

    def call_off() -> None:
        raise InterruptedError

    gate = BatchGate()
    with gate.shared(nothing):
        with pytest.raises(InterruptedError), gate.alone(call_off):
            pass
        with gate.shared(nothing):
            pass
    with gate.alone(nothing), pytest.raises(InterruptedError), gate.shared(call_off):
        pass
