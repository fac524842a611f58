"""A mode: a checked pipeline that answers questions."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypedDict, TypeVar, Unpack

from haystack import Document
from haystack.dataclasses import ChatMessage
from haystack.tracing import tracer

from components.budgets import BudgetExceededError, leaving_time, limited
from components.caller_options import caller_options
from components.events import emit, listen, stage
from components.models.errors import InvalidGenerationError, ModelError, UnknownModelError
from components.retrieving import leaving_out, remembered_searches
from components.schemas import checked_schema
from modes.budgeting import read_budget, read_fallback
from modes.checking import CheckedPipeline
from modes.explaining import explanation_of
from modes.failures import UnsupportedInputError, own_error, own_errors, time_limit
from modes.named import NamedPipeline, Origin
from modes.recording import RunRecord, StreamEvent
from modes.results import Fallback, QueryResult, RetrievedDocument
from modes.sharing import SharingPipeline

T = TypeVar("T")
logger = logging.getLogger(__name__)


class RunInputs(TypedDict, total=False):
    """What a mode may be given besides the question; which of these a mode takes, its file declares."""

    tenant_id: str
    """Whose documents to ask; `default` when not given."""
    top_k: int | None
    """How many chunks to retrieve; the mode's own number when not given."""
    model: str | None
    """Another language model than the default, of those allowed."""
    filters: dict[str, Any] | None
    """Haystack filters over the chunks' metadata and content."""
    json_schema: dict[str, Any] | None
    """What a structured answer has to match (JSON Schema 2020-12, of an object), instead of the mode's own schema."""
    instructions: str | None
    """What the caller asks of the answer's form, such as its language; the mode's own instructions stay in force."""
    generation_kwargs: dict[str, Any] | None
    """Options of the answering model by OpenAI's names; see `components.caller_options`."""
    explain: bool | None
    """Whether the result is to have an `explanation`; of any mode."""


RUN_INPUTS = ("query", "history", *(name for name in RunInputs.__annotations__ if name != "explain"))
RESULT_TYPES: dict[str, Any] = {"answer": str, "documents": list[Document]}
RunSync = Callable[[Coroutine[Any, Any, T]], T]
# What a caller has to mend: another mode would be asked the same.
_CALLERS_FAULTS = (UnknownModelError, InvalidGenerationError)
# Of the time that a question has, a mode's own budget is at most this share, when another one may have to answer still.
_OWN_SHARE = 0.5


