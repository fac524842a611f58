"""What every ExecutionStore promises: Hayhooks' reference in memory and our SQLite store pass these tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from hayhooks.durable import ExecutionStore, MemoryExecutionStore, StoreConfig
from hayhooks.durable.engine import (
    Checkpoint,
    Claim,
    Complete,
    ExecutionControl,
    ExecutionLeaseLostError,
    ExecutionNotFoundError,
    ExecutionPayloadSizeError,
    ExecutionStatus,
    Fail,
    Heartbeat,
    InvalidExecutionTransitionError,
    PayloadKind,
    ReleaseClaim,
    RequestCancellation,
    Resume,
    ScheduleRetry,
    Suspend,
    TransitionPlan,
    initial_control,
)
from hayhooks.durable.store import (
    CHUNK_CURSOR_START,
    ChunkCursorExpiredError,
    ControlQuery,
    ExecutionAdmissionError,
    ExecutionIdempotencyConflictError,
    ExecutionStoreError,
)

from serve.jobs.database import JobDatabase
from serve.jobs.store import SqliteExecutionStore

DEPLOYMENT = "contract"
REVISION = "v1"
LEASE_MS = 10_000
CONFIG = StoreConfig(monitoring_enabled=True, terminal_ttl_seconds=100, stream_ttl_seconds=10)

OpenStore = Callable[..., AbstractAsyncContextManager[ExecutionStore]]


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1_000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> OpenStore:
    @asynccontextmanager
    async def open_memory(config: StoreConfig = CONFIG) -> AsyncIterator[ExecutionStore]:
        yield MemoryExecutionStore(DEPLOYMENT, config=config, clock=clock)

    return open_memory if request.param == "memory" else sqlite_opener(tmp_path, clock)


@pytest.fixture
def open_sqlite(tmp_path: Path, clock: Clock) -> OpenStore:
    return sqlite_opener(tmp_path, clock)


def sqlite_opener(directory: Path, clock: Clock) -> OpenStore:
    @asynccontextmanager
    async def open_sqlite(
        config: StoreConfig = CONFIG, deployment: str = DEPLOYMENT, exclusive: bool = False
    ) -> AsyncIterator[ExecutionStore]:
        database = JobDatabase(directory / "jobs.sqlite3")
        store = SqliteExecutionStore(deployment, database, config=config, exclusive=exclusive, clock=clock)
        await store.initialize()
        try:
            yield store
        finally:
            await database.close()

    return open_sqlite


def run(
    open_store: OpenStore, scenario: Callable[[ExecutionStore], Awaitable[None]], **options: object
) -> None:
    async def main() -> None:
        async with open_store(**options) as store:
            await scenario(store)

    asyncio.run(main())


def new_control(
    run_id: str, *, owner: str | None = "acme", key: str = "", binding: str = "b"
) -> ExecutionControl:
    return initial_control(
        run_id=run_id,
        idempotency_digest=key or f"digest-{run_id}",
        idempotency_binding_digest=binding,
        deployment=DEPLOYMENT,
        definition_revision=REVISION,
        owner_id=owner,
        kind="pipeline",
        now_ms=0,
    )


def claim_by(worker: str, *, attempts: int = 3, revision: str = REVISION) -> Claim:
    return Claim(worker, 0, LEASE_MS, attempts, revision, b'"exhausted"')


async def claimed(store: ExecutionStore, worker: str = "w") -> ExecutionControl:
    plan = await store.claim(claim_by(worker))
    assert plan is not None
    return plan.next_control


async def complete(
    store: ExecutionStore, control: ExecutionControl, result: bytes = b'"ok"'
) -> TransitionPlan:
    assert control.lease_owner is not None
    return await store.transition(control.run_id, Complete(control.fence, control.lease_owner, 0, result))


def checkpoint(control: ExecutionControl, data: bytes, *events: bytes) -> Checkpoint:
    assert control.lease_owner is not None
    return Checkpoint(control.fence, control.lease_owner, 0, LEASE_MS, data, progress_events=events)


async def statuses(store: ExecutionStore, *run_ids: str) -> list[str]:
    controls = [await store.read_control(run_id) for run_id in run_ids]
    return ["gone" if control is None else control.status.value for control in controls]


def test_submit_stores_control_and_input(open_store: OpenStore, clock: Clock) -> None:
    """A submitted execution is queued, and its input is read back privately but not publicly."""

    async def scenario(store: ExecutionStore) -> None:
        result = await store.submit(new_control("a"), b'{"x":1}')
        stored, public = await store.read("a"), await store.read_public("a")
        assert stored is not None
        assert public is not None
        assert result.created
        assert result.control == stored.control == await store.read_control("a")
        assert stored.control.status is ExecutionStatus.QUEUED
        assert stored.control.created_at_ms == clock.now
        assert stored.payloads == {PayloadKind.INPUT: b'{"x":1}'}
        assert public.payloads == {}
        assert await store.read("unknown") is None

    run(open_store, scenario)


def test_same_key_and_work_is_replayed(open_store: OpenStore) -> None:
    """Submitting the same work under the same key gives the first execution again."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a", key="k"), b"1")
        again = await store.submit(new_control("b", key="k"), b"1")
        assert not again.created
        assert again.control.run_id == "a"
        assert await store.read("b") is None

    run(open_store, scenario)


