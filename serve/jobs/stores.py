"""Wrappers that make a store of executions what a queue needs."""

import json
from dataclasses import replace
from typing import Any

from hayhooks.durable import ExecutionStore
from hayhooks.durable.engine import Claim, ExecutionControl
from hayhooks.durable.store import SubmissionResult


class NamedExecutions:
    """An execution store that names executions as the request says, so that a job's row can know the name before."""

    def __init__(self, store: ExecutionStore) -> None:
        """
        :param store: does all the rest.
        """
        self._store = store

    async def submit(self, control: ExecutionControl, input_payload: bytes) -> SubmissionResult:
        run_id = json.loads(input_payload)["run_id"]
        return await self._store.submit(replace(control, run_id=run_id), input_payload)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class SubmitOnly:
    """An execution store of a process that accepts jobs, while others work on them: Hayhooks has no such setting."""

    def __init__(self, store: ExecutionStore) -> None:
        """
        :param store: does all the rest.
        """
        self._store = store

    async def claim(self, command: Claim) -> None:
        return None

    async def maintain(self, *, max_run_attempts: int, attempts_error: bytes) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
