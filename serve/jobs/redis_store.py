"""FairRedisStore: durable executions of Hayhooks in Redis, each owner in its fair turn."""

import logging
import secrets
from typing import Any

from hayhooks.durable.engine import Claim, ExecutionControl, ExecutionStatus, TransitionPlan
from hayhooks.durable.redis import _NOW_LUA, _SUBMIT_LUA, RedisExecutionStore
from hayhooks.durable.store import ExecutionStoreCorruptionError, validate_lease_duration

from serve.jobs.redis_client import redis_errors

log = logging.getLogger(__name__)

# Two workers may pick the same execution at once; the second one then picks again.
CLAIM_ATTEMPTS = 8
# An owner who has nothing queued keeps its place in line for so long: who posts one job after the other would
# otherwise be new each time, and first.
REMEMBER_MICROSECONDS = 60_000_000

# Beside Hayhooks' index of what is runnable (run id → due time) lie, for each owner, what of it is the owner's
# (run id → creation), the line of owners (owner → when last served), and for each owner what has not ended. Hayhooks'
# own scripts write all of them at once, so they can't come apart.
SUBMIT = (
    _NOW_LUA
    + "local function submit()\n"
    + _SUBMIT_LUA
    + """
end
local reply = submit()
if reply[1] == 1 then
  local owner = ''
  for index = 7, #ARGV, 2 do
    if ARGV[index] == 'owner_id' then owner = ARGV[index + 1] end
  end
  redis.call('ZADD', KEYS[4] .. ':of:' .. owner, reply[2], ARGV[4])
  redis.call('ZADD', KEYS[4] .. ':line', 'NX', 0, owner)
  redis.call('ZADD', KEYS[5] .. ':of:' .. owner, reply[2], ARGV[4])
end
return reply
"""
)

# Gives the oldest due execution of the owner who was served longest ago, and sends that owner to the end of the line.
# With an owner it only looks, whether something of another one is due.
# KEYS: runnable. ARGV: for how long an owner is remembered, how many executions are looked at, owner or nothing.
PICK = """
local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now, line, looks = math.floor(micros / 1000), KEYS[1] .. ':line', tonumber(ARGV[2])

local function first_due(queued)
  local first, page = 0, 10
  while looks > 0 do
    local ids = redis.call('ZRANGE', queued, first, first + page - 1)
    if #ids == 0 then return nil, first == 0 end
    for _, id in ipairs(ids) do
      local due = redis.call('ZSCORE', KEYS[1], id)
      if due and tonumber(due) <= now then return id end
      if due then first = first + 1 else redis.call('ZREM', queued, id) end
    end
    looks, page = looks - #ids, 200
  end
end

local owners = redis.call('ZRANGE', line, 0, looks, 'WITHSCORES')
for at = 1, #owners, 2 do
  if owners[at] ~= ARGV[3] then
    local id, empty = first_due(KEYS[1] .. ':of:' .. owners[at])
    if id then
      if not ARGV[3] then redis.call('ZADD', line, string.format('%.0f', micros), owners[at]) end
      return id
    end
    if empty and (#owners > 1000 or tonumber(owners[at + 1]) < micros - tonumber(ARGV[1])) then
      redis.call('ZREM', line, owners[at])
    end
  end
end
return false
"""
MAX_LOOKS = 5_000


