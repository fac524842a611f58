from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import RunningServer, without_llm

SECRET = "redis://user:hunter2@internal"
WORDS = "GREETING = 'Hello'\n"
GREETING = f"""\
import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from fastapi import HTTPException, Response
from hayhooks import BasePipelineWrapper, SSEStream
from haystack.dataclasses import StreamingChunk
from starlette.datastructures import Headers

from .words import GREETING


class PipelineWrapper(BasePipelineWrapper):
    '''Greets whoever there is.'''

    def setup(self) -> None:
        self.pipeline = None

    async def run_api_async(self, name: str, how: str = "plain", headers: Headers | None = None) -> dict:
        '''
        Greet somebody.

        :param name: who is greeted.
        '''
        match how:
            case "headers":
                return {{"agent": headers["user-agent"]}}
            case "leak":
                raise RuntimeError("{SECRET}")
            case "timeout":
                raise TimeoutError("{SECRET}")
            case "refuse":
                raise HTTPException(418, "a teapot greets nobody", {{"X-Why": "tea"}})
            case "response":
                return Response("by itself", 203)
            case "slow":
                await asyncio.sleep(60)
            case "stream":
                return self.chunks(name, 2)
            case "broken at once":
                return self.chunks(name, 0, fault=True)
            case "broken later":
                return self.chunks(name, 1, fault=True)
            case "events":
                return SSEStream(self.chunks(name, 2))
            case "events broken later":
                return SSEStream(self.chunks(name, 1, fault=True))
            case "threaded":
                return (f"{{GREETING}} {{number}}\\n" for number in range(2))
            case "endless":
                return self.endless(name)
        return {{"said": f"{{GREETING}}, {{name}}."}}

    async def chunks(self, name: str, count: int, fault: bool = False) -> AsyncGenerator:
        for number in range(count):
            yield StreamingChunk(content=f"{{name}}{{number}} ")
        if fault:
            raise RuntimeError("{SECRET}")

    async def endless(self, name: str) -> AsyncGenerator:
        try:
            while True:
                yield "tick "
                await asyncio.sleep(0.01)
        finally:
            (Path(__file__).parent / f"{{name}} left").touch()
"""
UPLOAD = """\
from fastapi import UploadFile
from hayhooks import BasePipelineWrapper


class PipelineWrapper(BasePipelineWrapper):
    def setup(self) -> None:
        self.pipeline = None

    def run_api(self, note: str = "", files: list[UploadFile] | None = None) -> dict:
        return {"note": note, "sizes": [len(file.file.read()) for file in files or []]}
"""
RANKER = """\
# The best of the documents that are given.
components:
  joiner:
    type: haystack.components.joiners.document_joiner.DocumentJoiner
  prompt:
    type: haystack.components.builders.prompt_builder.PromptBuilder
    init_parameters: {template: "{{ greeting }}{{ documents[0].content }}"}
connections:
  - {sender: joiner.documents, receiver: prompt.documents}
inputs:
  documents: joiner.documents
  top_k: joiner.top_k
  greeting: prompt.greeting
outputs:
  documents: joiner.documents
  prompt: prompt.prompt
"""
SEARCH = """\
components:
  retriever:
    type: components.retrieving.TenantRetriever
inputs:
  query: retriever.query
  owner: retriever.tenant_id
  top_k: retriever.top_k
outputs:
  documents: retriever.documents
metadata:
  description: Search without an answer.
"""
BROKEN = {"broken": "broken/pipeline_wrapper.py:2", "slipped": "slipped.yml:12"}


def write(folder: Path, **files: str) -> Path:
    """Write files by their names, `__` for a directory; all are Python where they are in one, else YAML."""
    for name, text in files.items():
        directory, _, file = name.rpartition("__")
        path = folder / directory / f"{file}.py" if directory else folder / f"{file}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="package")
def pipelines_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(
        tmp_path_factory.mktemp("pipelines"),
        greeting__pipeline_wrapper=GREETING,
        greeting__words=WORDS,
        upload__pipeline_wrapper=UPLOAD,
        broken__pipeline_wrapper=f"\nraise RuntimeError('{SECRET}')\n",
        ranker=RANKER,
        slipped=RANKER.replace("joiner.top_k", "joiner.topk"),
        search=SEARCH,
    )


@pytest.fixture(scope="package")
def door(tmp_path_factory: pytest.TempPathFactory, pipelines_dir: Path) -> Iterator[httpx.Client]:
    limits = {"max_body_bytes": 20_000, "max_upload_bytes": 50_000, "request_timeout": 20}
    settings = without_llm(tmp_path_factory.mktemp("door"), pipelines_dir=pipelines_dir, **limits)
    with RunningServer(settings) as running:
        texts = {"tenant_id": "acme", "texts": ["Lake Constance is 63 km long."]}
        job = running.post("/ingest/", json=texts).json()
        while job["status"] in ("pending", "running"):
            job = running.get(f"/ingest/{job['job_id']}").json()
        assert job["status"] == "done"
        yield running
