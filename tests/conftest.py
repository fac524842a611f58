import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest

from components.models.llama_cpp import LlamaCppChatGenerator
from components.weights.catalogue import CATALOGUE, SMALL_LLM


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
