"""FairRedisStore on a real Redis: whose turn it is, and what happens when Redis is away or has lost its data."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from hayhooks.durable import StoreConfig
from hayhooks.durable.engine import (
    Claim,
    Complete,
    ExecutionControl,
    ExecutionStatus,
    ReleaseClaim,
    RequestCancellation,
    ScheduleRetry,
    initial_control,
)
from hayhooks.durable.store import ExecutionStoreError

from components.breaking import Breaker
from serve.jobs import redis_client
from serve.jobs.redis_client import RedisOutage, open_redis
from serve.jobs.redis_store import FairRedisStore
from tests.redis_server import RedisServer, redis_server

pytestmark = pytest.mark.server

CONFIG = StoreConfig(monitoring_enabled=True, max_stream_chunks=0)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    shared_server.flush()
    return shared_server


@asynccontextmanager
async def opened(server: RedisServer) -> AsyncIterator[FairRedisStore]:
    client = open_redis(server.url)
    store = FairRedisStore(client, "jobs", config=CONFIG)
    try:
        await store.initialize()
        yield store
    finally:
        await client.aclose()


def run(server: RedisServer, scenario: Callable[[FairRedisStore], Awaitable[None]]) -> None:
    async def main() -> None:
        async with opened(server) as store:
            await scenario(store)

    asyncio.run(main())


async def submit(store: Any, owner: str, number: int) -> str:
    run_id = f"{owner}{number:030x}"
    control = initial_control(
        run_id=run_id,
        idempotency_digest=run_id,
        idempotency_binding_digest="b",
        deployment="jobs",
        definition_revision="v1",
        owner_id=owner,
        kind="pipeline",
        now_ms=0,
    )
    await store.submit(control, b"{}")
    return run_id


async def claim(store: Any) -> ExecutionControl | None:
    plan = await store.claim(Claim("w", 0, 10_000, 100, "v1", b'"exhausted"'))
    return None if plan is None else plan.next_control


async def claimed(store: Any) -> ExecutionControl:
    control = await claim(store)
    assert control is not None
    return control


async def release(store: Any, control: ExecutionControl) -> None:
    await store.transition(control.run_id, ReleaseClaim(control.fence, "w"))


async def index_keys(store: FairRedisStore) -> list[str]:
    keys = [key.decode() for key in await store.redis.keys("*")]
    return [key for key in keys if ":of:" in key or key.endswith(":line")]


def test_owners_take_turns(server: RedisServer) -> None:
    """One job behind another owner's hundred is claimed second, and owners with many alternate."""

    async def scenario(store: FairRedisStore) -> None:
        for number in range(100):
            await submit(store, "aa", number)
        for number in range(3):
            await submit(store, "bb", number)
        await submit(store, "cc", 0)
        owners = [(await claimed(store)).owner_id for _ in range(9)]
        assert owners == ["aa", "bb", "cc", "aa", "bb", "aa", "bb", "aa", "aa"]

    run(server, scenario)


def test_who_posts_one_job_after_the_other_waits_for_its_turn(server: RedisServer) -> None:
    """An owner whose line was empty for a moment does not come before those that waited meanwhile."""

    async def scenario(store: FairRedisStore) -> None:
        for number in range(3):
            await submit(store, "aa", number)
            await submit(store, "bb", number)
        await submit(store, "cc", 0)
        owners = []
        for number in range(1, 7):
            control = await claimed(store)
            owners.append(control.owner_id)
            if control.owner_id == "cc":
                await submit(store, "cc", number)
        assert sorted(owners[:3]) == sorted(owners[3:]) == ["aa", "bb", "cc"]

    run(server, scenario)


def test_handed_back_and_repeated_jobs_keep_their_place(server: RedisServer) -> None:
    """A job that was handed back, or waited for its repetition, comes before the later ones of its owner."""

    async def scenario(store: FairRedisStore) -> None:
        first, second, _third = [await submit(store, "aa", number) for number in range(3)]
        control = await claimed(store)
        assert control.run_id == first
        await release(store, control)
        control = await claimed(store)
        assert control.run_id == first
        retry = ScheduleRetry(control.fence, "w", 0, 300, 100, b'"later"', exhausted_error=b'"x"')
        await store.transition(first, retry)
        control = await claimed(store)
        assert control.run_id == second
        await asyncio.sleep(0.4)
        assert (await claimed(store)).run_id == first

    run(server, scenario)


