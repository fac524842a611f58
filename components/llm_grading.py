"""Graders that ask a language model about each document."""

import math
import re
from collections.abc import Sequence
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ChatMessage

from components.asking import ConcurrentCalls
from components.framing import Frame, plain_line, plain_text
from components.grading import Thresholds, grade_documents

YES_NO_SYSTEM = "You judge whether a passage answers a question. Reply with yes or no, nothing else."
YES_NO_PROMPT = (
    "Passage:\n{passage}\n\nQuestion: {query}\n\nDoes the passage contain the answer? Reply yes or no."
)
YES_OR_NO = re.compile(r"\W*(yes|no)\s*(?:[.,:;!]|$)", re.IGNORECASE)

# Cuts measured on gold and same-article paragraphs, docs/grading.md.
MODEL_THRESHOLDS = {
    "coder-1.5b": {"correct": 0.67, "ambiguous": 0.57},
    "coder-0.5b": {"correct": 0.4, "ambiguous": 0.25},
}


class ModelThresholds:
    """Thresholds that belong to the model which gave the scores."""

    def __init__(self, default: Thresholds, by_model: dict[str, dict[str, float]]) -> None:
        """
        Checks and stores the parameters.

        :param default: For a model that is not listed.
        :param by_model: Part of a model's name → `correct` and `ambiguous`.
        :raises ValueError: If thresholds are not in order between 0 and 1.
        """
        self._default = default
        self._by_model = {_plain(part): Thresholds(**values) for part, values in by_model.items()}

    def of(self, model: str | None, replies: Sequence[ChatMessage | None]) -> Thresholds:
        """
        Finds the thresholds that hold.

        :param model: The model that the request names, if it does.
        :param replies: The replies; without `model`, they tell who gave them.
        :returns: The thresholds.
        """
        replied = next((reply.meta.get("model") for reply in replies if reply), None)
        name = _plain(model or str(replied))
        return next((found for part, found in self._by_model.items() if part in name), self._default)


def _plain(model: str) -> str:
    # Ollama writes "qwen2.5-coder:1.5b" what a file calls "qwen2.5-coder-1.5b-instruct".
    return model.lower().replace(":", "-")


