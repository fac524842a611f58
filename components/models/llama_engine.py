"""A model file loaded once by llama.cpp, and the threads that generate with it."""

import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.models.errors import (
    ContextLengthExceededError,
    InvalidGenerationError,
    ModelLoadError,
    ModelRequestError,
)
from components.threads import ContextThreads

logger = logging.getLogger(__name__)

# Prompt tokens decoded at a time. A sequence can only be cancelled between two batches, so a small one frees its slot
# soon and lets other sequences go on. On two cores the larger model takes 0.4 s for 32, and 64 would save 6 % of the
# time for each token (512 no more than 64).
BATCH_TOKENS = 32
MAX_THREADS = 8


@dataclass(frozen=True)
class EngineConfig:
    """What tells one loaded model from another: the file, tokens and number of its slots, threads."""

    model_path: str
    n_ctx: int
    n_parallel: int
    n_threads: int


@dataclass
class Completion:
    """What the model generated."""

    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def add(self, chunk: dict[str, Any]) -> str:
        """
        Take in one chunk of the stream.

        :param chunk: An OpenAI `chat.completion.chunk`.
        :returns: The text that it adds.
        """
        self.usage = chunk.get("usage") or self.usage
        text = ""
        for choice in chunk.get("choices") or ():
            text += choice.get("delta", {}).get("content") or ""
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            self.logprobs += (choice.get("logprobs") or {}).get("content") or ()
        self.text += text
        return text


class Generation:
    """
    One request on its way: wait for `done`, or `cancel()`.

    :param payload: The body of an OpenAI chat completion.
    :param on_text: Called with each piece of text, in the engine's thread.
    """

    done: "Future[Completion]"

    def __init__(self, payload: dict[str, Any], on_text: Callable[[str], None] | None) -> None:
        self.payload = payload
        self.completion = Completion()
        self.failure: BaseException | None = None
        self._on_text = on_text
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop before the start, or at the next token or prompt batch. What is finished stays so."""
        self._cancelled.set()
        self.done.cancel()

    def take(self, chunk: dict[str, Any]) -> bool:
        """
        Take in what llama.cpp hands over; it swallows exceptions, so they are kept in `failure`.

        :param chunk: A chunk of the stream, or an error.
        :returns: True to make llama.cpp stop.
        """
        if self._cancelled.is_set():
            self.failure = ModelRequestError("the generation was cancelled")
            return True
        try:
            if "error" in chunk:
                raise _failure(chunk["error"])
            text = self.completion.add(chunk)
            if text and self._on_text:
                self._on_text(text)
        except Exception as error:
            self.failure = error
            return True
        return False


class LlamaEngine:
    """
    One model in memory. `LlamaEngine.shared` gives the same engine to all who ask with the same
    configuration, and the memory is freed when the last of them lets it go.

    At most `n_parallel` sequences are generated at once, each in a thread of the engine's own; further
    requests wait in order. No event loop and no other thread ever runs the model.

    :param config: The model file and its limits.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.busy = 0
        self._server: Any = None
        self._lock = threading.Lock()
        self._busy_lock = threading.Lock()
        self._pool = ContextThreads(config.n_parallel, thread_name_prefix="llama")

    @classmethod
    def shared(cls, config: EngineConfig) -> "LlamaEngine":
        """
        The engine of that configuration.

        :param config: The model file and its limits.
        :returns: The engine, which may not be loaded yet.
        """
        with _shared_lock:
            engine = _shared.get(config)
            if engine is None:
                engine = _shared[config] = cls(config)
            return engine

    def load(self) -> None:
        """
        Load the model unless it is loaded; seconds of work, for one thread while others wait.

        :raises ModelLoadError: If the file is missing or llama.cpp can't read it.
        """
        with self._lock:
            if self._server is None:
                started = time.monotonic()
                self._server = _open_server(self.config)
                # A first constrained token also builds LLGuidance's tables for this vocabulary.
                prompt = [{"role": "user", "content": "Hello"}]
                warm_up = {"messages": prompt, "max_tokens": 1, "grammar": schema_grammar({"type": "object"})}
                self._server.handle_chat_completions(warm_up)
                logger.info(
                    "loaded %s in %.1f s: %d slots of %d tokens, %d threads",
                    Path(self.config.model_path).name,
                    time.monotonic() - started,
                    self.config.n_parallel,
                    self.config.n_ctx,
                    self.config.n_threads,
                )

    def load_soon(self) -> "Future[None]":
        """
        Load the model in one of the engine's threads.

        :returns: Done once the model is in memory.
        """
        return self._pool.submit(self.load)

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._server is not None

    def generate(self, payload: dict[str, Any], on_text: Callable[[str], None] | None = None) -> Generation:
        """
        Put a request in the queue, loading the model first if need be.

        :param payload: The body of an OpenAI chat completion.
        :param on_text: Called with each piece of text, in the engine's thread.
        :returns: The generation.
        """
        generation = Generation(payload, on_text)
        generation.done = self._pool.submit(self._run, generation)
        return generation

    def _run(self, generation: Generation) -> Completion:
        self.load()
        with self._busy_lock:
            self.busy += 1
        try:
            self._server.handle_chat_completions(generation.payload, generation.take)
        except (TypeError, ValueError) as error:
            raise InvalidGenerationError(f"the model can't be given this: {error}") from error
        finally:
            with self._busy_lock:
                self.busy -= 1
        if generation.failure:
            raise generation.failure
        return generation.completion


