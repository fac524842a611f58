"""Texts and questions: the same ones in every run and in both systems that are compared."""

import json
import os
import random
from functools import cache
from pathlib import Path
from typing import Any

VOCABULARY_SIZE = 4_000
WORDS_IN_TEXT = 150
SENTENCE_WORDS = 15
MADE_UP = "made up"
_SYLLABLES = [
    "ba",
    "co",
    "di",
    "fu",
    "ga",
    "he",
    "jo",
    "ki",
    "lu",
    "me",
    "no",
    "pa",
    "ri",
    "so",
    "tu",
    "va",
    "wo",
    "xe",
    "yi",
    "zu",
]


@cache
def vocabulary() -> list[str]:
    """:returns: Words that no language has."""
    chosen = random.Random(1)
    return ["".join(chosen.choices(_SYLLABLES, k=chosen.randint(2, 4))) for _ in range(VOCABULARY_SIZE)]


def texts(count: int, seed: int = 2) -> list[str]:
    """
    Make texts that stay below one chunk, about 900 characters each.

    :param count: how many.
    :param seed: other texts for another seed.
    :returns: the texts, all different.
    """
    chosen = random.Random(seed)
    return [_text(chosen, number) for number in range(count)]


def questions(about: list[str], count: int = 200) -> list[str]:
    """
    Make questions, each from words of one text.

    :param about: the texts.
    :param count: how many.
    :returns: the questions.
    """
    chosen = random.Random(3)
    return [f"What about {' '.join(chosen.sample(chosen.choice(about).split(), 6))}?" for _ in range(count)]


def documents(corpus: str, count: int) -> list[dict[str, Any]]:
    """
    Give documents to ingest.

    :param corpus: "made up", or a folder of `THRESHER_EVAL_DATA` with a `corpus.jsonl`.
    :param count: how many at most.
    :returns: documents as `POST /ingest/` takes them.
    """
    if corpus == MADE_UP:
        return [{"id": f"text-{number}", "text": text} for number, text in enumerate(texts(count))]
    with (Path(os.environ["THRESHER_EVAL_DATA"]) / corpus / "corpus.jsonl").open(encoding="utf-8") as lines:
        entries = [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]
    return [{"id": entry["doc_id"], "title": entry["title"], "text": entry["text"]} for entry in entries]


def corpora() -> list[str]:
    """:returns: The corpora that are there: made-up texts, and those of `THRESHER_EVAL_DATA`."""
    folder = os.environ.get("THRESHER_EVAL_DATA")
    found = [
        name for name in ("medquad", "large") if folder and (Path(folder) / name / "corpus.jsonl").is_file()
    ]
    return [MADE_UP, *found]


def _text(chosen: random.Random, number: int) -> str:
    words = chosen.choices(vocabulary(), k=WORDS_IN_TEXT)
    sentences = [words[start : start + SENTENCE_WORDS] for start in range(0, WORDS_IN_TEXT, SENTENCE_WORDS)]
    body = " ".join(" ".join(sentence).capitalize() + "." for sentence in sentences)
    return f"Record {number}. {body}"[:990]
