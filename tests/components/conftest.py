import os
from pathlib import Path

import platformdirs
import pytest

from components.embedding import OnnxEmbeddingModel


@pytest.fixture(scope="session")
def tokenizer_path() -> Path:
    folder = os.environ.get("MODELS_DIR") or platformdirs.user_cache_path("thresher") / "models"
    path = Path(folder) / "minilm-tokenizer.json"
    if not path.is_file():
        pytest.fail(f"no tokenizer at {path}: run 'make models' first", pytrace=False)
    return path


@pytest.fixture(scope="session")
def embedding_model(tokenizer_path: Path) -> OnnxEmbeddingModel:
    return OnnxEmbeddingModel(tokenizer_path)