_shared: weakref.WeakValueDictionary[EngineConfig, LlamaEngine] = weakref.WeakValueDictionary()
_shared_lock = threading.Lock()


def available_cores() -> int:
    """
    Count the cores that this process may use: its affinity, within a container's CPU quota.

    :returns: At least 1.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, round(int(quota) / int(period)))
    return max(1, cores)


def schema_grammar(schema: dict[str, Any]) -> str:
    """
    Turn a JSON schema into a grammar. LLGuidance enforces it whole; llama.cpp's `json_schema` ignores ranges.

    :param schema: The schema, already known to be valid: llama.cpp drops a grammar that it can't read.
    :returns: The grammar, for the request's `grammar`.
    """
    # One fixed layout: a small model can otherwise fill its tokens with white space.
    layout = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return str(_xllamacpp().json_schema_to_grammar({**schema, "x-guidance": layout}))


def _xllamacpp() -> Any:
    # OpenMP reads these when the library loads. Threads that spin while they wait make generation many times
    # slower as soon as anything else wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    import xllamacpp

    return xllamacpp


def _open_server(config: EngineConfig) -> Any:
    if not Path(config.model_path).is_file():
        raise ModelLoadError(f"there is no model file {config.model_path}")
    xllamacpp = _xllamacpp()
    params = xllamacpp.CommonParams()
    params.model.path = config.model_path
    params.n_ctx = config.n_ctx * config.n_parallel
    params.n_parallel = config.n_parallel
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config.n_threads
    params.cache_ram_mib = 0
    params.verbosity = -1
    folder = _close_http(params)
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ModelLoadError(f"llama.cpp can't load {config.model_path}; is it a whole GGUF file?") from error
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _close_http(params: Any) -> str | None:
    # llama.cpp always opens its own HTTP server. It gets a Unix socket in a private folder, deleted once it
    # is bound, so that nobody can reach it; elsewhere a loopback port that asks for a random key.
    params.ui = params.endpoint_slots = False
    params.cors_origins = "null"
    params.n_threads_http = 1
    params.api_keys = [secrets.token_hex()]
    if os.name != "posix":
        return None
    folder = tempfile.mkdtemp(prefix="thresher-")
    params.hostnames = [os.path.join(folder, "llama.sock")]
    return folder


def _failure(error: dict[str, Any]) -> Exception:
    message = str(error.get("message", error))
    if error.get("type") == "exceed_context_size_error":
        return ContextLengthExceededError(
            f"the prompt has {error.get('n_prompt_tokens')} tokens, the model's context {error.get('n_ctx')}"
        )
    if error.get("code") == 400:
        return InvalidGenerationError(f"the model can't be given this: {message}")
    return ModelRequestError(f"llama.cpp failed: {message}")
