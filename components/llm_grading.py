"""Graders that ask a language model about each document."""

import asyncio
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ChatMessage

from components.extracting import LanguageModelNeededError
from components.grading import Thresholds, grade_documents

YES_NO_SYSTEM = "You judge whether a passage answers a question. Reply with yes or no, nothing else."
YES_NO_PROMPT = (
    "Passage:\n{passage}\n\nQuestion: {query}\n\nDoes the passage contain the answer? Reply yes or no."
)
YES_OR_NO = re.compile(r"\W*(yes|no)\s*(?:[.,:;!]|$)", re.IGNORECASE)

# Cuts measured on gold and same-article paragraphs, docs/grading.md.
MODEL_THRESHOLDS = {
    "coder-1.5b": {"correct": 0.7, "ambiguous": 0.5},
    "coder-0.5b": {"correct": 0.4, "ambiguous": 0.25},
}


class ModelGrader:
    """What graders that ask a model share: concurrent calls, and thresholds that belong to the model."""

    def __init__(
        self,
        chat_generator: Any,
        thresholds: Thresholds,
        thresholds_by_model: dict[str, dict[str, float]],
        concurrency: int,
    ) -> None:
        self.chat_generator = chat_generator
        self.concurrency = concurrency
        self._thresholds = thresholds
        self._by_model = {
            name.lower().replace(":", "-"): Thresholds(**values)
            for name, values in thresholds_by_model.items()
        }

    def warm_up(self) -> None:
        """Loads the chat generator."""
        if hasattr(self.chat_generator, "warm_up"):
            self.chat_generator.warm_up()

    def ask(self, prompts: Sequence[list[ChatMessage]], options: dict[str, Any]) -> list[ChatMessage | None]:
        """
        Sends prompts at the same time, at most `concurrency` of them.

        :param prompts: The messages of each call.
        :param options: The `generation_kwargs` of each call.
        :returns: The first reply of each call; None where there was none.
        """
        if not prompts:
            return []
        with ThreadPoolExecutor(min(self.concurrency, len(prompts)), thread_name_prefix="grade") as pool:
            return list(pool.map(lambda prompt: self._reply(prompt, options), prompts))

    async def ask_async(
        self, prompts: Sequence[list[ChatMessage]], options: dict[str, Any]
    ) -> list[ChatMessage | None]:
        """
        Does what `ask` does on the event loop. If one call fails, the others are cancelled.

        :param prompts: The messages of each call.
        :param options: The `generation_kwargs` of each call.
        :returns: As `ask`.
        """
        slots = asyncio.Semaphore(self.concurrency)

        async def ask(prompt: list[ChatMessage]) -> ChatMessage | None:
            async with slots:
                return await self._reply_async(prompt, options)

        calls = [asyncio.create_task(ask(prompt)) for prompt in prompts]
        try:
            return await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()

    def _reply(self, prompt: list[ChatMessage], options: dict[str, Any]) -> ChatMessage | None:
        try:
            return _first(self.chat_generator.run(prompt, generation_kwargs=options))
        except LanguageModelNeededError:
            return None

    async def _reply_async(self, prompt: list[ChatMessage], options: dict[str, Any]) -> ChatMessage | None:
        try:
            return _first(await self.chat_generator.run_async(prompt, generation_kwargs=options))
        except LanguageModelNeededError:
            return None

    def _thresholds_for(self, model: str | None, replies: Sequence[ChatMessage | None]) -> Thresholds:
        answered = next((reply.meta.get("model") for reply in replies if reply), None)
        # Ollama writes "qwen2.5-coder:1.5b" what a file calls "qwen2.5-coder-1.5b-instruct".
        name = str(model or answered or "").lower().replace(":", "-")
        return next((found for key, found in self._by_model.items() if key in name), self._thresholds)

    def graded(
        self,
        documents: list[Document],
        scores: Sequence[float | None],
        model: str | None,
        replies: Sequence[ChatMessage | None],
    ) -> dict[str, Any]:
        """
        Labels the documents by the thresholds of the model that was asked.

        :param documents: The documents.
        :param scores: A score for each; None where a reply could not be read.
        :param model: The model of this request, if it named one.
        :param replies: The replies, which also tell the model.
        :returns: As `grade_documents`.
        """
        return grade_documents(documents, scores, self._thresholds_for(model, replies))


@component
class LogprobGrader(ModelGrader):
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
        self.correct_threshold = correct_threshold
        self.ambiguous_threshold = ambiguous_threshold
        self.thresholds_by_model = MODEL_THRESHOLDS if thresholds_by_model is None else thresholds_by_model
        super().__init__(
            chat_generator,
            Thresholds(correct_threshold, ambiguous_threshold),
            self.thresholds_by_model,
            concurrency,
        )

    @component.output_types(documents=list[Document], grades=list[dict[str, Any]])
    def run(self, query: str, documents: list[Document], model: str | None = None) -> dict[str, Any]:
        """
        Grades documents.

        :param query: The question.
        :param documents: Documents with text and, in meta, perhaps a title.
        :param model: The language model to ask, when not the generator's own.
        :returns: `documents` that are not INCORRECT, in their order; `grades`, one for each document given.
        """
        replies = self.ask(_yes_no_prompts(query, documents), _yes_no_options(model))
        return self.graded(documents, [yes_probability(reply) for reply in replies], model, replies)

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
        replies = await self.ask_async(_yes_no_prompts(query, documents), _yes_no_options(model))
        return self.graded(documents, [yes_probability(reply) for reply in replies], model, replies)


def _yes_no_prompts(query: str, documents: list[Document]) -> list[list[ChatMessage]]:
    return [
        [
            ChatMessage.from_system(YES_NO_SYSTEM),
            ChatMessage.from_user(YES_NO_PROMPT.format(passage=passage_text(document), query=query)),
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


def passage_text(document: Document) -> str:
    """
    Writes a document as a model should read it.

    :param document: The document.
    :returns: Its title, if it has one, and its content.
    """
    title = document.meta.get("title") or ""
    return f"{title}\n{document.content or ''}".strip()


def _first(result: dict[str, Any]) -> ChatMessage | None:
    return next(iter(result.get("replies") or []), None)
