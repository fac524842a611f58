"""What the watchers of the answering are told of each run."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from haystack import Document

from components.storing import UnknownTenantError
from registry import ModeRegistry
from serve.answering import Answering
from serve.watching import FinishedRun
from settings import Settings


class Notes:
    def __init__(self) -> None:
        self.runs: list[FinishedRun] = []

    def ended(self, run: FinishedRun) -> None:
        self.runs.append(run)


class Broken:
    def ended(self, run: FinishedRun) -> None:
        raise RuntimeError("the disk is full")


@pytest.fixture
def answering(tmp_path: Path) -> Answering:
    settings = Settings.load(data_dir=tmp_path, llm_provider="extractive")
    registry = ModeRegistry(settings)
    tower = Document(content="The tower is 330 metres tall.", meta={"document_id": "tower"})
    embedded = registry.resources.document_embedder.run([tower])["documents"]
    registry.resources.document_stores.get_or_create("acme").write_documents(embedded)
    made = Answering(settings, registry)
    made.watchers += [Broken(), Notes()]
    return made


def notes(answering: Answering) -> list[FinishedRun]:
    return answering.watchers[-1].runs  # type: ignore[attr-defined]


def test_every_end_of_a_run_is_told(answering: Answering) -> None:
    """An answer, a stream, a fault and a caller that left each are one run, and a broken watcher costs nothing."""

    async def ask() -> None:
        result = await answering.ask("standard", "How tall is the tower?", tenant_id="acme")
        async with aclosing(
            answering.stream("standard", "How tall is the tower?", tenant_id="acme")
        ) as stream:
            events = [event async for event in stream]
        with pytest.raises(UnknownTenantError):
            await answering.ask("standard", "How tall?", tenant_id="nobody")
        async with aclosing(answering.stream("standard", "How tall?", tenant_id="acme")) as stream:
            await anext(stream)
        whole, streamed, failed, left = notes(answering)
        assert all(run.began for run in notes(answering))
        assert whole.result is result
        assert streamed.result is events[-1].data
        assert isinstance(failed.error, UnknownTenantError)
        assert failed.inputs == {"tenant_id": "nobody"}
        assert isinstance(left.error, GeneratorExit)
        assert left.result is None

    asyncio.run(ask())
    answering.registry.close()
