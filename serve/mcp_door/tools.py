"""The tools: one for each mode, and the fixed ones for documents."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from mcp.types import Tool, ToolAnnotations
from pydantic import BaseModel

from modes.mode import Mode
from modes.results import QueryResult, Retrieval
from serve.access.rules import INGEST, QUERY, Rule
from serve.bodies import inlined_schema
from serve.ingestion_schemas import DocumentItem, DocumentList, IngestBody
from serve.intake import texts_intake
from serve.jobs import Job, JobStatus
from serve.mcp_door import arguments, texts
from serve.schemas import QueryResponse
from serve.service import Service
from serve.tenancy import Tenancy

# As long as the shortest patience that clients are known to have, half of it for what else takes time.
_INGEST_SECONDS = 20.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Caller:
    """Who calls a tool, and how."""

    tenancy: Tenancy
    request_id: str
    timeout: float | None = None
    """Seconds that the caller waits."""
    tell: Callable[[str], Awaitable[None]] | None = None
    """Takes the progress; None where nobody wants to hear of it."""


@dataclass(frozen=True)
class Outcome:
    """What a tool gives: for programs, and as text."""

    content: BaseModel
    text: str
    failed: bool = False


@dataclass(frozen=True)
class ServedTool:
    """A tool: how it is declared to clients, and what it does."""

    declared: Tool
    arguments: type[BaseModel]
    run: Callable[[Any, Caller], Awaitable[Outcome]]
    rule: Rule
    """Who may call it."""


def served_tools(service: Service) -> dict[str, ServedTool]:
    """
    Make the tools of a service.

    :param service: has the modes and the documents.
    :returns: the tools by name. A mode has its own name, unless a fixed tool is called so: then `ask_` is before it.
    """
    fixed = _DocumentTools(service).tools()
    tools = {tool.declared.name: tool for tool in fixed}
    for mode in service.registry.values():
        name = mode.name
        while name in tools or (name != mode.name and name in service.registry):
            name = f"ask_{name}"
        tools[name] = _mode_tool(name, mode, service)
    return tools


def _tool(
    name: str,
    description: str,
    takes: type[BaseModel],
    gives: type[BaseModel],
    run: Callable[[Any, Caller], Awaitable[Outcome]],
    writes: bool = False,
) -> ServedTool:
    # What writes replaces a document of the same id, and does no more when it is repeated. No tool leaves the service.
    annotations = ToolAnnotations(
        readOnlyHint=not writes, destructiveHint=writes, idempotentHint=True, openWorldHint=False
    )
    declared = Tool(
        name=name,
        description=description,
        inputSchema=arguments.schema_of(takes),
        outputSchema=inlined_schema(gives, "serialization"),
        annotations=annotations,
    )
    return ServedTool(declared, takes, run, INGEST if writes else QUERY)


def _mode_tool(name: str, mode: Mode, service: Service) -> ServedTool:
    async def run(asked: BaseModel, caller: Caller) -> Outcome:
        query, given = _given(asked, caller)
        if caller.tell is None:
            result = await service.answering.ask(mode.name, query, timeout=caller.timeout, **given)
        else:
            events = service.answering.stream(mode.name, query, timeout=caller.timeout, **given)
            result = await _told(events, caller.tell)
        answer = QueryResponse(**dict(result), request_id=caller.request_id)
        return Outcome(answer, texts.answer_text(result))

    description = f"Answers a question from a tenant's documents and cites them as [n]. {mode.description}"
    return _tool(name, description, arguments.declared_arguments(mode, service.settings), QueryResponse, run)


def _given(asked: BaseModel, caller: Caller) -> tuple[str, dict[str, Any]]:
    """Tell the question from the other inputs, among them the tenant's id, whether it was given or not."""
    given = asked.model_dump(exclude_none=True)
    given["tenant_id"] = caller.tenancy.tenant(given.get("tenant_id"))
    return given.pop("query"), given


async def _told(events: Any, tell: Callable[[str], Awaitable[None]]) -> QueryResult:
    """Tell the progress of a run, and give its result."""
    writes = False
    async with aclosing(events):
        async for event in events:
            if event.kind == "result":
                return event.data
            text = texts.progress_text(event)
            if event.kind == "token" and not writes:
                writes, text = True, "writing the answer"
            if text is not None:
                await tell(text)
    raise AssertionError("a run that ends without an error ends with its result")


class _DocumentTools:
    """The tools that are there whatever the modes are."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def tools(self) -> Iterator[ServedTool]:
        yield _tool(
            "search",
            "Finds the chunks of a tenant's documents that are nearest to a question, best first; gives no answer.",
            arguments.declared_arguments(self._service.registry.search, self._service.settings),
            Retrieval,
            self._search,
        )
        yield _tool(
            "list_documents",
            "Lists a tenant's documents, in the order in which they first came.",
            arguments.ListDocumentsArguments,
            DocumentList,
            self._list_documents,
        )
        yield _tool(
            "ingest_text",
            "Adds a text to a tenant's documents, so that questions are answered from it. A document of the same id is "
            "replaced; the same text again changes nothing.",
            arguments.IngestTextArguments,
            Job,
            self._ingest_text,
            writes=True,
        )

    async def _search(self, asked: BaseModel, caller: Caller) -> Outcome:
        query, given = _given(asked, caller)
        limit = self._service.settings.request_timeout
        seconds = limit if caller.timeout is None else min(caller.timeout, limit)
        found = await self._service.registry.search.run_async(query, seconds, **given)
        return Outcome(found, texts.search_text(found))

    async def _list_documents(self, asked: arguments.ListDocumentsArguments, caller: Caller) -> Outcome:
        stores = self._service.registry.resources.document_stores
        store = await stores.get_async(caller.tenancy.tenant(asked.tenant_id))
        documents, following = await store.list_documents_async(asked.limit, asked.cursor)
        page = DocumentList(items=[DocumentItem.of(document) for document in documents], next=following)
        return Outcome(page, texts.documents_text(page))

    async def _ingest_text(self, asked: arguments.IngestTextArguments, caller: Caller) -> Outcome:
        # Shielded: whoever leaves while the job is being stored has sent it or not, and nothing in between.
        job = await asyncio.shield(self._submitted(asked, caller))
        job = await self._followed(job, _INGEST_SECONDS if caller.timeout is None else caller.timeout)
        failed = job.status in (JobStatus.FAILED, JobStatus.CANCELLED)
        return Outcome(job, texts.job_text(job), failed)

    async def _submitted(self, asked: arguments.IngestTextArguments, caller: Caller) -> Job:
        tenant = caller.tenancy.tenant(asked.tenant_id)
        await self._service.jobs.room(tenant)
        document = asked.model_dump(exclude={"tenant_id", "pipeline"})
        body = IngestBody.model_validate({"pipeline": asked.pipeline, "documents": [document]})
        return await self._service.submit(texts_intake(body, tenant), caller.request_id, None)

    async def _followed(self, job: Job, seconds: float) -> Job:
        """Wait for a job's end, but no longer than the client may."""
        until = time.monotonic() + min(seconds, _INGEST_SECONDS)
        while not job.status.finished and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(_POLL_SECONDS, left))
            job = await self._service.jobs.get(job.job_id) or job
        return job
