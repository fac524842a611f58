"""Figures of runs of modes, for Prometheus."""

from collections.abc import Callable, Container

from prometheus_client import CollectorRegistry, Counter, Histogram

from components.storing import UnknownTenantError
from serve.errors import describe
from serve.watching import FinishedRun

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
OK = "ok"
LEFT = "left"
"""How a run ended whose caller went away."""
MOST_TENANTS = 1_000
OTHERS = "(other)"
"""Under this name all tenants are counted that come after so many; no tenant has it."""


class RunMetrics:
    """Counts runs of modes; a `RunWatcher`."""

    def __init__(
        self, registry: CollectorRegistry, modes: Container[str], is_tenant: Callable[[str], bool] | None
    ) -> None:
        """
        Begin with none.

        :param registry: where the figures are found.
        :param modes: the names of the modes.
        :param is_tenant: tells at once whether there is such a tenant; without it no runs are counted by tenant.
        """
        self._modes = modes

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"thresher_{name}", about, labels, registry=registry)

        def seconds(name: str, about: str, *labels: str) -> Histogram:
            return Histogram(f"thresher_{name}_seconds", about, labels, buckets=SECONDS, registry=registry)

        self._runs = counter(
            "runs",
            "Questions, by mode and outcome: 'ok', 'left', or the kind of problem.",
            "mode",
            "outcome",
        )
        self._seconds = seconds("run_duration", "Time of a question, by mode.", "mode")
        self._stages = seconds("stage_duration", "Time of each stage of a mode that ran.", "mode", "stage")
        self._first_token = seconds(
            "first_token", "Time to the first token of a streamed answer, by mode.", "mode"
        )
        self._strategies = counter("strategies", "What corrective RAG did, by mode.", "mode", "strategy")
        self._grades = counter("grades", "Chunks graded, by mode and label.", "mode", "label")
        self._unanswered = counter("cannot_answer", "Answers that say the documents do not hold it.", "mode")
        self._fallbacks = counter("fallbacks", "Runs that another mode finished.", "mode", "to")
        self._removed = counter("removed_citations", "Citations that the model made up, by mode.", "mode")
        self._is_tenant = is_tenant
        self._counted: set[str] = set()
        self._tenants = counter("tenant_runs", "Answers, by tenant.", "tenant") if is_tenant else None

    def ended(self, run: FinishedRun) -> None:
        """
        Count a run.

        :param run: the run.
        """
        mode = run.mode if run.mode in self._modes else "(unknown)"
        self._runs.labels(mode, OK if run.result is not None else outcome_of(run.error)).inc()
        self._seconds.labels(mode).observe(run.seconds)
        if run.first_token_seconds is not None:
            self._first_token.labels(mode).observe(run.first_token_seconds)
        if run.result is not None:
            self._answered(mode, run)
            self._count_for(run.inputs.get("tenant_id", ""))
        elif isinstance(run.error, UnknownTenantError):
            # Another process deleted it.
            self.forget(run.inputs.get("tenant_id", ""))

    def forget(self, tenant_id: str) -> None:
        """
        Tell no more of a tenant.

        :param tenant_id: the tenant.
        """
        if self._tenants is not None and tenant_id in self._counted:
            self._counted.discard(tenant_id)
            self._tenants.remove(tenant_id)

    def _count_for(self, tenant_id: str) -> None:
        # A mode that reads no documents answers for tenants that there are not, and for one that is deleted meanwhile.
        if self._tenants is None or self._is_tenant is None or not self._is_tenant(tenant_id):
            return
        if tenant_id not in self._counted and len(self._counted) >= MOST_TENANTS:
            tenant_id = OTHERS
        else:
            self._counted.add(tenant_id)
        self._tenants.labels(tenant_id).inc()

    def _answered(self, mode: str, run: FinishedRun) -> None:
        result = run.result
        assert result is not None
        for stage, seconds in result.timings.items():
            if stage != "total":
                self._stages.labels(mode, stage).observe(seconds)
        for grade in result.grades or ():
            self._grades.labels(mode, grade.label).inc()
        if result.strategy:
            self._strategies.labels(mode, result.strategy).inc()
        if result.cannot_answer:
            self._unanswered.labels(mode).inc()
        if result.fallback:
            self._fallbacks.labels(mode, result.fallback.mode).inc()
        if result.removed_citations:
            self._removed.labels(mode).inc(result.removed_citations)


def outcome_of(error: BaseException | None) -> str:
    """
    Name how something ended.

    :param error: what went wrong; None when nothing did.
    :returns: `ok`, `left`, or the kind of problem.
    """
    if error is None:
        return OK
    # Who leaves, cancels.
    return describe(error)[1] if isinstance(error, Exception) else LEFT
