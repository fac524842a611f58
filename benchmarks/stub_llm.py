"""A model server that computes nothing: it answers after a set time, in OpenAI's and in Ollama's protocol.

    python -m benchmarks.stub_llm --fd 3 --latency-ms 50

`POST /stub?latency_ms=50` sets the time and zeroes the counters, and with `&token_ms=20` also the time between the
words of a stream; `GET /stub` gives `calls` and `aborted`, the calls whose client went away before the answer.
"""

import argparse
import asyncio
import re
import socket
from typing import Any
from urllib.parse import parse_qs

import orjson
import uvicorn

MODEL = "stub"
_FIRST_SENTENCE = re.compile(r"\[1\] ([^.]*\. )?([^.]*)\.")
_JSON_HEAD = [(b"content-type", b"application/json")]


class StubLLM:
    """The server as an ASGI application."""

    def __init__(self, latency_ms: float = 0.0, token_ms: float = 0.0) -> None:
        """
        Set how long a call takes.

        :param latency_ms: milliseconds until the answer, or its first word.
        :param token_ms: milliseconds from word to word in a stream.
        """
        self.seconds = latency_ms / 1000
        self.token_seconds = token_ms / 1000
        self.calls = 0
        self.aborted = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """
        Handle one request.

        :param scope: the ASGI scope.
        :param receive: gives the request's messages.
        :param send: takes the response's messages.
        """
        path, body, more = scope["path"], b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if path in ("/v1/chat/completions", "/api/chat"):
            self.calls += 1
            if self.seconds and await self._left(receive):
                self.aborted += 1
                return
            request, openai = orjson.loads(body), path.startswith("/v1")
            reply = _reply(request, openai)
            if request.get("stream"):
                await self._stream(_pieces(reply, openai), send)
                return
        else:
            reply = self._about(path, scope)
        sent = orjson.dumps(reply)
        head = [*_JSON_HEAD, (b"content-length", str(len(sent)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": sent})

    async def _stream(self, pieces: list[bytes], send: Any) -> None:
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(self.token_seconds)
        await send({"type": "http.response.body", "body": b""})

    async def _left(self, receive: Any) -> bool:
        gone = asyncio.ensure_future(receive())
        done, _ = await asyncio.wait([gone], timeout=self.seconds)
        gone.cancel()
        return bool(done)

    def _about(self, path: str, scope: Any) -> dict[str, Any]:
        if path == "/stub":
            if scope["method"] == "POST":
                options = parse_qs(scope["query_string"].decode())
                token_ms = float(options.get("token_ms", ["0"])[0])
                self.__init__(float(options["latency_ms"][0]), token_ms)  # type: ignore[misc]
            return {"calls": self.calls, "aborted": self.aborted}
        if path == "/v1/models":
            return {
                "object": "list",
                "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "stub"}],
            }
        return {"models": [{"name": f"{MODEL}:latest", "model": f"{MODEL}:latest"}], "version": "0.12.0"}


def _reply(request: dict[str, Any], openai: bool) -> dict[str, Any]:
    text = _text(request)
    usage = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}
    logprobs = [_token(text)] if request.get("logprobs") else None
    if not openai:
        counts = {"prompt_eval_count": 1000, "eval_count": 20, "done": True, "done_reason": "stop"}
        return {
            "model": MODEL,
            "created_at": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": text},
            "logprobs": logprobs,
            **counts,
        }
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": logprobs} if logprobs else None,
    }
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [choice],
        "usage": usage,
    }


def _pieces(reply: dict[str, Any], openai: bool) -> list[bytes]:
    """Part a reply into those of a stream, one a word, and an end."""
    message = reply["choices"][0]["message"] if openai else reply["message"]
    words = re.findall(r"\S+\s*", message["content"])
    if not openai:
        head = {"model": MODEL, "created_at": reply["created_at"], "done": False}
        parts = [{**head, "message": {"role": "assistant", "content": word}} for word in words]
        end = {**reply, "message": {"role": "assistant", "content": ""}}
        return [orjson.dumps(part) + b"\n" for part in [*parts, end]]
    head = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": MODEL}
    deltas: list[tuple[dict[str, str], str | None]] = [({"content": word}, None) for word in words]
    deltas.append(({}, "stop"))
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in deltas
    ]
    chunks.append({**head, "choices": [], "usage": reply["usage"]})
    return [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]


def _token(text: str) -> dict[str, Any]:
    top = [
        {"token": text[:3], "logprob": -0.1, "bytes": None},
        {"token": "no", "logprob": -2.4, "bytes": None},
    ]
    return {"token": text[:3], "logprob": -0.1, "bytes": None, "top_logprobs": top}


def _text(request: dict[str, Any]) -> str:
    """Answer as a model would: a yes to a grader, else the second sentence of the first passage, in JSON if wanted."""
    limit = request.get("max_tokens") or request.get("options", {}).get("num_predict")
    form = request.get("response_format") or request.get("format")
    if limit == 1:
        return "yes"
    found = _FIRST_SENTENCE.search(request["messages"][-1]["content"])
    sentence = found[2].strip() if found else "Nothing"
    if not form:
        return f"{sentence} [1]."
    if "score" in orjson.dumps(form).decode():
        return '{"score": 0.9}'
    answer = {
        "answer": sentence,
        "citations": [1],
        "cannot_answer": False,
        "reasoning": "The passage says so.",
    }
    return orjson.dumps(answer).decode()


def main() -> None:
    """Serve on a socket that the caller has bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of a bound socket")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="how long a call takes")
    options = parser.parse_args()
    config = uvicorn.Config(
        StubLLM(options.latency_ms), log_level="warning", access_log=False, lifespan="off"
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=options.fd)])


if __name__ == "__main__":
    main()
