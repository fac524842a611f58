"""Measures the graders on judged data and fits the evidence grader's coefficients.

    THRESHER_EVAL_DATA=.../dev python benchmarks/grading.py
    THRESHER_EVAL_DATA=.../dev python benchmarks/grading.py --llm MODEL.gguf --sample 60

Prints tables and writes benchmarks/results/grading.json (with --llm: grading-llm.json). docs/grading.md says
what the numbers mean.
"""

import argparse
import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from haystack import Document

sys.path.insert(0, str(Path(__file__).parents[1]))

from components.embedding import OnnxEmbeddingModel
from components.evidence import Evidence, EvidenceReader, Passage
from components.grading import EvidenceGrader, score_evidence
from components.llm_grading import LogprobGrader
from components.sentences import split_sentences

RESULTS = Path(__file__).parent / "results"
CHUNK_CHARS = 1000
TOP_K = 5
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4)


@dataclass
class Graded:
    """A question beside a chunk: what is known of it and what was measured."""

    source: str
    question_id: str
    group: str  # never on both sides of a fold
    kind: str
    relevant: bool | None  # None: neither, such as one of two documents needed
    evidence: Evidence

    @property
    def features(self) -> list[float]:
        """What the logistic regression reads."""
        return [self.evidence.coverage, self.evidence.window, self.evidence.similarity or 0.0]


def read(path: Path) -> list[dict[str, Any]]:
    """Reads a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def chunks(text: str) -> Iterable[str]:
    """Packs sentences into chunks of about 1000 characters."""
    start = end = 0
    for sentence_start, sentence_end in split_sentences(text):
        if end and sentence_end - start > CHUNK_CHARS:
            yield text[start:end]
            start = sentence_start
        end = sentence_end
    yield text[start:end]


def judged_pairs(data: Path, reader: EvidenceReader) -> list[Graded]:
    """Measures the pairs of grader/pairs.jsonl."""
    labels = {"relevant": True, "irrelevant": False, "partial": None}
    return [
        Graded(
            source="pairs",
            question_id=pair["pair_id"],
            group=pair["title"],
            kind=pair["kind"],
            relevant=labels[pair["label"]],
            evidence=reader.measure(pair["question"], [Passage(pair["text"], pair["title"])])[0],
        )
        for pair in read(data / "grader" / "pairs.jsonl")
    ]


def retrieved(data: Path, name: str, model: OnnxEmbeddingModel, reader: EvidenceReader) -> list[Graded]:
    """Retrieves the five closest chunks for each question of a set and measures them."""
    corpus = [(row, chunk) for row in read(data / name / "corpus.jsonl") for chunk in chunks(row["text"])]
    questions = read(data / name / "queries.jsonl")
    vectors = model.encode([f"{row['title']}\n{chunk}" for row, chunk in corpus])
    similarities = model.encode([question["question"] for question in questions]) @ vectors.T
    graded = []
    for question, row_of_similarities in zip(questions, similarities, strict=True):
        found = [corpus[index] for index in np.argsort(-row_of_similarities)[:TOP_K]]
        passages = [Passage(chunk, row["title"]) for row, chunk in found]
        measured = reader.measure(question["question"], passages)
        for (row, chunk), evidence in zip(found, measured, strict=True):
            graded.append(
                Graded(
                    source=name,
                    question_id=question["query_id"],
                    group=row["title"] if name == "small" else question["query_id"],
                    kind=question["kind"],
                    relevant=is_relevant(question, row["doc_id"], chunk),
                    evidence=evidence,
                )
            )
    return graded


def is_relevant(question: dict[str, Any], document_id: str, chunk: str) -> bool | None:
    """Tells whether a chunk should be kept for a question; None where the data can't say."""
    has_answer = any(answer.lower() in chunk.lower() for answer in question["answers"])
    if document_id in question["relevant_doc_ids"]:
        return True if has_answer or len(question["relevant_doc_ids"]) > 1 else None
    near = document_id in question.get("near_doc_ids", ()) and question["kind"].startswith("one_hop")
    return None if has_answer or near else False


