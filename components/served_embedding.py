"""Embedders of a model server, Ollama's or an OpenAI-compatible one."""

from typing import Any

from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from haystack_integrations.components.embedders.ollama import OllamaDocumentEmbedder, OllamaTextEmbedder

from components.models.ollama_models import DEFAULT_URL

EMBEDDED_FIELDS = ["title"]


def served_text_embedder(provider: str, model: str, url: str | None, api_key: str | None) -> Any:
    """
    Make the embedder of questions.

    :param provider: `ollama` or `openai`.
    :param model: the embedding model's name.
    :param url: the server's base URL; Ollama's own port when None.
    :param api_key: for an OpenAI-compatible server that wants one.
    :returns: a Haystack text embedder.
    """
    if provider == "ollama":
        return OllamaTextEmbedder(model, url or DEFAULT_URL)
    return OpenAITextEmbedder(Secret.from_token(api_key or "none"), model=model, api_base_url=url)


def served_document_embedder(provider: str, model: str, url: str | None, api_key: str | None) -> Any:
    """
    Make the embedder of documents; parameters as for `served_text_embedder`.

    :returns: a Haystack document embedder, which embeds titles too and raises when the server fails.
    """
    if provider == "ollama":
        return OllamaDocumentEmbedder(
            model, url or DEFAULT_URL, meta_fields_to_embed=EMBEDDED_FIELDS, progress_bar=False
        )
    return OpenAIDocumentEmbedder(
        Secret.from_token(api_key or "none"),
        model=model,
        api_base_url=url,
        meta_fields_to_embed=EMBEDDED_FIELDS,
        progress_bar=False,
        # Else documents without embeddings come back, as if nothing had happened.
        raise_on_failure=True,
    )