def test_expired_lease_comes_first_again(server: RedisServer) -> None:
    """What a dead worker had is claimed before what its owner posted later."""

    async def scenario(store: FairRedisStore) -> None:
        first = await submit(store, "aa", 1)
        plan = await store.claim(Claim("dead", 0, 1_600, 100, "v1", b'"exhausted"'))
        assert plan is not None
        await submit(store, "aa", 2)
        await asyncio.sleep(1.7)
        assert await store.maintain(max_run_attempts=100, attempts_error=b'"exhausted"') == 1
        assert (await claimed(store)).run_id == first

    run(server, scenario)


def test_concurrent_workers_share_the_jobs_out(server: RedisServer) -> None:
    """Workers that claim at the same time get every job once."""

    async def scenario(store: FairRedisStore) -> None:
        expected = {await submit(store, owner, number) for owner in ("aa", "bb") for number in range(20)}
        got: list[str] = []

        async def worker() -> None:
            while (control := await claim(store)) is not None:
                got.append(control.run_id)

        await asyncio.gather(*(worker() for _ in range(8)))
        assert sorted(got) == sorted(expected)

    run(server, scenario)


def test_unended_jobs_are_counted_for_each_owner(server: RedisServer) -> None:
    """An owner's count falls when a job is done or cancelled, and not when it is claimed or handed back."""

    async def scenario(store: FairRedisStore) -> None:
        first, second = await submit(store, "aa", 1), await submit(store, "aa", 2)
        await submit(store, "aa", 2)
        await submit(store, "bb", 1)
        control = await claimed(store)
        await release(store, control)
        assert (await store.nonterminal_of("aa"), await store.nonterminal_of("bb")) == (2, 1)
        await store.transition(second, RequestCancellation(0))
        assert await store.nonterminal_of("aa") == 1
        control = next(c for c in [await claimed(store), await claimed(store)] if c.run_id == first)
        await store.transition(first, Complete(control.fence, "w", 0, b"{}"))
        assert (await store.nonterminal_of("aa"), await store.nonterminal_of("nobody")) == (0, 0)

    run(server, scenario)


def test_waiting_owners_are_seen(server: RedisServer) -> None:
    """A job that runs learns whether another owner's job is due; its own owner's don't count."""

    async def scenario(store: FairRedisStore) -> None:
        for number in range(3):
            await submit(store, "aa", number)
        await claimed(store)
        assert not await store.others_wait("aa", revision="v1")
        await submit(store, "bb", 1)
        assert await store.others_wait("aa", revision="v1")
        assert not await store.others_wait("aa", revision="v2")
        control = await claimed(store)
        assert control.owner_id == "bb"
        retry = ScheduleRetry(control.fence, "w", 0, 60_000, 100, b'"later"', exhausted_error=b'"x"')
        await store.transition(control.run_id, retry)
        assert not await store.others_wait("aa", revision="v1")

    run(server, scenario)


def test_a_crowd_waits_for_connections(server: RedisServer) -> None:
    """More calls at once than there are connections are answered one after the other."""

    async def scenario(store: FairRedisStore) -> None:
        await asyncio.gather(*(submit(store, "aa", number) for number in range(300)))
        assert await store.nonterminal_of("aa") == 300

    run(server, scenario)


def test_finished_jobs_leave_no_trace_in_the_lines(server: RedisServer) -> None:
    """Completed and cancelled jobs are in no owner's line any more."""

    async def scenario(store: FairRedisStore) -> None:
        done, cancelled = await submit(store, "aa", 1), await submit(store, "bb", 1)
        control = await claimed(store)
        assert control.run_id == done
        await store.transition(done, Complete(control.fence, "w", 0, b"{}"))
        await store.transition(cancelled, RequestCancellation(0))
        assert await claim(store) is None
        assert not [key for key in await index_keys(store) if ":of:" in key]

    run(server, scenario)


def test_work_goes_on_without_the_lines(server: RedisServer) -> None:
    """When the index of owners is lost, Hayhooks' own claim finds the jobs."""

    async def scenario(store: FairRedisStore) -> None:
        expected = {await submit(store, owner, number) for owner in ("aa", "bb") for number in range(5)}
        await store.redis.delete(*await index_keys(store))
        assert {(await claimed(store)).run_id for _ in range(10)} == expected

    run(server, scenario)


