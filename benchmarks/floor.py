"""The floor: the same answers by hand, without Haystack, FastAPI, checked citations or any error handling.

Starlette, Chroma in the process with four threads, a raw client with kept connections, grades asked all at once.
"""

import argparse
import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from math import exp
from pathlib import Path
from typing import Any

import chromadb
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.clock import CPUClock
from benchmarks.hashing import embed, embed_all
from benchmarks.raw_http import RawClient
from benchmarks.stub_llm import MODEL
from components.llm_grading import YES_NO_PROMPT, YES_NO_SYSTEM
from components.prompting import INSTRUCTIONS, SYSTEM_PROMPT
from components.structured_data import ASKED_SCHEMA

TOP_K = 5
# As many as the service's search gives to rank.
CANDIDATES = 20
THREADS = 4
_SCHEMA_TEXT = orjson.dumps(ASKED_SCHEMA).decode()


class Floor:
    """What the floor's routes use."""

    def __init__(self, folder: Path, llm_port: int) -> None:
        """
        Open the database.

        :param folder: where it is; empty at first.
        :param llm_port: where the model server is.
        """
        client = chromadb.PersistentClient(str(folder), chromadb.config.Settings(anonymized_telemetry=False))
        self.collection = client.get_or_create_collection(
            "chunks", metadata={"hnsw:space": "cosine"}, embedding_function=None
        )
        self.threads = ThreadPoolExecutor(THREADS)
        self.llm = RawClient(llm_port)

    async def health(self, request: Request) -> Response:
        """Say that the process is alive."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def fill(self, request: Request) -> Response:
        """Write texts."""
        texts = orjson.loads(await request.body())["texts"]
        await asyncio.get_running_loop().run_in_executor(self.threads, fill, self.collection, texts)
        return Response(b"{}", media_type="application/json")

    async def query(self, request: Request) -> Response:
        """Answer a question."""
        question, mode = orjson.loads(await request.body())["q"], request.query_params["mode"]
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self.threads, self._search, embed(question))
        passages = found["documents"][0][:TOP_K]
        if mode.startswith("crag"):
            scores = await asyncio.gather(*(self._grade(question, passage) for passage in passages))
            passages = [passage for passage, score in zip(passages, scores, strict=True) if score >= 0.5]
        answer = await self._answer(question, passages, structured=mode == "structured")
        body = orjson.dumps({"answer": answer, "ids": found["ids"][0][:TOP_K], "documents": passages})
        return Response(body, media_type="application/json")

    def _search(self, vector: Any) -> Any:
        return self.collection.query(
            query_embeddings=[vector], n_results=CANDIDATES, include=["documents", "metadatas", "distances"]
        )

    async def _grade(self, question: str, passage: str) -> float:
        prompt = YES_NO_PROMPT.format(passage=passage, query=question)
        choice = await self._ask(YES_NO_SYSTEM, prompt, max_tokens=1, logprobs=True, top_logprobs=20)
        top = choice["logprobs"]["content"][0]["top_logprobs"]
        yes, no = (
            sum(exp(t["logprob"]) for t in top if t["token"].strip().lower() == w) for w in ("yes", "no")
        )
        return yes / (yes + no)

    async def _answer(self, question: str, passages: list[str], structured: bool) -> Any:
        body = "\n\n".join(f"[{number}] {passage}" for number, passage in enumerate(passages, start=1))
        prompt = f"<passages>\n{body}\n</passages>\n\nQuestion: {question}"
        if not structured:
            choice = await self._ask(SYSTEM_PROMPT, f"{prompt}\n\n{INSTRUCTIONS}", max_tokens=300)
            return choice["message"]["content"]
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": ASKED_SCHEMA}}
        system = f"{SYSTEM_PROMPT}\n{_SCHEMA_TEXT}"
        choice = await self._ask(system, prompt, max_tokens=300, logprobs=True, response_format=form)
        return orjson.loads(choice["message"]["content"])

    async def _ask(self, system: str, prompt: str, **options: Any) -> Any:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        body = orjson.dumps({"model": MODEL, "messages": messages, "temperature": 0, **options})
        _, answer = await self.llm.send("POST", "/v1/chat/completions", body)
        return orjson.loads(answer)["choices"][0]


def fill(collection: Any, texts: list[str], batch_size: int = 256) -> None:
    """
    Embed texts and write them in batches.

    :param collection: a Chroma collection.
    :param texts: the texts.
    :param batch_size: how many in one call.
    """
    for start in range(0, len(texts), batch_size):
        part = texts[start : start + batch_size]
        ids = [f"{start + place:064d}" for place in range(len(part))]
        metas = [{"document_id": key, "title": "", "start": 0} for key in ids]
        collection.upsert(ids=ids, documents=part, embeddings=embed_all(part), metadatas=metas)


def main() -> None:
    """Serve on a socket that the caller has bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of a bound socket")
    parser.add_argument("--data", type=Path, required=True, help="directory of the database")
    parser.add_argument("--llm-port", type=int, required=True, help="port of the stub model server")
    options = parser.parse_args()
    floor = Floor(options.data, options.llm_port)
    routes = [
        Route("/query/", floor.query, methods=["POST"]),
        Route("/fill", floor.fill, methods=["POST"]),
        Route("/health", floor.health),
    ]
    app = CPUClock(Starlette(routes=routes))
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=options.fd)])


if __name__ == "__main__":
    main()