def test_same_key_for_other_work_is_a_conflict(open_store: OpenStore) -> None:
    """A key bound to other work is refused, and so is a run id bound to another key."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a", key="k"), b"1")
        with pytest.raises(ExecutionIdempotencyConflictError):
            await store.submit(new_control("b", key="k", binding="other"), b"2")
        with pytest.raises(ExecutionIdempotencyConflictError):
            await store.submit(new_control("a", key="k2"), b"1")

    run(open_store, scenario)


def test_key_and_run_id_are_free_again_after_the_ttl(open_store: OpenStore, clock: Clock) -> None:
    """An execution whose time is over binds neither its key nor its run id."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a", key="k"), b"1")
        await complete(store, await claimed(store))
        clock.advance(101)
        assert (await store.submit(new_control("a", key="k", binding="other"), b"2")).created

    run(open_store, scenario)


def test_admission_counts_unfinished_executions(open_store: OpenStore) -> None:
    """The limit refuses one execution too many, replays nevertheless, and admits again when one has ended."""

    async def scenario(store: ExecutionStore) -> None:
        for run_id in "ab":
            await store.submit(new_control(run_id), b"1")
        with pytest.raises(ExecutionAdmissionError):
            await store.submit(new_control("c"), b"1")
        assert not (await store.submit(new_control("a"), b"1")).created
        await complete(store, await claimed(store))
        assert (await store.submit(new_control("c"), b"1")).created
        assert (await store.operational_counts(revision=REVISION))["nonterminal"] == 2

    run(open_store, scenario, config=StoreConfig(max_nonterminal_executions=2))


def test_too_large_payloads_are_refused(open_store: OpenStore) -> None:
    """Inputs and checkpoints above the limit are refused and leave nothing behind."""

    async def scenario(store: ExecutionStore) -> None:
        with pytest.raises(ExecutionPayloadSizeError):
            await store.submit(new_control("a"), b"x" * 101)
        await store.submit(new_control("b"), b"x")
        control = await claimed(store)
        with pytest.raises(ExecutionPayloadSizeError):
            await store.transition("b", checkpoint(control, b"x" * 101))
        assert await store.read_control("a") is None
        assert await store.read_control("b") == control

    run(open_store, scenario, config=StoreConfig(max_payload_bytes=100))


def test_claim_leases_with_a_new_fence(open_store: OpenStore, clock: Clock) -> None:
    """A claim gives lease and fence to one worker; nobody else gets the same execution."""

    async def scenario(store: ExecutionStore) -> None:
        assert await store.claim(claim_by("w1")) is None
        await store.submit(new_control("a"), b"1")
        control = await claimed(store, "w1")
        assert (control.status, control.lease_owner, control.fence) == (ExecutionStatus.RUNNING, "w1", 1)
        assert control.lease_expires_at_ms == clock.now + LEASE_MS
        assert await store.claim(claim_by("w2")) is None

    run(open_store, scenario)


def test_claims_of_concurrent_workers_never_overlap(open_store: OpenStore) -> None:
    """Ten workers that claim at the same time get ten different executions."""

    async def scenario(store: ExecutionStore) -> None:
        for number in range(10):
            await store.submit(new_control(f"r{number}"), b"1")
        plans = await asyncio.gather(*(store.claim(claim_by(f"w{number}")) for number in range(20)))
        taken = [plan.next_control.run_id for plan in plans if plan is not None]
        assert sorted(taken) == [f"r{number}" for number in range(10)]

    run(open_store, scenario)


