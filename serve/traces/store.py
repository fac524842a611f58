"""Where runs are kept."""

from collections.abc import Callable, Sequence
from typing import Protocol

from serve.traces.records import KeptRun

RUNS_OF_A_REQUEST = 200
"""How many runs of one request are told; a batch has many."""


class TraceStore(Protocol):
    """
    Keeps runs for a while, and of each tenant only so many.

    Called from threads. Two tenants may have requests of one id, for callers choose their ids; neither sees the other's
    runs. Every method raises `TraceStoreError` when the store fails.
    """

    def put(self, runs: Sequence[KeptRun]) -> None:
        """Keep runs."""

    def find(self, request_id: str, may_read: Callable[[str], bool]) -> list[KeptRun]:
        """
        Give the runs of a request, in order.

        :param request_id: the request's id.
        :param may_read: tells whether a tenant's runs are asked for.
        :returns: the runs; none where none is known.
        """

    def forget(self, tenant_id: str) -> None:
        """Forget all runs of a tenant."""

    def close(self) -> None:
        """Let go of the store."""
