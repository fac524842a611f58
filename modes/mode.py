"""A mode: a checked pipeline that answers questions."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from haystack import Document
from haystack.core.errors import PipelineRuntimeError

from components.events import listen
from modes.checking import CheckedPipeline
from modes.results import QueryResult, RetrievedDocument, Usage

T = TypeVar("T")

RUN_INPUTS = ("query", "tenant_id", "top_k", "model", "filters")
RESULT_OUTPUTS = (
    "answer",
    "documents",
    "grades",
    "strategy",
    "rephrased",
    "citations",
    "removed_citations",
    "confidence",
    "cannot_answer",
    "reasoning",
    "data",
)
RESULT_TYPES: dict[str, Any] = {"answer": str, "documents": list[Document]}
Origin = Literal["built-in", "directory", "package", "added"]
RunSync = Callable[[Coroutine[Any, Any, T]], T]


class UnsupportedInputError(ValueError):
    """A mode was given an input that its file does not declare."""


@dataclass(frozen=True)
class StreamEvent:
    """Something that happened while a mode ran: `token` (`data` is text) or, last, `result` (a `QueryResult`)."""

    kind: Literal["token", "result"]
    data: str | QueryResult


class Mode:
    """
    One way to answer questions; made by `ModeRegistry`.

    All of `run`, `run_async` and `stream` take the same arguments, may be called by any number of callers at once, and
    raise what the component raised, not Haystack's wrapper.
    """

    def __init__(
        self, name: str, checked: CheckedPipeline, origin: Origin, run_sync: RunSync[QueryResult]
    ) -> None:
        """
        Wrap a checked pipeline.

        :param name: what callers ask for.
        :param checked: the pipeline with its declared inputs and outputs.
        :param origin: where the file was found.
        :param run_sync: runs a coroutine for a caller that has no event loop.
        """
        self.name = name
        self.description = checked.description
        self.path: Path = checked.path
        self.origin = origin
        self.inputs = list(checked.inputs)
        self.outputs = list(checked.outputs)
        self.pipeline = checked.pipeline
        self._checked = checked
        self._run_sync = run_sync
        self._read_from = checked.read_from

    def run(
        self,
        query: str,
        tenant_id: str = "default",
        top_k: int | None = None,
        model: str | None = None,
        filters: dict[str, Any] | None = None,
    ) -> QueryResult:
        """
        Answer a question.

        :param query: the question.
        :param tenant_id: whose documents to ask.
        :param top_k: how many chunks to retrieve; the mode's own number when not given.
        :param model: another language model than the default, of those allowed.
        :param filters: Haystack filters over the chunks' metadata and content.
        :returns: the answer with all that the mode tells about it.
        :raises UnsupportedInputError: if the mode does not take one of these.
        :raises UnknownTenantError: if the tenant has no documents.
        :raises UnknownModelError: if the model is not allowed.
        :raises StructuredAnswerError: if the model gave no valid JSON, in structured modes.
        """
        return self._run_sync(self.run_async(query, tenant_id, top_k, model, filters))

    async def run_async(
        self,
        query: str,
        tenant_id: str = "default",
        top_k: int | None = None,
        model: str | None = None,
        filters: dict[str, Any] | None = None,
    ) -> QueryResult:
        """Answer a question; see `run`."""
        data = self._pipeline_inputs(query, tenant_id, top_k, model, filters)
        return await self._run(data, _Record())

    async def stream(
        self,
        query: str,
        tenant_id: str = "default",
        top_k: int | None = None,
        model: str | None = None,
        filters: dict[str, Any] | None = None,
    ) -> AsyncIterator[StreamEvent]:
        """
        Answer a question while telling the answer's tokens; for arguments and errors see `run`.

        Leaving the iteration early cancels the run.

        :returns: `token` events as the model writes, then one `result` event. The result's answer is final: its
            citations are checked, so it may differ from the tokens.
        """
        data = self._pipeline_inputs(query, tenant_id, top_k, model, filters)
        queue: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        record = _Record(
            on_token=lambda text: loop.call_soon_threadsafe(queue.put_nowait, StreamEvent("token", text))
        )
        task = asyncio.create_task(self._run(data, record))
        task.add_done_callback(lambda _: loop.call_soon(queue.put_nowait, None))
        try:
            while (event := await queue.get()) is not None:
                yield event
            yield StreamEvent("result", await task)
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _run(self, data: dict[str, dict[str, Any]], record: "_Record") -> QueryResult:
        begin = time.perf_counter()
        with own_errors(), listen(record.hear, tokens=record.on_token is not None):
            outputs = await self.pipeline.run_async(data, include_outputs_from=self._read_from)
        record.timings["total"] = time.perf_counter() - begin
        return self._result(outputs, record)

    def _pipeline_inputs(
        self,
        query: str,
        tenant_id: str,
        top_k: int | None,
        model: str | None,
        filters: dict[str, Any] | None,
    ) -> dict[str, dict[str, Any]]:
        every = {"query": query, "tenant_id": tenant_id, "top_k": top_k, "model": model, "filters": filters}
        given = {name: value for name, value in every.items() if value is not None}
        for name in given:
            if name not in self._checked.inputs and name != "tenant_id":
                raise UnsupportedInputError(
                    f"mode '{self.name}' takes no '{name}'; it has {', '.join(self.inputs)}"
                )
        return self._checked.feed(given)

    def _result(self, outputs: dict[str, Any], record: "_Record") -> QueryResult:
        values = self._checked.read(outputs)
        documents: list[Document] = values.pop("documents", [])
        return QueryResult(
            mode=self.name,
            **values,
            documents=[RetrievedDocument.from_haystack(document) for document in documents],
            model=record.model,
            usage=record.usage,
            timings={name: round(seconds, 4) for name, seconds in record.timings.items()},
        )


class _Record:
    """What a run told while it went on."""

    def __init__(self, on_token: Callable[[str], Any] | None = None) -> None:
        self.on_token = on_token
        self.usage = Usage()
        self.model: str | None = None
        self.timings: dict[str, float] = {}

    def hear(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "token" and self.on_token is not None:
            self.on_token(data["text"])
        elif kind == "stage":
            self._add_time(data["name"], data["seconds"])
        elif kind == "llm_call":
            self._add_time("llm", data["seconds"])
            self.model = data["model"]
            self.usage.llm_calls += 1
            for field in ("prompt_tokens", "completion_tokens", "total_tokens"):
                setattr(self.usage, field, getattr(self.usage, field) + (data["usage"].get(field) or 0))

    def _add_time(self, name: str, seconds: float) -> None:
        self.timings[name] = self.timings.get(name, 0.0) + seconds


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise what a component raised instead of Haystack's wrapper around it."""
    try:
        yield
    except PipelineRuntimeError as error:
        own = _own_error(error)
        # Not `from error`, which own caused: whoever follows the causes would go round for ever.
        raise own from own.__cause__


def _own_error(error: BaseException) -> BaseException:
    # A stage inside a mode wraps the component's error once more.
    while isinstance(error, PipelineRuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error