@component
class LogprobGrader:
    """
    Asks a language model whether a document holds the answer and reads how sure it is of "yes".

    One call for each document, several at once, one token each: the score is P(yes) / (P(yes) + P(no)). A
    provider that gives no log-probabilities leaves 1 for "yes" and 0 for "no"; another reply is AMBIGUOUS.

    ### Usage example
    ```python
    grader = LogprobGrader(chat_generator, correct_threshold=0.9, ambiguous_threshold=0.6)
    grades = grader.run(query="How deep is the lake?", documents=documents)["grades"]
    ```
    """

    def __init__(
        self,
        chat_generator: Any,
        correct_threshold: float = 0.7,
        ambiguous_threshold: float = 0.5,
        thresholds_by_model: dict[str, dict[str, float]] | None = None,
        concurrency: int = 8,
    ) -> None:
        """
        Stores the parameters.

        :param chat_generator: A Haystack ChatGenerator that takes `generation_kwargs`.
        :param correct_threshold: CORRECT from this score on, for a model without thresholds of its own.
        :param ambiguous_threshold: AMBIGUOUS from this score on, INCORRECT and dropped below.
        :param thresholds_by_model: Part of a model's name → `correct` and `ambiguous`. A yes means something
            else to each model; the defaults are those measured for the built-in ones.
        :param concurrency: How many documents of one question are asked about at the same time.
        :raises ValueError: If thresholds are not in order between 0 and 1.
        """
        self.chat_generator = chat_generator
        self.correct_threshold = correct_threshold
        self.ambiguous_threshold = ambiguous_threshold
        self.thresholds_by_model = MODEL_THRESHOLDS if thresholds_by_model is None else thresholds_by_model
        self.concurrency = concurrency
        self._thresholds = ModelThresholds(
            Thresholds(correct_threshold, ambiguous_threshold), self.thresholds_by_model
        )
        self._calls = ConcurrentCalls(chat_generator, concurrency)

    def warm_up(self) -> None:
        """Loads the chat generator."""
        if hasattr(self.chat_generator, "warm_up"):
            self.chat_generator.warm_up()

    @component.output_types(documents=list[Document], grades=list[dict[str, Any]])
    def run(self, query: str, documents: list[Document], model: str | None = None) -> dict[str, Any]:
        """
        Grades documents.

        :param query: The question.
        :param documents: Documents with text and, in meta, perhaps a title.
        :param model: The language model to ask, when not the generator's own.
        :returns: `documents` that are not INCORRECT, in their order; `grades`, one for each document given.
        """
        replies = self._calls.run(_yes_no_prompts(query, documents), _yes_no_options(model))
        return self._grades(documents, replies, model)

    @component.output_types(documents=list[Document], grades=list[dict[str, Any]])
    async def run_async(
        self, query: str, documents: list[Document], model: str | None = None
    ) -> dict[str, Any]:
        """
        Grades documents with concurrent calls.

        :param query: The question.
        :param documents: Documents with text and, in meta, perhaps a title.
        :param model: The language model to ask, when not the generator's own.
        :returns: As `run`.
        """
        replies = await self._calls.run_async(_yes_no_prompts(query, documents), _yes_no_options(model))
        return self._grades(documents, replies, model)

    def _grades(
        self, documents: list[Document], replies: Sequence[ChatMessage | None], model: str | None
    ) -> dict[str, Any]:
        scores = [yes_probability(reply) for reply in replies]
        return grade_documents(documents, scores, self._thresholds.of(model, replies))


def _yes_no_prompts(query: str, documents: list[Document]) -> list[list[ChatMessage]]:
    question = plain_line(query)
    return [
        [
            ChatMessage.from_system(YES_NO_SYSTEM),
            ChatMessage.from_user(YES_NO_PROMPT.format(passage=framed_passage(document), query=question)),
        ]
        for document in documents
    ]


def _yes_no_options(model: str | None) -> dict[str, Any]:
    options = {"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": 20}
    return options | ({"model": model} if model else {})


def yes_probability(reply: ChatMessage | None) -> float | None:
    """
    Reads how sure a model is of "yes".

    :param reply: Its reply to a yes-or-no question, with `logprobs` in its meta if the provider gives them.
    :returns: P(yes) / (P(yes) + P(no)); without log-probabilities 1 for yes and 0 for no; None for neither.
    """
    if reply is None:
        return None
    yes, no = _token_probabilities(reply)
    if yes + no > 0:
        return yes / (yes + no)
    match = YES_OR_NO.match(reply.text or "")
    return float(match.group(1).lower() == "yes") if match else None


def _token_probabilities(reply: ChatMessage) -> tuple[float, float]:
    content = (reply.meta.get("logprobs") or {}).get("content") or [{}]
    totals = {"yes": 0.0, "no": 0.0}
    for candidate in content[0].get("top_logprobs") or []:
        word = candidate["token"].strip().lower()
        if word in totals:
            totals[word] += math.exp(candidate["logprob"])
    return totals["yes"], totals["no"]


def framed_passage(document: Document) -> str:
    """
    Writes a document as a model should read it: as quoted material, which can't end the quote.

    :param document: The document.
    :returns: Its title, if it has one, and its content, between two marks with a code.
    """
    text = passage_text(document)
    return Frame(text).around("passage", text)


def passage_text(document: Document) -> str:
    """
    Writes a document's text plainly.

    :param document: The document.
    :returns: Its title, if it has one, and its content.
    """
    title = plain_line(str(document.meta.get("title") or ""))
    return f"{title}\n{plain_text(document.content or '')}".strip()
