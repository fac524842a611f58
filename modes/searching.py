"""Searching alone: a retrieval stage without the rest of a mode."""

from typing import Any, Unpack

from modes.checking import CheckedPipeline
from modes.failures import own_errors, time_limit
from modes.mode import RunInputs
from modes.results import Retrieval, RetrievedDocument


class Search:
    """Finds a tenant's chunks with the retrieval stage of the modes; made by `ModeRegistry`."""

    def __init__(self, checked: CheckedPipeline) -> None:
        """
        Wrap a checked stage.

        :param checked: the stage, with the input `query` and the output `documents`.
        """
        self.name = checked.path.stem
        self.inputs = list(checked.inputs)
        self.pipeline = checked.pipeline
        self._checked = checked

    async def run_async(
        self, query: str, timeout: float | None = None, **inputs: Unpack[RunInputs]
    ) -> Retrieval:
        """
        Find the chunks nearest to a question.

        :param query: the question.
        :param timeout: seconds the search may take.
        :param inputs: what else the stage is given.
        :returns: the chunks, best first.
        :raises UnknownTenantError: if the tenant has no documents.
        :raises QueryTimeoutError: if it takes longer than `timeout`.
        """
        given: dict[str, Any] = {name: value for name, value in inputs.items() if value is not None}
        async with time_limit(timeout, lambda: self.name):
            with own_errors():
                outputs = await self.pipeline.run_async(
                    self._checked.feed({"query": query, **given}),
                    include_outputs_from=self._checked.read_from,
                )
        documents = self._checked.read(outputs)["documents"]
        return Retrieval(
            query=query, documents=[RetrievedDocument.from_haystack(document) for document in documents]
        )
