import asyncio
from typing import Any

import pytest
from haystack import Document, Pipeline, component
from haystack.core.errors import PipelineRuntimeError

from modes.sharing import SharingPipeline


@component
class Source:
    """Gives one document."""

    def __init__(self, document: Document) -> None:
        self.document = document

    @component.output_types(documents=list[Document], number=int)
    async def run_async(self, query: str) -> dict[str, Any]:
        return self.run(query)

    @component.output_types(documents=list[Document], number=int)
    def run(self, query: str) -> dict[str, Any]:
        return {"documents": [self.document], "number": len(query)}


@component
class Emptier:
    """Empties the list that it is given; runs in a thread."""

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        found = documents.copy()
        documents.clear()
        return {"documents": found}


@component
class Chooser:
    """Gives to one of two sides."""

    @component.output_types(left=list[Document], right=list[Document])
    def run(self, documents: list[Document], side: str = "left") -> dict[str, Any]:
        return {side: documents}


@component
class Meeting:
    """Tells what came from which side."""

    @component.output_types(got=list[str])
    def run(
        self, number: int, left: list[Document] | None = None, right: list[Document] | None = None
    ) -> dict[str, Any]:
        return {"got": [name for name, value in (("left", left), ("right", right)) if value is not None]}


@component
class Failing:
    """Fails."""

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        raise KeyError("broken")


@component
class Slow:
    """Remembers whether it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = False

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        return {"documents": documents}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return {"documents": documents}


def built(kind: type[Pipeline], *connections: str, **components: Any) -> Pipeline:
    pipeline = kind()
    for name, instance in components.items():
        pipeline.add_component(name, instance)
    for connection in connections:
        pipeline.connect(*connection.split(" > "))
    return pipeline


def forked(kind: type[Pipeline], document: Document) -> Pipeline:
    connections = (
        "source.documents > chooser.documents",
        "source.number > meeting.number",
        "chooser.left > first.documents",
        "chooser.right > second.documents",
        "first.documents > meeting.left",
        "second.documents > meeting.right",
    )
    parts = {"source": Source(document), "chooser": Chooser(), "meeting": Meeting()}
    return built(kind, *connections, **parts, first=Emptier(), second=Emptier())


@pytest.mark.parametrize("side", ["left", "right"])
def test_gives_what_haystack_gives(side: str) -> None:
    """A branch that is not taken does not hold up what comes after it, and outputs are the same as Haystack's."""
    data = {"source": {"query": "why"}, "chooser": {"side": side}}
    document = Document(content="text")
    ours = asyncio.run(forked(SharingPipeline, document).run_async(data, {"source", "first"}))
    assert ours == asyncio.run(forked(Pipeline, document).run_async(data, {"source", "first"}))
    assert ours["meeting"] == {"got": [side]}
    assert forked(SharingPipeline, document).run(data, {"source", "first"}) == ours


def test_shares_documents_but_not_lists() -> None:
    """A document is the same object everywhere, while a list that a component empties stays full for the others."""
    document = Document(content="text")
    pipeline = built(
        SharingPipeline,
        "source.documents > one.documents",
        "source.documents > two.documents",
        source=Source(document),
        one=Emptier(),
        two=Emptier(),
    )
    outputs = asyncio.run(pipeline.run_async({"source": {"query": "why"}}, {"source"}))
    assert outputs["source"]["documents"][0] is document
    assert outputs["one"]["documents"] == outputs["two"]["documents"] == [document]


def test_wraps_an_error_and_cancels_the_other_branch() -> None:
    """When a component fails the error names it, as Haystack's does, and its siblings stop."""
    slow = Slow()
    pipeline = built(
        SharingPipeline,
        "source.documents > slow.documents",
        "source.documents > failing.documents",
        source=Source(Document(content="text")),
        slow=slow,
        failing=Failing(),
    )
    with pytest.raises(PipelineRuntimeError, match="failing") as caught:
        asyncio.run(pipeline.run_async({"source": {"query": "why"}}))
    assert isinstance(caught.value.__cause__, KeyError)
    assert slow.cancelled


def test_refuses_wrong_inputs() -> None:
    """A missing input, an unknown one and an unknown component are errors before anything runs."""
    pipeline = built(SharingPipeline, source=Source(Document(content="text")))
    for data in ({}, {"source": {"qurey": "why"}}, {"sauce": {"query": "why"}}):
        with pytest.raises(ValueError, match=r"query|qurey|sauce"):
            asyncio.run(pipeline.run_async(data))


def test_sees_components_that_are_added_after_a_run() -> None:
    """A pipeline that has run can be extended and run again."""
    pipeline = built(SharingPipeline, source=Source(Document(content="text")))
    data = {"source": {"query": "why"}}
    assert asyncio.run(pipeline.run_async(data))["source"]["number"] == 3
    pipeline.add_component("emptier", Emptier())
    pipeline.connect("source.documents", "emptier.documents")
    assert asyncio.run(pipeline.run_async(data))["emptier"]["documents"]


def test_begins_one_component_in_each_round_of_the_loop() -> None:
    """Runs that are ready together take turns, so that others are served between them."""
    rounds: list[int] = []
    now = 0

    @component
    class Counting:
        @component.output_types(number=int)
        def run(self, query: str) -> dict[str, Any]:
            rounds.append(now)
            return {"number": len(query)}

        @component.output_types(number=int)
        async def run_async(self, query: str) -> dict[str, Any]:
            return self.run(query)

    async def main() -> None:
        nonlocal now
        pipeline = built(SharingPipeline, source=Counting())
        runs = asyncio.gather(*(pipeline.run_async({"source": {"query": "why"}}) for _ in range(20)))
        while not runs.done():
            now += 1
            await asyncio.sleep(0)

    asyncio.run(main())
    assert len(rounds) == len(set(rounds)) == 20
