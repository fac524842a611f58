import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import platformdirs
import pytest

from components.models.llama_cpp import LlamaCppChatGenerator
from components.storing import DocumentStoreUnavailableError, TenantDocumentStores
from components.weights.catalogue import CATALOGUE, SMALL_LLM
from tests.stub_llm import StubLLM, running_stub

# The same few examples in each run of the suite; `make fuzz` takes the long form, with a seed.
hypothesis.settings.register_profile("short", max_examples=20, derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile(
    "long", max_examples=1_000, deadline=None, database=None, print_blob=True
)
hypothesis.settings.load_profile("short")


@pytest.fixture(autouse=True)
def log_handlers() -> Iterator[None]:
    """Take back the log's handlers of a command run in the test's process: its stream is closed with it."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    root.handlers = before


@pytest.fixture(scope="session")
def small_model_path() -> Path:
    folder = os.environ.get("MODELS_DIR") or platformdirs.user_cache_path("thresher") / "models"
    path = Path(folder) / CATALOGUE[SMALL_LLM].file_name
    if not path.is_file():
        pytest.fail(f"no model at {path}: run 'make models' first", pytrace=False)
    return path


@pytest.fixture(scope="session")
def small_model(small_model_path: Path) -> Iterator[LlamaCppChatGenerator]:
    generator = LlamaCppChatGenerator(
        str(small_model_path), model="small", n_ctx=2048, generation_kwargs={"max_tokens": 40}
    )
    generator.warm_up()
    yield generator
    generator.close()


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chroma = Path(sys.executable).with_name("chroma")
    folder = tmp_path_factory.mktemp("chroma-server")
    server = subprocess.Popen(
        [chroma, "run", "--path", folder, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stores = TenantDocumentStores(host="127.0.0.1", port=port, timeout=5)
    for _ in range(300):
        try:
            asyncio.run(stores.ping())
            break
        except DocumentStoreUnavailableError:
            time.sleep(0.1)
    stores.close()
    yield port
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with running_stub() as running:
        yield running
