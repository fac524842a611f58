"""The turns of corrective RAG: whether to search again, and what came of it.

Yan et al. 2024, Corrective Retrieval Augmented Generation (arXiv:2401.15884), without its web search.
"""

import logging
from typing import Any

from haystack import Document, component

logger = logging.getLogger(__name__)


@component
class CorrectionRouter:
    """
    Sends the query on to be rephrased when no document passed the grader.

    Usage example:
    ```python
    CorrectionRouter().run(query="Who?", documents=[])  # {"query": "Who?"}
    ```
    """

    @component.output_types(documents=list[Document], query=str)
    def run(self, query: str, documents: list[Document]) -> dict[str, Any]:
        """
        Choose the branch.

        :param query: the question.
        :param documents: what the grader kept.
        :returns: `documents` when there are any, else `query`.
        """
        return {"documents": documents} if documents else {"query": query}

    @component.output_types(documents=list[Document], query=str)
    async def run_async(self, query: str, documents: list[Document]) -> dict[str, Any]:
        """Choose the branch; see `run`."""
        return self.run(query, documents)


@component
class CorrectionJoiner:
    """
    Joins both branches of corrective RAG and names the strategy.

    `CORRECT`: every chunk was kept. `PARTIAL`: some were dropped. `REPHRASED`: some were kept only after the query was
    rephrased. `INCORRECT`: none is left.

    Usage example:
    ```python
    CorrectionJoiner().run(documents=kept, grades=grades)["strategy"]  # "PARTIAL"
    ```
    """

    @component.output_types(
        documents=list[Document], grades=list[dict[str, Any]], strategy=str, rephrased=str | None
    )
    def run(
        self,
        grades: list[dict[str, Any]],
        documents: list[Document] | None = None,
        rephrased: str | None = None,
        second_documents: list[Document] | None = None,
        second_grades: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """
        Join the branches.

        :param grades: the grades of the first search.
        :param documents: what was kept of it, when anything was.
        :param rephrased: the query of the second search, when there was one.
        :param second_documents: what was kept of the second search.
        :param second_grades: the grades of the second search.
        :returns: `documents` that are left, `grades` of every chunk graded, `strategy`, and `rephrased`.
        """
        kept = documents or second_documents or []
        everything = [*grades, *(second_grades or [])]
        strategy = _strategy(everything, bool(documents), bool(second_documents))
        shown = ",".join(f"{grade['label']}({grade['score']:.2f})" for grade in everything)
        logger.info("Strategy=%s grades=[%s]", strategy, shown)
        return {"documents": kept, "grades": everything, "strategy": strategy, "rephrased": rephrased}

    @component.output_types(
        documents=list[Document], grades=list[dict[str, Any]], strategy=str, rephrased=str | None
    )
    async def run_async(
        self,
        grades: list[dict[str, Any]],
        documents: list[Document] | None = None,
        rephrased: str | None = None,
        second_documents: list[Document] | None = None,
        second_grades: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Join the branches; see `run`."""
        return self.run(grades, documents, rephrased, second_documents, second_grades)


def _strategy(grades: list[dict[str, Any]], first: bool, second: bool) -> str:
    if first:
        return "CORRECT" if all(grade["kept"] for grade in grades) else "PARTIAL"
    return "REPHRASED" if second else "INCORRECT"