class FairRedisStore(RedisExecutionStore):
    """
    Hayhooks' Redis store, but for what is claimed next.

    Hayhooks takes one of the eight earliest, so ten thousand jobs of one owner keep all others waiting. Here owners
    take turns, and each one's executions come in the order of their creation, also those that were recovered or
    are repeated. Where the line of owners has nothing, Hayhooks' own claim decides: fairness may fail, work not.

    Usage example:
    ```python
    store = FairRedisStore(open_redis("redis://localhost:6379/0"), "ingest")
    deployment = DurableDeployment("ingest", "ingest-v1", store, Request, run)
    ```
    """

    def __init__(self, redis: Any, deployment: str, **options: Any) -> None:
        """
        :param redis: a client from `open_redis`.
        :param deployment: the name of the deployment whose executions these are.
        :param options: those of `RedisExecutionStore`.
        """
        super().__init__(redis, deployment, **options)
        self._submit_script = redis.register_script(SUBMIT)
        self._pick_script = redis.register_script(PICK)
        self._mark: bytes | None = None

    async def initialize(self) -> None:
        """
        Check the server.

        :raises ExecutionStoreError: when it doesn't answer or is too old.
        """
        await super().initialize()
        with redis_errors():
            self._warn_of_loss(await self.redis.info("persistence"), await self.redis.info("memory"))
            self._mark = await self._read_mark()

    async def claim(self, command: Claim) -> TransitionPlan | None:
        """
        :param command: who claims, and for how long.
        :returns: the execution that is next in the fair order, claimed; None when nothing is due.
        :raises ExecutionStoreError: when Redis fails.
        """
        validate_lease_duration(command.lease_duration_ms, self.config)
        runnable = self.keys.runnable_revision(command.worker_revision)
        with redis_errors():
            for _ in range(CLAIM_ATTEMPTS):
                picked = await self._pick_script(keys=[runnable], args=[REMEMBER_MICROSECONDS, MAX_LOOKS])
                if picked is None:
                    break
                try:
                    _, plan = await self._transition(picked.decode(), command, candidate_index=runnable)
                except ExecutionStoreCorruptionError as error:
                    await self.redis.zrem(runnable, picked)
                    log.error("Execution %s can't be read and is left alone: %s", picked.decode(), error)
                    continue
                if plan is not None:
                    return plan
        return await super().claim(command)

    async def nonterminal_of(self, owner_id: str) -> int:
        """
        :param owner_id: an owner.
        :returns: how many of the owner's executions have not ended.
        """
        with redis_errors():
            return int(await self.redis.zcard(self._unended(owner_id)))

    async def others_wait(self, owner_id: str, *, revision: str) -> bool:
        """
        :param owner_id: an owner.
        :param revision: of which executions.
        :returns: whether an execution of another owner is queued and due.
        """
        runnable = self.keys.runnable_revision(revision)
        with redis_errors():
            args = [REMEMBER_MICROSECONDS, MAX_LOOKS, owner_id]
            return await self._pick_script(keys=[runnable], args=args) is not None

    async def maintain(self, *, max_run_attempts: int, attempts_error: bytes) -> int:
        await self._notice_loss()
        return await super().maintain(max_run_attempts=max_run_attempts, attempts_error=attempts_error)

    async def operational_counts(self, *, revision: str) -> dict[str, int]:
        await self._notice_loss()
        return await super().operational_counts(revision=revision)

    def _runnable_commands(
        self, run_id: str, indexed_revision_key: str, control: ExecutionControl | None
    ) -> list[tuple[Any, ...]]:
        # Hayhooks runs these in the script that commits a transition.
        commands = super()._runnable_commands(run_id, indexed_revision_key, control)
        if control is not None:
            owner = control.owner_id or ""
            commands.append(("ZREM", f"{indexed_revision_key}:of:{owner}", run_id))
            if control.terminal:
                commands.append(("ZREM", self._unended(owner), run_id))
            if control.status is ExecutionStatus.QUEUED:
                runnable = self.keys.runnable_revision(control.definition_revision)
                commands.append(("ZADD", f"{runnable}:of:{owner}", control.created_at_ms, run_id))
                # Who is not in line any more has been served just now.
                commands.append(("ZADD", f"{runnable}:line", "NX", control.updated_at_ms * 1_000, owner))
        return commands

    def _unended(self, owner: str) -> str:
        return f"{self.keys.capacity}:of:{owner}"

    async def _notice_loss(self) -> None:
        """Say so when Redis came back empty; jobs that were in it can't be told from such that never were."""
        with redis_errors():
            mark = await self._read_mark()
        if self._mark not in (None, mark):
            log.error(
                "Redis has lost its data: the jobs accepted before are gone, post their documents again"
            )
        self._mark = mark

    async def _read_mark(self) -> bytes:
        key = f"{self.keys.base}:mark"
        mark = await self.redis.get(key)
        if mark is None:
            await self.redis.set(key, secrets.token_hex(8), nx=True)
            mark = await self.redis.get(key)
        return bytes(mark or b"")

    @staticmethod
    def _warn_of_loss(persistence: dict[str, Any], memory: dict[str, Any]) -> None:
        if not persistence.get("aof_enabled"):
            log.warning("Redis runs without `appendonly yes`: when it ends, accepted jobs may be lost")
        if memory.get("maxmemory") and memory.get("maxmemory_policy") != "noeviction":
            log.warning("Redis may evict jobs when its memory is full: set `maxmemory-policy noeviction`")