class Mode(NamedPipeline):
    """
    One way to answer questions; made by `ModeRegistry`.

    All of `run`, `run_async` and `stream` take the same arguments, may be called by any number of callers at once, and
    raise what the component raised, not Haystack's wrapper.
    """

    def __init__(
        self,
        name: str,
        checked: CheckedPipeline,
        origin: Origin,
        run_sync: RunSync[QueryResult],
        standalone: CheckedPipeline,
        modes: "Mapping[str, Mode]",
    ) -> None:
        """
        Wrap a checked pipeline.

        :param name: what callers ask for.
        :param checked: the pipeline with its declared inputs and outputs.
        :param origin: where the file was found.
        :param run_sync: runs a coroutine for a caller that has no event loop.
        :param standalone: makes a question self-contained, where the mode takes no `history` itself.
        :param modes: all modes, of which one may have to stand in for this one.
        """
        super().__init__(name, checked, origin)
        self.budget = read_budget(checked)
        self.fallback = read_fallback(checked)
        self._run_sync = run_sync
        self._standalone = standalone
        self._modes = modes
        if isinstance(self.pipeline, SharingPipeline):
            self.pipeline.limits = self.budget.components

    def run(
        self,
        query: str,
        history: Sequence[ChatMessage] = (),
        timeout: float | None = None,
        **inputs: Unpack[RunInputs],
    ) -> QueryResult:
        """
        Answer a question.

        :param query: the question.
        :param history: the conversation before it, from which it is made self-contained first; a mode that declares
            the input `history` is given the conversation instead.
        :param timeout: seconds the answer may take.
        :param inputs: what else the mode is given; see `RunInputs`.
        :returns: the answer with all that the mode tells about it.
        :raises UnsupportedInputError: if the mode does not take one of these.
        :raises UnknownTenantError: if the tenant has no documents.
        :raises UnknownModelError: if the model is not allowed.
        :raises InvalidGenerationError: if one of `generation_kwargs` is unknown or out of its range.
        :raises InvalidSchemaError: if `json_schema` can't be used.
        :raises StructuredAnswerError: if the model gave no valid JSON, in structured modes.
        :raises BudgetExceededError: if the mode's budget is spent, and no other mode stands in.
        :raises QueryTimeoutError: if it takes longer than `timeout`.
        """
        return self._run_sync(self.run_async(query, history, timeout, **inputs))

    async def run_async(
        self,
        query: str,
        history: Sequence[ChatMessage] = (),
        timeout: float | None = None,
        **inputs: Unpack[RunInputs],
    ) -> QueryResult:
        """Answer a question; see `run`."""
        return await self._run(
            query, history, timeout, inputs, RunRecord(explains=bool(inputs.get("explain")))
        )

    async def stream(
        self,
        query: str,
        history: Sequence[ChatMessage] = (),
        timeout: float | None = None,
        **inputs: Unpack[RunInputs],
    ) -> AsyncGenerator[StreamEvent, None]:
        """
        Answer a question while telling what happens; for arguments and errors see `run`.

        Leaving the iteration early (`aclose`) cancels the run.

        :returns: the events of `StreamEvent` as they happen, and last one `result`. The result's answer is final: its
            citations are checked, so it may differ from the tokens.
        """
        events: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        record = RunRecord(
            lambda event: loop.call_soon_threadsafe(events.put_nowait, event), bool(inputs.get("explain"))
        )
        task = asyncio.create_task(self._run(query, history, timeout, inputs, record))

        def end(task: asyncio.Task[QueryResult]) -> None:
            if not task.cancelled():
                # Who has left the iteration will not ask for it.
                task.exception()
            loop.call_soon(events.put_nowait, None)

        task.add_done_callback(end)
        try:
            while (event := await events.get()) is not None:
                yield event
            result = await task
            for event in record.untold(result):
                yield event
            yield StreamEvent("result", result)
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _run(
        self,
        query: str,
        history: Sequence[ChatMessage],
        timeout: float | None,
        inputs: RunInputs,
        record: RunRecord,
    ) -> QueryResult:
        with tracer.trace(f"mode {self.name}", tags={"thresher.mode": self.name}) as span:
            result = await self._recorded(query, history, timeout, inputs, record)
            span.set_tags(
                {
                    "thresher.documents": len(result.documents),
                    "thresher.strategy": result.strategy,
                    "thresher.cannot_answer": result.cannot_answer,
                    "thresher.fallback": result.fallback.mode if result.fallback else None,
                }
            )
        return result

    async def _recorded(
        self,
        query: str,
        history: Sequence[ChatMessage],
        timeout: float | None,
        inputs: RunInputs,
        record: RunRecord,
    ) -> QueryResult:
        begin = time.perf_counter()
        async with time_limit(timeout, lambda: record.running):
            with own_errors(), listen(record.hear, tokens=record.streams), remembered_searches():
                given = await self._checked_inputs(query, inputs)
                if history and "history" not in self.checked.inputs:
                    given["query"] = await self._standalone_question(given, history, record)
                answered, outputs = await self._answer(given, history, begin, timeout, record)
        record.timings["total"] = time.perf_counter() - begin
        result = answered._result(outputs, record).model_copy(update={"mode": self.name})
        if record.heard is not None:
            result.explanation = explanation_of(record.heard, result)
        return result

    async def _answer(
        self,
        given: dict[str, Any],
        history: Sequence[ChatMessage],
        begin: float,
        timeout: float | None,
        record: RunRecord,
    ) -> "tuple[Mode, dict[str, Any]]":
        """Give the outputs of this mode, or those of the one that stands in for it; and which it was."""
        other = self._modes.get(self.fallback) if self.fallback else None
        spent = time.perf_counter() - begin
        share = None if other is None or timeout is None else (timeout - spent) * _OWN_SHARE
        try:
            with leaving_time(share):
                return self, await self._outputs(given, history)
        except Exception as raised:
            error = own_error(raised)
            if other is None or not self._may_fall_back(error, record):
                raise
            tried = time.perf_counter() - begin - spent
            record.fall_back(_fallback(other, error, tried))
        # Its message may quote what the model was given.
        logger.info("Fallback=%s mode=%s reason=%s", other.name, self.name, type(error).__name__)
        # What a grader has thrown out stays out: an answer made from it would be what the caller chose not to get.
        with leaving_out(record.dropped):
            return await other._answer(given, history, begin, timeout, record)

    async def _outputs(self, given: dict[str, Any], history: Sequence[ChatMessage]) -> dict[str, Any]:
        if "history" in self.checked.inputs:
            given = {**given, "history": list(history)}
        async with limited(self.budget.run):
            return await self.pipeline.run_async(self.checked.feed(given), self.checked.read_from)

    def _may_fall_back(self, error: BaseException, record: RunRecord) -> bool:
        if record.writing:
            return False
        if isinstance(error, BudgetExceededError):
            return True
        # Once the documents are chosen, what failed was the answer, and another mode's would fail in the same way.
        chooser = self.checked.outputs.get("documents", "").partition(".")[0]
        choosing = bool(chooser) and not record.is_through(chooser)
        return choosing and isinstance(error, ModelError) and not isinstance(error, _CALLERS_FAULTS)

    async def _standalone_question(
        self, given: dict[str, Any], history: Sequence[ChatMessage], record: RunRecord
    ) -> str:
        with stage("standalone_question"):
            data = self._standalone.feed({**given, "history": list(history)})
            read_from = self._standalone.read_from
            outputs = await self._standalone.pipeline.run_async(data, include_outputs_from=read_from)
        question = str(self._standalone.read(outputs).get("query") or given["query"])
        if record.standalone_question is None:
            # The stage's own components need not tell it.
            emit("standalone_question", query=question)
        return question

    async def _checked_inputs(self, query: str, inputs: RunInputs) -> dict[str, Any]:
        given: dict[str, Any] = {
            "query": query,
            **{name: value for name, value in inputs.items() if value is not None and name != "explain"},
        }
        for name in given:
            if name not in self.checked.inputs and name != "tenant_id":
                raise UnsupportedInputError(
                    f"mode '{self.name}' takes no '{name}'; it has {', '.join(self.inputs)}"
                )
        if "generation_kwargs" in given:
            given["generation_kwargs"] = caller_options(given["generation_kwargs"])
        if "json_schema" in given:
            # The builder of the answer checks it too, but only when everything before it has been done.
            await asyncio.to_thread(checked_schema, given["json_schema"])
        return given

    def _result(self, outputs: dict[str, Any], record: RunRecord) -> QueryResult:
        values = self.checked.read(outputs)
        documents: list[Document] = values.pop("documents", [])
        return QueryResult(
            mode=self.name,
            **values,
            standalone_question=record.standalone_question,
            documents=[RetrievedDocument.from_haystack(document) for document in documents],
            model=record.model,
            # The last call of a run that found nothing was a grader's or the rephraser's.
            finish_reason=record.finish_reason if documents or "documents" not in self.outputs else None,
            fallback=record.fallback,
            prompt_hash=record.prompt_hash,
            usage=record.usage,
            timings={name: round(seconds, 4) for name, seconds in record.timings.items()},
        )


def _fallback(other: Mode, error: BaseException, seconds: float) -> Fallback:
    told: dict[str, Any] = {"mode": other.name, "seconds": round(seconds, 4)}
    if isinstance(error, BudgetExceededError):
        return Fallback(reason=error.unit, component=error.component, detail=str(error), **told)
    # The error's own words are for the log: they may hold addresses, and what a server said.
    return Fallback(reason="model", detail="the language model failed before the chunks were chosen", **told)
