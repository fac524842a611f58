"""What making follow-up questions self-contained is worth: whether their chunk is found first, or among the best."""

import json
import os
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haystack import Document
from haystack.dataclasses import ChatMessage

from benchmarks.report import aim, console, save, show
from components.conversing import ConversationRephraser
from components.terms import STOP_WORDS
from registry import ModeRegistry
from resources import Resources
from settings import Settings

TOP_K = 5
QUESTIONS = 60
TENANT = "bench"
# Shares of the recall@1 that the questions have with their names in them.
MODEL_AIM = 0.9
FALLBACK_AIM = 0.9
# Names within a question: its first word says nothing by its capital letter.
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w-]+(?: (?:of |de |the )?[A-Z][\w-]+)*")

Questions = Callable[["FollowUp"], Awaitable[str]]


@dataclass(frozen=True)
class FollowUp:
    """A question, the one before it, and the same question with a pronoun for the name that both have."""

    first: str
    answer: str
    question: str
    with_pronoun: str
    document_id: str

    @property
    def history(self) -> list[ChatMessage]:
        """The conversation before the question."""
        return [ChatMessage.from_user(self.first), ChatMessage.from_assistant(self.answer)]


async def measure(quick: bool) -> None:
    """
    Measure, print and save.

    :param quick: fewer questions.
    """
    folder = os.environ.get("THRESHER_EVAL_DATA")
    if folder is None:
        console.print("conversation: THRESHER_EVAL_DATA is not set; nothing to measure")
        return
    follow_ups = _follow_ups(Path(folder), QUESTIONS // 3 if quick else QUESTIONS)
    with tempfile.TemporaryDirectory(prefix="thresher-bench-") as data_dir:
        # Extracts cost nothing: here only the search counts.
        settings = Settings.load(data_dir=Path(data_dir), llm_provider="extractive", top_k=TOP_K)
        with ModeRegistry(settings) as registry:
            registry.indexing["ingest"].run(TENANT, _documents(Path(folder)))
            rows = await _rows(registry, follow_ups)
    show(f"{len(follow_ups)} follow-up questions, recall@{TOP_K}", rows)
    console.print(save("conversation", rows, top_k=TOP_K, questions=len(follow_ups)))


async def _rows(registry: ModeRegistry, follow_ups: list[FollowUp]) -> list[dict[str, Any]]:
    resources = Resources(registry.settings.model_copy(update={"llm_provider": "embedded"}))
    by_model = ConversationRephraser(resources.chat_generator, resources.term_weights)
    by_words = ConversationRephraser(None, resources.term_weights)
    by_model.warm_up()

    async def named(follow_up: FollowUp) -> str:
        return follow_up.question

    async def as_is(follow_up: FollowUp) -> str:
        return follow_up.with_pronoun

    def rewritten(rephraser: ConversationRephraser) -> Questions:
        async def rewrite(follow_up: FollowUp) -> str:
            result = await rephraser.run_async(follow_up.with_pronoun, follow_up.history)
            return str(result["query"])

        return rewrite

    ways: dict[str, tuple[Questions, float | None]] = {
        "the name in it": (named, None),
        "a pronoun, as it is": (as_is, None),
        "made self-contained by the built-in model": (rewritten(by_model), MODEL_AIM),
        "without a model: names put behind it": (rewritten(by_words), FALLBACK_AIM),
    }
    rows: list[dict[str, Any]] = []
    try:
        for name, (questions, least) in ways.items():
            found = await _recall(registry, follow_ups, questions)
            ratio = found["recall@1"] / rows[0]["recall@1"] if rows else 1.0
            wanted = aim(ratio, least=least) if least else ""
            rows.append({"question": name, **found, "ratio @1": ratio, "aim": wanted})
    finally:
        await resources.close_async()
        resources.close()
    return rows


async def _recall(
    registry: ModeRegistry, follow_ups: list[FollowUp], questions: Questions
) -> dict[str, float]:
    first, among, seconds = 0, 0, 0.0
    for follow_up in follow_ups:
        begin = time.perf_counter()
        query = await questions(follow_up)
        seconds += time.perf_counter() - begin
        result = await registry["standard"].run_async(query, tenant_id=TENANT)
        found = [document.document_id for document in result.documents]
        first += follow_up.document_id in found[:1]
        among += follow_up.document_id in found
    count = len(follow_ups)
    return {"recall@1": first / count, f"recall@{TOP_K}": among / count, "s/question": seconds / count}


def _documents(folder: Path) -> list[Document]:
    return [
        Document(content=row["text"], meta={"document_id": row["doc_id"], "title": row["title"]})
        for row in _read(folder / "small" / "corpus.jsonl")
    ]


def _follow_ups(folder: Path, count: int) -> list[FollowUp]:
    """Make follow-ups of questions on one article; the larger set has more questions on the same paragraphs."""
    titles = {row["doc_id"]: row["title"] for row in _read(folder / "small" / "corpus.jsonl")}
    by_article: dict[str, list[dict[str, Any]]] = {}
    for row in _read(folder / "large" / "queries.jsonl"):
        if row["answerable"] and len(row["relevant_doc_ids"]) == 1 and row["relevant_doc_ids"][0] in titles:
            by_article.setdefault(titles[row["relevant_doc_ids"][0]], []).append(row)
    made = [pair for rows in by_article.values() for pair in _pairs(rows)]
    # The short ones: a long question says enough without the name, and is not how people ask on.
    return sorted(made, key=lambda pair: len(pair.with_pronoun))[:count]


def _pairs(rows: list[dict[str, Any]]) -> Iterator[FollowUp]:
    for number, row in enumerate(rows):
        # On another paragraph: the words of one on the same would lead there, whatever was asked.
        for first in rows[number + 1 :] + rows[:number]:
            if first["relevant_doc_ids"] == row["relevant_doc_ids"]:
                continue
            shared = sorted(
                set(_NAME.findall(row["question"])) & set(_NAME.findall(first["question"])), key=len
            )
            replaced = _with_pronoun(row["question"], shared[-1]) if shared else row["question"]
            if replaced != row["question"]:
                yield FollowUp(
                    first["question"],
                    first["answers"][0],
                    row["question"],
                    replaced,
                    row["relevant_doc_ids"][0],
                )
                break


def _with_pronoun(question: str, name: str) -> str:
    # "the Amazon rainforest" is no name followed by something else: there, a pronoun would be no English.
    # An article or an adjective before the name would be left alone in the same way.
    behind = rf"(?:('s)(?= )|(?=[?,.]|\s(?:{'|'.join(STOP_WORDS)})\b))"
    before = r"(?<!\ba )(?<!\ban )(?:\b[Tt]he )?\b"
    whole = re.compile(rf"{before}{re.escape(name)}{behind}")
    return whole.sub(lambda match: "its" if match[1] else "it", question)


def _read(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