def test_other_revisions_are_left_alone(open_store: OpenStore) -> None:
    """A worker of another revision claims nothing."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        assert await store.claim(claim_by("w", revision="v2")) is None
        counts = await store.operational_counts(revision=REVISION)
        assert counts == {
            "nonterminal": 1,
            "revision_nonterminal": 1,
            "revision_runnable": 1,
            "lease_expiry": 0,
        }
        assert (await store.operational_counts(revision="v2"))["revision_runnable"] == 0

    run(open_store, scenario)


def test_claim_refuses_a_lease_shorter_than_the_safety_margin(open_store: OpenStore) -> None:
    """A lease that the safety margin would eat up is refused."""

    async def scenario(store: ExecutionStore) -> None:
        with pytest.raises(ValueError, match="lease duration"):
            await store.claim(Claim("w", 0, 1_000, 3, REVISION, b"1"))

    run(open_store, scenario)


def test_expired_lease_is_taken_over(open_store: OpenStore, clock: Clock) -> None:
    """An execution whose lease ran out is queued again, and the next worker finds its checkpoint."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        first = await claimed(store, "w1")
        await store.transition("a", checkpoint(first, b'"half"'))
        assert await store.maintain(max_run_attempts=3, attempts_error=b"1") == 0
        clock.advance(10)
        assert await store.maintain(max_run_attempts=3, attempts_error=b"1") == 1
        second = await claimed(store, "w2")
        stored = await store.read("a")
        assert stored is not None
        assert (second.fence, second.run_attempt, second.lease_recoveries) == (2, 2, 1)
        assert stored.payloads[PayloadKind.CHECKPOINT] == b'"half"'

    run(open_store, scenario)


def test_stale_fence_is_refused(open_store: OpenStore, clock: Clock) -> None:
    """Who lost a lease can write nothing any more, neither a checkpoint nor a result nor a chunk."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        stale = await claimed(store, "w1")
        clock.advance(10)
        await store.maintain(max_run_attempts=3, attempts_error=b"1")
        current = await claimed(store, "w2")
        for attempt in (
            store.transition("a", checkpoint(stale, b"2")),
            store.transition("a", Heartbeat(stale.fence, "w1", 0, LEASE_MS)),
            complete(store, stale),
            store.append_chunks("a", stale.run_attempt, stale.fence, "w1", [b"x"]),
        ):
            with pytest.raises(ExecutionLeaseLostError):
                await attempt
        assert await store.read_control("a") == current

    run(open_store, scenario)


def test_writes_stop_before_the_lease_ends(open_store: OpenStore, clock: Clock) -> None:
    """Inside the safety margin before its end a lease is worth nothing; a heartbeat in time extends it."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        control = await claimed(store)
        clock.advance(8)
        plan = await store.transition("a", Heartbeat(control.fence, "w", 0, LEASE_MS))
        assert plan.next_control.version == control.version
        clock.advance(8)
        await store.transition("a", Heartbeat(control.fence, "w", 0, LEASE_MS))
        clock.advance(8.6)
        with pytest.raises(ExecutionLeaseLostError):
            await store.transition("a", Heartbeat(control.fence, "w", 0, LEASE_MS))

    run(open_store, scenario)


def test_lost_leases_are_limited(open_store: OpenStore, clock: Clock) -> None:
    """After as many lost leases as allowed the execution fails with the given error."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        for _ in range(2):
            await claimed(store)
            clock.advance(10)
            await store.maintain(max_run_attempts=2, attempts_error=b'"exhausted"')
        stored = await store.read_public("a")
        assert stored is not None
        assert stored.control.status is ExecutionStatus.FAILED
        assert stored.payloads == {PayloadKind.ERROR: b'"exhausted"'}

    run(open_store, scenario)


def test_release_hands_back_without_blame(open_store: OpenStore) -> None:
    """A released execution can be claimed at once, and no lost lease is counted."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        control = await claimed(store)
        await store.transition("a", ReleaseClaim(control.fence, "w"))
        assert (await claimed(store, "w2")).lease_recoveries == 0

    run(open_store, scenario)


