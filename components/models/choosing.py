"""Which provider of language models to use when nobody has said."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.models.errors import ModelUnavailableError
from components.models.ollama_models import DEFAULT_URL, OllamaModels

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProviderChoice:
    """
    The provider that was chosen.

    :param provider: "embedded", "ollama", "openai" or "extractive".
    :param why: The reason, for people.
    :param url: The server's address, where there is one.
    """

    provider: str
    why: str
    url: str | None = None


def choose_provider(
    provider: str = "auto",
    *,
    model: str,
    ollama_model: str,
    weights: Mapping[str, str | Path],
    ollama_url: str | None = None,
    openai_url: str | None = None,
    probe_url: str = DEFAULT_URL,
    timeout: float = 0.5,
) -> ProviderChoice:
    """
    Choose a provider, look whether it can work, and log the choice.

    "auto" takes Ollama when its URL is configured, or when it answers on its own port and holds the model;
    else the built-in model when its file is there; else extractive answers. A built-in model without its file
    becomes extractive answers even when it was asked for, so that the service still answers.

    :param provider: "auto" or a provider.
    :param model: The built-in model.
    :param ollama_model: The model to ask Ollama for.
    :param weights: Built-in model → GGUF file, which may not exist.
    :param ollama_url: Ollama's address, if it is configured.
    :param openai_url: The address of an OpenAI-compatible server, if it is configured.
    :param probe_url: Where Ollama is looked for when its address isn't configured.
    :param timeout: Seconds to look for it.
    :returns: The choice.
    """
    if provider == "auto":
        choice = _ollama(ollama_model, ollama_url, probe_url, timeout) or _built_in(model, weights)
    elif provider == "embedded":
        choice = _built_in(model, weights)
    else:
        urls = {"ollama": ollama_url or DEFAULT_URL, "openai": openai_url}
        choice = ProviderChoice(provider, "configured", urls.get(provider))
    degraded = choice.provider == "extractive" != provider
    logger.log(
        logging.WARNING if degraded else logging.INFO,
        "language model provider: %s, because %s",
        choice.provider,
        choice.why,
    )
    return choice


def _ollama(model: str, url: str | None, probe_url: str, timeout: float) -> ProviderChoice | None:
    if url:
        return ProviderChoice("ollama", "the URL of an Ollama server is configured", url)
    try:
        OllamaModels(probe_url).check(model, timeout)
    except ModelUnavailableError as error:
        logger.debug("no Ollama to use: %s", error)
        return None
    return ProviderChoice("ollama", f"Ollama answers at its own port and holds {model}", probe_url)


def _built_in(model: str, weights: Mapping[str, str | Path]) -> ProviderChoice:
    file = weights.get(model)
    if file and Path(file).is_file():
        return ProviderChoice("embedded", f"the built-in model {model} is there")
    return ProviderChoice("extractive", f"there is no language model: the file of {model} is missing")
