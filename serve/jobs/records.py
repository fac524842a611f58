"""ExecutionRecords: how executions lie in the tables of the job database, and which of them is next."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hayhooks.durable.engine import (
    ExecutionControl,
    ExecutionStatus,
    PayloadKind,
    ProgressEvent,
    TransitionPlan,
    became_terminal,
)
from hayhooks.durable.store import (
    CHUNK_CURSOR_START,
    MAINTENANCE_BATCH_SIZE,
    PUBLIC_PAYLOAD_KINDS,
    ChunkCursorExpiredError,
    ExecutionStoreCorruptionError,
    StoreConfig,
    StoredExecution,
    StreamChunk,
    chunk_read_count,
    monitoring_scope,
    parse_chunk_cursor,
    validate_stored_execution,
)

# Left alone, SQLite takes the index of all executions, ended ones included, to find the few that run.
RUNNING = "executions INDEXED BY executions_running WHERE status = 'running'"

QUEUED = "FROM executions WHERE status = 'queued' AND deployment = :deployment AND revision = :revision"

# Each owner with due work stands in line with its oldest execution. Owners are found by jumping from one to
# the next in the index, so ten thousand queued executions of one owner cost no more than one. First comes who
# has fewest running, then who was served longest ago: the second rule keeps a single worker fair too.
NEXT_DUE = f"""
WITH RECURSIVE owners (owner) AS (
    SELECT MIN(owner) {QUEUED}
    UNION ALL
    SELECT (SELECT MIN(owner) {QUEUED} AND owner > owners.owner)
    FROM owners WHERE owners.owner IS NOT NULL
), busy (owner, running) AS MATERIALIZED (
    SELECT owner, COUNT(*) FROM {RUNNING} AND deployment = :deployment GROUP BY owner
)
SELECT head.run_id FROM owners
JOIN executions AS head ON head.seq = (
    SELECT seq {QUEUED}
    AND owner = owners.owner AND due_at <= :now
    ORDER BY seq LIMIT 1)
LEFT JOIN busy ON busy.owner = owners.owner
ORDER BY COALESCE(busy.running, 0),
    (SELECT MAX(turn) FROM executions AS served
     WHERE served.turn > 0 AND served.deployment = :deployment AND served.owner = owners.owner),
    head.seq