def test_retry_waits_for_its_delay(open_store: OpenStore, clock: Clock) -> None:
    """A retry is queued with its error and not claimed before it is due; one too many is a failure."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        control = await claimed(store)
        await store.transition("a", ScheduleRetry(control.fence, "w", 0, 5_000, 1, b'"later"'))
        stored = await store.read("a")
        assert stored is not None
        assert stored.payloads[PayloadKind.ERROR] == b'"later"'
        clock.advance(4.9)
        assert await store.claim(claim_by("w")) is None
        clock.advance(0.1)
        control = await claimed(store)
        await store.transition("a", ScheduleRetry(control.fence, "w", 0, 5_000, 1, b'"later"'))
        assert await statuses(store, "a") == ["failed"]

    run(open_store, scenario)


def test_queued_execution_is_cancelled_at_once(open_store: OpenStore) -> None:
    """Cancelling what is queued ends it, and asking again changes nothing."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        plan = await store.transition("a", RequestCancellation(0, "enough"))
        again = await store.transition("a", RequestCancellation(0))
        assert plan.next_control.status is ExecutionStatus.CANCELED
        assert again.next_control == plan.next_control
        assert await store.claim(claim_by("w")) is None
        assert (await store.operational_counts(revision=REVISION))["nonterminal"] == 0

    run(open_store, scenario)


def test_cancellation_beats_completion(open_store: OpenStore) -> None:
    """What runs goes on until its worker answers; then it is cancelled and the result is dropped."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        control = await claimed(store)
        plan = await store.transition("a", RequestCancellation(0))
        assert plan.next_control.status is ExecutionStatus.RUNNING
        await complete(store, control)
        stored = await store.read_public("a")
        assert stored is not None
        assert stored.control.status is ExecutionStatus.CANCELED
        assert stored.payloads == {}

    run(open_store, scenario)


def test_expired_lease_of_a_cancelled_execution_ends_it(open_store: OpenStore, clock: Clock) -> None:
    """Recovery of an execution that was to be cancelled cancels it instead of queueing it."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        await claimed(store)
        await store.transition("a", RequestCancellation(0))
        clock.advance(10)
        assert await store.maintain(max_run_attempts=3, attempts_error=b"1") == 0
        assert await statuses(store, "a") == ["canceled"]

    run(open_store, scenario)


def test_complete_and_fail_keep_their_payload(open_store: OpenStore) -> None:
    """Completed executions have a result, failed ones an error; neither transitions again."""

    async def scenario(store: ExecutionStore) -> None:
        for run_id in "ab":
            await store.submit(new_control(run_id), b"1")
        first, second = await claimed(store), await claimed(store)
        await complete(store, first, b'"fine"')
        await store.transition(second.run_id, Fail(second.fence, "w", 0, b'"bad"', progress_events=(b"{}",)))
        done, failed = await store.read_public(first.run_id), await store.read_public(second.run_id)
        assert done is not None
        assert failed is not None
        assert done.payloads == {PayloadKind.RESULT: b'"fine"'}
        assert failed.payloads == {PayloadKind.ERROR: b'"bad"'}
        assert [event.data for event in failed.progress] == [b"{}"]
        with pytest.raises(ExecutionLeaseLostError):
            await complete(store, first)
        with pytest.raises(ExecutionNotFoundError):
            await store.transition("unknown", RequestCancellation(0))

    run(open_store, scenario)


def test_suspend_waits_for_resume(open_store: OpenStore) -> None:
    """A suspended execution is not claimed until it is resumed, once."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        control = await claimed(store)
        await store.transition("a", Suspend(control.fence, "w", 0, b'"state"', b'{"kind":"human"}'))
        stored = await store.read_public("a")
        assert stored is not None
        assert stored.payloads == {PayloadKind.WAIT: b'{"kind":"human"}'}
        assert await store.claim(claim_by("w")) is None
        await store.transition("a", Resume(0, REVISION))
        with pytest.raises(InvalidExecutionTransitionError):
            await store.transition("a", Resume(0, REVISION))
        assert (await claimed(store)).run_attempt == 2

    run(open_store, scenario)


def test_progress_keeps_the_last_events(open_store: OpenStore) -> None:
    """Progress events are numbered from 1, the oldest go first, and a failure may discard them all."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        control = await claimed(store)
        for number in range(3):
            await store.transition("a", checkpoint(control, b"1", b"%d" % number, b"%d+" % number))
        stored = await store.read_public("a")
        assert stored is not None
        assert [(event.sequence, event.data) for event in stored.progress] == [
            (4, b"1+"),
            (5, b"2"),
            (6, b"2+"),
        ]
        await store.transition("a", Fail(control.fence, "w", 0, b"1", discard_progress=True))
        stored = await store.read_public("a")
        assert stored is not None
        assert stored.progress == ()

    run(open_store, scenario, config=StoreConfig(max_progress_events=3))


