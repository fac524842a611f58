"""SqliteExecutionStore: durable executions of Hayhooks in one SQLite file, each owner in its fair turn."""

import asyncio
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from hayhooks.durable.engine import (
    Claim,
    ExecutionCommand,
    ExecutionControl,
    ExecutionLeaseLostError,
    ExecutionNotFoundError,
    ExecutionStatus,
    RecoverExpiredLease,
    TransitionPlan,
    decide,
    require_owned,
    submission_plan,
)
from hayhooks.durable.store import (
    EXECUTION_CANDIDATE_LIMIT,
    MAINTENANCE_MAX_BATCHES,
    ControlPage,
    ControlQuery,
    ExecutionAdmissionError,
    ExecutionIdempotencyConflictError,
    ExecutionStoreError,
    StoreConfig,
    StoredExecution,
    StreamChunk,
    SubmissionResult,
    bind_store_command,
    creation_member,
    monitoring_scope,
    validate_lease_duration,
    validate_payload_size,
    validate_transition_plan,
)

from serve.jobs.database import JobDatabase
from serve.jobs.records import ExecutionRecords

T = TypeVar("T")

CHUNK_POLL_SECONDS = 0.1


class SqliteExecutionStore:
    """
    An `ExecutionStore` of hayhooks.durable for one machine.

    Hayhooks' reducer decides every transition; this class loads, applies and commits, each in a transaction.

    Usage example:
    ```python
    store = SqliteExecutionStore("ingest", JobDatabase(Path("data/jobs.sqlite3")))
    deployment = DurableDeployment("ingest", "ingest-v1", store, Request, run)
    ```
    """

    def __init__(
        self,
        deployment: str,
        database: JobDatabase,
        *,
        config: StoreConfig | None = None,
        exclusive: bool = False,
        clock: Callable[[], int] | None = None,
    ) -> None:
        """
        :param deployment: the name of the deployment whose executions these are.
        :param database: the file; several stores may share it.
        :param config: Hayhooks' limits.
        :param exclusive: True where this process alone works on the file. What a former process left running
            is then queued again by `initialize`, without waiting for its lease.
        :param clock: milliseconds since 1970.
        :raises ValueError: when the deployment has no name.
        """
        if not deployment:
            raise ValueError("deployment cannot be empty")
        self.deployment = deployment
        self.config = config or StoreConfig()
        self._database = database
        self._exclusive = exclusive
        self._clock = clock or (lambda: time.time_ns() // 1_000_000)

    async def initialize(self) -> None:
        def prepare(records: ExecutionRecords) -> None:
            records.found()
            if self._exclusive:
                for run_id in records.running():
                    _end_lease(records, run_id)

        await self._database.open()
        await self._write(prepare)

    async def submit(self, control: ExecutionControl, input_payload: bytes) -> SubmissionResult:
        if control.deployment != self.deployment:
            raise ValueError("control deployment does not match this store")
        validate_payload_size("input", input_payload, self.config.max_payload_bytes)
        return await self._write(lambda records: self._submit(records, control, input_payload))

    async def read(self, run_id: str) -> StoredExecution | None:
        return await self._read(lambda records: records.read(run_id, private=True))

    async def read_public(self, run_id: str) -> StoredExecution | None:
        return await self._read(lambda records: records.read(run_id, private=False))

    async def read_control(self, run_id: str) -> ExecutionControl | None:
        return await self._read(lambda records: records.load(run_id))

    async def list_controls(self, query: ControlQuery) -> ControlPage:
        if not self.config.monitoring_enabled:
            raise ExecutionStoreError("execution monitoring is disabled")
        candidates = await self._read(
            lambda records: records.created_after(query.scope, query.after(), EXECUTION_CANDIDATE_LIMIT + 1)
        )
        matching: list[ExecutionControl] = []
        examined = 0
        for control in candidates[:EXECUTION_CANDIDATE_LIMIT]:
            examined += 1
            if query.matches(control):
                matching.append(control)
                if len(matching) == query.limit:
                    break
        more = examined < len(candidates)
        cursor = query.encode_cursor(creation_member(candidates[examined - 1])) if more else None
        return ControlPage(tuple(matching), cursor, more)

    async def transition(self, run_id: str, command: ExecutionCommand) -> TransitionPlan:
        return await self._write(lambda records: self._transition(records, run_id, command))

    async def claim(self, command: Claim) -> TransitionPlan | None:
        def claim_next(records: ExecutionRecords) -> TransitionPlan | None:
            run_id = records.next_due(command.worker_revision)
            if run_id is None:  # another worker was quicker
                return None
            plan = self._transition(records, run_id, command)
            records.take_turn(run_id)
            return plan

        validate_lease_duration(command.lease_duration_ms, self.config)
        # Workers ask often and mostly in vain: that takes no write lock.
        if await self._read(lambda records: records.next_due(command.worker_revision)) is None:
            return None
        return await self._write(claim_next)

    async def maintain(self, *, max_run_attempts: int, attempts_error: bytes) -> int:
        def recover(records: ExecutionRecords) -> int:
            return sum(
                self._recover(records, run_id, max_run_attempts, attempts_error)
                for run_id in records.expired_leases()
            )

        requeued = 0
        for _ in range(MAINTENANCE_MAX_BATCHES):
            if not await self._read(ExecutionRecords.expired_leases):
                break
            requeued += await self._write(recover)
        for _ in range(MAINTENANCE_MAX_BATCHES):
            if not await self._read(ExecutionRecords.has_outlived):
                break
            await self._write(ExecutionRecords.delete_outlived)
        return requeued

    async def append_chunks(
        self, run_id: str, attempt: int, fence: int, worker_id: str, chunks: Sequence[bytes]
    ) -> None:
        def append(records: ExecutionRecords) -> None:
            control = records.load(run_id)
            if control is None or control.run_attempt != attempt:
                raise ExecutionLeaseLostError("execution is no longer owned by this worker fence")
            require_owned(control, fence, worker_id, records.now, self.config.lease_commit_safety_ms)
            records.write_chunks(run_id, attempt, chunks)

        if not self.config.max_stream_chunks:
            return
        if attempt < 0:
            raise ValueError("stream chunk attempt cannot be negative")
        for data in chunks:
            validate_payload_size("stream chunk", data, self.config.max_stream_chunk_bytes)
        await self._write(append)

    async def read_chunks(self, run_id: str, after: str) -> tuple[StreamChunk, ...]:
        return await self._read(lambda records: records.chunks_after(run_id, after))

    async def wait_chunks(self, run_id: str, after: str, timeout: float) -> tuple[StreamChunk, ...]:
        deadline = time.monotonic() + timeout
        while True:
            chunks = await self.read_chunks(run_id, after)
            remaining = deadline - time.monotonic()
            if chunks or remaining <= 0:
                return chunks
            await asyncio.sleep(min(CHUNK_POLL_SECONDS, remaining))

    async def operational_counts(self, *, revision: str) -> dict[str, int]:
        return await self._read(lambda records: records.counts(revision))

    async def nonterminal_of(self, owner_id: str) -> int:
        return await self._read(lambda records: records.nonterminal_of(monitoring_scope(owner_id)))

    async def others_wait(self, owner_id: str, *, revision: str) -> bool:
        return await self._read(lambda records: records.others_wait(monitoring_scope(owner_id), revision))

    async def _read(self, function: Callable[[ExecutionRecords], T]) -> T:
        return await self._database.read(lambda db: function(self._records(db)))

    async def _write(self, function: Callable[[ExecutionRecords], T]) -> T:
        return await self._database.write(lambda db: function(self._records(db)))

    def _records(self, db: sqlite3.Connection) -> ExecutionRecords:
        # The time is taken inside the transaction: what waited for the lock must not act on a stale one.
        return ExecutionRecords(db, self.deployment, self.config, self._clock())

    def _submit(
        self, records: ExecutionRecords, control: ExecutionControl, payload: bytes
    ) -> SubmissionResult:
        records.delete_expired(control)
        existing = records.by_digest(control.idempotency_digest)
        if existing is not None:
            if existing.idempotency_binding_digest != control.idempotency_binding_digest:
                raise ExecutionIdempotencyConflictError("idempotency key is bound to different work")
            return SubmissionResult(created=False, control=existing)
        if records.load(control.run_id) is not None:
            raise ExecutionIdempotencyConflictError("run ID is bound to a different idempotency key")
        limit = self.config.max_nonterminal_executions
        if limit and records.nonterminal() >= limit:
            raise ExecutionAdmissionError("nonterminal execution limit reached")
        control = replace(control, created_at_ms=records.now, updated_at_ms=records.now)
        records.insert(control, submission_plan(control, payload))
        return SubmissionResult(created=True, control=control)

    def _transition(
        self, records: ExecutionRecords, run_id: str, command: ExecutionCommand
    ) -> TransitionPlan:
        control = records.load(run_id)
        if control is None:
            raise ExecutionNotFoundError(f"execution '{run_id}' was not found")
        # Time never runs backwards for one execution, whatever the system's clock does.
        now = max(records.now, control.updated_at_ms)
        plan = decide(control, bind_store_command(command, now, self.config))
        validate_transition_plan(plan, self.config)
        records.apply(control, plan)
        return plan

    def _recover(
        self, records: ExecutionRecords, run_id: str, max_run_attempts: int, attempts_error: bytes
    ) -> bool:
        control = records.load(run_id)
        assert control is not None
        assert control.lease_expires_at_ms is not None  # it was found by this
        deadline = control.lease_expires_at_ms
        command = RecoverExpiredLease(0, control.fence, deadline, max_run_attempts, attempts_error)
        return self._transition(records, run_id, command).next_control.status is ExecutionStatus.QUEUED


def _end_lease(records: ExecutionRecords, run_id: str) -> None:
    """Queue what a dead process was running, counted as a lease that expired now."""
    control = records.load(run_id)
    assert control is not None  # what runs has no expiry
    now = max(records.now, control.updated_at_ms)
    ended = replace(control, lease_expires_at_ms=now)
    # Whoever claims it next knows the limit of attempts, and applies it.
    records.apply(ended, decide(ended, RecoverExpiredLease(now, control.fence, now, sys.maxsize, b"")))