LIMIT 1
"""


class ExecutionRecords:
    """The executions of one deployment, within one transaction and at one moment."""

    def __init__(self, db: sqlite3.Connection, deployment: str, config: StoreConfig, now: int) -> None:
        """
        :param db: a connection inside a transaction.
        :param deployment: whose executions these are; others in the same file are out of sight.
        :param config: Hayhooks' limits.
        :param now: milliseconds since 1970.
        """
        self._db = db
        self._deployment = deployment
        self._config = config
        self.now = now

    def found(self) -> None:
        """Make the deployment's own row where it is missing."""
        self._db.execute("INSERT OR IGNORE INTO deployments (name) VALUES (?)", (self._deployment,))

    def load(self, run_id: str) -> ExecutionControl | None:
        return self._control("run_id = ?", run_id)

    def by_digest(self, digest: str) -> ExecutionControl | None:
        return self._control("digest = ?", digest)

    def read(self, run_id: str, *, private: bool) -> StoredExecution | None:
        control = self.load(run_id)
        if control is None:
            return None
        kinds = tuple(PayloadKind) if private else PUBLIC_PAYLOAD_KINDS
        places = ", ".join("?" * len(kinds))
        payloads = self._db.execute(
            f"SELECT kind, data FROM payloads WHERE run_id = ? AND kind IN ({places})",
            (run_id, *(kind.value for kind in kinds)),
        ).fetchall()
        progress = self._db.execute(
            "SELECT sequence, data FROM progress WHERE run_id = ? ORDER BY sequence", (run_id,)
        ).fetchall()
        stored = StoredExecution(
            control,
            {PayloadKind(kind): data for kind, data in payloads},
            tuple(ProgressEvent(sequence, data) for sequence, data in progress),
        )
        validate_stored_execution(stored, private=private)
        return stored

    def created_after(self, owner: str, member: str, limit: int) -> list[ExecutionControl]:
        """
        :param owner: the monitoring scope of the owner.
        :param member: Hayhooks' `creation_member` to start behind, or "".
        :param limit: how many to give at most.
        :returns: executions in the order of their creation.
        """
        stamp, _, run_id = member.partition(":")
        rows = self._db.execute(
            "SELECT control FROM executions WHERE deployment = ? AND owner = ?"
            " AND (created_at, run_id) > (?, ?) AND (expires_at IS NULL OR expires_at > ?)"
            " ORDER BY created_at, run_id LIMIT ?",
            (self._deployment, owner, int(stamp or -1), run_id, self.now, limit),
        ).fetchall()
        return [decode_control(encoded) for (encoded,) in rows]

    def next_due(self, revision: str) -> str | None:
        row = self._db.execute(
            NEXT_DUE, {"deployment": self._deployment, "revision": revision, "now": self.now}
        ).fetchone()
        return None if row is None else row[0]

    def running(self) -> list[str]:
        rows = self._db.execute(
            f"SELECT run_id FROM {RUNNING} AND deployment = ?", (self._deployment,)
        ).fetchall()
        return [run_id for (run_id,) in rows]

    def expired_leases(self) -> list[str]:
        rows = self._db.execute(
            f"SELECT run_id FROM {RUNNING} AND deployment = ? AND lease_until <= ?"
            " ORDER BY lease_until LIMIT ?",
            (self._deployment, self.now, MAINTENANCE_BATCH_SIZE),
        ).fetchall()
        return [run_id for (run_id,) in rows]

    def counts(self, revision: str) -> dict[str, int]:
        def count(source: str, *values: str) -> int:
            rows = self._db.execute(
                f"SELECT COUNT(*) FROM {source} AND deployment = ?", (*values, self._deployment)
            )
            return rows.fetchone()[0]

        return {
            "nonterminal": self.nonterminal(),
            "revision_nonterminal": count("executions WHERE expires_at IS NULL AND revision = ?", revision),
            "revision_runnable": count("executions WHERE status = 'queued' AND revision = ?", revision),
            "lease_expiry": count(RUNNING),
        }

    def nonterminal(self) -> int:
        # A counter, because counting rows took 9 ms at 10,000 executions.
        row = self._db.execute("SELECT nonterminal FROM deployments WHERE name = ?", (self._deployment,))
        return row.fetchone()[0]

    def nonterminal_of(self, owner: str) -> int:
        row = self._db.execute(
            "SELECT COUNT(*) FROM executions WHERE deployment = ? AND owner = ? AND expires_at IS NULL",
            (self._deployment, owner),
        ).fetchone()
        return row[0]

    def others_wait(self, owner: str, revision: str) -> bool:
        # Two ranges of the index: past the owner's own ten thousand, not through them.
        row = self._db.execute(
            f"SELECT EXISTS (SELECT 1 {QUEUED} AND owner < :owner AND due_at <= :now)"
            f" OR EXISTS (SELECT 1 {QUEUED} AND owner > :owner AND due_at <= :now)",
            {"deployment": self._deployment, "revision": revision, "owner": owner, "now": self.now},
        ).fetchone()
        return bool(row[0])

    def insert(self, control: ExecutionControl, plan: TransitionPlan) -> None:
        self._db.execute(
            "INSERT INTO executions"
            " (run_id, deployment, revision, owner, status, due_at, created_at, digest, control)"
            " VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?)",
            (
                control.run_id,
                self._deployment,
                control.definition_revision,
                monitoring_scope(control.owner_id),
                control.status.value,
                control.created_at_ms,
                control.idempotency_digest,
                encode_control(control),
            ),
        )
        self._write_payloads(plan)
        self._count_nonterminal(+1)

    def apply(self, current: ExecutionControl, plan: TransitionPlan) -> None:
        control = plan.next_control
        self._db.execute(
            "UPDATE executions SET status = ?, due_at = ?, lease_until = ?, control = ? WHERE run_id = ?",
            (
                control.status.value,
                control.available_at_ms or 0,
                control.lease_expires_at_ms,
                encode_control(control),
                control.run_id,
            ),
        )
        self._write_payloads(plan)
        self._write_progress(plan)
        if became_terminal(current, plan):
            self._finish(control)

    def take_turn(self, run_id: str) -> None:
        """Note that this execution's owner has just been served."""
        row = self._db.execute(
            "UPDATE deployments SET turn = turn + 1 WHERE name = ? RETURNING turn", (self._deployment,)
        ).fetchone()
        self._db.execute("UPDATE executions SET turn = ? WHERE run_id = ?", (row[0], run_id))

    def write_chunks(
        self, run_id: str, attempt: int, chunks: Sequence[bytes], *, terminal: bool = False
    ) -> None:
        self._db.executemany(
            "INSERT INTO chunks (run_id, attempt, data, terminal) VALUES (?, ?, ?, ?)",
            [(run_id, attempt, data, terminal) for data in chunks],
        )
        # Room for the terminal marker stays, also where streaming is off.
        self._db.execute(
            "DELETE FROM chunks WHERE run_id = ? AND id <="
            " (SELECT id FROM chunks WHERE run_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (run_id, run_id, max(self._config.max_stream_chunks, 1)),
        )

    def chunks_after(self, run_id: str, cursor: str) -> tuple[StreamChunk, ...]:
        """
        :param run_id: an execution; one that is unknown has no chunks.
        :param cursor: the cursor of the last chunk seen.
        :returns: the next page of chunks.
        :raises ChunkCursorExpiredError: when the chunk seen last is no longer kept.
        """
        _, last = parse_chunk_cursor(cursor)
        kept = (
            "FROM chunks JOIN executions USING (run_id) WHERE run_id = ? AND deployment = ?"
            " AND (chunks_expire_at IS NULL OR chunks_expire_at > ?)"
        )
        place = (run_id, self._deployment, self.now)
        if cursor != CHUNK_CURSOR_START and (
            not cursor.startswith("0-")
            or last >= 2**63  # above what SQLite's integers hold, so never given out
            or not self._db.execute(f"SELECT 1 {kept} AND chunks.id = ?", (*place, last)).fetchone()
        ):
            raise ChunkCursorExpiredError(cursor)
        rows = self._db.execute(
            f"SELECT chunks.id, attempt, data, terminal {kept} AND chunks.id > ? ORDER BY chunks.id LIMIT ?",
            (*place, last, chunk_read_count(self._config)),
        ).fetchall()
        return tuple(StreamChunk(f"0-{id_}", attempt, data, bool(end)) for id_, attempt, data, end in rows)

    def delete_expired(self, control: ExecutionControl) -> None:
        """Free the run id and the idempotency key of this execution where their time is over."""
        self._db.execute(
            "DELETE FROM executions WHERE deployment = ? AND expires_at <= ? AND (run_id = ? OR digest = ?)",
            (self._deployment, self.now, control.run_id, control.idempotency_digest),
        )

    def has_outlived(self) -> bool:
        row = self._db.execute(
            "SELECT EXISTS (SELECT 1 FROM executions WHERE expires_at <= :now)"
            " OR EXISTS (SELECT 1 FROM executions WHERE chunks_expire_at <= :now)",
            {"now": self.now},
        ).fetchone()
        return bool(row[0])

    def delete_outlived(self) -> None:
        """Delete one batch of executions and of streams whose time is over."""
        bounds = (self.now, MAINTENANCE_BATCH_SIZE)
        self._db.execute(
            "DELETE FROM executions WHERE seq IN"
            " (SELECT seq FROM executions WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
            bounds,
        )
        streams = self._db.execute(
            "SELECT run_id FROM executions WHERE chunks_expire_at <= ? LIMIT ?", bounds
        ).fetchall()
        self._db.executemany("DELETE FROM chunks WHERE run_id = ?", streams)
        self._db.executemany("UPDATE executions SET chunks_expire_at = NULL WHERE run_id = ?", streams)

    def _control(self, condition: str, value: str) -> ExecutionControl | None:
        row = self._db.execute(
            f"SELECT control FROM executions WHERE {condition} AND deployment = ?"
            " AND (expires_at IS NULL OR expires_at > ?)",
            (value, self._deployment, self.now),
        ).fetchone()
        return None if row is None else decode_control(row[0])

    def _write_payloads(self, plan: TransitionPlan) -> None:
        run_id = plan.next_control.run_id
        self._db.executemany(
            "INSERT INTO payloads (run_id, kind, data) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET data = excluded.data",
            [(run_id, write.kind.value, write.data) for write in plan.payload_writes],
        )
        self._db.executemany(
            "DELETE FROM payloads WHERE run_id = ? AND kind = ?",
            [(run_id, kind.value) for kind in plan.payload_deletes],
        )

    def _write_progress(self, plan: TransitionPlan) -> None:
        run_id = plan.next_control.run_id
        if plan.discard_progress:
            self._db.execute("DELETE FROM progress WHERE run_id = ?", (run_id,))
        elif plan.progress_events:
            self._db.executemany(
                "INSERT INTO progress (run_id, sequence, data) VALUES (?, ?, ?)",
                [(run_id, event.sequence, event.data) for event in plan.progress_events],
            )
            oldest = plan.progress_events[-1].sequence - self._config.max_progress_events
            self._db.execute("DELETE FROM progress WHERE run_id = ? AND sequence <= ?", (run_id, oldest))

    def _finish(self, control: ExecutionControl) -> None:
        stream_ttl = min(self._config.stream_ttl_seconds, self._config.terminal_ttl_seconds)
        self._db.execute(
            "UPDATE executions SET expires_at = ?, chunks_expire_at = ? WHERE run_id = ?",
            (
                control.updated_at_ms + self._config.terminal_ttl_seconds * 1_000,
                control.updated_at_ms + stream_ttl * 1_000,
                control.run_id,
            ),
        )
        self._count_nonterminal(-1)
        self.write_chunks(control.run_id, control.run_attempt, (b"",), terminal=True)

    def _count_nonterminal(self, change: int) -> None:
        self._db.execute(
            "UPDATE deployments SET nonterminal = nonterminal + ? WHERE name = ?", (change, self._deployment)
        )


def encode_control(control: ExecutionControl) -> str:
    return json.dumps(asdict(control))


def decode_control(encoded: str) -> ExecutionControl:
    try:
        values: dict[str, Any] = json.loads(encoded)
        return ExecutionControl(**{**values, "status": ExecutionStatus(values["status"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ExecutionStoreCorruptionError(f"a stored execution can't be decoded: {error}") from error