def fit(features: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Fits a logistic regression by Newton's method, regularised; the intercept comes last."""
    center, spread = features.mean(axis=0), features.std(axis=0)
    rows = np.c_[(features - center) / spread, np.ones(len(features))]
    penalty = np.diag([1e-2] * features.shape[1] + [0.0])
    weights = np.zeros(rows.shape[1])
    for _ in range(30):
        probability = 1 / (1 + np.exp(-rows @ weights))
        gradient = rows.T @ (probability - relevant) / len(rows) + penalty @ weights
        curvature = (rows * (probability * (1 - probability))[:, None]).T @ rows / len(rows) + penalty
        weights -= np.linalg.solve(curvature, gradient)
    slopes = weights[:-1] / spread
    return np.r_[slopes, weights[-1] - slopes @ center]


def cross_validated(items: list[Graded], columns: list[int]) -> np.ndarray:
    """Scores each item by a fit on the other four fifths of the groups."""
    features = np.array([item.features for item in items])[:, columns]
    relevant = np.array([bool(item.relevant) for item in items], dtype=float)
    known = np.array([item.relevant is not None for item in items])
    groups = sorted({item.group for item in items})
    random.Random(0).shuffle(groups)
    fold = np.array([groups.index(item.group) % 5 for item in items])
    scores = np.zeros(len(items))
    for number in range(5):
        train, test = known & (fold != number), fold == number
        weights = fit(features[train], relevant[train])
        scores[test] = 1 / (1 + np.exp(-np.c_[features[test], np.ones(test.sum())] @ weights))
    return scores


def auc(positive: Iterable[float], negative: Iterable[float]) -> float:
    """Share of pairs of one positive and one negative that the score puts in order."""
    high, low = np.array(list(positive))[:, None], np.array(list(negative))[None]
    return float((high > low).mean() + (high == low).mean() / 2)


def pair_table(items: list[Graded], scores: Iterable[float], threshold: float) -> dict[str, float]:
    """Sums up the judged pairs: AUC against each other kind, and accuracy at a threshold."""
    by_kind = defaultdict(list)
    right = []
    for item, score in zip(items, scores, strict=True):
        if item.source == "pairs":
            by_kind[item.kind].append(score)
            if item.relevant is not None:
                right.append((score >= threshold) == item.relevant)
    gold = by_kind.pop("gold_paragraph")
    table = {f"AUC {kind}": round(auc(gold, others), 3) for kind, others in sorted(by_kind.items())}
    return table | {"accuracy": round(float(np.mean(right)), 3)}


def question_table(items: list[Graded], scores: Iterable[float]) -> dict[str, dict[str, float]]:
    """Says for each set, kind and threshold what share of questions is left without a chunk."""
    best: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    gold: dict[str, list[float]] = defaultdict(list)
    for item, score in zip(items, scores, strict=True):
        if item.source != "pairs":
            kind = f"{item.source} {item.kind}"
            best[kind][item.question_id] = max(best[kind][item.question_id], score)
            if item.relevant:
                gold[kind].append(score)
    table: dict[str, dict[str, float]] = {}
    for kind, questions in best.items():
        row: dict[str, float] = {"questions": len(questions)}
        for cut in THRESHOLDS:
            row[f"emptied<{cut}"] = round(float(np.mean([score < cut for score in questions.values()])), 3)
            if gold[kind]:
                row[f"gold kept>={cut}"] = round(float(np.mean([score >= cut for score in gold[kind]])), 3)
        table[kind] = row
    return table


def measure_llm(data: Path, path: Path, sample: int, embedding_model: OnnxEmbeddingModel) -> dict[str, Any]:
    """Compares the yes-or-no grader with the evidence grader on a sample of the judged pairs."""
    from components.models.llama_cpp import LlamaCppChatGenerator

    by_kind = defaultdict(list)
    for pair in read(data / "grader" / "pairs.jsonl"):
        by_kind[pair["kind"]].append(pair)
    generator = LlamaCppChatGenerator(str(path), n_parallel=1, timeout=600)
    graders: dict[str, Any] = {"llm": LogprobGrader(generator), "evidence": EvidenceGrader(embedding_model)}
    scores: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in graders}
    seconds: dict[str, float] = defaultdict(float)
    for grader in graders.values():
        grader.warm_up()
    for kind, pairs in by_kind.items():
        for pair in random.Random(1).sample(pairs, min(len(pairs), sample // 4)):
            document = Document(content=pair["text"], meta={"title": pair["title"]})
            for name, grader in graders.items():
                begin = time.perf_counter()
                scores[name][kind].append(grader.run(pair["question"], [document])["grades"][0]["score"])
                seconds[name] += time.perf_counter() - begin
    generator.close()
    return {name: _summary(by, seconds[name]) for name, by in scores.items()}


def _summary(by_kind: dict[str, list[float]], seconds: float) -> dict[str, float]:
    gold = by_kind["gold_paragraph"]
    others = by_kind["same_article_no_answer"] + by_kind["other_article"]
    cuts = {cut: np.mean([s >= cut for s in gold] + [s < cut for s in others]) for cut in (*gold, *others)}
    best = max(cuts, key=lambda cut: cuts[cut])
    table = {
        f"AUC {kind}": round(auc(gold, by_kind[kind]), 3) for kind in by_kind if kind != "gold_paragraph"
    }
    count = sum(map(len, by_kind.values()))
    return table | {
        "pairs": count,
        "best accuracy": round(float(cuts[best]), 3),
        "at": round(best, 3),
        "seconds each": round(seconds / count, 3),
    }


def collect(data: Path, model: OnnxEmbeddingModel) -> tuple[list[Graded], float]:
    """Measures the evidence of all pairs and retrieved chunks; also says the CPU milliseconds for each."""
    reader = EvidenceReader(model, remembered=0)
    begin = time.process_time()
    pairs = judged_pairs(data, reader)
    milliseconds = (time.process_time() - begin) / len(pairs) * 1000
    sets = ("small", "multihop", "longdocs")
    return pairs + [item for name in sets for item in retrieved(data, name, model, reader)], milliseconds


def summarise(items: list[Graded], milliseconds: float) -> dict[str, Any]:
    """Fits, cross-validates and applies the evidence grader."""
    training = [item for item in items if item.source != "longdocs"]
    known = [item for item in training if item.relevant is not None]
    relevant = np.array([bool(item.relevant) for item in known], dtype=float)
    features = np.array([item.features for item in known])
    built_in = [score_evidence(item.evidence) for item in items]
    terms_only = [score_evidence(Evidence(i.evidence.coverage, i.evidence.window, None)) for i in items]
    validated = cross_validated(training, [0, 1, 2])
    threshold = EvidenceGrader().correct_threshold
    return {
        "coefficients (coverage, window, similarity, intercept)": fit(features, relevant).round(2).tolist(),
        "coefficients without similarity": fit(features[:, :2], relevant).round(2).tolist(),
        "cross-validated": pair_table(training, validated, threshold),
        "cross-validated without similarity": pair_table(
            training, cross_validated(training, [0, 1]), threshold
        ),
        "coverage alone": pair_table(items, [item.evidence.coverage for item in items], 0.55),
        "as built in": pair_table(items, built_in, threshold),
        "questions": question_table(items, built_in),
        "questions, cross-validated": question_table(training, validated),
        "questions, terms only": question_table(items, terms_only),
        "CPU ms for each chunk": round(milliseconds, 1),
    }


def show(value: Any, indent: str = "") -> None:
    """Prints nested results readably."""
    for key, item in value.items():
        if isinstance(item, dict) and any(isinstance(inner, dict) for inner in item.values()):
            print(f"{indent}{key}")
            show(item, indent + "  ")
        elif isinstance(item, dict):
            print(f"{indent}{key}: " + "  ".join(f"{name} {number}" for name, number in item.items()))
        else:
            print(f"{indent}{key}: {item}")


def main() -> None:
    """Measures what the command line asks for."""
    models = Path(os.environ.get("MODELS_DIR") or platformdirs.user_cache_path("thresher") / "models")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llm", help="a GGUF file in the models directory: measure the yes-or-no grader")
    parser.add_argument("--sample", type=int, default=60, help="how many pairs to ask the model about")
    arguments = parser.parse_args()
    if not os.environ.get("THRESHER_EVAL_DATA"):
        sys.exit("set THRESHER_EVAL_DATA to the folder that holds grader/, small/, multihop/ and longdocs/")
    data = Path(os.environ["THRESHER_EVAL_DATA"])
    model = OnnxEmbeddingModel(models / "minilm-tokenizer.json")
    if arguments.llm:
        results = measure_llm(data, models / arguments.llm, arguments.sample, model)
    else:
        results = summarise(*collect(data, model))
    show(results)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / ("grading-llm.json" if arguments.llm else "grading.json")
    target.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
