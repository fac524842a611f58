"""Grading by a score that a language model writes as JSON."""

import json
import math
from typing import Any, Literal

from haystack import Document, component
from haystack.dataclasses import ChatMessage

from components.asking import ConcurrentCalls
from components.framing import Frame, plain_line
from components.grading import Thresholds, grade_documents
from components.llm_grading import ModelThresholds, framed_passage, passage_text

SYSTEM = "You judge how well passages answer a question. Reply with JSON only."
ONE_PROMPT = (
    "Passage:\n{passage}\n\nQuestion: {query}\n\n"
    'Reply {{"score": s}} with s from 0 (the passage does not help) to 1 (it holds the answer).'
)
ALL_PROMPT = (
    "{passages}\n\nQuestion: {query}\n\n"
    'Reply {{"scores": [...]}} with one number for each of the {count} passages, in their order, '
    "from 0 (the passage does not help) to 1 (it holds the answer)."
)
SCORE = {"type": "number", "minimum": 0, "maximum": 1}


@component
class JsonScoreGrader:
    """
    Asks a language model to write a score from 0 to 1 for each document.

    Any chat model can do this, and large ones do it well; of a small one read the log-probabilities instead
    (`LogprobGrader`): it writes 1.0 for nearly everything. A score that can't be read is AMBIGUOUS.

    ### Usage example
    ```python
    grader = JsonScoreGrader(chat_generator, mode="one_call")
    grades = grader.run(query="How deep is the lake?", documents=documents)["grades"]
    ```
    """

    def __init__(
        self,
        chat_generator: Any,
        mode: Literal["concurrent", "one_call"] = "concurrent",
        correct_threshold: float = 0.7,
        ambiguous_threshold: float = 0.3,
        thresholds_by_model: dict[str, dict[str, float]] | None = None,
        concurrency: int = 8,
    ) -> None:
        """
        Stores the parameters.

        :param chat_generator: A Haystack ChatGenerator that takes `generation_kwargs`.
        :param mode: "concurrent": one call for each document, at the same time. "one_call": all documents in
            one prompt, for a server that answers one call after another.
        :param correct_threshold: CORRECT from this score on.
        :param ambiguous_threshold: AMBIGUOUS from this score on, INCORRECT and dropped below.
        :param thresholds_by_model: Part of a model's name → `correct` and `ambiguous`.
        :param concurrency: How many documents of one question are asked about at the same time.
        :raises ValueError: If thresholds are not in order between 0 and 1, or `mode` is another.
        """
        if mode not in ("concurrent", "one_call"):
            raise ValueError(f"mode is 'concurrent' or 'one_call', got {mode!r}")
        self.chat_generator = chat_generator
        self.mode = mode
        self.correct_threshold = correct_threshold
        self.ambiguous_threshold = ambiguous_threshold
        self.thresholds_by_model = thresholds_by_model or {}
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
        prompts, options = self._prompts(query, documents, model)
        replies = self._calls.run(prompts, options)
        return self._grades(documents, replies, model)

    @component.output_types(documents=list[Document], grades=list[dict[str, Any]])
    async def run_async(
        self, query: str, documents: list[Document], model: str | None = None
    ) -> dict[str, Any]:
        """
        Grades documents without blocking the event loop.

        :param query: The question.
        :param documents: Documents with text and, in meta, perhaps a title.
        :param model: The language model to ask, when not the generator's own.
        :returns: As `run`.
        """
        prompts, options = self._prompts(query, documents, model)
        replies = await self._calls.run_async(prompts, options)
        return self._grades(documents, replies, model)

    def _prompts(
        self, query: str, documents: list[Document], model: str | None
    ) -> tuple[list[list[ChatMessage]], dict[str, Any]]:
        if not documents:
            return [], {}
        question = plain_line(query)
        if self.mode == "one_call":
            passages = list(map(passage_text, documents))
            frame = Frame(*passages)
            framed = "\n\n".join(
                frame.around("passage", text, number) for number, text in enumerate(passages, 1)
            )
            texts = [ALL_PROMPT.format(passages=framed, query=question, count=len(documents))]
            schema = _object("scores", _list_of(SCORE, len(documents)))
        else:
            texts = [
                ONE_PROMPT.format(passage=framed_passage(document), query=question) for document in documents
            ]
            schema = _object("score", SCORE)
        options: dict[str, Any] = {
            "max_tokens": 16 + 8 * len(documents),
            "temperature": 0.0,
            "response_format": {"type": "json_schema", "json_schema": {"name": "grade", "schema": schema}},
        }
        prompts = [[ChatMessage.from_system(SYSTEM), ChatMessage.from_user(text)] for text in texts]
        return prompts, options | ({"model": model} if model else {})

    def _grades(
        self, documents: list[Document], replies: list[ChatMessage | None], model: str | None
    ) -> dict[str, Any]:
        scores = self._scores(replies, len(documents))
        return grade_documents(documents, scores, self._thresholds.of(model, replies))

    def _scores(self, replies: list[ChatMessage | None], count: int) -> list[float | None]:
        if self.mode == "one_call" and replies:
            written = read_json(replies[0]).get("scores")
            scores = written if isinstance(written, list) else []
            # Too few or too many: nobody can say which score belongs to which document.
            return [_score(value) for value in scores] if len(scores) == count else [None] * count
        return [_score(read_json(reply).get("score")) for reply in replies]


def read_json(reply: ChatMessage | None) -> dict[str, Any]:
    """
    Reads the JSON object in a reply, also one in a code fence or after a sentence.

    :param reply: The reply.
    :returns: The object; an empty one when there is none.
    """
    text = (reply.text if reply else None) or ""
    try:
        value = json.loads(text[max(text.find("{"), 0) : text.rfind("}") + 1])
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _score(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and 0 <= value <= 1 else None


def _object(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: schema},
        "required": [name],
        "additionalProperties": False,
    }


def _list_of(schema: dict[str, Any], count: int) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": count, "maxItems": count}