def test_unreadable_job_is_set_aside(server: RedisServer) -> None:
    """A damaged record does not keep its owner's other jobs waiting."""

    async def scenario(store: FairRedisStore) -> None:
        broken, good = await submit(store, "aa", 1), await submit(store, "aa", 2)
        await store.redis.hset(store.keys.control(broken), "status", "nonsense")
        assert (await claimed(store)).run_id == good
        assert await claim(store) is None

    run(server, scenario)


def test_replayed_submission_is_not_queued_again(server: RedisServer) -> None:
    """The same key and work twice is one job, also when the first is finished."""

    async def scenario(store: FairRedisStore) -> None:
        run_id = await submit(store, "aa", 1)
        await submit(store, "aa", 1)
        control = await claimed(store)
        await store.transition(run_id, Complete(control.fence, "w", 0, b"{}"))
        await submit(store, "aa", 1)
        assert await claim(store) is None
        stored = await store.read_control(run_id)
        assert stored is not None
        assert stored.status is ExecutionStatus.COMPLETED

    run(server, scenario)


def test_an_outage_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """While Redis is away every call is an error soon, and the log has a line at the begin and one at the end."""
    monkeypatch.setattr(redis_client, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(redis_client, "CALM_SECONDS", 0.2)

    async def scenario(store: FairRedisStore) -> None:
        watched = RedisOutage(Breaker("Redis")).watch(store)
        run_id = await submit(watched, "aa", 1)
        shop.kill()
        for _ in range(20):
            with pytest.raises(ExecutionStoreError):
                await watched.read_control(run_id)
        shop.start()
        assert (await claimed(watched)).run_id == run_id
        await asyncio.sleep(0.3)
        assert await watched.read_control(run_id) is not None

    with redis_server() as shop, caplog.at_level(logging.WARNING, "serve.jobs.redis_client"):
        run(shop, scenario)
    lines = [record.getMessage() for record in caplog.records if record.name == "serve.jobs.redis_client"]
    assert len(lines) == 2
    assert lines[0].startswith("Redis can't be used")
    assert lines[1].startswith("Redis can be used again")


def test_a_connection_that_was_reset_is_an_outage() -> None:
    """Writing to a connection that has gone, which uvloop tells in its own way, is an error of the job store."""

    class Store:
        async def write(self) -> None:
            ours, theirs = socket.socketpair()
            _, writer = await asyncio.open_connection(sock=ours)
            theirs.close()
            writer.transport.abort()
            await asyncio.sleep(0)
            writer.writelines([b"x"])

    with pytest.raises(ExecutionStoreError, match="the connection was closed"):
        uvloop.run(RedisOutage(Breaker("Redis")).watch(Store()).write())


def test_errors_tell_nothing_that_was_posted(server: RedisServer) -> None:
    """What Redis refuses is told without the command, which holds documents."""

    async def scenario(store: FairRedisStore) -> None:
        async def confuse() -> None:
            with redis_client.redis_errors():
                async with store.redis.pipeline() as pipe:
                    pipe.set("text", "a secret")
                    pipe.zadd("text", {"a secret": 1})
                    await pipe.execute()

        with pytest.raises(ExecutionStoreError) as refused:
            await confuse()
        assert str(refused.value).startswith("Redis: WRONGTYPE")
        assert "secret" not in str(refused.value)

    run(server, scenario)


def test_loss_of_all_data_is_said(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """When Redis comes back empty the log says once that accepted jobs are gone, and new jobs run."""

    async def scenario(store: FairRedisStore) -> None:
        await submit(store, "aa", 1)
        server.flush()
        for _ in range(3):
            await store.maintain(max_run_attempts=100, attempts_error=b'"exhausted"')
            await store.operational_counts(revision="v1")
        run_id = await submit(store, "aa", 2)
        assert (await claimed(store)).run_id == run_id

    with caplog.at_level(logging.WARNING, "serve.jobs.redis_store"):
        run(server, scenario)
    assert ["lost its data" in record.getMessage() for record in caplog.records].count(True) == 1
