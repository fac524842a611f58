"""Where runs are kept: both stores alike, and the keeper before them."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from haystack.dataclasses import ChatMessage

from components.breaking import Breaker
from components.models.errors import ModelUnavailableError
from components.storing import UnknownTenantError
from modes.failures import UnsupportedInputError
from modes.results import QueryResult
from serve.limiting.errors import OverloadedError
from serve.traces.errors import TraceStoreError
from serve.traces.keeping import RunKeeper
from serve.traces.records import KeptRun, as_json, kept_run, outcome_of
from serve.traces.redis_store import RedisTraceStore
from serve.traces.sqlite_store import SqliteTraceStore
from serve.traces.store import FULL_TENANTS, TraceStore
from serve.watching import FinishedRun
from tests.redis_server import RedisServer, redis_server

OpenStore = Callable[..., TraceStore]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    opened: list[TraceStore] = []

    def open_one(ttl: int = 60, max_runs: int = 10) -> TraceStore:
        if request.param == "sqlite":
            store: TraceStore = SqliteTraceStore(tmp_path, ttl, max_runs)
        else:
            server: RedisServer = request.getfixturevalue("redis")
            store = RedisTraceStore(server.url, f"t{tmp_path.name[-20:]}", ttl, max_runs)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


def finished(
    query: str = "How tall?",
    tenant_id: str = "acme",
    request_id: str = "r1",
    error: BaseException | None = None,
    began: bool = True,
    **more: object,
) -> FinishedRun:
    return FinishedRun(
        request_id=request_id,
        mode="crag",
        query=query,
        history=more.pop("history", ()),  # type: ignore[arg-type]
        inputs={"tenant_id": tenant_id, **more},  # type: ignore[typeddict-item]
        started_at=datetime.now(UTC),
        seconds=1.0,
        result=None
        if error
        else QueryResult(mode="crag", answer=f"Answer to {query}", prompt_hash="zqxhash"),
        error=error,
        began=began,
    )


def run(query: str = "How tall?", tenant_id: str = "acme", request_id: str = "r1") -> KeptRun:
    return kept_run(finished(query, tenant_id, request_id), keeps_content=True)


def questions(store: TraceStore, *tenants: str, request_id: str = "r1") -> list[str | None]:
    return [one.question.text for one in store.find(request_id, lambda tenant: tenant in tenants)]


def test_runs_are_found_by_their_request(open_store: OpenStore) -> None:
    """The runs of a request come back as they were kept, in order; those of others do not."""
    store = open_store()
    first, second = run("one"), run("two")
    store.put([first, second, run("other", request_id="r2")])
    assert open_store().find("r1", lambda _: True) == [first, second]
    assert store.find("r3", lambda _: True) == []


def test_a_tenant_sees_its_own_runs_alone(open_store: OpenStore) -> None:
    """Of two tenants that used one id, each finds its own run, whatever the other keeps under it."""
    store = open_store()
    store.put([run("acme's", "acme"), *(run("globex's", "globex") for _ in range(9))])
    assert questions(store, "acme") == ["acme's"]
    assert questions(store, "initech") == []


def test_the_oldest_runs_of_a_tenant_go_first(open_store: OpenStore) -> None:
    """Beyond TRACE_MAX_RUNS a tenant loses its oldest runs, and no other tenant loses any."""
    store = open_store(max_runs=2)
    store.put([run("kept", "globex")])
    for number in range(4):
        store.put([run(str(number))])
    assert questions(store, "acme") == ["2", "3"]
    assert questions(store, "globex") == ["kept"]


def test_a_forgotten_tenant_leaves_nothing(open_store: OpenStore, tmp_path: Path) -> None:
    """After a tenant is forgotten none of its runs is found, nor in the file; other tenants keep theirs."""
    store = open_store()
    store.put([run("zqxgone"), run("kept", "globex")])
    store.forget("acme")
    assert questions(store, "acme", "globex") == ["kept"]
    assert not any(b"zqxgone" in file.read_bytes() for file in tmp_path.iterdir())
    if isinstance(store, RedisTraceStore):
        assert store._redis.smembers(store._tenants("r1")) == {b"globex"}
        assert not any(b":acme" in key for key in store._redis.keys(f"{store._prefix}:*"))


def test_a_question_under_way_is_forgotten_with_its_tenant(open_store: OpenStore) -> None:
    """A run that began before its tenant was forgotten is kept by no process; one that began later is."""
    under_way, other = run("before"), run("kept", "globex")
    here, there = open_store(), open_store()
    assert here.forget("acme") == 0
    later = under_way.model_copy(update={"started_at": datetime.now(UTC) + timedelta(minutes=1)})
    for store in (here, there):
        store.put([under_way, other])
    assert questions(here, "acme", "globex") == ["kept", "kept"]
    there.put([later])
    assert questions(here, "acme") == ["before"]
    assert there.forget("acme") == 1


def test_a_run_is_not_kept_when_its_tenant_is_forgotten_just_then(redis: RedisServer) -> None:
    """A tenant that another process forgets between the look at its mark and the write leaves nothing either."""
    store, other = (RedisTraceStore(redis.url, "just-then", ttl=60, max_runs=10) for _ in range(2))
    write, tries = store._write, []

    def interrupted(*args: Any) -> None:
        write(*args)
        if not tries:
            other.forget("acme")
        tries.append(args)

    store._write = interrupted  # type: ignore[method-assign]
    store.put([run()])
    assert len(tries) == 2
    assert questions(store, "acme") == []
    store.close()
    other.close()


def test_the_whole_store_has_a_limit(open_store: OpenStore) -> None:
    """Of more tenants than may have all they may have, the oldest runs of all go first."""
    store = open_store(max_runs=1)
    names = [f"tenant{number}" for number in range(FULL_TENANTS + 2)]
    for name in names:
        store.put([run(name, name)])
    assert questions(store, *names) == names[2:]


def test_the_file_is_nobody_elses(tmp_path: Path) -> None:
    """The file of runs, and those beside it, can be read by their owner alone, also one that others could read."""
    (tmp_path / "traces.sqlite3").touch(0o644)
    store = SqliteTraceStore(tmp_path, ttl=60, max_runs=10)
    store.put([run()])
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["traces.sqlite3", "traces.sqlite3-wal", "traces.sqlite3-shm"], 0o600)
    store.close()


def test_runs_outlive_no_more_than_their_time(tmp_path: Path, redis: RedisServer) -> None:
    """After TRACE_TTL a run is gone: from the file with the next one, from Redis by itself."""
    store = SqliteTraceStore(tmp_path, ttl=0, max_runs=10)
    store.put([run("zqxold")])
    assert questions(store, "acme") == []
    store.put([])
    store.close()
    assert not any(b"zqxold" in file.read_bytes() for file in tmp_path.iterdir())
    there = RedisTraceStore(redis.url, "ttl", ttl=60, max_runs=10)
    there.put([run()])
    keys = there._redis.keys("ttl:*")
    assert len(keys) == 5
    assert all(0 < there._redis.ttl(key) <= 60 for key in keys)
    there.close()


def test_a_store_that_can_not_be_used_says_so(tmp_path: Path) -> None:
    """A broken file and a Redis that is away raise the store's own error, without what was asked."""
    (tmp_path / "traces.sqlite3").write_bytes(b"no database" * 100)
    stores: list[TraceStore] = [
        SqliteTraceStore(tmp_path, ttl=60, max_runs=10),
        RedisTraceStore("redis://127.0.0.1:1/0", "t", ttl=60, max_runs=10),
    ]
    for store in stores:
        with pytest.raises(TraceStoreError) as raised:
            store.put([run("zqxasked")])
        assert "zqxasked" not in str(raised.value)


