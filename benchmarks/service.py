"""The service as it is served, but for its model server (the stub) and, unless told, its embeddings (by hashing)."""

import argparse
import socket
from pathlib import Path
from typing import Any

from benchmarks.clock import CPUClock
from benchmarks.hashing import HashingResources
from benchmarks.stub_llm import MODEL
from resources import Resources
from serve import server
from serve.app import build_app
from serve.service import Service
from serve.telemetry import log_as_set
from settings import BUILTIN_PIPELINES, Settings

# As many calls at once as the clients can cause, so that it is not the limit that is measured.
LLM_CONCURRENCY = 512
EMBEDDINGS: dict[str, type[Resources]] = {"hashing": HashingResources, "minilm": Resources}


def settings(data: Path, llm_port: int, provider: str = "openai", **others: Any) -> Settings:
    """
    Make the settings of the service under test; all others are the defaults.

    :param data: its data directory.
    :param llm_port: port of the stub model server.
    :param provider: which of the stub's protocols to speak: "openai" or "ollama".
    :param others: more settings, by name.
    :returns: the settings.
    """
    url = f"http://127.0.0.1:{llm_port}"
    return Settings.load(
        data_dir=data,
        pipelines_dir=llm_graded_pipelines(data / "pipelines"),
        llm_provider=provider,
        openai_base_url=f"{url}/v1",
        ollama_url=url,
        default_model=MODEL,
        **{"llm_concurrency": LLM_CONCURRENCY, **others},
    )


def llm_graded_pipelines(folder: Path) -> Path:
    """
    Write the mode `crag_llm`: `crag` with the language model for a grader, asked about each chunk.

    :param folder: where to.
    :returns: the folder.
    """
    (folder / "stages").mkdir(parents=True, exist_ok=True)
    mode = (BUILTIN_PIPELINES / "crag.yml").read_text()
    stage = (BUILTIN_PIPELINES / "stages/corrective_search.yml").read_text()
    (folder / "crag_llm.yml").write_text(
        mode.replace("stages/corrective_search.yml", "stages/llm_graded.yml")
    )
    graded = stage.replace("components.grading.EvidenceGrader", "components.llm_grading.LogprobGrader")
    (folder / "stages/llm_graded.yml").write_text(graded)
    return folder


def main() -> None:
    """Serve on a socket that the caller has bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of a bound socket")
    parser.add_argument("--data", type=Path, required=True, help="directory of the database")
    parser.add_argument("--llm-port", type=int, required=True, help="port of the stub model server")
    parser.add_argument("--provider", default="openai", help="protocol spoken with it")
    parser.add_argument("--embeddings", default="hashing", choices=EMBEDDINGS, help="how texts are embedded")
    parser.add_argument("--llm-concurrency", type=int, default=LLM_CONCURRENCY, help="model calls at once")
    options = parser.parse_args()
    concurrency = {"llm_concurrency": options.llm_concurrency}
    made = settings(options.data, options.llm_port, options.provider, **concurrency)
    log_as_set(made)
    started = Service(made, EMBEDDINGS[options.embeddings](made))
    server.run(CPUClock(build_app(started)), socket.socket(fileno=options.fd), started.lock, started.settings)


if __name__ == "__main__":
    main()