def test_chunks_are_read_from_a_cursor_on(open_store: OpenStore) -> None:
    """Chunks come in order, behind a cursor only what is new, and at the end the terminal marker."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        control = await claimed(store)
        await store.append_chunks("a", 1, control.fence, "w", [b"one", b"two"])
        chunks = await store.read_chunks("a", CHUNK_CURSOR_START)
        assert [(chunk.data, chunk.attempt, chunk.terminal) for chunk in chunks] == [
            (b"one", 1, False),
            (b"two", 1, False),
        ]
        assert [chunk.data for chunk in await store.read_chunks("a", chunks[0].cursor)] == [b"two"]
        await complete(store, control)
        [marker] = await store.read_chunks("a", chunks[1].cursor)
        assert (marker.data, marker.terminal) == (b"", True)
        assert await store.read_chunks("unknown", CHUNK_CURSOR_START) == ()
        with pytest.raises(ValueError, match="cursor"):
            await store.read_chunks("a", "nonsense")

    run(open_store, scenario)


def test_trimmed_chunks_expire_their_cursors(open_store: OpenStore) -> None:
    """Only the last chunks are kept, and a cursor at one that is gone is refused."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        control = await claimed(store)
        await store.append_chunks("a", 1, control.fence, "w", [b"1"])
        [first] = await store.read_chunks("a", CHUNK_CURSOR_START)
        await store.append_chunks("a", 1, control.fence, "w", [b"2", b"3"])
        assert [chunk.data for chunk in await store.read_chunks("a", CHUNK_CURSOR_START)] == [b"2", b"3"]
        for cursor in (first.cursor, f"0-{2**64 - 1}"):
            with pytest.raises(ChunkCursorExpiredError):
                await store.read_chunks("a", cursor)

    run(open_store, scenario, config=StoreConfig(max_stream_chunks=2))


def test_terminal_marker_comes_without_streaming(open_store: OpenStore) -> None:
    """Where streaming is off chunks are dropped, but the end of the execution is marked."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        control = await claimed(store)
        await store.append_chunks("a", 1, control.fence, "w", [b"1"])
        await store.transition("a", RequestCancellation(0))
        await complete(store, control)
        assert [chunk.terminal for chunk in await store.read_chunks("a", CHUNK_CURSOR_START)] == [True]

    run(open_store, scenario, config=StoreConfig(max_stream_chunks=0))


def test_wait_chunks_wakes_for_a_new_chunk(open_store: OpenStore) -> None:
    """Waiting ends with the first chunk that comes, or with nothing when none does."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        control = await claimed(store)
        assert await store.wait_chunks("a", CHUNK_CURSOR_START, 0.01) == ()
        waiting = asyncio.create_task(store.wait_chunks("a", CHUNK_CURSOR_START, 60))
        await asyncio.sleep(0)
        await store.append_chunks("a", 1, control.fence, "w", [b"one"])
        assert [chunk.data for chunk in await waiting] == [b"one"]

    run(open_store, scenario)


def test_list_pages_through_one_owner(open_store: OpenStore, clock: Clock) -> None:
    """Listing gives an owner's own executions in the order of their creation, page by page, filtered."""

    async def scenario(store: ExecutionStore) -> None:
        for number in range(5):
            await store.submit(new_control(f"r{number}"), b"1")
            await store.submit(new_control(f"x{number}", owner="other"), b"1")
            clock.advance(1)
        await store.submit(new_control("nobodys", owner=None), b"1")
        seen: list[str] = []
        cursor = None
        for _ in range(3):
            page = await store.list_controls(ControlQuery("acme", limit=2, cursor=cursor))
            seen += [control.run_id for control in page.controls]
            cursor = page.next_cursor
        assert seen == [f"r{number}" for number in range(5)]
        assert cursor is None
        await store.transition("r3", RequestCancellation(0))
        ended = await store.list_controls(ControlQuery("acme", status=ExecutionStatus.CANCELED))
        unowned = await store.list_controls(ControlQuery(None))
        assert [control.run_id for control in ended.controls] == ["r3"]
        assert [control.run_id for control in unowned.controls] == ["nobodys"]

    run(open_store, scenario)