def test_a_redis_that_is_known_to_be_away_is_not_waited_for() -> None:
    """While the breaker of Redis is open, reading fails at once; failures to reach Redis open it."""
    breaker = Breaker("Redis", failures=1)
    away = RedisTraceStore("redis://127.0.0.1:1/0", "t", ttl=60, max_runs=10, breaker=breaker)
    with pytest.raises(TraceStoreError, match="Redis"):
        away.find("r1", lambda _: True)
    assert breaker.state == "open"
    with pytest.raises(TraceStoreError, match="kept failing"):
        away.find("r1", lambda _: True)


def test_only_a_model_on_offer_is_named() -> None:
    """What stands in place of a model's name may be any text, so it is not kept."""
    given = finished("x", model="zqxmodel")
    assert "zqx" not in kept_run(given, keeps_content=False).model_dump_json()
    assert kept_run(given, False, {"zqxmodel"}.__contains__).inputs == {"model": "zqxmodel"}


def test_without_content_only_hashes_are_kept() -> None:
    """Where content is not kept, a record has no word of question, history, filters or answer, but can be compared."""
    given = finished(
        "zqxquestion",
        history=[ChatMessage.from_user("zqxhistory")],
        filters={"field": "meta.zqxfield", "operator": "==", "value": "zqxvalue"},
        instructions="zqxwish",
        generation_kwargs={"stop": ["zqxstop"]},
        top_k=3,
    )
    kept = kept_run(given, keeps_content=False)
    assert "zqx" not in kept.model_dump_json()
    assert kept.inputs == {"top_k": 3}
    assert kept.question.is_of("zqxquestion", kept.salt)
    assert not kept.question.is_of("another", kept.salt)
    assert kept.texts["filters"].is_of(as_json(given.inputs["filters"]), kept.salt)
    again = kept_run(given, keeps_content=False)
    assert kept.question.sha256 != again.question.sha256
    assert kept.prompt_hash != again.prompt_hash
    assert given.result is not None
    assert kept.prompt_hash == outcome_of(given.result, kept.salt)["prompt_hash"]


