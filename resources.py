"""The expensive objects that all modes share, each made once from the settings."""

from functools import cached_property
from pathlib import Path
from typing import Any

from components.breaking import Breaker
from components.embedding import OnnxDocumentEmbedder, OnnxEmbeddingModel, OnnxTextEmbedder
from components.generating import ModelChatGenerator
from components.models.chat_models import ChatModels
from components.models.choosing import ProviderChoice, choose_provider
from components.served_embedding import EmbeddingServer
from components.storing import TenantDocumentStores
from components.terms import TermWeights
from components.weights import WeightStore
from components.weights.catalogue import DEFAULT_LLM, SMALL_LLM, TOKENIZER
from settings import Settings

# The built-in model reads 30 to 50 tokens a second on two cores, so its prompts hold the best sentences only.
_BUILT_IN_CONTEXT_CHARS = 1_600
_SERVED_CONTEXT_CHARS = 12_000


class Resources:
    """
    Makes each shared object when it is first wanted.

    A component of a pipeline file gets one by naming an `__init__` parameter as in `by_parameter`.

    Usage example:
    ```python
    resources = Resources(Settings.load())
    store = resources.document_stores.get_or_create("acme")
    ```
    """

    def __init__(self, settings: Settings) -> None:
        """
        Remember the settings; nothing is opened or loaded yet.

        :param settings: the service's settings.
        """
        self.settings = settings
        self.weights = WeightStore(settings.models_dir)
        self.breakers: dict[str, Breaker] = {}
        """The breakers of `chroma`, `llm` and `embeddings`, of those that are servers and have been wanted."""

    def by_parameter(self) -> dict[str, Any]:
        """
        Give the shared objects by the name of the `__init__` parameter that takes them.

        :returns: `chat_generator`, `chat_models`, `text_embedder`, `document_embedder`, `document_stores`,
            `embedding_model` (None when embeddings are made elsewhere), `term_weights`, `max_context_chars`,
            `default_top_k`, the limits of a conversion and `allowed_modules`.
        """
        return {
            "chat_generator": self.chat_generator,
            "chat_models": self.chat_models,
            "text_embedder": self.text_embedder,
            "document_embedder": self.document_embedder,
            "document_stores": self.document_stores,
            "embedding_model": self.embedding_model,
            "term_weights": self.term_weights,
            "max_context_chars": self.max_context_chars,
            "default_top_k": self.settings.top_k,
            "convert_timeout": self.settings.convert_timeout,
            "convert_memory_mb": self.settings.convert_memory_mb,
            "convert_max_chars": self.settings.convert_max_chars,
            "allowed_modules": self.settings.allowed_modules,
        }

    @cached_property
    def document_stores(self) -> TenantDocumentStores:
        """Every tenant's document store."""
        settings = self.settings
        return TenantDocumentStores(
            path=None if settings.chroma_host else settings.data_dir / "chroma",
            host=settings.chroma_host,
            port=settings.chroma_port,
            prefix=settings.collection_prefix,
            embedding_model=self.embedding_name,
            timeout=settings.chroma_timeout,
            open_tenants=settings.max_open_tenants,
            breaker=self._breaker("chroma", "Chroma") if settings.chroma_host else None,
        )

    @property
    def embedding_name(self) -> str:
        """Name of the embedding model, kept with each collection."""
        provider = self.settings.embedding_provider
        return (
            self._onnx_model.name if provider == "embedded" else f"{provider}:{self.settings.embedding_model}"
        )

    @property
    def embedding_model(self) -> OnnxEmbeddingModel | None:
        """The built-in embedding model, for components that embed sentences; None when another one is set."""
        return self._onnx_model if self.settings.embedding_provider == "embedded" else None

    @cached_property
    def term_weights(self) -> TermWeights:
        """How telling each word is, from the tokenizer's vocabulary."""
        return TermWeights(self._checked(TOKENIZER))

    @cached_property
    def embedding_server(self) -> EmbeddingServer | None:
        """Where embeddings are made; None when the built-in model makes them."""
        settings = self.settings
        if settings.embedding_provider == "embedded":
            return None
        url = settings.ollama_url if settings.embedding_provider == "ollama" else settings.openai_base_url
        return EmbeddingServer(
            settings.embedding_provider,
            settings.embedding_model,
            url,
            self._openai_key,
            settings.embedding_timeout,
            self._breaker("embeddings", "the embedding model's server"),
        )

    @cached_property
    def text_embedder(self) -> Any:
        """Embeds questions."""
        if self.embedding_server is None:
            return OnnxTextEmbedder(self._onnx_model)
        return self.embedding_server.text_embedder()

    @cached_property
    def document_embedder(self) -> Any:
        """Embeds documents, with their titles."""
        if self.embedding_server is None:
            return OnnxDocumentEmbedder(self._onnx_model, max_workers=self.settings.ingest_workers)
        return self.embedding_server.document_embedder()

    @cached_property
    def chat_generator(self) -> ModelChatGenerator:
        """Asks the language model; for components that ask one besides the answer."""
        return ModelChatGenerator(chat_models=self.chat_models)

    @cached_property
    def chat_models(self) -> ChatModels:
        """The language models of the provider that the settings choose."""
        settings, choice = self.settings, self._choice
        embedded = choice.provider == "embedded"
        return ChatModels(
            choice.provider,
            self._built_in_name if embedded else settings.default_model,
            models=self._others_built_in if embedded else settings.allowed_models,
            url=choice.url,
            api_key=self._openai_key,
            weights=self._usable_gguf_files if embedded else {},
            timeout=settings.llm_timeout,
            concurrency=settings.llm_concurrency,
            max_waiting=settings.llm_queue,
            n_threads=settings.llm_threads or None,
            why=choice.why,
            breaker=self._breaker("llm", "the language model's server") if choice.url else None,
        )

    @property
    def max_context_chars(self) -> int:
        """Characters of document text in a prompt."""
        if self.settings.max_context_chars is not None:
            return self.settings.max_context_chars
        return _BUILT_IN_CONTEXT_CHARS if self._choice.provider == "embedded" else _SERVED_CONTEXT_CHARS

    def close(self) -> None:
        """Close what was opened, but for what belongs to an event loop."""
        if "chat_models" in vars(self):
            self.chat_models.close()
        if vars(self).get("embedding_server") is not None:
            for embedder in {"text_embedder", "document_embedder"} & vars(self).keys():
                vars(self)[embedder].close()
        if "document_stores" in vars(self):
            self.document_stores.close()

    async def close_async(self) -> None:
        """Close what was opened in the running event loop."""
        if "chat_models" in vars(self):
            await self.chat_models.close_async()
        if vars(self).get("embedding_server") is not None and "text_embedder" in vars(self):
            await self.text_embedder.close_async()

    @cached_property
    def _choice(self) -> ProviderChoice:
        settings = self.settings
        return choose_provider(
            settings.llm_provider,
            model=self._built_in_name,
            ollama_model=settings.default_model,
            weights=self._gguf_files,
            ollama_url=settings.ollama_url,
            openai_url=settings.openai_base_url,
        )

    @property
    def _built_in_name(self) -> str:
        return (
            self.settings.llm_gguf_path.stem if self.settings.llm_gguf_path else self.settings.embedded_model
        )

    @property
    def _gguf_files(self) -> dict[str, Path]:
        if self.settings.llm_gguf_path:
            return {self._built_in_name: self.settings.llm_gguf_path}
        return {name: self.weights.path(name) for name in (DEFAULT_LLM, SMALL_LLM)}

    @property
    def _usable_gguf_files(self) -> dict[str, Path]:
        # Only what may be asked is checked: reading a gigabyte takes seconds, and a bad file that nobody uses is none.
        if self.settings.llm_gguf_path:
            return self._gguf_files
        return {name: self._checked(name) for name in (self._built_in_name, *self._others_built_in)}

    @property
    def _others_built_in(self) -> list[str]:
        # Weights that are not there can't be chosen; those that are cost nothing until they are.
        others = (name for name in self.settings.allowed_models if name in self._gguf_files)
        return [name for name in others if self._gguf_files[name].is_file()]

    @cached_property
    def _onnx_model(self) -> OnnxEmbeddingModel:
        return OnnxEmbeddingModel(self._checked(TOKENIZER), threads=self.settings.embedding_threads)

    def _checked(self, name: str) -> Path:
        # A file that is not there is an error only where it is used: without a language model there are extracts.
        path = self.weights.path(name)
        return self.weights.verified(name) if path.is_file() else path

    def _breaker(self, key: str, name: str) -> Breaker:
        settings = self.settings
        return self.breakers.setdefault(
            key, Breaker(name, settings.breaker_failures, settings.breaker_seconds)
        )

    @property
    def _openai_key(self) -> str | None:
        key = self.settings.openai_api_key
        return key.get_secret_value() if key else None