def test_list_needs_monitoring(open_store: OpenStore) -> None:
    """Listing is refused where monitoring is off."""

    async def scenario(store: ExecutionStore) -> None:
        with pytest.raises(ExecutionStoreError, match="monitoring"):
            await store.list_controls(ControlQuery("acme"))

    run(open_store, scenario, config=StoreConfig())


def test_ended_executions_expire(open_store: OpenStore, clock: Clock) -> None:
    """First the chunks of an ended execution go, later all of it; what has not ended stays."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        await complete(store, await claimed(store))
        await store.submit(new_control("b"), b"1")
        clock.advance(11)
        await store.maintain(max_run_attempts=3, attempts_error=b"1")
        assert await store.read_chunks("a", CHUNK_CURSOR_START) == ()
        assert await statuses(store, "a", "b") == ["completed", "queued"]
        clock.advance(90)
        assert await statuses(store, "a", "b") == ["gone", "queued"]
        await store.maintain(max_run_attempts=3, attempts_error=b"1")
        page = await store.list_controls(ControlQuery("acme"))
        assert [control.run_id for control in page.controls] == ["b"]

    run(open_store, scenario)


def test_time_never_runs_backwards(open_store: OpenStore, clock: Clock) -> None:
    """When the system's clock is set back, an execution's own times do not go back."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a"), b"1")
        control = await claimed(store)
        clock.advance(-5)
        plan = await store.transition("a", checkpoint(control, b"1"))
        assert plan.next_control.updated_at_ms == control.updated_at_ms

    run(open_store, scenario)


def test_foreign_deployment_is_refused(open_store: OpenStore) -> None:
    """A control of another deployment is not taken."""

    async def scenario(store: ExecutionStore) -> None:
        store.deployment = "another"
        with pytest.raises(ValueError, match="deployment"):
            await store.submit(new_control("a"), b"1")

    run(open_store, scenario)


def test_everything_survives_reopening(open_sqlite: OpenStore, clock: Clock) -> None:
    """Closed and opened again, the file has queued and ended executions and their count as before."""

    async def scenario() -> None:
        async with open_sqlite() as store:
            await store.submit(new_control("a"), b"1")
            await store.submit(new_control("b"), b"2")
            await complete(store, await claimed(store))
            before = [await store.read(run_id) for run_id in "ab"]
        async with open_sqlite() as store:
            assert [await store.read(run_id) for run_id in "ab"] == before
            assert (await store.operational_counts(revision=REVISION))["nonterminal"] == 1
            assert (await claimed(store)).run_id == "b"

    asyncio.run(scenario())


def test_exclusive_store_recovers_at_once(open_sqlite: OpenStore) -> None:
    """What a dead process ran is claimable as soon as the only process opens the file."""

    async def scenario() -> None:
        async with open_sqlite() as store:
            for run_id in "ab":
                await store.submit(new_control(run_id), b"1")
            stale = await claimed(store, "dead")
            cancelled = await claimed(store, "dead")
            await store.transition(cancelled.run_id, RequestCancellation(0))
        async with open_sqlite() as store:
            assert await store.claim(claim_by("w")) is None
        async with open_sqlite(exclusive=True) as store:
            again = await claimed(store)
            assert (again.run_id, again.fence, again.lease_recoveries) == (stale.run_id, 2, 1)
            assert await statuses(store, cancelled.run_id) == ["canceled"]
            with pytest.raises(ExecutionLeaseLostError):
                await complete(store, stale)

    asyncio.run(scenario())


def test_recovered_work_comes_first(open_sqlite: OpenStore, clock: Clock) -> None:
    """An owner's recovered execution keeps its place in front of what was submitted later."""

    async def scenario(store: ExecutionStore) -> None:
        for run_id in "abc":
            await store.submit(new_control(run_id), b"1")
        assert (await claimed(store)).run_id == "a"
        clock.advance(10)
        await store.maintain(max_run_attempts=3, attempts_error=b"1")
        assert (await claimed(store)).run_id == "a"

    run(open_sqlite, scenario)


