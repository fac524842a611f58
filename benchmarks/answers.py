"""
Quality of answers: prompt, model and answer builder on a question set, retrieval by embeddings alone.

    THRESHER_EVAL_DATA=... python -m benchmarks.answers --set dev/small --limit 30 --mode structured

The folder that THRESHER_EVAL_DATA names holds sets of `corpus.jsonl` (doc_id, title, text) and
`queries.jsonl` (question, answers, relevant_doc_ids, answerable).
"""

import argparse
import json
import os
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from haystack import Document

from components.citing import CitedAnswerBuilder, without_markers
from components.embedding import OnnxEmbeddingModel
from components.extracting import ExtractiveChatGenerator
from components.models.llama_cpp import LlamaCppChatGenerator
from components.prompting import GroundedPromptBuilder
from components.structuring import StructuredAnswerBuilder
from components.weights.catalogue import CATALOGUE, DEFAULT_LLM

MODELS = Path(os.environ.get("MODELS_DIR") or platformdirs.user_cache_path("thresher") / "models")
SHOWN = ("contained", "f1", "cites_gold", "quote_holds_answer", "refused", "confidence", "tokens", "seconds")


def main() -> None:
    """Answer questions of a set and print the means of what was measured, answerable and not."""
    arguments = parsed()
    folder = Path(os.environ["THRESHER_EVAL_DATA"]) / arguments.set
    corpus, queries = (read(folder / f"{name}.jsonl") for name in ("corpus", "queries"))
    random.Random(arguments.seed).shuffle(queries)
    embedder = OnnxEmbeddingModel(MODELS / "minilm-tokenizer.json")
    vectors = embedder.encode([f"{row['title']}\n{row['text'][:1000]}" for row in corpus])
    generator = chat_generator(arguments)
    for answerable in (True, False):
        rows = [
            measured(query, retrieved(query, corpus, vectors, embedder, arguments.k), generator, arguments)
            for query in [query for query in queries if query["answerable"] is answerable][: arguments.limit]
        ]
        if rows:
            means = "  ".join(f"{name} {np.mean([row[name] for row in rows]):.3f}" for name in SHOWN)
            print(f"{'answerable' if answerable else 'unanswerable':12} n {len(rows)}  {means}", flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", default="dev/small")
    parser.add_argument("--limit", type=int, default=30, help="questions of each kind")
    parser.add_argument("--mode", choices=["cited", "structured", "extractive"], default="cited")
    parser.add_argument("--model", type=Path, help="a GGUF file")
    parser.add_argument("-k", type=int, default=5, help="passages for each question")
    parser.add_argument("--chars", type=int, default=1600, help="characters of passages in a prompt")
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def chat_generator(arguments: argparse.Namespace) -> Any:
    if arguments.mode == "extractive":
        return ExtractiveChatGenerator()
    path = arguments.model or MODELS / CATALOGUE[DEFAULT_LLM].file_name
    return LlamaCppChatGenerator(str(path), n_parallel=1, timeout=600)


def retrieved(
    query: dict[str, Any], corpus: list[dict[str, Any]], vectors: Any, embedder: OnnxEmbeddingModel, k: int
) -> list[Document]:
    scores = vectors @ embedder.encode([query["question"]])[0]
    return [
        Document(
            content=corpus[i]["text"][:1000],
            score=float(scores[i]),
            meta={"document_id": corpus[i]["doc_id"], "title": corpus[i]["title"], "start": 0},
        )
        for i in np.argsort(-scores)[:k]
    ]


def measured(
    query: dict[str, Any], documents: list[Document], generator: Any, arguments: argparse.Namespace
) -> dict[str, float]:
    """Answer one question and measure the result."""
    question = query["question"]
    structured = arguments.mode == "structured"
    prompter = GroundedPromptBuilder(
        max_context_chars=arguments.chars, **({"instructions": ""} if structured else {})
    )
    started = time.perf_counter()
    messages = prompter.run(query=question, documents=documents)["messages"]
    if structured:
        result = StructuredAnswerBuilder(generator).run(
            messages=messages, documents=documents, query=question
        )
    else:
        replies = generator.run(messages, generation_kwargs={"max_tokens": 300})["replies"]
        result = CitedAnswerBuilder().run(replies=replies, documents=documents, query=question)
    answer = without_markers(result["answer"])
    citations = result["citations"]
    return {
        "contained": any(holds(answer, gold) for gold in query["answers"]),
        "f1": max((f1(answer, gold) for gold in query["answers"]), default=0.0),
        "cites_gold": any(citation["document_id"] in query["relevant_doc_ids"] for citation in citations),
        "quote_holds_answer": any(holds(c["quote"], gold) for c in citations for gold in query["answers"]),
        "refused": result["cannot_answer"],
        "confidence": result["confidence"],
        "tokens": result["usage"].get("total_tokens", 0),
        "seconds": time.perf_counter() - started,
    }


def folded(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.lower()) if word not in ("a", "an", "the")]


def holds(text: str, gold: str) -> bool:
    return f" {' '.join(folded(gold))} " in f" {' '.join(folded(text))} "


def f1(text: str, gold: str) -> float:
    said, wanted = Counter(folded(text)), Counter(folded(gold))
    common = (said & wanted).total()
    return 2 * common / (said.total() + wanted.total()) if common else 0.0


if __name__ == "__main__":
    main()