class Unhappy:
    """A store that fails, or hangs until it is let go."""

    def __init__(self, hangs: bool) -> None:
        self.go_on = threading.Event()
        if not hangs:
            self.go_on.set()

    def put(self, runs: list[KeptRun]) -> None:
        self.go_on.wait()
        raise TraceStoreError("away")

    def close(self) -> None:
        pass


@pytest.mark.parametrize("hangs", [False, True])
def test_a_store_that_fails_costs_nobody_anything(hangs: bool, caplog: pytest.LogCaptureFixture) -> None:
    """However many runs end while the store fails or hangs, telling the keeper raises nothing and never waits."""
    store = Unhappy(hangs)
    keeper = RunKeeper(store, False, lambda _: True)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "thresher.traces"):
        for _ in range(1_200):
            keeper.ended(finished())
        store.go_on.set()
        keeper.close()
    assert 1 <= len(caplog.records) <= 2
    assert all("runs are not kept" in record.message for record in caplog.records)


def test_a_run_is_found_as_soon_as_it_has_ended(tmp_path: Path) -> None:
    """Who asks right after an answer finds its run, although it is written in the background."""
    keeper = RunKeeper(SqliteTraceStore(tmp_path, ttl=60, max_runs=10), True, lambda _: True)
    keeper.ended(finished("just now"))
    [found] = asyncio.run(keeper.find("r1", lambda _: True))
    keeper.close()
    assert found.question.text == "just now"


def test_what_is_refused_pushes_nothing_out(tmp_path: Path) -> None:
    """Questions that no mode began with, that are wrong, or of tenants that there are not, are not kept."""
    keeper = RunKeeper(SqliteTraceStore(tmp_path, ttl=60, max_runs=10), True, {"acme"}.__contains__)
    refused = [
        finished("no such tenant", "nobody"),
        finished("no documents", error=UnknownTenantError("x")),
        finished("wrong", error=UnsupportedInputError("x")),
        finished("no room", error=OverloadedError(), began=False),
        finished("left before", error=asyncio.CancelledError(), began=False),
    ]
    for one in refused:
        keeper.ended(one)
    keeper.ended(finished("answered"))
    keeper.ended(finished("failed", error=ModelUnavailableError("x")))
    keeper.ended(finished("left", error=asyncio.CancelledError()))
    runs = asyncio.run(keeper.find("r1", lambda _: True))
    keeper.close()
    assert [run.question.text for run in runs] == ["answered", "failed", "left"]