def test_owner_with_fewest_running_is_next(open_sqlite: OpenStore) -> None:
    """Behind another owner's long queue a newcomer is served at once, and slots are shared evenly."""

    async def scenario(store: ExecutionStore) -> None:
        for number in range(50):
            await store.submit(new_control(f"big-{number}", owner="big"), b"1")
        for number in range(2):
            await store.submit(new_control(f"small-{number}", owner="small"), b"1")
        order = [(await claimed(store)).run_id for _ in range(5)]
        assert order == ["big-0", "small-0", "big-1", "small-1", "big-2"]

    run(open_sqlite, scenario)


def test_single_worker_serves_owners_in_turn(open_sqlite: OpenStore) -> None:
    """With one worker, nothing else is running when it claims; then who was served longest ago is next."""

    async def scenario(store: ExecutionStore) -> None:
        for owner in ("one", "two", "three"):
            for number in range(3):
                await store.submit(new_control(f"{owner}-{number}", owner=owner), b"1")
        order = []
        for _ in range(7):
            control = await claimed(store)
            order.append(control.owner_id)
            await complete(store, control)
        assert order == ["one", "two", "three"] * 2 + ["one"]

    run(open_sqlite, scenario)


def test_owner_that_waits_does_not_block(open_sqlite: OpenStore) -> None:
    """An owner whose only execution waits for its retry is passed over."""

    async def scenario(store: ExecutionStore) -> None:
        await store.submit(new_control("a", owner="waiting"), b"1")
        control = await claimed(store)
        await store.transition("a", ScheduleRetry(control.fence, "w", 0, 60_000, 3, b'"later"'))
        assert await store.claim(claim_by("w")) is None
        await store.submit(new_control("b", owner="ready"), b"1")
        assert (await claimed(store)).run_id == "b"

    run(open_sqlite, scenario)


def test_deployments_in_one_file_are_apart(open_sqlite: OpenStore) -> None:
    """A store sees the executions of its own deployment only."""

    async def scenario() -> None:
        async with open_sqlite() as store, open_sqlite(deployment="other") as other:
            await store.submit(new_control("a"), b"1")
            assert await other.read("a") is None
            assert await other.claim(claim_by("w")) is None
            assert (await other.operational_counts(revision=REVISION))["nonterminal"] == 0

    asyncio.run(scenario())


def test_clean_up_deletes_every_trace(open_sqlite: OpenStore, clock: Clock, tmp_path: Path) -> None:
    """Executions whose time is over leave no row in any table, however many they are."""

    async def scenario() -> None:
        async with open_sqlite() as store:
            for number in range(250):
                await store.submit(new_control(f"r{number}"), b"1")
                await store.transition(f"r{number}", RequestCancellation(0))
            clock.advance(101)
            await store.maintain(max_run_attempts=3, attempts_error=b"1")
        database = JobDatabase(tmp_path / "jobs.sqlite3")
        for table in ("executions", "payloads", "progress", "chunks"):
            query = f"SELECT COUNT(*) FROM {table}"
            assert await database.read(lambda db, query=query: db.execute(query).fetchone()[0]) == 0
        await database.close()

    asyncio.run(scenario())


def test_sqlite_errors_are_store_errors(tmp_path: Path) -> None:
    """A file that can't be opened, is no database or is a newer version's gives a store error."""

    async def open_at(path: Path) -> None:
        database = JobDatabase(path)
        try:
            await database.open()
        finally:
            await database.close()

    garbage = tmp_path / "garbage.sqlite3"
    garbage.write_bytes(b"no database" * 1_000)
    newer = tmp_path / "newer.sqlite3"
    asyncio.run(open_at(newer))

    async def make_newer() -> None:
        database = JobDatabase(newer)
        await database.write(lambda db: db.execute("PRAGMA user_version = 99"))
        await database.close()
        with pytest.raises(ExecutionStoreError, match="closed"):
            await database.read(lambda db: None)

    asyncio.run(make_newer())
    for path in (garbage, newer, tmp_path / "missing" / "jobs.sqlite3"):
        with pytest.raises(ExecutionStoreError, match="database"):
            asyncio.run(open_at(path))
